"""The keeper: answers or releases gated step Pods, stores the outputs of those that ran, serves sidecars."""
