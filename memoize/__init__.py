"""What memoization means: pure, standard library only, imports nothing of ours."""
