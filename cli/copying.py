"""The requests behind `stepmemo import`, and the decision which entries are copied."""

import argparse
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from cli import browse, session
from cli.inventory import read, used
from cli.session import DONE, FAILED, SECONDS, USAGE, CommandError, Session
from kube import client
from kube.errors import ApiError, Conflict
from memoize import capacity, configmap
from memoize.configmap import MOST_BYTES, MOST_OBJECT_BYTES, object_bytes, size
from memoize.entry import Entry

_BEGINNING = datetime.min.replace(tzinfo=UTC)


class Copied(NamedTuple):
    """What becomes of a cache's entries."""

    entries: dict[str, str]
    """To be written, by data key."""
    kept: int
    """Those that are there already, as new or newer."""
    refused: int
    """What is no entry, or would take the place of something that is none."""
    no_room: int


def to_copy(source: Mapping[str, str], target: Mapping[str, str], limit: int = MOST_BYTES) -> Copied:
    """Decide which entries of one cache another one gets: of two under one data key the newer one stays.

    `limit` is in bytes of values. Nothing goes for them: where not all find room, those do that were used
    last.
    """
    wanted, kept, refused = dict[str, str](), 0, 0
    for data_key, text in source.items():
        entry, there = read(text), read(target[data_key]) if data_key in target else None
        if not isinstance(entry, Entry) or (there is not None and not isinstance(there, Entry)):
            refused += 1
        elif there is not None and (entry.created or _BEGINNING) <= (there.created or _BEGINNING):
            kept += 1
        else:
            wanted[data_key] = text
    entries = _fitting(wanted, target, limit)
    return Copied(entries, kept, refused, len(wanted) - len(entries))


def _fitting(wanted: Mapping[str, str], target: Mapping[str, str], limit: int) -> dict[str, str]:
    values, whole = sum(map(size, target.values())), sum(object_bytes(*item) for item in target.items())
    fitting = dict[str, str]()
    for data_key in sorted(wanted, key=lambda one: (used(read(wanted[one])), one), reverse=True):
        was = target.get(data_key)
        more = size(wanted[data_key]) - size(was or "")
        more_whole = object_bytes(data_key, wanted[data_key]) - (object_bytes(data_key, was) if was else 0)
        if values + more <= limit and whole + more_whole <= MOST_OBJECT_BYTES:
            values, whole = values + more, whole + more_whole
            fitting[data_key] = wanted[data_key]
    return fitting


async def copy(connected: Session, args: argparse.Namespace) -> int:
    """Copy caches; says of each how many entries."""
    if args.source == connected.namespace:
        raise CommandError(f"--from: {args.source} is where they would be copied to: say -n", USAGE)
    source = connected.within(args.source)
    if not args.caches:
        code, found = DONE, False
        async for config_map in browse.listed(source, source.namespace):
            found = True
            code = max(code, await _copy_one(connected, config_map["metadata"]["name"], config_map))
        return code if found else session.say("import", f"no cache in the Namespace {args.source}", FAILED)
    return max([await _copy_named(connected, source, name) for name in dict.fromkeys(args.caches)])


async def _copy_named(connected: Session, source: Session, name: str) -> int:
    """Copy one cache; one that is not there does not keep the others from it."""
    try:
        config_map = await browse.read(source, name)
    except CommandError as error:
        return session.say("import", str(error), FAILED)
    return await _copy_one(connected, name, config_map)


async def _copy_one(connected: Session, name: str, source: Mapping[str, Any]) -> int:
    try:
        copied = await copy_entries(connected, name, configmap.data(source))
    except CommandError as error:
        return session.say("import", f"{name}: {error}", FAILED)
    told = [f"{len(copied.entries)} copied"]
    told += [f"{copied.kept} there already"] if copied.kept else []
    print(f"{name}: {', '.join(told)}")
    sys.stdout.flush()
    code = DONE
    if copied.refused:
        said = f"{name}: {copied.refused} are no entries, or met one that is none"
        code = session.say("import", said, FAILED)
    if copied.no_room:
        code = session.say("import", f"{name}: {copied.no_room} find no room in the ConfigMap", FAILED)
    return code


async def copy_entries(connected: Session, name: str, entries: Mapping[str, str]) -> Copied:
    """Put entries into the cache of that name, which is made if there is none; CommandError."""
    path = browse.path(connected.namespace, name)
    for _ in range(browse.ATTEMPTS):
        target = await connected.find(f"get the ConfigMap {name}", path)
        if target is None:
            copied = to_copy(entries, {})
            if not copied.entries or await _created(connected, name, copied.entries):
                return copied
            continue
        if outcome := configmap.refused(target):
            raise CommandError(f"in {connected.namespace}: {outcome.detail}; nothing was copied")
        copied = to_copy(entries, configmap.data(target), capacity.limit(target).bytes)
        if not copied.entries or await browse.write(
            connected, connected.namespace, target, copied.entries, ()
        ):
            return copied
    raise CommandError(f"in {connected.namespace}: it kept changing, try again")


async def _created(connected: Session, name: str, entries: Mapping[str, str]) -> bool:
    try:
        await client.request(
            connected.api,
            "POST",
            f"/api/v1/namespaces/{connected.namespace}/configmaps",
            seconds=SECONDS,
            body=configmap.new(name, entries),
            accept=client.METADATA_ONLY,
        )
    except Conflict:
        return False
    except ApiError as error:
        raise session.failure(f"create the ConfigMap {name}", error) from None
    return True
