"""The `stepmemo` command."""

import argparse
import importlib.metadata
import os
import sys
from collections.abc import Sequence

from cli import inject, lint, release, restore


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code; 2 is wrong usage."""
    parser = argparse.ArgumentParser(
        prog="stepmemo",
        description="Step-level memoization for Argo Workflows. Only `release` talks to a cluster.",
    )
    version = importlib.metadata.version("stepmemo")
    parser.add_argument("--version", action="version", version=f"stepmemo {version}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in (lint, inject, restore, release):
        command.add_parser(subparsers)
    args = parser.parse_args(argv)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output (`| head`) has seen enough; keep the interpreter's own flush at exit quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
