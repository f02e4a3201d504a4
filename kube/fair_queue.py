"""A queue of names that is fair to those whose they are: nobody waits for what somebody else piles up.

    lane of Namespace a:  urgent  ──┐ 4 : 1
                          waiting ──┴─► one name a round ──┐
    lane of Namespace b:            ──► one name a round ──┼─► workers, at most `share` of them for one lane

What a turn costs is known when it is over. It may cost ALLOWANCE; a lane that owes more sits out a round for
each ALLOWANCE of it. (Deficit round robin, paid afterwards; Shreedhar and Varghese, SIGCOMM 1995.) So a name
that comes into an empty lane waits for one turn of each other lane at most, and lanes that always have names
get the same cost, whatever a turn of theirs comes to.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

ALLOWANCE = 3.0
"""What one turn may cost, in requests: about what it takes to answer a Pod or to let it run."""
URGENT_IN_A_ROW = 4
"""Urgent names of a lane before one that waits: urgent is never for ever."""
BACKLOGGED_AFTER = 2.0
"""Seconds that the oldest untried name of a lane waits for its first turn when the lane is backlogged …"""
NOT_BACKLOGGED_BELOW = 0.5
"""… and below which it is so no longer."""


@dataclass(slots=True)
class _Lane:
    """The names of one lane, each in the order in which they came."""

    urgent: "OrderedDict[str, None]" = field(default_factory=OrderedDict)
    waiting: "OrderedDict[str, None]" = field(default_factory=OrderedDict)
    untried: "OrderedDict[str, float]" = field(default_factory=OrderedDict)
    """Those of them that had no turn yet, and since when they are here."""
    in_a_row: int = 0
    """Urgent names since the last one that waited."""
    in_flight: int = 0
    debt: float = 0.0

    def __len__(self) -> int:
        return len(self.urgent) + len(self.waiting)

    def add(self, name: str, urgent: bool) -> None:
        if urgent and name not in self.urgent:
            self.waiting.pop(name, None)
            self.urgent[name] = None
        elif name not in self.urgent:
            self.waiting.setdefault(name)

    def pop(self) -> str:
        turn_of_waiting = self.waiting and self.in_a_row >= URGENT_IN_A_ROW
        if self.urgent and not turn_of_waiting:
            self.in_a_row += 1
            name, _ = self.urgent.popitem(last=False)
        else:
            self.in_a_row = 0
            name, _ = self.waiting.popitem(last=False)
        self.untried.pop(name, None)
        return name

    def discard(self, name: str) -> None:
        for names in (self.urgent, self.waiting, self.untried):
            names.pop(name, None)


class FairQueue:
    """Names to be worked on, each by one worker at a time; a name that is added meanwhile comes again after.

    Each stands in its lane once. `share` is how many of one lane may be worked on at once. `clock` counts
    seconds. Only `take` waits.
    """

    def __init__(self, share: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._share, self._clock = share, clock
        self._lanes: dict[str, _Lane] = {}
        """Those that hold a name, or of which one is worked on: only then is a debt forgiven."""
        self._ring: deque[str] = deque()
        """The lanes that hold a name; the first one's turn is next."""
        self._working: dict[str, str] = {}
        """The lane of each name that is worked on."""
        self._again: dict[str, tuple[bool, bool]] = {}
        self._later: dict[str, asyncio.TimerHandle] = {}
        self._backlogged: frozenset[str] = frozenset()
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values()))

    def add(self, lane: str, name: str, *, urgent: bool = False, untried: bool = False) -> None:
        """Have the name worked on as soon as may be. `untried`: somebody waits for its first turn."""
        if name in self._working:
            before = self._again.get(name, (False, False))
            self._again[name] = urgent or before[0], untried or before[1]
            return
        found = self._lanes.setdefault(lane, _Lane())
        if not found:
            self._ring.append(lane)
        found.add(name, urgent)
        if untried:
            found.untried.setdefault(name, self._clock())
        self._changed.set()

    def add_later(self, lane: str, name: str, seconds: float, *, urgent: bool = False) -> None:
        """Have the name worked on after so many seconds, unless a later call names another time."""
        self._cancel(name)
        self._later[name] = asyncio.get_running_loop().call_later(
            max(0.0, seconds), self._is_due, lane, name, urgent
        )

    def discard(self, lane: str, name: str) -> None:
        """Forget the name, and what `add_later` was told of it; who works on it goes on."""
        self._cancel(name)
        self._again.pop(name, None)
        if (found := self._lanes.get(lane)) is not None:
            held = bool(found)
            found.discard(name)
            if held and not found:
                self._ring.remove(lane)
            self._tidy(lane)

    def clear(self) -> None:
        """Forget all names, but those that are worked on."""
        for name in list(self._later):
            self._cancel(name)
        self._again.clear()
        self._ring.clear()
        for lane, found in list(self._lanes.items()):
            for names in (found.urgent, found.waiting, found.untried):
                names.clear()
            self._tidy(lane)

    def pop(self) -> str | None:
        """The next name, which is worked on until `done` is told; None where no lane may have a turn."""
        full = 0
        while full < len(self._ring):
            lane = self._ring[0]
            found = self._lanes[lane]
            if found.in_flight >= self._share:
                full += 1
            elif found.debt > 0:
                full = 0
                found.debt = max(0.0, found.debt - ALLOWANCE)
            else:
                name = found.pop()
                found.in_flight += 1
                self._working[name] = lane
                if found:
                    self._ring.rotate(-1)
                else:
                    self._ring.popleft()
                return name
            self._ring.rotate(-1)
        return None

    async def take(self) -> str:
        """Wait for what `pop` gives."""
        while (name := self.pop()) is None:
            self._changed.clear()
            await self._changed.wait()
        return name

    def done(self, name: str, cost: float) -> None:
        """Nobody works on the name any more; `cost` is what its turn came to, in requests."""
        lane = self._working.pop(name)
        found = self._lanes[lane]
        found.in_flight -= 1
        found.debt += max(0.0, cost - ALLOWANCE)
        if name in self._again:
            urgent, untried = self._again.pop(name)
            self.add(lane, name, urgent=urgent, untried=untried)
        self._tidy(lane)
        self._changed.set()

    def oldest(self) -> float:
        """Seconds that the oldest untried name waits for its first turn, 0 where none does."""
        return max((waits for _, waits in self._waits()), default=0.0)

    def backlogged(self) -> frozenset[str]:
        """The lanes whose untried names wait for long (see BACKLOGGED_AFTER). To be asked now and then."""
        self._backlogged = frozenset(
            lane
            for lane, waits in self._waits()
            if waits >= (NOT_BACKLOGGED_BELOW if lane in self._backlogged else BACKLOGGED_AFTER)
        )
        return self._backlogged

    def _waits(self) -> Iterator[tuple[str, float]]:
        now = self._clock()
        for lane, found in self._lanes.items():
            if found.untried:
                yield lane, now - next(iter(found.untried.values()))

    def _tidy(self, lane: str) -> None:
        found = self._lanes[lane]
        if not found and not found.in_flight:
            del self._lanes[lane]

    def _cancel(self, name: str) -> None:
        if handle := self._later.pop(name, None):
            handle.cancel()

    def _is_due(self, lane: str, name: str, urgent: bool) -> None:
        self._later.pop(name, None)
        self.add(lane, name, urgent=urgent)
