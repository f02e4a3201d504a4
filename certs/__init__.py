"""The serving certificate of the webhook: made, kept in a Secret, and made known to the API server."""
