"""The cache service that sidecars use instead of rights of their own (`/v1/…`)."""
