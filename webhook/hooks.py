"""The webhooks' routes, and everything that is said about an outcome."""

import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

import jsonpatch
from aiohttp import web

from memoize.reasons import Reason
from server.bodies import Bodies
from server.listener import Listener
from server.logs import fields
from server.metrics import Metrics
from server.refusals import Refusal, Refusals, RefusedError
from webhook import review
from webhook.admission import Outcome
from webhook.review import MalformedReviewError, Request
from webhook.under_way import UnderWay

_log = logging.getLogger(__name__)

WORKFLOWS_PATH = "/mutate/workflows"
PODS_PATH = "/mutate/pods"

PODS_SHARE = 0.75
"""Of what the program takes at once, for Pods: a Pod that passes unseen runs its step, but a Workflow keeps
its memoize blocks, and Argo's own memoization runs."""
LONGEST_PROBLEM = 256
"""Characters of what is wrong with a body: it may repeat what the caller sent."""

_OPERATIONS = jsonpatch.JsonPatch.operations

Decide = Callable[[Request], Awaitable[Outcome]]
"""One webhook's decision; whatever it raises is a bug, answered with a 500."""


class Hooks:
    """The two webhooks' routes, on a listener of which they use the bounds."""

    def __init__(self, workflows: Decide, pods: Decide, metrics: Metrics, listener: Listener) -> None:
        self._metrics = metrics
        self._bodies: Bodies = listener.bodies
        self._refusals: Refusals = listener.refusals
        self._under_way = UnderWay()
        router = listener.app.router
        router.add_post(WORKFLOWS_PATH, self._hook("workflows", workflows, 1.0))
        router.add_post(PODS_PATH, self._hook("pods", pods, PODS_SHARE))

    def _hook(
        self, webhook: str, decide: Decide, share: float
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def timed(request: web.Request) -> web.Response:
            began, status = time.perf_counter(), 500
            try:
                response = await self._answer(webhook, decide, share, request)
                status = response.status
            except RefusedError as refused:
                status = refused.status
                self._refusals.tell(refused.refusal, request.remote or "", refused)
                return web.Response(status=status, text=f"{refused}\n")
            finally:
                self._metrics.answered(webhook, status, time.perf_counter() - began)
            return response

        return timed

    async def _answer(self, webhook: str, decide: Decide, share: float, request: web.Request) -> web.Response:
        async with self._bodies.received(request, share) as body:
            try:
                question = review.parse(body)
            except MalformedReviewError as error:
                raise RefusedError(Refusal.MALFORMED, 400, str(error)[:LONGEST_PROBLEM]) from None
            with self._under_way.one(question.namespace, request.remote or "", share):
                return await self._decided(webhook, decide, question)

    async def _decided(self, webhook: str, decide: Decide, question: Request) -> web.Response:
        try:
            outcome = await decide(question)
            answer = _answered(question, outcome)
        except Exception:
            # Not a denial: a 500 leaves it to failurePolicy, which lets the object through unchanged.
            self._metrics.decided(webhook, Reason.INTERNAL_ERROR)
            _log.exception("cannot decide", extra=_told(webhook, question, Outcome(Reason.INTERNAL_ERROR)))
            return web.Response(status=500, text="a bug of stepmemo's; its log has the traceback\n")
        self._metrics.decided(webhook, outcome.reason)
        _log.info("decided", extra=_told(webhook, question, outcome))
        return web.Response(body=json.dumps(answer).encode(), content_type="application/json")


def _answered(question: Request, outcome: Outcome) -> Mapping[str, object]:
    if outcome.errors:
        return review.denied(question, outcome.reason, outcome.errors, outcome.warnings)
    answer = review.allowed(question, outcome.reason, outcome.warnings, outcome.ops)
    if outcome.ops:
        # A patch that does not apply fails the request whatever failurePolicy says (k8s.io/apiserver,
        # plugin/webhook/mutating/dispatcher.go): better found out here, as a bug of ours. Only places can be
        # wrong, and none lies inside another's value, so values are left out: jsonpatch would copy them.
        # Nobody reads the object after this.
        for op in outcome.ops:
            _OPERATIONS[op["op"]]({**op, "value": None}).apply(question.object)
    return answer


def _told(webhook: str, question: Request, outcome: Outcome) -> dict[str, object]:
    """What a decision's log line says. Of an error only the place: its message repeats the value."""
    return fields(
        webhook=webhook,
        reason=outcome.reason.value,
        kind=question.kind,
        namespace=question.namespace,
        workflow=outcome.workflow or question.shown_name,
        node=outcome.node,
        detail=outcome.detail,
        errors=", ".join(f"{error.field} {error.kind.value}" for error in outcome.errors),
        dryRun="true" if question.dry_run else None,
        uid=question.uid,
    )
