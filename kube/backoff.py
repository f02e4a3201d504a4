"""Longer and longer pauses between tries."""

import random


class Backoff:
    """Pauses that double from `first` to `most` seconds, each cut by up to a half at random.

    So several who failed at the same moment do not all come back at the same one.
    """

    def __init__(self, first: float, most: float) -> None:
        self._first, self._most = first, most
        self._pause = first

    def next(self) -> float:
        """Seconds to wait before the next try."""
        pause, self._pause = self._pause, min(2 * self._pause, self._most)
        return pause * random.uniform(0.5, 1)

    def reset(self) -> None:
        """It worked: begin with the first pause again."""
        self._pause = self._first
