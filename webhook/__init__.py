"""The server: admits workflows and step Pods, decides held Pods, and keeps the caches."""
