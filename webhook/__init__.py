"""The admission webhooks: validate memoize blocks at submit, inject check and capture into step Pods."""
