"""The HTTP side: routes, limits, and everything that is said about an outcome."""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from ssl import SSLContext

import jsonpatch
from aiohttp import web

from memoize.reasons import Reason
from server.logs import fields
from server.metrics import CONTENT_TYPE, Metrics
from webhook import review
from webhook.admission import Outcome
from webhook.review import MalformedReviewError, Request

_log = logging.getLogger(__name__)

WORKFLOWS_PATH = "/mutate/workflows"
PODS_PATH = "/mutate/pods"
HEALTH_PATH = "/healthz"
READY_PATH = "/readyz"
METRICS_PATH = "/metrics"
BODY_LIMIT = 7 * 1024 * 1024
"""Bytes of a review: on an UPDATE it holds the object twice, and the API server takes one of 3 MiB."""
CLOSING_SECONDS = 10.0
"""How long requests in flight may take after the socket is closed; twice the webhooks' time-out."""

_OPERATIONS = jsonpatch.JsonPatch.operations

Decide = Callable[[Request], Awaitable[Outcome]]
"""One webhook's decision; whatever it raises is a bug, answered with a 500."""


class Server:
    """Serves the two webhooks, the probes and the metrics, and what `add_routes` adds to them.

    `problem` is empty once reviews can arrive; `notice` is what an admin should know besides.
    """

    def __init__(
        self,
        workflows: Decide,
        pods: Decide,
        metrics: Metrics,
        problem: Callable[[], str],
        add_routes: Callable[[web.Application], None] = lambda _: None,
        notice: Callable[[], str] = str,
    ) -> None:
        self._metrics, self._problem, self._notice = metrics, problem, notice
        self._draining = False
        self.app = web.Application(client_max_size=BODY_LIMIT)
        self.app.router.add_post(WORKFLOWS_PATH, self._hook("workflows", workflows))
        self.app.router.add_post(PODS_PATH, self._hook("pods", pods))
        self.app.router.add_get(HEALTH_PATH, self._healthz)
        self.app.router.add_get(READY_PATH, self._readyz)
        self.app.router.add_get(METRICS_PATH, self._show_metrics)
        add_routes(self.app)

    async def run(
        self,
        host: str,
        port: int,
        context: SSLContext,
        stop: asyncio.Event,
        stop_now: asyncio.Event,
        delay: float,
    ) -> None:
        """Serve until `stop`, then unready for `delay` seconds more or until `stop_now`; OSError: no socket.

        The delay is for the clients that still think we are an endpoint of the Service; requests in flight
        are finished after it.
        """
        runner = web.AppRunner(self.app, access_log=None, shutdown_timeout=CLOSING_SECONDS)
        await runner.setup()
        try:
            await web.TCPSite(runner, host or None, port, ssl_context=context).start()
            for address in runner.addresses:
                _log.info("listening", extra=fields(host=address[0], port=address[1]))
            await stop.wait()
            self._draining = True
            _log.info("shutting down", extra=fields(seconds=delay))
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await stop_now.wait()
        finally:
            await runner.cleanup()

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
        try:
            question = review.parse(body)
        except MalformedReviewError as error:
            _log.warning("malformed review", extra=fields(webhook=webhook, error=error))
            return web.Response(status=400, text=f"{error}\n")
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

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        problem = "shutting down" if self._draining else self._problem()
        lines = [problem or "ok", self._notice()]
        text = "".join(f"{line}\n" for line in lines if line)
        return web.Response(status=503 if problem else 200, text=text)

    async def _show_metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE})


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
