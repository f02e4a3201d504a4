"""A queue of names that is fair to those whose they are: nobody waits for what somebody else piles up.

    lane of Namespace a:  urgent  ──┐ 4 : 1
                          waiting ──┴─► one name a round ──┐
    lane of Namespace b:            ──► one name a round ──┼─► workers, at most `share` of them for one lane

What a turn costs is known when it is over. It may cost ALLOWANCE; a lane that owes more sits out a round for
each ALLOWANCE of it. (Deficit round robin, paid afterwards; Shreedhar and Varghese, SIGCOMM 1995.) So a name
that comes into an empty lane waits for one turn of each other lane at most, and lanes that always have names
get the same cost, whatever a turn of theirs comes to; or as their weights say: a lane of twice the weight has
two names a round, owes for half as many, and has more workers.

A debt is forgiven with the lane's last name, unless it is to be `remembered`: then who had a dear turn waits
for those who had none, also for those who come back in a moment.
"""

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

ALLOWANCE = 3.0
"""What one turn may cost, in requests: about what it takes to answer a Pod or to let it run."""
URGENT_IN_A_ROW = 4
"""Urgent names of a lane before one that waits: urgent is never for ever."""
EVEN = 100
"""The weight of a lane that has as much as any other."""
_TURN = ALLOWANCE * EVEN
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
    """In parts of a request, EVEN of each; below 0: what it may have of its round before it owes."""
    charged: float = 0.0
    """When the debt last grew …"""
    left: float = 0.0
    """… and when the lane was last without a name; both of a queue that remembers."""

    def __len__(self) -> int:
        return len(self.urgent) + len(self.waiting)

    @property
    def owes(self) -> float:
        """In requests."""
        return max(0.0, self.debt / EVEN)

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

    Each stands in its lane once. `share` is how many of one lane may be worked on at once, half of all; of
    one of another weight so many as it has beside an EVEN one. `clock` counts seconds. Only `take` waits.

    `weight` says what a lane's is at that moment, above 0; it must not block.

    `remembered`: seconds for which a debt is kept, names or none. A lane that owes then has its turn beside
    lanes that do not as ever, and else only once all who owe less have been away for `quiet` seconds; it goes
    on owing. Whoever uses it asks again after so long where `pop` gives None.

    No lane waits for ever for those who owe less: one of whose untried names waits for `overdue` seconds, and
    whose debt did not grow in them, has a turn. Such turns have as many seconds for the others between them.
    `anybody` is a lane whose names may be anybody's: it is never taken to owe less than another one.
    """

    def __init__(
        self,
        share: int,
        clock: Callable[[], float] = time.monotonic,
        *,
        weight: Callable[[str], int] = lambda lane: EVEN,
        remembered: float = 0.0,
        quiet: float = 0.0,
        overdue: float = math.inf,
        anybody: str | None = None,
    ) -> None:
        self._share, self._clock, self._weight = share, clock, weight
        self._remembered, self._quiet = remembered, quiet
        self._overdue, self._anybody = overdue, anybody
        self._exception: str | None = None
        """The name that last had a turn because it was overdue …"""
        self._excepted = -math.inf
        """… and when that was over."""
        self._lanes: dict[str, _Lane] = {}
        """Those that hold a name, or of which one is worked on, or that are remembered."""
        self._ring: deque[str] = deque()
        """The lanes that hold a name; the first one's turn is next."""
        self._begun: str | None = None
        """The first one, where it had a turn of this round, and may have another."""
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
        if self._remembered:
            self._forget()
            if (lane := self._longest_overdue()) is not None:
                self._exception = self._begin(lane)
                return self._exception
            if all(self.owed(lane) for lane in self._ring):
                return self._pop_debtor()
        full = 0
        while full < len(self._ring):
            lane = self._ring[0]
            found, weight = self._lanes[lane], self._weight(lane)
            if found.in_flight >= max(1, 2 * self._share * weight // (weight + EVEN)):
                full += 1
            else:
                full = 0
                if found.debt > -_TURN and lane != self._begun:
                    found.debt -= ALLOWANCE * weight
                if found.debt <= -_TURN:
                    return self._next_of(lane, found)
            self._begun = None
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
        if name == self._exception:
            self._exception, self._excepted = None, self._clock()
        lane = self._working.pop(name)
        found = self._lanes[lane]
        found.in_flight -= 1
        self._charge(found, max(0.0, cost - ALLOWANCE))
        if name in self._again:
            urgent, untried = self._again.pop(name)
            self.add(lane, name, urgent=urgent, untried=untried)
        self._tidy(lane)
        self._changed.set()

    def charge(self, lane: str, cost: float) -> None:
        """Have the lane owe what was done because of it, but not in a turn of its own."""
        self._charge(self._lanes.setdefault(lane, _Lane()), cost)
        self._tidy(lane)

    def owed(self, lane: str) -> float:
        """What the lane owes, in requests; `anybody` as much as who owes most."""
        if lane == self._anybody:
            return max((found.owes for found in self._lanes.values()), default=0.0)
        return self._lanes[lane].owes if lane in self._lanes else 0.0

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

    def _next_of(self, lane: str, found: _Lane) -> str:
        """The next name of the lane, which stays the first one while it has something of its round left."""
        found.debt += _TURN
        name, self._begun = self._begin(lane), None
        if found and found.debt <= -_TURN:
            self._begun = lane
            self._ring.rotate(1)
        return name

    def _begin(self, lane: str) -> str:
        found = self._lanes[lane]
        name = found.pop()
        found.in_flight += 1
        self._working[name] = lane
        self._ring.remove(lane)
        if found:
            self._ring.append(lane)
        return name

    def _pop_debtor(self) -> str | None:
        """A name of the lane that owes least, if nobody who owes less may be back in a moment."""
        lane = min(self._ring, key=self.owed, default=None)
        if lane is None:
            return None
        owed, since = self.owed(lane), self._clock() - self._quiet
        others = (found for name, found in self._lanes.items() if name != self._anybody and found.owes < owed)
        if any(found or found.in_flight or found.left > since for found in others):
            return None
        return self._begin(lane)

    def _longest_overdue(self) -> str | None:
        """The lane that owes and has waited longest, if that is too long, and the others had time since."""
        now = self._clock()
        if self._exception is not None or now - self._excepted < self._overdue:
            return None
        waits = {
            lane: now - max(self._lanes[lane].charged, next(iter(self._lanes[lane].untried.values())))
            for lane in self._ring
            if self._lanes[lane].untried and self._lanes[lane].in_flight < self._share and self.owed(lane)
        }
        lane = max(waits, key=lambda one: waits[one], default=None)
        return lane if lane is not None and waits[lane] >= self._overdue else None

    def _forget(self) -> None:
        since = self._clock() - self._remembered
        for lane, found in list(self._lanes.items()):
            if found.charged <= since:
                found.debt = 0.0
            if not found and not found.in_flight and found.left <= since:
                del self._lanes[lane]

    def _charge(self, found: _Lane, cost: float) -> None:
        if cost:
            found.debt += cost * EVEN
            found.charged = self._clock()

    def _tidy(self, lane: str) -> None:
        found = self._lanes[lane]
        if found or found.in_flight:
            return
        if self._remembered:
            found.left = self._clock()
        else:
            del self._lanes[lane]

    def _cancel(self, name: str) -> None:
        if handle := self._later.pop(name, None):
            handle.cancel()

    def _is_due(self, lane: str, name: str, urgent: bool) -> None:
        self._later.pop(name, None)
        self.add(lane, name, urgent=urgent)
