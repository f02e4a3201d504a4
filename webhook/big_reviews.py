"""Reviews that are decided in a child process: those with so much in them that others would wait for them.

The parent does not read such a body. It looks up what the child asks for, and passes it on.
"""

import re
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Any, Protocol

from argo.steppod import Owner
from memoize.reasons import Reason
from server.child import LEAST, WAITING, Child, FullError, KilledError, with_head
from webhook import in_child
from webhook.admission import AdmissionEvents, AdmissionLookups, OfStep, Shares
from webhook.in_child import Decided, Given, Malformed, Need
from webhook.reply import ReviewAnswer
from webhook.review import MalformedReviewError

BYTES = 64 * 1024
"""Of a body that is decided in the loop …"""
PARTS = 4_000
"""… and commas and braces in it: a short body may hold ten thousand templates."""
PLACES = {"workflows": WAITING, "pods": WAITING // 2}
"""Reviews that may wait before one that comes. Pods are shed first: a step then runs. A Workflow that is shed
keeps its blocks, and with them Argo's own memoization."""
SECONDS = 4.0
"""For one review, all waits and look-ups included: the webhooks' time-out is 5."""
_ROUNDS = 8
"""Things that one review may ask for, each once."""
_NAMESPACE = re.compile(rb'"namespace": ?"([a-z0-9-]{1,63})"')
_HEAD = 4096
"""Bytes of a body that are searched for its Namespace: the API server says it before the object."""


UNKNOWN = "?"
"""The one share of all Namespaces that were not seen to be there: callers can make up any number."""


class SeenLookups(AdmissionLookups, Protocol):
    """What admission looks up, and which Namespaces are known by it (server.lookups)."""

    def has_seen(self, namespace: str) -> bool:
        """Whether the Namespace was seen to be there."""


class ShedError(Exception):
    """The review is not decided, and the object is to pass; `reason` and `detail` say why."""

    def __init__(self, reason: Reason, detail: str) -> None:
        self.reason, self.detail = reason, detail


def is_big(body: bytes) -> bool:
    """Whether the body is one for the child."""
    return len(body) > BYTES or body.count(b",") + body.count(b"{") > PARTS


class BigReviews:
    """Decides them.

    `given` makes what a review of a webhook comes with, by the facts; `seconds` are those of one review.
    """

    def __init__(
        self,
        child: Child,
        lookups: SeenLookups,
        events: AdmissionEvents,
        shares: Shares,
        given: Callable[[str, Mapping[Hashable, Any]], Given],
        *,
        seconds: float = SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._child, self._lookups, self._events, self._given = child, lookups, events, given
        self._seconds, self._clock = seconds, clock
        self._asked: Mapping[str, Callable[..., Any]] = {
            "namespace_labels": lookups.namespace_labels,
            "of_step": self._of_step,
            "deletes_artifacts": lookups.deletes_artifacts,
            "versions": lookups.versions,
            "may_gate": shares.may_gate,
            "may_try": shares.may_try,
        }

    async def reply(self, webhook: str, body: bytes, address: str = "") -> ReviewAnswer:
        """The reply; ShedError, MalformedReviewError, or FailedError for a bug. `address`: who calls."""
        until, facts = self._clock() + self._seconds, dict[Hashable, Any]()
        # Who calls may say any name, so it decides who waits, of those who call from there, and nothing else;
        # and spares a second reading.
        found = _NAMESPACE.search(body[:_HEAD])
        namespace = found[1].decode() if found else ""
        need = Need("namespace_labels", (namespace,)) if namespace and webhook == "workflows" else None
        for round_ in range(_ROUNDS):
            if until - self._clock() < LEAST:
                raise _overloaded()
            if need is not None:
                await self._look_up(need, facts)
            try:
                content = await self._child.call(
                    in_child.FUNCTION,
                    with_head(self._given(webhook, facts)),
                    body,
                    share=f"{namespace} {address}" if self._lookups.has_seen(namespace) else UNKNOWN,
                    places=PLACES[webhook],
                    within=until - self._clock(),
                    again=round_ > 0,
                )
            except FullError:
                raise _overloaded() from None
            except KilledError as error:
                raise ShedError(Reason.BEYOND_BUDGET, str(error)) from None
            match in_child.answer_of(content):
                case Need() as need:
                    pass  # looked up before the next round, if there is time for one
                case Malformed(text):
                    raise MalformedReviewError(text)
                case Decided(reply, event):
                    if event is not None:
                        self._events.skipped(*event)
                    return reply
        raise RuntimeError("a review asked for too many things")

    async def _of_step(self, owner: Owner) -> OfStep:
        """As a tuple: its own type would have the child import what it does not need."""
        metadata, labels, limited = await self._lookups.of_step(owner)
        return metadata, labels, limited

    async def _look_up(self, need: Need, facts: dict[Hashable, Any]) -> None:
        found = self._asked[need.what](*need.args)
        facts[in_child.key_of(need)] = await found if isinstance(found, Awaitable) else found


def _overloaded() -> ShedError:
    return ShedError(Reason.OVERLOADED, f"no place or no time for a review of more than {BYTES} bytes")
