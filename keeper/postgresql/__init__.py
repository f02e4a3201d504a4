"""The caches in PostgreSQL: a row an entry, and what keeps their number and their bytes within bounds."""
