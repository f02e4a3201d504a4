"""Which of the entries that are waited for are looked at next: a few, and of each Namespace its share.

Choosing takes no longer for what is not chosen, however many entries are waited for.
"""

import random
from collections.abc import Iterator
from itertools import islice

from keeper.postgresql.rows import EntryRef
from keeper.store import Followed


class EntryTurns:
    """Goes through the entries of each Namespace again and again."""

    def __init__(self) -> None:
        self._walks: dict[str, Iterator[EntryRef]] = {}
        """Where each Namespace's turn goes on."""

    def next(self, followed: Followed, most: int) -> tuple[list[EntryRef], set[str]]:
        """Choose `most` entries at most, all where there are no more; some may be followed no longer.

        And name the Namespaces that it begins to go through anew.
        """
        for namespace in self._walks.keys() - followed.caches_of.keys():
            del self._walks[namespace]
        chosen, begun_anew = dict[EntryRef, None](), set[str]()
        # What one does not need of its share is the others', until nobody needs more or nothing is left.
        hungry = random.sample(list(followed.caches_of), len(followed.caches_of))
        while hungry and len(chosen) < most:
            share, asked, hungry = max(1, (most - len(chosen)) // len(hungry)), hungry, []
            for namespace in asked[: most - len(chosen)]:
                before = len(chosen)
                chosen |= dict.fromkeys(islice(self._walks.get(namespace, iter(())), share))
                if (lacks := share - len(chosen) + before) > 0:
                    begun_anew.add(namespace)
                    self._walks[namespace] = _walk(followed, namespace)
                    chosen |= dict.fromkeys(islice(self._walks[namespace], lacks))
                if len(chosen) - before == share:
                    hungry.append(namespace)
        return list(chosen), begun_anew


def _walk(followed: Followed, namespace: str) -> Iterator[EntryRef]:
    """Yield the Namespace's entries; one that comes or goes meanwhile may be left out or not."""
    for cache in list(followed.caches_of.get(namespace, ())):
        for data_key in list(followed.data_keys(namespace, cache)):
            yield EntryRef(namespace, cache, data_key)
