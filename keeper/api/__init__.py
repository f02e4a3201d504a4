"""The cache service (`/v1/…`) for containers of ours in step Pods, and for people."""
