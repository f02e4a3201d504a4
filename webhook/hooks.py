"""The webhooks' routes, and everything that is said about an outcome."""

import logging
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from memoize.reasons import Reason
from server.bodies import Bodies
from server.listener import Listener
from server.logs import fields
from server.metrics import Metrics
from server.outcomes import ORDINARY
from server.refusals import Refusal, Refusals, RefusedError
from webhook import reply, review
from webhook.admission import AdmissionOutcome
from webhook.big_reviews import BigReviews, ShedError, is_big
from webhook.reply import Decide
from webhook.review import AdmissionRequest, MalformedReviewError
from webhook.under_way import UnderWay

_log = logging.getLogger(__name__)

WORKFLOWS_PATH = "/mutate/workflows"
PODS_PATH = "/mutate/pods"

PODS_SHARE = 0.75
"""Of what the program takes at once, for Pods: a Pod that passes unseen runs its step, but a Workflow keeps
its memoize blocks, and Argo's own memoization runs."""
LONGEST_PROBLEM = 256
"""Characters of what is wrong with a body: it may repeat what the caller sent."""


class Hooks:
    """The two webhooks' routes on a listener, within bounds. What is big goes to `big`."""

    def __init__(
        self,
        workflows: Decide,
        pods: Decide,
        metrics: Metrics,
        listener: Listener,
        big: BigReviews | None = None,
    ) -> None:
        self._metrics, self._big = metrics, big
        self._bodies = Bodies()
        metrics.show_body_bytes(lambda: self._bodies.held)
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
        question: AdmissionRequest | None = None
        async with self._bodies.received(request, share) as body:
            try:
                if self._big is not None and is_big(body):
                    made = await self._big.reply(webhook, body, request.remote or "")
                else:
                    question = review.parse(body)
                    with self._under_way.one(question.namespace, request.remote or "", share):
                        made = await reply.of(webhook, question, decide)
            except MalformedReviewError as error:
                raise RefusedError(Refusal.MALFORMED, 400, str(error)[:LONGEST_PROBLEM]) from None
            except RefusedError:
                raise
            except ShedError as shed:
                # No Retry-After: the API server's client would wait for so long, and ask again.
                self._metrics.decided(webhook, shed.reason)
                told = fields(webhook=webhook, reason=shed.reason.value, detail=shed.detail, bytes=len(body))
                _log.warning("not decided", extra=told)
                return web.Response(status=503, text=f"{shed.detail}\n")
            except Exception:
                # Not a denial: a 500 leaves it to failurePolicy, which lets the object through unchanged.
                self._metrics.decided(webhook, Reason.INTERNAL_ERROR)
                broken = AdmissionOutcome(Reason.INTERNAL_ERROR)
                extra = reply.told(webhook, question, broken) if question else fields(webhook=webhook)
                _log.exception("cannot decide", extra=extra)
                return web.Response(status=500, text="a bug of stepmemo's; its log has the traceback\n")
        self._metrics.decided(webhook, made.reason)
        level = logging.DEBUG if made.reason in ORDINARY else logging.INFO
        _log.log(level, "decided", extra=made.told)
        return web.Response(body=made.body, content_type="application/json")
