"""The admission webhooks: workflows and templates at submit, step Pods at their creation."""
