"""A small Kubernetes client, which knows neither Argo nor caches. Imports nothing of ours."""
