"""The program inside a step Pod: look the key up on start, store the outputs at the end."""
