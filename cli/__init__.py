"""The `stepmemo` command, on the same code as the webhook."""
