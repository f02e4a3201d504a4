"""The cache as check and capture see it, whichever way it is reached (direct.py, service.py)."""

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from memoize.entry import Entry
from memoize.outcome import Outcome
from sidecar.deadline import Deadline


class Cache(Protocol):
    """Where the entries of one cache are kept."""

    def load(self, until: Deadline) -> Mapping[str, str] | Outcome:
        """Return the data by data key, as far as it concerns this step, or why it cannot be read.

        Empty where there is no such cache yet.
        """

    def store(self, data_key: str, entry: Entry, now: datetime, until: Deadline) -> Outcome:
        """Keep the entry under the `data_key`, and touch no other entry but expired ones."""
