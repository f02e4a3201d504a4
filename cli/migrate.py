"""`stepmemo migrate`: copies caches from ConfigMaps into PostgreSQL, or back."""

import argparse
from pathlib import Path

from cli import session
from cli.session import Session


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand; `run` carries it out."""
    parser = subparsers.add_parser(
        "migrate",
        help="copy caches from ConfigMaps into PostgreSQL, or back",
        description="Copies entries for a change of the keeper's --store, before or after it, while steps "
        "run. Of two entries under one key the newer one stays, so it may be run again. What "
        "a ConfigMap has no room for is left out, beginning with what was not used for the "
        "longest time, and told. Needs the DSN of the keeper's database, and the rights to "
        "list and get ConfigMaps; back, to create and patch them. Exit code 0: everything is "
        "there; 1: something is not; 2: wrong usage, no cluster, or no database.",
    )
    parser.add_argument(
        "caches", metavar="CACHE", nargs="*", type=session.name, help="only these (default: all)"
    )
    parser.add_argument("--to", choices=("postgresql", "configmap"), required=True, help="where to")
    parser.add_argument(
        "--dsn-file",
        metavar="FILE",
        type=Path,
        required=True,
        help="the file with the DSN: postgresql://USER:PASSWORD@HOST:5432/DATABASE",
    )
    session.add_namespace(parser, all_namespaces=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Copy the caches; returns the exit code."""
    if args.caches and args.all_namespaces:
        return session.say("migrate", "names of caches go with -n, not with -A", session.USAGE)

    async def do(connected: Session) -> int:
        from cli import migration

        return await migration.migrate(connected, args)

    return session.run("migrate", args, do, "interrupted; what was copied stays, and it may be run again")
