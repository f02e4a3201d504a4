"""Reviews that are decided in a child process: the part that runs there.

The same Admission decides, on the same bytes. What it would look up is what the parent has looked up; what
is not there yet is asked for, and the review is begun anew with it. So nothing is kept from call to call.
"""

import pickle
from collections.abc import Coroutine, Hashable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from argo.steppod import Owner
from memoize.keeper_status import Known
from memoize.reasons import Reason
from memoize.step import Step
from server.child import headed
from webhook import reply, review
from webhook.admission import Admission, Outside
from webhook.inject.containers import InjectSettings
from webhook.reply import Reply
from webhook.review import MalformedReviewError, Request

IN_CHILD = ("decide",)
FUNCTION = f"{__name__}:decide"


class Need(NamedTuple):
    """Something to be looked up: which of the parent's functions to call, and with what."""

    what: str
    args: tuple[Any, ...]


class Malformed(NamedTuple):
    """The body is no review; the text says why."""

    text: str


class Decided(NamedTuple):
    """The reply, and the arguments of `Events.skipped` for the Event there is to be."""

    reply: Reply
    event: tuple[Owner, str, Reason, str] | None


class Given(NamedTuple):
    """What a review comes with.

    `facts` are results by what was needed for them; `gates`: whether there is a keeper that is ready, and how
    long a step may wait for an equal one, None where no keeper is asked.
    """

    webhook: str
    validate: str
    settings: InjectSettings
    gates: tuple[bool, timedelta] | None
    facts: Mapping[Hashable, Any]


def answer_of(content: bytes) -> Need | Malformed | Decided:
    """What `decide` answered."""
    found: Need | Malformed | Decided = pickle.loads(content)
    return found


def decide(data: bytes) -> bytes:
    """Decide the review behind what it came with, its Given."""
    given: Given
    given, body = headed(data)
    answer: Need | Malformed | Decided
    try:
        answer = _decided(given, review.parse(body))
    except MalformedReviewError as error:
        answer = Malformed(str(error))
    except _NeededError as error:
        answer = error.need
    return pickle.dumps(answer)


def key_of(need: Need) -> Hashable:
    """Where its result stands among the facts: what a step declares is no part of it, nor is the time."""
    args = (arg.data_key if isinstance(arg, Step) else arg for arg in need.args)
    return need.what, tuple(arg for arg in args if not isinstance(arg, datetime))


def _decided(given: Given, question: Request) -> Decided:
    facts, events = _Facts(given.facts), _Events()
    outside = None
    if given.gates is not None:
        ready, follow = given.gates
        outside = Outside(facts, _Keeper(ready), follow)
    refused = facts.refused if outside else lambda *_: ""
    admission = Admission(facts, events, given.validate, lambda: given.settings, refused, outside)
    decide = admission.workflow if given.webhook == "workflows" else admission.pod
    return Decided(_result(reply.of(given.webhook, question, decide)), events.told)


def _result(coroutine: Coroutine[Any, Any, Reply]) -> Reply:
    """What it returns; it never waits, since every fact is there or raises."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        made: Reply = end.value
        return made
    finally:
        coroutine.close()
    raise RuntimeError("a review waited in the child")


class _NeededError(Exception):
    def __init__(self, need: Need) -> None:
        self.need = need


class _Facts:
    """In the place of everything that Admission asks."""

    def __init__(self, facts: Mapping[Hashable, Any]) -> None:
        self._facts = facts

    def _found(self, what: str, *args: Any) -> Any:
        need = Need(what, args)
        if (key := key_of(need)) not in self._facts:
            raise _NeededError(need)
        return self._facts[key]

    async def namespace_labels(self, name: str) -> Mapping[str, str] | None:
        found: Mapping[str, str] | None = self._found("namespace_labels", name)
        return found

    async def of_step(self, owner: Owner) -> tuple[Mapping[str, Any] | None, Mapping[str, str] | None]:
        found: tuple[Mapping[str, Any] | None, Mapping[str, str] | None] = self._found("of_step", owner)
        return found

    async def deletes_artifacts(self, owner: Owner) -> bool | None:
        found: bool | None = self._found("deletes_artifacts", owner)
        return found

    def refused(self, namespace: str, node_id: str, dry_run: bool) -> str:
        return str(self._found("refused", namespace, node_id, dry_run))

    def ask(self, namespace: str, cache: str, step: Step, now: datetime, /) -> tuple[Known, str]:
        found: tuple[Known, str] = self._found("ask", namespace, cache, step, now)
        return found


class _Keeper(NamedTuple):
    ready: bool


class _Events:
    """Keeps the Event that is to be written by the parent."""

    def __init__(self) -> None:
        self.told: tuple[Owner, str, Reason, str] | None = None

    def skipped(self, owner: Owner, node: str, reason: Reason, detail: str) -> None:
        self.told = owner, node, reason, detail
