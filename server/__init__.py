"""What the programs of the server are made of: log lines, metrics, certificates, Events, look-ups."""
