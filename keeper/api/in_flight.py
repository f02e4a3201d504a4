"""What the service has in hand: bytes of bodies and answers, and reads of Pods, in all and of one Namespace.

A Namespace may fill its own part, and no more: what others ask is answered beside it. Whose a request is, is
known here before its body comes; a review says it in its body, so server/bodies.py gives up the largest one.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from keeper.slots import Slots

MOST_BYTES = 32 << 20
"""Of bodies and answers, each from its first byte on until the answer is sent …"""
MOST_BYTES_OF_ONE = 8 << 20
"""… and of those of one Namespace."""
READS, READS_OF_ONE = 16, 8
"""Pods that are read at once: each may weigh a megabyte and a half."""
MOST_WAITING = 1_000
"""Requests of one Namespace that wait for that."""


class TooMuchError(Exception):
    """There is no room; `own`: since the caller's own Namespace takes all of its part."""

    def __init__(self, *, own: bool) -> None:
        super().__init__()
        self.own = own


class Bytes:
    """Bytes that are held for requests."""

    def __init__(self, most: int = MOST_BYTES, most_of_one: int = MOST_BYTES_OF_ONE) -> None:
        self._most, self._most_of_one = most, most_of_one
        self._of_one: Counter[str] = Counter()
        self.held = 0

    @contextmanager
    def of(self, namespace: str) -> Iterator[Callable[[int], None]]:
        """Count what a request of the Namespace holds, until the block ends.

        Call with each more bytes that there are, before or just after they are; TooMuchError for too many.
        """
        mine = 0

        def more(size: int) -> None:
            nonlocal mine
            mine += size
            self.held += size
            self._of_one[namespace] += size
            if self._of_one[namespace] > self._most_of_one:
                raise TooMuchError(own=True)
            if self.held > self._most:
                raise TooMuchError(own=False)

        try:
            yield more
        finally:
            self.held -= mine
            self._of_one[namespace] -= mine
            if not self._of_one[namespace]:
                del self._of_one[namespace]


class Turns(Slots):
    """So many at once, in all and of one Namespace; others wait for their turn, and not too many."""

    def __init__(self, most: int = READS, most_of_one: int = READS_OF_ONE) -> None:
        super().__init__(most, most_of_one)
        self._most_of_one = most_of_one

    @asynccontextmanager
    async def of(self, namespace: str) -> AsyncIterator[None]:
        """Wait for a turn, and have it until the block ends; TooMuchError where too many wait already."""
        if self.users(namespace) >= self._most_of_one + MOST_WAITING:
            raise TooMuchError(own=True)
        async with self.take(namespace):
            yield
