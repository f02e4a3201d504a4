"""The caches, ConfigMaps in Argo's own format: a watched view of them, and what writes to them."""
