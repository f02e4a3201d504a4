"""What a keeper says of the caches that it watches, to admission among others."""

from enum import Enum


class Known(Enum):
    """What is known of an entry."""

    FRESH = "fresh"
    ABSENT = "absent"
    """Not there, no entry, or too old."""
    UNKNOWN = "unknown"
    """The caches are not in sync, or nobody looks after the Namespace's."""
