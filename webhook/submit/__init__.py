"""What is decided when a Workflow or a template is submitted."""
