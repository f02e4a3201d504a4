"""What admission may expect of the keeper, by what its Lease shows. Pure: times are seconds of our own clock.

The keeper that acts renews its Lease every second, and says in an annotation of it how it is
(memoize/keeper_status.py). A Pod that is gated where nobody acts waits for ever. So the Lease is believed
only once a renewal of it was seen: one that a keeper left behind, or that came back with a backup, looks like
any other. And its age is the time since the last renewal that was seen, never that since its renewTime, which
is of another clock (client-go's leader election has the same rules).
"""

from collections.abc import Mapping
from enum import Enum, StrEnum
from math import inf
from typing import Any

from argo.shape import mapping
from memoize import names, plan
from memoize.keeper_status import KeeperStatus, digest

TRUST = 3.0
"""Seconds after a renewal for which the keeper is taken to be there: it may miss one, and be late with the
next. So long after its death Pods are gated that wait for the next keeper."""


class KeeperState(StrEnum):
    """What the keeper can do for a new Pod."""

    READY = "ready"
    """It will decide the Pod soon, if it is gated."""
    BUSY = "busy"
    """It answers what containers of ours ask it, and is not to get gated Pods: it is not in sync, too many
    Pods of the Namespace wait already, or it reads no plan of ours."""
    ELSEWHERE = "elsewhere"
    """It does not keep the Namespace: it would decide no Pod there, and answer no container."""
    GONE = "gone"
    """Nobody acts, as far as we can tell."""


class Injection(Enum):
    """Whether a Pod may get containers of ours."""

    ALLOWED = "allowed"
    TRIAL = "trial"
    """One of the Namespace, now and then, to see whether they can start again."""
    STOPPED = "stopped"
    """They cannot start in this Namespace."""
    TROUBLED = "troubled"
    """They could not start in this step's last Pod."""


class SeenLease:
    """The keeper's Lease, as far as it was seen."""

    def __init__(self) -> None:
        self._uid: object = None
        self._spec: object = None
        self._status: KeeperStatus | None = None
        self._renewed = -inf
        self.unsure = True
        """Whether there may be a keeper that acts, of which no renewal was seen yet: we have just started."""

    def listed(self, lease: Mapping[str, Any] | None) -> None:
        """Take in how a list shows it, None where it is not there.

        If it was renewed meanwhile, nobody knows when.
        """
        if self._take(lease) is None:
            self._renewed = -inf

    def changed(self, lease: Mapping[str, Any] | None, now: float) -> None:
        """Take in how a watch shows it, which has just changed; None where it was deleted."""
        match self._take(lease):
            case None:
                self._renewed = -inf
            case True:
                self._renewed, self.unsure = now, False

    def status(self, now: float) -> KeeperStatus | None:
        """What the keeper that acts says of itself; None: nobody acts, or nobody who can be understood."""
        return self._status if now < self._renewed + TRUST else None

    def _take(self, lease: Mapping[str, Any] | None) -> bool | None:
        """Whether its holder has written it since the last look; None where it is another Lease than then."""
        metadata = mapping((lease or {}).get("metadata"))
        uid, spec = metadata.get("uid"), mapping((lease or {}).get("spec"))
        told = mapping(metadata.get("annotations")).get(names.KEEPER_STATUS)
        has_holder = bool(spec.get("holderIdentity"))
        self._status = KeeperStatus.from_json(told) if has_holder and isinstance(told, str) else None
        renewed = spec != self._spec if uid is not None and uid == self._uid else None
        self.unsure = self.unsure and has_holder
        self._uid, self._spec = uid, spec
        return renewed


def state(status: KeeperStatus | None, namespace: str) -> KeeperState:
    """What the keeper can do for a new Pod of the Namespace."""
    if status is None:
        return KeeperState.GONE
    if namespace not in status.keeps:
        return KeeperState.ELSEWHERE
    ready = status.ready and namespace not in status.backlogged and plan.VERSION in status.plans
    return KeeperState.READY if ready else KeeperState.BUSY


def injection(status: KeeperStatus, namespace: str, node_id: str) -> Injection:
    """Whether the Pod of a step, by its node's id, may get containers of ours.

    Where too many Namespaces were to be told of, the list says "all of them": a list that names this one is
    believed before, and of two such the one that lets things get better.
    """
    if digest(namespace, node_id) in status.troubled:
        return Injection.TROUBLED
    if namespace in status.stopped.names:
        return Injection.STOPPED
    if namespace in status.trial:
        return Injection.TRIAL
    return Injection.STOPPED if namespace in status.stopped else Injection.ALLOWED
