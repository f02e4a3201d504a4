"""What the server knows of the caches: a watched view of all ConfigMaps that Argo would take for one."""
