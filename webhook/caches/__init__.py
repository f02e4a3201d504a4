"""The server's view of all caches, kept by a watch."""
