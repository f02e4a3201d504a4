"""Step Pods that are decided outside of themselves: held, answered, released, and stored at their end."""
