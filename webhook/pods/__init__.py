"""What is decided when a step Pod is created."""
