"""A Kubernetes API subset, an Argo-shaped runner and a kubelet in one process, for the demo and tests."""
