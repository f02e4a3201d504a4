"""Which entry a step is compared with, if its key was computed and nothing lay under it."""

from collections.abc import Mapping
from datetime import datetime

from memoize.entry import BrokenEntry, Entry


def earlier(data: Mapping[str, str], template: str, but_not: str, before: datetime | None) -> str:
    """Return the data key of the newest entry in `data` that names its template so, "" for none.

    Not that under the data key `but_not`, and none that was made later than `before` (aware).
    """
    found = [
        (entry.created, data_key)
        for data_key, text in data.items()
        if data_key != but_not
        and (entry := _times(text)) is not None
        and template
        and entry.template == template
        and entry.created is not None
        and (before is None or entry.created <= before)
    ]
    return max(found)[1] if found else ""


def _times(text: str) -> Entry | None:
    try:
        return Entry.parse_times(text)
    except BrokenEntry:
        return None
