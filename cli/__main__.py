"""The `stepmemo` command, which is `kubectl stepmemo` as well."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cli import caches, completion, doctor, inject, key, leave, lint, migrate, release, restore, session, why
from memoize import __version__

_PLUGIN = "kubectl-stepmemo"
"""As kubectl finds it on the PATH."""
_EXTRA = ("rich", "argcomplete")
"""What the extra `cli` brings."""


def make_parser(prog: str = "stepmemo") -> argparse.ArgumentParser:
    """Every subcommand, with its flags; `args.run(args)` carries one out and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Step-level memoization for Argo Workflows. `lint`, `inject`, `restore` and `key FILE` "
        "read files, all other commands the cluster that kubectl would use.",
    )
    parser.add_argument("--version", action="version", version=f"stepmemo {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in (caches, migrate, why, key, doctor, release, leave, lint, inject, restore, completion):
        command.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code; 2 is wrong usage."""
    is_plugin = Path(sys.argv[0]).stem == _PLUGIN
    parser = make_parser("kubectl stepmemo" if is_plugin else "stepmemo")
    completion.complete(parser)
    args = parser.parse_args(argv)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output (`| head`) has seen enough; keep the interpreter's own flush at exit quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA:
            raise
        print(f"stepmemo: {package} is missing: pip install 'stepmemo[cli]'", file=sys.stderr)
        return session.USAGE
    return code


if __name__ == "__main__":
    sys.exit(main())
