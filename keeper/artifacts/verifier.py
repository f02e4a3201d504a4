"""Decides whether an entry's artifacts let it be served, within bounds that each Namespace has for itself.

Nobody waits for more than a moment: a gated Pod is undecided until it is known, a Pod that waits inside is
served. Whatever cannot be told lets the entry be served, and is said and counted.

A tenant chooses how many artifacts an entry has and which, never who is asked (repositories.py). So there are
bounds for each repository and each Namespace, and a repository that did not answer is left alone for some
seconds, for the Namespace alone that saw that: nobody can have others' entries pass unseen.
"""

import asyncio
import hashlib
import logging
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

import msgspec

from keeper.artifacts.repositories import Repositories, Repository
from keeper.slots import Slots
from keeper.store import Cache, OnChange
from kube import fastjson
from kube.caching import CachedReads, TtlCache
from memoize.entry import Entry
from memoize.outcome import Outcome
from memoize.reasons import Reason
from server.logs import fields

_log = logging.getLogger(__name__)

SECONDS = 2.0
"""For one entry at most."""
CAPTURE_SECONDS = 0.3
"""For the ETags of a step's artifacts: who waits for its entry waits so long at most, and a Pod whose outputs
a sidecar of ours stores ends so much later."""
AT_ONCE, AT_ONCE_OF_ONE = 32, 16
"""Requests to one repository, in all and of one Namespace."""
OF_AN_ENTRY = 8
"""Requests of one entry at once …"""
MOST_OF_AN_ENTRY = 100
"""… and artifacts of one that are looked for; of the others it cannot be told."""
MOST_UNDER_WAY = 200
"""Entries of one Namespace that are looked at, at once …"""
HELD_BYTES_OF_ONE, HELD_BYTES = 4 << 20, 32 << 20
"""… and the bytes of their texts, and of all Namespaces': an entry may have a megabyte. As many are held of
those that wait to be dropped, while an API server does not answer."""
THERE_SECONDS, ELSE_SECONDS = 10.0, 5.0
"""How long it is remembered of an entry that it may be served, and that it may not."""
MOST_REMEMBERED, MOST_REMEMBERED_OF_ONE = 10_000, 2_000
"""Entries of which it is: some 300 bytes each."""
DOWN_SECONDS = 5.0
"""How long a repository is not asked for a Namespace that had no answer from it."""
SLOW_SECONDS = 60.0
"""How long what was found of an entry that took long holds, where it would take long again."""
LONG = 64 << 10
"""Characters of an entry from which on no ETags are kept in it: it is read once more for them."""
MOST_ETAG_BYTES = 4 << 10
"""Of all ETags of an entry, and the names that they are of."""
DROP_EVERY = 1.0
"""Seconds from one drop in a cache to the next: each changes all of a ConfigMap, and whoever waits for any
entry of it looks again. Mostly there is a new entry by then …"""
MOST_TO_DROP = 5
"""… and those of one that wait for that. Others stay, for who finds them again: none is dropped for what was
found long ago."""
_MOST_DOWN = 1_000

NOT_KNOWN_YET = Outcome(Reason.UNDECIDED, "its artifacts are being looked for")


class There(NamedTuple):
    """The object is there. `etag` is what its content is known by, "" for nothing."""

    etag: str = ""


class ObjectGone(NamedTuple):
    """There is no such object."""


class Unknown(NamedTuple):
    """It cannot be told, and why; `down`: nor is it of others for now."""

    why: str
    down: bool = False


class Probe(Protocol):
    """Looks for objects of one repository; raises nothing but CancelledError."""

    async def __call__(self, key: str) -> There | ObjectGone | Unknown:
        """Say whether there is an object of this key, within a second or so."""


class ArtifactState(StrEnum):
    """What came of looking for one artifact: a label of the metric."""

    THERE = "there"
    GONE = "gone"
    CHANGED = "changed"
    """It is there, and its ETag is not the one that the entry has."""
    UNKNOWN = "unknown"


class Drop(Protocol):
    """What takes entries away: keeper.store.Store.drop."""

    async def __call__(self, namespace: str, cache: str, data_key: str, text: str) -> bool | Outcome:
        """Take the entry away if that is still its text."""


class _Own(msgspec.Struct):
    etags: Any = None


class _Outputs(msgspec.Struct):
    artifacts: list[dict[str, Any]] | None = None


class _Shown(msgspec.Struct):
    """Of an entry no more than is asked for here: its outputs may be a megabyte."""

    outputs: _Outputs | None = None
    stepmemo: _Own | None = None


class _Checked(NamedTuple):
    """What is known of one artifact."""

    finding: ArtifactState
    name: str
    etag: str = ""
    detail: str = ""
    served: bool = True
    """The entry may be served, as far as this one is concerned."""


class _Asked:
    """A repository, and what it is asked at the moment."""

    def __init__(self, probe: Probe, clock: Callable[[], float]) -> None:
        self.probe, self.slots = probe, Slots(AT_ONCE, AT_ONCE_OF_ONE)
        self.down: TtlCache[str, Unknown] = TtlCache(_MOST_DOWN, clock)
        """By Namespace, why it had no answer."""


class _Room:
    """Bytes that are held, in all and of one Namespace."""

    def __init__(self) -> None:
        self._of_one: Counter[str] = Counter()

    def take(self, namespace: str, size: int) -> bool:
        """Hold so many more, if there is room; whether there was."""
        if self._of_one[namespace] + size > HELD_BYTES_OF_ONE or self._of_one.total() + size > HELD_BYTES:
            return False
        self._of_one[namespace] += size
        return True

    def give_back(self, namespace: str, size: int) -> None:
        """Hold so many less."""
        self._of_one -= Counter({namespace: size})


class Verifier:
    """Looks for the artifacts of entries, in the repositories that it was last told to `use`.

    `drop` takes an entry away whose artifacts are gone. `on_checked` is told of each artifact. `seconds` are
    those for one entry, `drop_every` those from one drop in a cache to the next; `clock` counts seconds.
    """

    def __init__(
        self,
        drop: Drop,
        on_checked: Callable[[str], None] = lambda finding: None,
        on_dropped: Callable[[int], None] = lambda size: None,
        *,
        seconds: float = SECONDS,
        drop_every: float = DROP_EVERY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._drop, self._on_checked, self._on_dropped = drop, on_checked, on_dropped
        self._seconds, self._drop_every, self._clock = seconds, drop_every, clock
        self._repositories, self._asked = Repositories(), dict[str, _Asked]()
        self._verdicts: CachedReads[tuple[str, bytes], Outcome | None] = CachedReads(
            lambda miss: ELSE_SECONDS if miss else THERE_SECONDS,
            most=MOST_REMEMBERED,
            most_of_one=MOST_REMEMBERED_OF_ONE,
            clock=clock,
            group=lambda key: key[0],
        )
        self._under_way: Counter[str] = Counter()
        """Entries that are looked at, by Namespace …"""
        self._looked_at, self._to_drop = _Room(), _Room()
        """… and what is held of them, and of those that wait to be dropped."""
        self._left: set[tuple[str, bytes]] = set()
        """Those among them whose end somebody did not wait for."""
        self._slow: TtlCache[tuple[str, bytes], tuple[Outcome | None]] = TtlCache(
            MOST_REMEMBERED, clock, group=lambda key: key[0], most_of_one=MOST_REMEMBERED_OF_ONE
        )
        """What was found at last of those that took long."""
        self._drops: dict[Cache, tuple[deque[tuple[str, str]], asyncio.Task[None]]] = {}
        """Data keys and texts of entries that wait to be dropped, and who does it."""
        self.on_known: OnChange = lambda namespace, cache, entries: None
        """Told of an entry that was NOT_KNOWN_YET, as of one that has changed."""

    def use(self, probes: Mapping[Repository, Probe]) -> None:
        """Look into these repositories from now on."""
        self._asked = {one.name: _Asked(probe, self._clock) for one, probe in probes.items()}
        self._repositories = Repositories(tuple(probes))

    async def close(self) -> None:
        """Give up what is still to be taken away."""
        tasks = [task for _, task in self._drops.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- Before an entry is served --------------------------------------------------------------------

    async def verify(
        self, namespace: str, cache: str, data_key: str, text: str, seconds: float
    ) -> Outcome | None:
        """Say why the entry with this text must not be served; None where it may be.

        NOT_KNOWN_YET after `seconds`; then `on_known` is told of it later.
        """
        if not _may_have_artifacts(text):
            return None
        place = f"{namespace}\0{cache}\0{data_key}\0"
        key = namespace, hashlib.sha256(place.encode() + text.encode("utf-8", "surrogatepass")).digest()
        if (known := self._verdicts.known(key)) is not None:
            return known[0]
        shown = _read(text)
        if shown is None or shown.outputs is None or not shown.outputs.artifacts:
            return None
        artifacts, etags = shown.outputs.artifacts[: MOST_OF_AN_ENTRY + 1], _etags(shown)
        size = sys.getsizeof(text)
        if not self._verdicts.is_near(key):
            if self._under_way[namespace] >= MOST_UNDER_WAY or not self._looked_at.take(namespace, size):
                many = "too many entries of its Namespace are being looked at"
                self._say(namespace, [_unknown("", many)])
                return None
            self._under_way[namespace] += 1

        async def look() -> Outcome | None:
            miss: Outcome | None = None
            try:
                miss = self._decide(namespace, await self._check(namespace, artifacts, etags, self._seconds))
            finally:
                self._under_way -= Counter([namespace])
                self._looked_at.give_back(namespace, size)
                if key in self._left:
                    self._left.discard(key)
                    self._slow.put(key, (miss,), SLOW_SECONDS)
                    # After the verdict is remembered, which it is when this has returned.
                    told: Mapping[str, Hashable] = {data_key: ("artifacts", object())}
                    asyncio.get_running_loop().call_soon(self.on_known, namespace, cache, told)
            # Where there is no room it stays, for who finds it again, or stores another one.
            if miss is not None and miss.reason is Reason.ARTIFACT_GONE:
                self._drop_soon(namespace, cache, data_key, text)
            return miss

        try:
            async with asyncio.timeout(seconds):
                return await self._verdicts.get(key, look)
        except TimeoutError:
            if (known := self._verdicts.known(key)) is not None:
                return known[0]
            if (slow := self._slow.get(key)) is not None:
                if slow[0] is None:
                    self._say(namespace, [_unknown("", "its artifacts took too long again")])
                return slow[0]
            if self._verdicts.is_near(key):
                self._left.add(key)
            return NOT_KNOWN_YET

    def served_unseen(self, namespace: str) -> None:
        """Note that an entry was served that was NOT_KNOWN_YET."""
        self._say(namespace, [_unknown("", "its artifacts took too long")])

    # --- When an entry is stored ----------------------------------------------------------------------

    async def with_etags(self, namespace: str, entry: Entry) -> Entry:
        """The entry with the ETags of its artifacts, of those that could be asked for within a moment."""
        entry = entry._replace(etags={})
        artifacts = (entry.outputs or {}).get("artifacts") or ()
        if not artifacts or self._under_way[namespace] >= MOST_UNDER_WAY:
            return entry
        self._under_way[namespace] += 1
        try:
            checked = await self._check(namespace, artifacts, {}, CAPTURE_SECONDS)
        finally:
            self._under_way -= Counter([namespace])
        etags = {one.name: one.etag for one in checked if one.etag}
        if sum(len(name) + len(etag) for name, etag in etags.items()) > MOST_ETAG_BYTES:
            return entry
        return entry._replace(etags=etags)

    # --- Looking --------------------------------------------------------------------------------------

    async def _check(
        self,
        namespace: str,
        artifacts: Sequence[Mapping[str, Any]],
        etags: Mapping[str, Any],
        seconds: float,
    ) -> list[_Checked]:
        """Look for the artifacts side by side, until one of them rules the entry out, or the time is over."""
        some = list(enumerate(artifacts[:MOST_OF_AN_ENTRY]))
        left, found = iter(some), dict[int, _Checked | None]()

        def rules_out() -> bool:
            return any(one is not None and not one.served for one in found.values())

        async def work() -> None:
            for number, artifact in left:
                try:
                    found[number] = await self._look(namespace, artifact, etags)
                except Exception:
                    told = fields(reason=Reason.INTERNAL_ERROR.value, namespace=namespace)
                    _log.exception("cannot look for an artifact", extra=told)
                    found[number] = _unknown(str(artifact.get("name", "")), "a bug of ours; see the log")
                if rules_out():
                    break

        try:
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                for _ in range(min(OF_AN_ENTRY, len(some))):
                    group.create_task(work())
        except TimeoutError:
            pass
        if not rules_out():
            for number, artifact in some:
                if number not in found:
                    found[number] = _unknown(str(artifact.get("name", "")), "no answer in time")
            if len(artifacts) > len(some):
                found[len(some)] = _unknown("", f"the entry has more than {MOST_OF_AN_ENTRY} artifacts")
        return [one for one in found.values() if one is not None]

    async def _look(
        self, namespace: str, artifact: Mapping[str, Any], etags: Mapping[str, Any]
    ) -> _Checked | None:
        """Look for one artifact; None where there is nothing to look for."""
        name = str(artifact.get("name", ""))
        place = None if artifact.get("deleted") else self._repositories.find(namespace, artifact)
        if place is None:
            return None
        if isinstance(place, str):
            return _unknown(name, place)
        repository = place.repository
        asked = self._asked[repository.name]
        answer = await self._ask(asked, namespace, place.key)
        match answer:
            case Unknown(why):
                return _unknown(name, f"repository {repository.name}: {why}")
            case ObjectGone():
                detail = f"artifact {name} is gone from repository {repository.name}"
                return _Checked(ArtifactState.GONE, name, detail=detail, served=False)
            case There(etag):
                before = etags.get(name)
                if not (etag and before) or etag == before:
                    return _Checked(ArtifactState.THERE, name, etag)
                detail = f"artifact {name} in repository {repository.name} is not what was stored"
                return _Checked(ArtifactState.CHANGED, name, etag, detail, repository.changed == "serve")

    async def _ask(self, asked: _Asked, namespace: str, key: str) -> There | ObjectGone | Unknown:
        """What the repository says, if the Namespace had an answer from it lately."""
        if (down := asked.down.get(namespace)) is not None:
            return down
        async with asked.slots.take(namespace):
            # Those that waited behind one that had no answer do not ask again.
            if (down := asked.down.get(namespace)) is not None:
                return down
            answer = await asked.probe(key)
        if isinstance(answer, Unknown) and answer.down:
            asked.down.put(namespace, answer, DOWN_SECONDS)
        return answer

    # --- What is done about it ------------------------------------------------------------------------

    def _decide(self, namespace: str, checked: Sequence[_Checked]) -> Outcome | None:
        """Count and say what was found; why the entry must not be served."""
        self._say(namespace, checked)
        for one in checked:
            if not one.served:
                gone = one.finding is ArtifactState.GONE
                return Outcome(Reason.ARTIFACT_GONE if gone else Reason.ARTIFACT_CHANGED, one.detail)
        return None

    def _say(self, namespace: str, checked: Iterable[_Checked]) -> None:
        said = set[str]()
        for one in checked:
            self._on_checked(one.finding.value)
            if one.served and one.detail and one.detail not in said:
                said.add(one.detail)
                _log.warning(
                    "an entry is served whose artifacts are not known to be as they were",
                    extra=fields(namespace=namespace, artifact=one.name, detail=one.detail),
                )

    def _drop_soon(self, namespace: str, cache: str, data_key: str, text: str) -> None:
        """Have the entry dropped when it is its turn, if there is room for it to wait."""
        waiting, _ = self._drops.get((namespace, cache), (deque[tuple[str, str]](), None))
        if len(waiting) >= MOST_TO_DROP or not self._to_drop.take(namespace, sys.getsizeof(text)):
            return
        waiting.append((data_key, text))
        if (namespace, cache) not in self._drops:
            task = asyncio.create_task(self._drop_all(namespace, cache, waiting))
            self._drops[namespace, cache] = waiting, task

    async def _drop_all(self, namespace: str, cache: str, waiting: deque[tuple[str, str]]) -> None:
        """Drop one after the other until none waits."""
        try:
            while waiting:
                await self._take_away(namespace, cache, *waiting[0])
                self._to_drop.give_back(namespace, sys.getsizeof(waiting.popleft()[1]))
                await asyncio.sleep(self._drop_every)
        finally:
            del self._drops[namespace, cache]
            for _, text in waiting:
                self._to_drop.give_back(namespace, sys.getsizeof(text))

    async def _take_away(self, namespace: str, cache: str, data_key: str, text: str) -> None:
        """Drop the entry, if it is still the one whose artifacts are gone."""
        try:
            dropped = await self._drop(namespace, cache, data_key, text)
        except Exception:
            _log.exception("cannot drop an entry", extra=fields(reason=Reason.INTERNAL_ERROR.value))
            return
        told = {"namespace": namespace, "cache": cache}
        if isinstance(dropped, Outcome):
            _log.warning(
                "an entry whose artifacts are gone could not be dropped",
                extra=fields(reason=dropped.reason.value, detail=dropped.detail, **told),
            )
        elif dropped:
            _log.info("an entry was dropped", extra=fields(reason=Reason.ARTIFACT_GONE.value, **told))
            self._on_dropped(len(text))


def _may_have_artifacts(text: str) -> bool:
    return '"artifacts"' in text


def _read(text: str) -> _Shown | None:
    """What is asked for of an entry; None where it is no entry."""
    try:
        return fastjson.part(text.encode(), _Shown)
    except (ValueError, RecursionError):
        return None


def _etags(shown: _Shown) -> Mapping[str, Any]:
    etags = shown.stepmemo.etags if shown.stepmemo else None
    return etags if isinstance(etags, dict) else {}


def _unknown(name: str, why: str) -> _Checked:
    return _Checked(ArtifactState.UNKNOWN, name, detail=why)
