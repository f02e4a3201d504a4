"""The requests behind `stepmemo caches`, `entries`, `show` and `rm`, and what they print."""

import argparse
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from argo import names as argo
from argo.shape import mapping
from cli import inventory, output, session
from cli.inventory import CacheRow, Item
from cli.output import Field
from cli.plain import plain
from cli.session import DONE, FAILED, SECONDS, CommandError, Session
from keeper import limits
from kube import client, pages
from kube.errors import ApiError, Conflict, Invalid, NotFound
from memoize import configmap
from memoize.entry import Entry

CACHES = (
    Field("NAMESPACE", yields=True),
    Field("CACHE", yields=True),
    Field("STORE"),
    Field("ENTRIES", number=True),
    Field("SIZE", number=True),
    Field("SHARE", number=True),
    Field("LAST HIT", number=True),
    Field("OLDEST", number=True),
    Field("NOT ENTRIES", wide=True, number=True),
    Field("LIMIT", wide=True, number=True),
)
ENTRIES = (
    Field("KEY", yields=True),
    Field("AGE", number=True),
    Field("LAST HIT", number=True),
    Field("EXPIRES", number=True),
    Field("TOOK", number=True),
    Field("SIZE", number=True),
    Field("TEMPLATE", yields=True),
    Field("FROM", yields=True),
    Field("DATA KEY", wide=True),
    Field("NODE", wide=True),
)
OUTPUTS = (Field("KIND"), Field("NAME"), Field("VALUE", yields=True))
PARTS = (Field("KEY PART"), Field("DIGEST"))
ATTEMPTS = 5
"""How often a cache is read again that others change at the same moment."""
PAGE = 500
"""Caches of one request at most; kube.pages asks for fewer where they weigh more."""
NO_ENTRY = "not an entry, so it was left"
"""Of what somebody keeps under a key, and nobody here made."""
_CACHES = [("labelSelector", f"{argo.CONFIGMAP_TYPE}={argo.CONFIGMAP_TYPE_CACHE}")]


async def caches(connected: Session, args: argparse.Namespace, limit: int, hint: str) -> int:
    """List the caches, of `limit` bytes each, if their Namespace says nothing else.

    Where there is none, the `hint` says what else may be.
    Of each only what is shown is kept, so memory is bounded by a page and the rows.
    """
    of_namespace, found = dict[str, int](), list[CacheRow]()
    async for one in listed(connected, connected.namespace):
        namespace = one["metadata"]["namespace"]
        if namespace not in of_namespace:
            of_namespace[namespace] = await most_bytes(connected, namespace, limit)
        found.append(CacheRow.of(one, of_namespace[namespace]))
    return print_caches(connected, args, found, hint)


def print_caches(
    connected: Session, args: argparse.Namespace, found: Sequence[CacheRow], hint: str = ""
) -> int:
    """Print them as a table, or for programs; returns the exit code."""
    if not found and args.output not in ("json", "yaml"):
        where = f"the Namespace {connected.namespace}" if connected.namespace else "any Namespace"
        return session.say("caches", f"no cache in {where}; {hint}" if hint else f"no cache in {where}")
    now = session.now()
    rows = [cache.row(now) for cache in found]
    output.show(args.output, CACHES, rows, (cache.item() for cache in found))
    return DONE


async def entries(connected: Session, args: argparse.Namespace) -> int:
    """List the entries of one cache."""
    found = inventory.items(await read(connected, args.cache))
    if not found and args.output not in ("json", "yaml"):
        return session.say("entries", f"the cache {args.cache} is empty")
    now = session.now()
    rows = [item.row(now) for item in found]
    output.show(args.output, ENTRIES, rows, (item.item() for item in found))
    return DONE


async def show(connected: Session, args: argparse.Namespace) -> int:
    """Show one entry."""
    config_map = await read(connected, args.cache)
    data = configmap.data(config_map)
    place = next((place for place in inventory.places(args.key) if place in data), None)
    if place is None:
        raise CommandError(f"the cache {args.cache} has no entry of the key {args.key!r}")
    return print_entry(args, place, data[place])


def print_entry(args: argparse.Namespace, data_key: str, text: str) -> int:
    """Print the entry with this text; CommandError where it is none. Returns the exit code."""
    item = Item(data_key, configmap.size(text), inventory.read(text))
    if not isinstance(item.entry, Entry):
        raise CommandError(f"{data_key} is not an entry, and answers no step: {item.entry}")
    if args.output in ("json", "yaml"):
        more = {"parts": dict(item.entry.parts) or None, "outputs": item.entry.outputs}
        output.document({**item.item(), **more}, args.output)
        return DONE
    now = session.now()
    output.facts(inventory.facts(item, item.entry, now))
    if parts := sorted(item.entry.parts.items()):
        print()
        output.table(PARTS, parts, output.console(), wide=args.output == "wide")
    if rows := list(inventory.outputs(item.entry)):
        print()
        output.table(OUTPUTS, rows, output.console(), wide=args.output == "wide")
    else:
        print("\nIt has no outputs: a hit says only that the step succeeded.")
    return DONE


async def remove(connected: Session, args: argparse.Namespace) -> int:
    """Remove entries by their keys; says of each what became of it. What is no entry is left."""
    wanted = dict.fromkeys(args.keys)
    for _ in range(ATTEMPTS):
        config_map = await read(connected, args.cache)
        if outcome := configmap.refused(config_map):
            raise CommandError(f"{args.cache}: {outcome.detail}; nothing was removed")
        data = configmap.data(config_map)
        present = {key: next((one for one in inventory.places(key) if one in data), "") for key in wanted}
        # A key and its digest may be the same entry, and a patch cannot remove it twice.
        found = [place for place in dict.fromkeys(present.values()) if place]
        places = [place for place in found if isinstance(inventory.read(data[place]), Entry)]
        if not places or await _removed(connected, args.cache, places):
            return _told(present, places)
    raise CommandError(f"the cache {args.cache} kept changing: nothing was removed, try again")


async def _removed(connected: Session, cache: str, places: Sequence[str]) -> bool:
    """Whether all of them were, at once; False where one is gone since it was read."""
    try:
        await client.request(
            connected.api,
            "PATCH",
            path(connected.namespace, cache),
            seconds=SECONDS,
            body=configmap.removed(places),
            accept=client.METADATA_ONLY,
            content_type=client.JSON_PATCH,
        )
    except (Conflict, Invalid):
        return False
    except ApiError as error:
        raise session.failure(f"patch the ConfigMap {cache}", error) from None
    return True


async def write(
    connected: Session,
    namespace: str,
    seen: Mapping[str, Any],
    entries: Mapping[str, str],
    without: Iterable[str],
) -> bool:
    """Put entries into a cache that is as it was read, and take others out; False where it has changed."""
    name = seen["metadata"]["name"]
    try:
        await client.request(
            connected.api,
            "PATCH",
            path(namespace, name),
            seconds=SECONDS,
            body=configmap.seen(seen, entries, without),
            accept=client.METADATA_ONLY,
            content_type=client.MERGE_PATCH,
        )
    except (Conflict, NotFound):
        return False
    except ApiError as error:
        raise session.failure(f"patch the ConfigMap {name}", error) from None
    return True


def _told(present: Mapping[str, str], removed: Collection[str]) -> int:
    code = DONE
    for key, place in present.items():
        if place in removed:
            print(f"{plain(key)}: removed")
        else:
            code = session.say("rm", f"{key}: {NO_ENTRY if place else 'no such entry'}", FAILED)
    return code


async def listed(connected: Session, namespace: str) -> AsyncIterator[Mapping[str, Any]]:
    """The caches of a Namespace, of all for "", one at a time."""
    within = f"/api/v1/namespaces/{namespace}/configmaps" if namespace else "/api/v1/configmaps"
    try:
        async for page in pages.pages(connected.api, within, _CACHES, name="caches", most=PAGE):
            kind = str(page.get("kind", "")).removesuffix("List")
            for config_map in page.get("items") or ():
                yield {"kind": kind, **config_map}
    except ApiError as error:
        raise session.failure("list ConfigMaps", error) from None


async def most_bytes(connected: Session, namespace: str, most: int) -> int:
    """What each cache of a Namespace may hold: `most` where its annotations do not say, or are not read."""
    try:
        found = await connected.find("get namespaces", f"/api/v1/namespaces/{namespace}")
    except CommandError:
        return most
    annotations = mapping(mapping(mapping(found).get("metadata")).get("annotations"))
    return limits.read(annotations).limits.get("max_bytes", most)


async def names(connected: Session) -> AsyncIterator[str]:
    """Those of the caches of the Namespace."""
    within = f"/api/v1/namespaces/{connected.namespace}/configmaps"
    listed = pages.pages(connected.api, within, _CACHES, name="caches", most=PAGE, metadata_only=True)
    async for page in listed:
        for config_map in page.get("items") or ():
            yield str(config_map["metadata"]["name"])


async def read(connected: Session, cache: str) -> Mapping[str, Any]:
    """A cache; CommandError where there is none of that name."""
    where = f"the Namespace {connected.namespace}"
    found = await connected.find(f"get the ConfigMap {cache}", path(connected.namespace, cache))
    if found is None:
        raise CommandError(f"no ConfigMap {cache} in {where}")
    if outcome := configmap.not_a_cache(found):
        raise CommandError(f"{cache} in {where} is not a cache: {outcome.detail}")
    return found


def path(namespace: str, cache: str) -> str:
    """Where the API server keeps it."""
    return f"/api/v1/namespaces/{namespace}/configmaps/{quote(cache, safe='')}"
