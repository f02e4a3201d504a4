"""The service's HTTP side for steps: `/v1/lookup` and `/v1/entries`, for the containers of ours in a Pod.

A request names neither cache nor key: the token names the Pod, and the Pod names both. So nobody reaches
more than the one entry that his step is about.
"""

import asyncio
import pickle
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from http import HTTPStatus

from aiohttp import web
from kubernetes_asyncio.client import ApiClient

from keeper.api import claim as pod
from keeper.api import request as body
from keeper.api.auth import Caller, Tokens
from keeper.api.errors import ErrorAnswer, unavailable
from keeper.api.in_flight import Bytes, Turns
from keeper.api.request import Claim
from keeper.api.routes import Json, Routes
from keeper.artifacts.verifier import LONG as LONG_FOR_ETAGS
from keeper.artifacts.verifier import NOT_KNOWN_YET, Verifier
from keeper.store import Store
from memoize.entry import Entry
from memoize.outcome import Outcome
from memoize.reasons import Reason
from server.child import Child, EndedError, FullError, KilledError, LateError, with_head
from server.rate_limit import RateLimits

LOOKUP_PATH = "/v1/lookup"
ENTRIES_PATH = "/v1/entries"
BODY_LIMIT = 3 << 20
"""Bytes of a body: an entry of a megabyte whose JSON doubled as it was quoted, and some."""
TURN_SECONDS = 2.0
"""For a Pod to be read, its wait for others included."""
VERIFY_SECONDS = 0.4
"""For the artifacts of an entry: a sidecar waits 0.8 s for all of its answer (0.4 of --check-timeout, 2s)."""
RATE, BURST = 100.0, 500
"""Requests of one namespace: every step inside it makes two at most."""
REVIEW_RATE, REVIEW_BURST = 50.0, 500
"""Unknown tokens from one address: every Pod has an address and a token of its own."""

_LONG = 64 << 10
"""Bytes of a body from which on it is read in a child process: the event loop decides gated Pods, too."""
_BEARER = "Bearer "


class CacheService:
    """Answers sidecars of these Namespaces, of all where none is named.

    `on_request` is told route and status of each request, for the metrics.
    """

    def __init__(
        self,
        api: ApiClient,
        store: Store,
        on_request: Callable[[str, int], None] = lambda route, status: None,
        *,
        namespaces: Collection[str] = (),
        tokens: Tokens | None = None,
        limits: RateLimits | None = None,
        in_flight: Bytes | None = None,
        verifier: Verifier | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api, self._store, self._now, self._verifier = api, store, now, verifier
        self._tokens = tokens or Tokens(api)
        self._limits = limits or RateLimits(RATE, BURST)
        self._reviews = RateLimits(REVIEW_RATE, REVIEW_BURST)
        self._namespaces = frozenset(namespaces)
        self._reads = Turns()
        self._child = Child(body.__name__)
        self._routes = Routes(self._caller, self._claim, in_flight or Bytes(), BODY_LIMIT, on_request)

    async def close(self) -> None:
        """End the process that reads large entries."""
        await self._child.close()

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        app.router.add_post(LOOKUP_PATH, self._routes.route("lookup", self._lookup))
        app.router.add_post(ENTRIES_PATH, self._routes.route("entries", self._put))

    async def _lookup(self, claim: Claim, content: bytes) -> Json | ErrorAnswer:
        if not claim.looks_up:
            return ErrorAnswer(HTTPStatus.FORBIDDEN, "the Pod was not to be answered")
        if refusal := body.lookup(content, claim):
            return refusal
        text = await self._store.read(claim.namespace, claim.memo.cache, claim.data_key)
        if isinstance(text, Outcome):
            if text.reason is Reason.API_UNAVAILABLE:
                return unavailable(text.detail)
            return _missed(text)
        if text and (miss := await self._verified(claim, text)):
            return _missed(miss)
        if text:
            self._store.hit(claim.namespace, claim.memo.cache, claim.data_key, text)
        return {"entry": text or None}

    async def _verified(self, claim: Claim, text: str) -> Outcome | None:
        """Why the entry must not be served, for its artifacts; who waits in a Pod is not kept waiting."""
        if self._verifier is None:
            return None
        namespace, place = claim.namespace, (claim.memo.cache, claim.data_key)
        miss = await self._verifier.verify(namespace, *place, text, VERIFY_SECONDS)
        if miss is NOT_KNOWN_YET:
            self._verifier.served_unseen(namespace)
            return None
        return miss

    async def _put(self, claim: Claim, content: bytes) -> Json | ErrorAnswer:
        if not claim.stores:
            return ErrorAnswer(HTTPStatus.FORBIDDEN, "the Pod was not to be stored")
        now = self._now()
        if len(content) > _LONG:
            text = await self._read_entry(claim, content, now)
        else:
            text = body.entry(content, claim, now)
        if isinstance(text, ErrorAnswer):
            return text
        if self._verifier is not None and len(text) < LONG_FOR_ETAGS:
            text = (await self._verifier.with_etags(claim.namespace, Entry.parse(text))).dump()
        reason, detail = await self._store.put(claim.namespace, claim.memo.cache, claim.data_key, text, now)
        if reason is Reason.RATE_LIMITED:
            return ErrorAnswer(HTTPStatus.TOO_MANY_REQUESTS, detail, retry_after=1)
        return {"reason": reason.value, "detail": detail}

    async def _read_entry(self, claim: Claim, content: bytes, now: datetime) -> str | ErrorAnswer:
        """The entry in a long body, read where nobody waits for it."""
        head = with_head((claim, now))
        try:
            answer = await self._child.call(body.IN_CHILD_FUNCTION, head, content, share=claim.namespace)
        except FullError:
            return unavailable("too many large entries are being read")
        except (EndedError, LateError):
            return unavailable("large entries cannot be read now")
        except KilledError as error:
            return ErrorAnswer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the entry {error}")
        found: str | ErrorAnswer = pickle.loads(answer)
        return found

    @asynccontextmanager
    async def _claim(self, caller: Caller) -> AsyncIterator[Claim | ErrorAnswer]:
        yield await self._claimed(caller)

    async def _claimed(self, caller: Caller) -> Claim | ErrorAnswer:
        """What the caller may have."""
        if self._namespaces and caller.namespace not in self._namespaces:
            return ErrorAnswer(HTTPStatus.FORBIDDEN, "the caches of this Namespace are not kept")
        if wait := self._limits.take(caller.namespace):
            return ErrorAnswer(HTTPStatus.TOO_MANY_REQUESTS, "too many requests of this namespace", (), wait)
        try:
            async with asyncio.timeout(TURN_SECONDS), self._reads.of(caller.namespace):
                return await pod.read(self._api, caller)
        except TimeoutError:
            return unavailable("too many Pods are being read")

    async def _caller(self, request: web.Request) -> Caller | ErrorAnswer:
        authorization = request.headers.get("Authorization", "")
        if not authorization.startswith(_BEARER):
            return ErrorAnswer(HTTPStatus.UNAUTHORIZED, "no bearer token")
        token = authorization.removeprefix(_BEARER)
        known = self._tokens.known(token)
        if known is None and (wait := self._reviews.take(request.remote or "")):
            return ErrorAnswer(HTTPStatus.TOO_MANY_REQUESTS, "too many tokens from this address", (), wait)
        return known or await self._tokens.caller(token)


def _missed(outcome: Outcome) -> Json:
    """The answer where no entry is served, and why."""
    return {"entry": None, "reason": outcome.reason.value, "detail": outcome.detail}
