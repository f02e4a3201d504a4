"""What stepmemo costs, measured: `python -m bench`. See README.md beside this file."""
