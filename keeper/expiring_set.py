"""Keys of steps that are marked for a while, such as those that are not shared."""

from datetime import datetime, timedelta

from keeper.steppods import Key


class ExpiringSet:
    """Keys that are marked, all for the same time. All `now` are aware."""

    def __init__(self, time: timedelta) -> None:
        self._time = time
        self._until: dict[Key, datetime] = {}
        """The soonest to end first."""

    def add(self, key: Key, now: datetime) -> None:
        """Mark the key from now on; marks that have ended are forgotten."""
        for earlier, until in list(self._until.items()):
            if until > now:
                break
            del self._until[earlier]
        self._until.pop(key, None)
        self._until[key] = now + self._time

    def until(self, key: Key, now: datetime) -> datetime | None:
        """When the mark ends, None where there is none."""
        until = self._until.get(key)
        return until if until is not None and until > now else None
