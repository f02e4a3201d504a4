"""The certificate of both programs: the webhook makes it and makes it known, the keeper reads it."""
