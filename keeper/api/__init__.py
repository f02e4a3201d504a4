"""The cache service (`/v1/…`) for containers of ours in step Pods, which need no rights of their own."""
