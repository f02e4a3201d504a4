"""The static binary that Kubernetes sees in every container stepmemo touches; main.c is its manual."""
