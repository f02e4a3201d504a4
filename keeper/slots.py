"""Work that is under way at the same time: bounded, and with room for others beside each Namespace's."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Slots:
    """At most `at_once` in all, `of_one` for one Namespace; who comes first has the first turn."""

    def __init__(self, at_once: int, of_one: int) -> None:
        self._of_one = of_one
        self.all = asyncio.Semaphore(at_once)
        """For who has one of a Namespace's."""
        self._semaphores: dict[str, asyncio.Semaphore] = {}
        self._users: Counter[str] = Counter()
        """Who has, or waits for, a slot of the Namespace."""

    @asynccontextmanager
    async def of_namespace(self, namespace: str) -> AsyncIterator[None]:
        """Have one of the Namespace's, while the block lasts; it does not count against others' yet."""
        semaphore = self._semaphores.setdefault(namespace, asyncio.Semaphore(self._of_one))
        self._users[namespace] += 1
        try:
            async with semaphore:
                yield
        finally:
            self._users[namespace] -= 1
            if not self._users[namespace]:
                del self._users[namespace], self._semaphores[namespace]

    def users(self, namespace: str) -> int:
        """How many of the Namespace have one, or wait for it."""
        return self._users[namespace]

    @asynccontextmanager
    async def take(self, namespace: str) -> AsyncIterator[None]:
        """Have one of the Namespace's and of all, while the block lasts."""
        async with self.of_namespace(namespace), self.all:
            yield
