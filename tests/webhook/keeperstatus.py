"""What a keeper says of itself, and how its Lease shows that."""

from typing import Any

from memoize import names, plan
from memoize.keeper_status import EVERY, KeeperStatus
from tests.recordedpods import PODS

FROZEN = (PODS.parent / "skew" / "keeper-status-v1.json").read_text(encoding="utf-8")
"""The first version, as text."""
READY = KeeperStatus(ready=True, keeps=EVERY, wait_seconds=600, plans=frozenset({plan.VERSION}))
GONE = None


def lease(
    renewal: int, told: KeeperStatus | str | None = READY, holder: str = "a", uid: str = "u"
) -> dict[str, Any]:
    """The Lease after so many renewals."""
    text = told.to_json() if isinstance(told, KeeperStatus) else told
    return {
        "metadata": {"uid": uid, "annotations": {} if text is None else {names.KEEPER_STATUS: text}},
        "spec": {"holderIdentity": holder, "renewTime": f"2026-11-28T07:00:{renewal:02}.000000Z"},
    }
