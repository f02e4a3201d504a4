"""The requests behind `caches`, `entries`, `show` and `rm` where the keeper is asked, and what they print."""

import argparse
import asyncio
from collections.abc import Sequence

import keeper.settings
from cli import browse, inventory, output, session
from cli.asking import KeeperClient, NoKeeperError
from cli.explanation import Facts
from cli.inventory import CacheRow, Listed
from cli.keychange import Earlier
from cli.plain import plain
from cli.session import DONE, FAILED, CommandError, Session
from keeper.api.people import CACHES_PATH, EARLIER_PATH, LIST_PATH, REMOVE_PATH, SHOW_PATH
from kube import pages
from kube.errors import ApiError
from memoize import configmap
from memoize.entry import Entry, timestamp

AT_ONCE = 4
"""Namespaces of `-A` that are asked about at the same time: the keeper works on so many."""


async def caches(
    connected: Session, args: argparse.Namespace, settings: keeper.settings.Settings | None
) -> int:
    """List the caches, and the ConfigMaps that are read beside a database."""
    if connected.namespace:
        code, found = DONE, await _caches(connected, args)
    else:
        code, found = await _everywhere(connected, args, settings.namespaces if settings else ())
    if all(cache.store != inventory.STORE for cache in found):
        limit = settings.cache_max_bytes if settings else configmap.MOST_BYTES
        try:
            listed = browse.listed(connected, connected.namespace)
            found += [CacheRow.of(one, limit) async for one in listed]
        except CommandError as error:
            session.say("caches", f"not shown are ConfigMaps, which are read beside the database: {error}")
    return browse.print_caches(connected, args, found) or code


async def _caches(connected: Session, args: argparse.Namespace) -> list[CacheRow]:
    asked = keeper_of(connected, args).pages(CACHES_PATH)
    return [
        CacheRow.kept(connected.namespace, one, page["store"])
        async for page in asked
        for one in page["items"]
    ]


async def _everywhere(
    connected: Session, args: argparse.Namespace, kept: Sequence[str]
) -> tuple[int, list[CacheRow]]:
    """The caches of all Namespaces that are kept; what could not be asked about is told in one line."""
    names = sorted(kept or await _namespaces(connected))
    at_once, failed = asyncio.Semaphore(AT_ONCE), dict[str, CommandError]()

    async def of_one(namespace: str) -> list[CacheRow]:
        async with at_once:
            try:
                return await _caches(connected.within(namespace), args)
            except CommandError as error:
                failed[namespace] = error
                return []

    # The first one alone: where nobody can be asked, it is of no use to try for each.
    found = [await of_one(name) for name in names[:1]]
    for error in failed.values():
        if isinstance(error, NoKeeperError):
            raise error
    found += await asyncio.gather(*map(of_one, names[1:]))
    if failed:
        name, error = next(iter(failed.items()))
        many = f"{len(failed)} of {len(names)} Namespaces could not be looked into, such as {name}"
        session.say("caches", f"{many}: {error}")
    return FAILED if failed else DONE, [cache for of_namespace in found for cache in of_namespace]


async def _namespaces(connected: Session) -> list[str]:
    listed = pages.pages(
        connected.api,
        "/api/v1/namespaces",
        name="namespaces",
        most=browse.PAGE,
        metadata_only=True,
    )
    try:
        return [str(one["metadata"]["name"]) async for page in listed for one in page.get("items") or ()]
    except ApiError as error:
        raise session.failure("list namespaces", error) from None


async def entries(connected: Session, args: argparse.Namespace) -> int:
    """List the entries of one cache, and say how many a ConfigMap of its name has beside a database."""
    found, store = list[Listed](), ""
    async for page in keeper_of(connected, args).pages(LIST_PATH, cache=args.cache):
        store = page["store"]
        found += map(Listed.of, page["items"])
    found.sort(key=lambda item: item.used, reverse=True)
    now = session.now()
    rows = [item.row(now) for item in found]
    if rows or args.output in ("json", "yaml"):
        output.show(args.output, browse.ENTRIES, rows, (item.item() for item in found))
    else:
        session.say("entries", f"the cache {args.cache} is empty, or there is none")
    if store == inventory.POSTGRESQL:
        await _tell_of_config_map(connected, args.cache)
    return DONE


async def _tell_of_config_map(connected: Session, cache: str) -> None:
    try:
        config_map = await connected.find(
            f"get the ConfigMap {cache}", browse.path(connected.namespace, cache)
        )
    except CommandError:
        return
    if config_map is not None and not configmap.not_a_cache(config_map):
        number = len(configmap.data(config_map))
        said = f"a ConfigMap {cache} holds {number} more values, which count where the database has none"
        session.say("entries", f"{said}, or an older one: see --no-keeper")


async def show(connected: Session, args: argparse.Namespace) -> int:
    """Show one entry: what a step would find."""
    asked = keeper_of(connected, args)
    for place in inventory.places(args.key):
        if text := (await asked.ask(SHOW_PATH, cache=args.cache, dataKey=place))["entry"]:
            return browse.print_entry(args, place, text)
    raise CommandError(f"the cache {args.cache} has no entry of the key {args.key!r}")


async def remove(connected: Session, args: argparse.Namespace) -> int:
    """Remove entries by their keys; says of each what became of it."""
    code, asked = DONE, keeper_of(connected, args)
    for key in dict.fromkeys(args.keys):
        for place in inventory.places(key):
            text = (await asked.ask(SHOW_PATH, cache=args.cache, dataKey=place))["entry"]
            if text and not isinstance(inventory.read(text), Entry):
                code = session.say("rm", f"{key}: {browse.NO_ENTRY}", FAILED)
                break
            if text and (await asked.ask(REMOVE_PATH, cache=args.cache, dataKey=place))["removed"]:
                print(f"{plain(key)}: removed", flush=True)
                break
        else:
            code = session.say("rm", f"{key}: no such entry", FAILED)
    return code


async def text_of(asked: KeeperClient, cache: str, data_key: str) -> str:
    """The text of an entry, "" for none."""
    return str((await asked.ask(SHOW_PATH, cache=cache, dataKey=data_key))["entry"] or "")


async def earlier(asked: KeeperClient, facts: Facts) -> Earlier | None:
    """The entry that the step is compared with, None where there is none."""
    before = timestamp(facts.created) if facts.created else ""
    found = await asked.ask(
        EARLIER_PATH, cache=facts.cache, template=facts.template, dataKey=facts.place, before=before
    )
    entry = inventory.read(found["entry"] or "")
    return Earlier(found["dataKey"], entry) if isinstance(entry, Entry) else None


def keeper_of(connected: Session, args: argparse.Namespace) -> KeeperClient:
    """The keeper that the flags name."""
    return KeeperClient(connected, args.stepmemo_namespace, args.account)
