"""What webhook and keeper share: settings, logs, metrics, TLS, connections, bodies, Events, look-ups."""
