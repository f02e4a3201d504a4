"""`stepmemo caches`, `entries`, `show` and `rm`: the caches, for people."""

import argparse
from typing import TYPE_CHECKING, Any

from cli import session

if TYPE_CHECKING:
    _Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: "_Subparsers") -> None:
    """Add the subcommands; `run` of each carries it out."""
    caches = _add(
        subparsers,
        "caches",
        "list caches: how full they are, and when they were used last",
        "Lists the caches of a Namespace: ConfigMaps with Argo's label. SHARE is the share of the limit that "
        "its values take; of hits only the time of the last is recorded. Needs the right to list ConfigMaps.",
    )
    session.add_namespace(caches, all_namespaces=True)
    entries = _add(
        subparsers,
        "entries",
        "list the entries of a cache",
        "Lists the entries of a cache, the one that was used last first. Needs the right to get ConfigMaps.",
    )
    entries.add_argument("cache", metavar="CACHE", type=session.name, help="the ConfigMap's name")
    session.add_namespace(entries)
    show = _add(
        subparsers,
        "show",
        "show an entry: its outputs, where they are from, how long they answer",
        "Shows one entry. What an entry does not record is said to be so. Needs the right to get ConfigMaps.",
    )
    show.add_argument("cache", metavar="CACHE", type=session.name, help="the ConfigMap's name")
    show.add_argument("key", metavar="KEY", help="the memoize key, or the data key of `sha256-…`")
    session.add_namespace(show)
    remove = subparsers.add_parser(
        "rm",
        help="remove entries, so that their steps run again",
        description="Removes entries of a cache; the next step with that key runs and makes a new one. Needs "
        "the rights to get and patch ConfigMaps. Exit code 0: none of them is there any more; 1: one was not "
        "there, or could not be removed; 2: wrong usage, or no cluster.",
    )
    remove.add_argument("cache", metavar="CACHE", type=session.name, help="the ConfigMap's name")
    remove.add_argument("keys", metavar="KEY", nargs="+", help="memoize keys, or data keys of `sha256-…`")
    session.add_namespace(remove)
    remove.set_defaults(run=_run, command="rm")


def _add(subparsers: "_Subparsers", command: str, brief: str, description: str) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(command, help=brief, description=description)
    session.add_form(parser)
    parser.set_defaults(run=_run, command=command)
    return parser


def _run(args: argparse.Namespace) -> int:
    from cli import browse

    commands: dict[str, Any] = {
        "caches": browse.caches,
        "entries": browse.entries,
        "show": browse.show,
        "rm": browse.remove,
    }
    return session.run(args.command, args, lambda connected: commands[args.command](connected, args))
