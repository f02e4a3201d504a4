"""What memoization means: pure, standard library only, imports nothing of ours."""

__version__ = "0.1.0"
"""Of stepmemo: every program, and the package's own metadata (pyproject.toml), take it from here."""
