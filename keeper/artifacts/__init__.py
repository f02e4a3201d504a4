"""Whether the artifacts of entries are still where they were stored: `--verify-artifacts`."""
