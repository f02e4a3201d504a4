"""The webhooks' routes, and everything that is said about an outcome."""

import logging
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from memoize.reasons import Reason
from server.logs import fields
from server.metrics import Metrics
from webhook import reply, review
from webhook.admission import Outcome
from webhook.big_reviews import BigReviews, ShedError, is_big
from webhook.reply import Decide
from webhook.review import MalformedReviewError, Request

_log = logging.getLogger(__name__)

WORKFLOWS_PATH = "/mutate/workflows"
PODS_PATH = "/mutate/pods"


class Hooks:
    """The two webhooks' routes. What is big goes to `big`, where there is one."""

    def __init__(
        self, workflows: Decide, pods: Decide, metrics: Metrics, big: BigReviews | None = None
    ) -> None:
        self._workflows, self._pods, self._metrics, self._big = workflows, pods, metrics, big

    def add_to(self, app: web.Application) -> None:
        """Serve them."""
        app.router.add_post(WORKFLOWS_PATH, self._hook("workflows", self._workflows))
        app.router.add_post(PODS_PATH, self._hook("pods", self._pods))

    def _hook(self, webhook: str, decide: Decide) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def timed(request: web.Request) -> web.Response:
            began, status = time.perf_counter(), 500
            try:
                response = await self._answer(webhook, decide, request)
                status = response.status
            except web.HTTPException as refusal:
                status = refusal.status
                raise
            finally:
                self._metrics.answered(webhook, status, time.perf_counter() - began)
            return response

        return timed

    async def _answer(self, webhook: str, decide: Decide, request: web.Request) -> web.Response:
        body = await request.read()
        question: Request | None = None
        try:
            if self._big is not None and is_big(body):
                made = await self._big.reply(webhook, body)
            else:
                question = review.parse(body)
                made = await reply.of(webhook, question, decide)
        except MalformedReviewError as error:
            _log.warning("malformed review", extra=fields(webhook=webhook, error=error))
            return web.Response(status=400, text=f"{error}\n")
        except ShedError as shed:
            # No Retry-After: the API server's client would wait for so long, and ask again.
            self._metrics.decided(webhook, shed.reason)
            told = fields(webhook=webhook, reason=shed.reason.value, detail=shed.detail, bytes=len(body))
            _log.warning("not decided", extra=told)
            return web.Response(status=503, text=f"{shed.detail}\n")
        except Exception:
            # Not a denial: a 500 leaves it to failurePolicy, which lets the object through unchanged.
            self._metrics.decided(webhook, Reason.INTERNAL_ERROR)
            broken = Outcome(Reason.INTERNAL_ERROR)
            extra = reply.told(webhook, question, broken) if question else fields(webhook=webhook)
            _log.exception("cannot decide", extra=extra)
            return web.Response(status=500, text="a bug of stepmemo's; its log has the traceback\n")
        self._metrics.decided(webhook, made.reason)
        _log.info("decided", extra=made.told)
        return web.Response(body=made.body, content_type="application/json")
