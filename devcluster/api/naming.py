"""Names, UIDs and timestamps that the API server gives."""

import secrets
import uuid
from datetime import UTC, datetime

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""No vowels and no digits that look like them, so that no words appear (apimachinery, util/rand)."""


def random_suffix() -> str:
    """Five characters, as behind a generateName."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(5))


def generated(prefix: str) -> str:
    """A name from a generateName, which is cut so that the whole has at most 63 characters."""
    return prefix[:58] + random_suffix()


def uid() -> str:
    """A new object's UID."""
    return str(uuid.uuid4())


def timestamp() -> str:
    """Now as a metav1.Time: RFC 3339, UTC, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
