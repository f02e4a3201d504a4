"""`stepmemo caches`, `entries`, `show`, `rm`, `gc` and `import`: the caches, for people."""

import argparse
from functools import partial
from typing import TYPE_CHECKING, Any

from cli import completion, session
from memoize import configmap

if TYPE_CHECKING:
    _Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


_EITHER = ("caches", "entries", "show", "rm")
"""Commands for which the keeper may be asked."""
_NOT_KNOWN = "whether the keeper keeps entries in PostgreSQL is not known here: if it does, see --keeper"


def add_parser(subparsers: "_Subparsers") -> None:
    """Add the subcommands; `run` of each carries it out."""
    caches = _add(
        subparsers,
        "caches",
        "list caches: how full they are, and when they were used last",
        "Lists the caches of a Namespace: ConfigMaps with Argo's label, and what the keeper has in a "
        "database. SHARE is the share of the limit that its values take; of hits only the last is "
        "recorded. Needs the right to list ConfigMaps, or those to ask the keeper.",
    )
    session.add_namespace(caches, all_namespaces=True)
    session.add_keeper(caches)
    entries = _add(
        subparsers,
        "entries",
        "list the entries of a cache",
        "Lists the entries of a cache, the one that was used last first. Needs the right to get ConfigMaps, "
        "or those to ask the keeper.",
    )
    _add_cache(entries)
    session.add_namespace(entries)
    session.add_keeper(entries)
    show = _add(
        subparsers,
        "show",
        "show an entry: its outputs, where they are from, how long they answer",
        "Shows one entry. What an entry does not record is said to be so. Needs the right to get ConfigMaps, "
        "or those to ask the keeper.",
    )
    _add_cache(show)
    show.add_argument("key", metavar="KEY", help="the memoize key, or the data key of `sha256-…`")
    session.add_namespace(show)
    session.add_keeper(show)
    remove = subparsers.add_parser(
        "rm",
        help="remove entries, so that their steps run again",
        description="Removes entries of a cache; the next step with that key runs and makes a new one. Needs "
        "the rights to get and patch ConfigMaps, or those to ask the keeper. Exit code 0: none of them is "
        "there any more; 1: one was not there, or could not be removed; 2: wrong usage, or no cluster.",
    )
    _add_cache(remove)
    remove.add_argument("keys", metavar="KEY", nargs="+", help="memoize keys, or data keys of `sha256-…`")
    session.add_namespace(remove)
    session.add_keeper(remove)
    remove.set_defaults(run=_run, command="rm")
    collect = _add(
        subparsers,
        "gc",
        "remove entries that are expired, or were not used for long",
        "Removes entries as the keeper's own clean-up does: those that are older than their own maxAge, "
        "those that were not used for as long as --unused-for says, and from a cache that holds more than "
        "its limit those that were used the longest ago. Never the newest entry of a cache, nor what is no "
        "entry, and a quarter of a cache's entries in one run at most. Asks before it removes anything. "
        "Needs the rights to list, get and patch ConfigMaps, and to get the Namespace. Exit code 0: done; 1: "
        "not all could be removed, or the answer was no; 2: wrong usage, or no cluster.",
    )
    only = collect.add_argument(
        "caches", metavar="CACHE", nargs="*", type=session.name, help="only these (default: all)"
    )
    only.completer = completion.caches  # type: ignore[attr-defined]
    collect.add_argument(
        "--dry-run", action="store_true", help="show what would be removed, and remove nothing"
    )
    collect.add_argument("-y", "--yes", action="store_true", help="do not ask")
    collect.add_argument(
        "--unused-for",
        metavar="DURATION",
        type=session.duration,
        help="a Go duration, such as 720h (default: the keeper's --gc-unused-for, if it may be read)",
    )
    session.add_namespace(collect, all_namespaces=True)
    session.add_stepmemo_namespace(collect)
    copy = subparsers.add_parser(
        "import",
        help="copy caches of Argo's own memoization into a workflow's Namespace",
        description="Copies caches from the controller's Namespace, where Argo's own memoization keeps them, "
        "into the one where workflows run, where stepmemo looks for them. Of two entries under one key the "
        "newer one stays, so it may be run again. Nothing but caches is read or written, and nothing is "
        "removed. Needs the rights to list or get ConfigMaps there, and to get, create and patch them "
        "here. Exit code 0: everything is there; 1: something could not be copied; 2: wrong usage, or no "
        "cluster.",
    )
    copy.add_argument(
        "caches", metavar="CACHE", nargs="*", type=session.name, help="only these (default: all of them)"
    )
    copy.add_argument(
        "--from",
        dest="source",
        metavar="NAMESPACE",
        type=session.label,
        default="argo",
        help="the controller's Namespace (default: %(default)s)",
    )
    session.add_namespace(copy)
    session.add_stepmemo_namespace(copy)
    copy.set_defaults(run=_run, command="import")


def _add(subparsers: "_Subparsers", command: str, brief: str, description: str) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(command, help=brief, description=description)
    session.add_form(parser)
    parser.set_defaults(run=_run, command=command)
    return parser


def _add_cache(parser: argparse.ArgumentParser) -> None:
    cache = parser.add_argument(
        "cache", metavar="CACHE", type=session.name, help="its name, which is the ConfigMap's"
    )
    cache.completer = completion.caches  # type: ignore[attr-defined]


def _run(args: argparse.Namespace) -> int:
    return session.run(args.command, args, lambda connected: _carry_out(connected, args))


async def _carry_out(connected: session.Session, args: argparse.Namespace) -> int:
    """Ask the keeper, or look at ConfigMaps; say where the entries may be besides."""
    from cli import browse, collect, copying, installation, kept

    settings = await installation.keepers(connected, args.stepmemo_namespace)
    wanted, elsewhere = getattr(args, "keeper", None), installation.keeps_entries_elsewhere(settings)
    if args.command in _EITHER and (elsewhere if wanted is None else wanted):
        asking: dict[str, Any] = {
            "caches": partial(kept.caches, settings=settings),
            "entries": kept.entries,
            "show": kept.show,
            "rm": kept.remove,
        }
        code: int = await asking[args.command](connected, args)
        return code
    if elsewhere and args.command == "gc":
        raise session.CommandError(
            "the keeper keeps its entries in PostgreSQL, and removes there by itself what is too old, and "
            "what a Namespace has too much of (docs/stores.md): there is nothing to do by hand"
        )
    if elsewhere:
        session.say(
            args.command, "the keeper keeps its entries in PostgreSQL; this is about ConfigMaps alone"
        )
    limit = settings.cache_max_bytes if settings else configmap.MOST_BYTES
    hint = _NOT_KNOWN if settings is None and wanted is None and args.command in _EITHER else ""
    looking: dict[str, Any] = {
        "caches": partial(browse.caches, limit=limit, hint=hint),
        "entries": browse.entries,
        "show": browse.show,
        "rm": browse.remove,
        "gc": collect.collect,
        "import": copying.copy,
    }
    try:
        code = await looking[args.command](connected, args)
    except session.CommandError as error:
        raise session.CommandError(f"{error}; {hint}" if hint else str(error), error.code) from None
    if hint and args.command == "rm":
        session.say(args.command, hint)
    return code
