"""How many requests may be under way at once: in all, of one Namespace, from one address."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from server.refusals import Refusal, RefusedError

MOST = 256
"""Reviews at once. One waits for look-ups of some milliseconds, and Argo's controller creates the Pods of 32
workflows at a time: as many are a flood, or an API server in trouble."""
OF_NAMESPACE = 0.5
"""The share of one Namespace; the Namespace stands in the body, so this is found out after it was read …"""
OF_ADDRESS = 0.75
"""… and of one address: that of all API servers where they are behind a tunnel, so nearly everything."""


class UnderWay:
    """Counts what is under way. No awaits: who is refused is refused at once."""

    def __init__(self, *, most: int = MOST) -> None:
        self._most = most
        self._all = 0
        self._namespaces: Counter[str] = Counter()
        self._peers: Counter[str] = Counter()

    @contextmanager
    def one(self, namespace: str, peer: str, share: float = 1.0) -> Iterator[None]:
        """Count one within the context; RefusedError, a 503, where it is one too many.

        It is taken while less than `share` of all is under way.
        """
        for count, of_all, refusal, whose in (
            (self._all, share, Refusal.REVIEWS, ""),
            (self._namespaces[namespace], OF_NAMESPACE, Refusal.REVIEWS_OF_NAMESPACE, " of this Namespace"),
            (self._peers[peer], OF_ADDRESS, Refusal.REVIEWS_OF_ADDRESS, " from this address"),
        ):
            if count >= self._most * of_all:
                raise RefusedError(refusal, 503, f"too many reviews{whose} are under way")
        self._all += 1
        self._namespaces[namespace] += 1
        self._peers[peer] += 1
        try:
            yield
        finally:
            self._all -= 1
            _less(self._namespaces, namespace)
            _less(self._peers, peer)


def _less(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
