"""Reviews that are decided in a child process: the part that runs there.

The same Admission decides, on the same bytes. What it would look up is what the parent has looked up; what
is not there yet is asked for, and the review is begun anew with it. So nothing is kept from call to call.
"""

import pickle
from collections.abc import Coroutine, Hashable, Mapping
from typing import Any, NamedTuple

from argo.steppod import Owner
from memoize.autokey import ObjectReference, Version
from memoize.keeper_status import KeeperStatus
from memoize.reasons import Reason
from server.child import headed
from webhook import reply, review
from webhook.admission import Admission, OfStep
from webhook.inject.containers import InjectSettings
from webhook.reply import ReviewAnswer
from webhook.review import AdmissionRequest, MalformedReviewError

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

    reply: ReviewAnswer
    event: tuple[Owner, str, Reason, str] | None


class Given(NamedTuple):
    """What a review comes with.

    `facts` are results by what was needed for them; `keeper` holds what the keeper says of itself, None while
    it is gone; and is None itself where every step is decided inside its Pod. `count_versions` is for
    Admission.
    """

    webhook: str
    validate: str
    settings: InjectSettings
    keeper: tuple[KeeperStatus | None] | None
    count_versions: bool
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
    """Where its result stands among the facts."""
    return need.what, need.args


def _decided(given: Given, question: AdmissionRequest) -> Decided:
    facts, events = _Facts(given.facts), _Events()
    keeper = given.keeper
    status = (lambda: keeper[0]) if keeper is not None else None
    admission = Admission(
        facts,
        events,
        given.validate,
        lambda: given.settings,
        status,
        facts,
        count_versions=given.count_versions,
    )
    decide = admission.workflow if given.webhook == "workflows" else admission.pod
    return Decided(_result(reply.of(given.webhook, question, decide)), events.told)


def _result(coroutine: Coroutine[Any, Any, ReviewAnswer]) -> ReviewAnswer:
    """What it returns; it never waits, since every fact is there or raises."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        made: ReviewAnswer = end.value
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

    async def of_step(self, owner: Owner) -> OfStep:
        found: OfStep = self._found("of_step", owner)
        return found

    async def deletes_artifacts(self, owner: Owner) -> bool | None:
        found: bool | None = self._found("deletes_artifacts", owner)
        return found

    async def versions(
        self, namespace: str, references: tuple[ObjectReference, ...]
    ) -> Mapping[ObjectReference, Version]:
        found: Mapping[ObjectReference, Version] = self._found("versions", namespace, references)
        return found

    def may_gate(self, namespace: str) -> bool:
        return bool(self._found("may_gate", namespace))

    def may_try(self, namespace: str) -> bool:
        return bool(self._found("may_try", namespace))


class _Events:
    """Keeps the Event that is to be written by the parent."""

    def __init__(self) -> None:
        self.told: tuple[Owner, str, Reason, str] | None = None

    def skipped(self, owner: Owner, node: str, reason: Reason, detail: str) -> None:
        self.told = owner, node, reason, detail
