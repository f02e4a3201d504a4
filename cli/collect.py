"""The requests behind `stepmemo gc`: what the keeper's clean-up would remove, or its removal by hand."""

import argparse
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import keeper.settings
from argo.shape import mapping
from cli import browse, installation, inventory, output, session
from cli.inventory import Item
from cli.output import Field
from cli.session import DONE, FAILED, USAGE, CommandError, Session
from memoize import capacity, configmap, names
from memoize.entry import Entry
from memoize.eviction import Eviction, Policy, is_collected, to_collect

GOING = (
    Field("NAMESPACE", yields=True),
    Field("CACHE", yields=True),
    Field("KEY", yields=True),
    Field("CAUSE"),
    Field("AGE", number=True),
    Field("LAST HIT", number=True),
    Field("SIZE", number=True),
    Field("DATA KEY", wide=True),
)


class Going(NamedTuple):
    """An entry that is to be removed."""

    namespace: str
    cache: str
    eviction: Eviction
    item: Item


async def collect(connected: Session, args: argparse.Namespace) -> int:
    """Show what goes; without `--dry-run` ask, and remove it, and nothing that was not shown."""
    policy = await _policy(connected, args)
    policies = dict[str, Policy]()
    found = [going async for going in _going(connected, args, policy, policies)]
    if not found and args.output not in ("json", "yaml"):
        return session.say("gc", "there is nothing to remove")
    now = session.now()
    rows = [
        [
            one.namespace,
            one.cache,
            one.item.key,
            one.eviction.cause.value,
            *one.item.row(now)[1:3],
            inventory.size(one.eviction.bytes),
            one.eviction.data_key,
        ]
        for one in found
    ]
    output.show(args.output, GOING, rows, map(_item, found))
    caches = dict.fromkeys((one.namespace, one.cache) for one in found)
    size = inventory.size(sum(one.eviction.bytes for one in found))
    of = f"{_count(len(found), 'entry', 'entries')} ({size}) of {_count(len(caches), 'cache', 'caches')}"
    if args.dry_run or not found:
        return session.say("gc", f"would remove {of}")
    if not args.yes and not _confirmed(f"Remove {of}? [y/N] "):
        return session.say("gc", "nothing was removed", FAILED)
    code = DONE
    for namespace, cache in caches:
        shown = {one.eviction.data_key for one in found if (one.namespace, one.cache) == (namespace, cache)}
        try:
            removed = await _remove(connected, namespace, cache, shown, policies[namespace])
        except CommandError as error:
            code = session.say("gc", str(error), FAILED)
        else:
            print(f"{namespace}/{cache}: {removed} removed", file=sys.stderr)
    return code


async def _going(
    connected: Session, args: argparse.Namespace, policy: Policy, policies: dict[str, Policy]
) -> AsyncIterator[Going]:
    """What goes, one cache in memory after another; without names only of those that the keeper cleans.

    `policies` are filled with what the policy comes to in each Namespace.
    """
    labels: dict[str, Mapping[str, str]] = {}
    async for config_map in _caches(connected, args.caches):
        namespace, name = config_map["metadata"]["namespace"], config_map["metadata"]["name"]
        if not args.caches:
            if namespace not in labels:
                labels[namespace] = await _labels(connected, namespace)
            if not is_collected(config_map, labels[namespace]):
                continue
        if namespace not in policies:
            limit = await browse.most_bytes(connected, namespace, policy.limit)
            policies[namespace] = policy._replace(limit=limit)
        data = configmap.data(config_map)
        for eviction in decide(config_map, policies[namespace]):
            entry = inventory.read(data[eviction.data_key])
            # Without its outputs, which are not shown: a run may be about thousands of large entries.
            light = entry._replace(outputs=None) if isinstance(entry, Entry) else entry
            yield Going(namespace, name, eviction, Item(eviction.data_key, eviction.bytes, light))


async def _labels(connected: Session, namespace: str) -> Mapping[str, str]:
    """Those of a Namespace; one that may not be read, which is told, counts as one that is not cleaned."""
    try:
        found = await connected.find("get namespaces", f"/api/v1/namespaces/{namespace}")
    except CommandError as error:
        left = f'left alone are its caches that are neither named nor say {names.GC}: "true"'
        session.say("gc", f"{error}; {left}")
        return {names.GC: "false"}
    return mapping(mapping(mapping(found).get("metadata")).get("labels"))


async def _caches(connected: Session, wanted: Sequence[str]) -> AsyncIterator[Mapping[str, Any]]:
    if not wanted:
        async for config_map in browse.listed(connected, connected.namespace):
            yield config_map
        return
    if not connected.namespace:
        raise CommandError("names of caches go with -n, not with -A", USAGE)
    for name in wanted:
        yield await browse.read(connected, name)


def decide(config_map: Mapping[str, Any], policy: Policy) -> list[Eviction]:
    """What the clean-up removes from this cache, by its own limit where that is less."""
    limit = capacity.limit(config_map, policy.limit).bytes
    return to_collect(
        configmap.data(config_map),
        session.now(),
        policy._replace(limit=limit),
        other_bytes=configmap.binary_bytes(config_map),
    )


async def _policy(connected: Session, args: argparse.Namespace) -> Policy:
    """What the flags say, else the keeper's own settings, where its Deployment may be read."""
    try:
        deployed = await installation.deployment(connected, args.stepmemo_namespace, installation.KEEPER)
    except CommandError:
        deployed = None
    settings = installation.settings(deployed, keeper.settings.parse, {})
    keepers = timedelta(seconds=settings.gc_unused_for) if settings.gc_unused_for else None
    return Policy(unused_for=args.unused_for or keepers, limit=settings.cache_max_bytes)


async def _remove(connected: Session, namespace: str, cache: str, shown: set[str], policy: Policy) -> int:
    """Remove what was shown and would still go; returns how many."""
    for _ in range(browse.ATTEMPTS):
        config_map = await browse.read(connected.within(namespace), cache)
        places = [one.data_key for one in decide(config_map, policy) if one.data_key in shown]
        if not places or await browse.write(connected, namespace, config_map, {}, places):
            return len(places)
    raise CommandError(f"{namespace}/{cache} kept changing: nothing was removed from it, try again")


def _confirmed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise CommandError("nobody is there to be asked: say --yes, or --dry-run", USAGE)
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"


def _item(going: Going) -> dict[str, Any]:
    return {
        "namespace": going.namespace,
        "cache": going.cache,
        "cause": going.eviction.cause.value,
        **going.item.item(),
    }
