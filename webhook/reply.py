"""From a review's outcome to the bytes of the answer and the fields of its log line."""

import json
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from argo.fields import cut
from kube import jsonpatch
from memoize.reasons import Reason
from server.logs import fields
from webhook import review
from webhook.admission import AdmissionOutcome
from webhook.review import AdmissionRequest

Decide = Callable[[AdmissionRequest], Coroutine[Any, Any, AdmissionOutcome]]
"""One webhook's decision; whatever it raises is a bug, answered with a 500."""

_LOGGED = 512
"""Characters of a value in a log line: most are the caller's."""


class ReviewAnswer(NamedTuple):
    """The answer, and the log line."""

    reason: Reason
    body: bytes
    told: dict[str, object]
    """The `extra` of the log line."""


async def of(webhook: str, question: AdmissionRequest, decide: Decide) -> ReviewAnswer:
    """What there is to reply. It changes the question's object, which nobody reads after this.

    Whatever it raises is a bug: a patch that does not apply, for instance.
    """
    try:
        outcome = await decide(question)
    except RecursionError:
        outcome = AdmissionOutcome(Reason.BEYOND_BUDGET, "too many objects in each other")
    body = json.dumps(_answered(question, outcome)).encode()
    return ReviewAnswer(outcome.reason, body, told(webhook, question, outcome))


def told(webhook: str, question: AdmissionRequest, outcome: AdmissionOutcome) -> dict[str, object]:
    """What a decision's log line says. Of an error only the place: its message repeats the value."""
    return fields(
        webhook=webhook,
        reason=outcome.reason.value,
        kind=cut(question.kind, _LOGGED),
        namespace=cut(question.namespace, _LOGGED),
        workflow=cut(outcome.workflow or question.shown_name, _LOGGED),
        node=cut(outcome.node, _LOGGED),
        detail=cut(outcome.detail, _LOGGED),
        errors=", ".join(f"{cut(error.field)} {error.kind.value}" for error in outcome.errors),
        moreErrors=outcome.more_errors or None,
        dryRun="true" if question.dry_run else None,
        uid=question.uid,
    )


def _answered(question: AdmissionRequest, outcome: AdmissionOutcome) -> dict[str, object]:
    if outcome.errors:
        errors, more = outcome.errors, outcome.more_errors
        return review.denied(question, outcome.reason, errors, outcome.warnings, more)
    answer = review.allowed(question, outcome.reason, outcome.warnings, outcome.ops)
    # A patch that does not apply fails the request whatever failurePolicy says (k8s.io/apiserver,
    # plugin/webhook/mutating/dispatcher.go): better found out here, as a bug of ours.
    for op in outcome.ops:
        jsonpatch.apply(question.object, op)
    return answer
