"""The service's HTTP side for people: `/v1/people/…`, which `stepmemo` asks where entries are in a database.

Each is a POST, with its question in the body: a path or query would stand in the API server's audit log.

             question                        answer, beside "store"
    caches   {"after": "…"}                  {"items": [{"cache", "entries", "bytes"}], "after"}
    entries  {"cache": "…", "after": "…"}    {"items": [{"dataKey", "bytes", …}], "after"}
    entry    {"cache": "…", "dataKey": "…"}  {"entry": its text, null for none}
    remove   {"cache": "…", "dataKey": "…"}  {"removed": whether there was one}

`after` is "" for the first page, and that of the page before for the next; "" says that there is none.

They come through the API server's service proxy, which is asked as anything else of the API server is, and
takes the Authorization header for itself: it is not handed on (WithAuthentication in apiserver,
endpoints/filters/authentication.go). So the token has a header of its own. It names an account and no Pod:
who can make one may do all that a step of that account may, so he is shown that Namespace's caches.

Nobody's step waits for any of this. People have few turns, of each Namespace one; and who kept the event loop
busy lets it rest for much longer before the turn is over.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Any

from aiohttp import web
from kubernetes_asyncio.client import ApiClient

from argo.fields import FieldError, Kind
from keeper.api.auth import PeoplesTokens, Person
from keeper.api.errors import Refusal, unavailable
from keeper.api.in_flight import Bytes
from keeper.api.request import invalid, json_object
from keeper.api.routes import Routes
from keeper.slots import Slots
from keeper.store import NOT_NOW, EntryInfo, Store
from kube import cost
from memoize import names, spec
from memoize.entry import timestamp
from memoize.outcome import Outcome
from memoize.reasons import Reason
from server.logs import fields
from server.rate_limit import Limits

_log = logging.getLogger(__name__)

CACHES_PATH = "/v1/people/caches"
LIST_PATH = "/v1/people/entries"
SHOW_PATH = "/v1/people/entry"
REMOVE_PATH = "/v1/people/remove"

BODY_LIMIT = 4 << 10
"""Bytes of a body: two names, or a name and where a page ended."""
CACHES_OF_A_PAGE, ENTRIES_OF_A_PAGE = 50, 500
"""A ConfigMap has to be read for what it comes to; and 500 entries with data keys of 253 characters are some
200 KiB."""
RATE, BURST = 20.0, 200
"""Requests of one Namespace a second."""
REVIEW_RATE, REVIEW_BURST = 20.0, 200
"""Unknown tokens from one address a second: it is the API server's, for everybody who comes by it."""
AT_ONCE, AT_ONCE_OF_ONE = 4, 1
"""Requests that are worked on …"""
MOST, MOST_OF_ONE = 32, 8
"""… and with those that wait, beside the first of each Namespace: sidecars may want their connections."""
MOST_BYTES, MOST_BYTES_OF_ONE = 16 << 20, 8 << 20
"""Of bodies and answers: an entry of a megabyte is six as JSON in JSON, if it is made for that."""
SECONDS = 5.0
"""For an answer, its wait for others included."""
REST = 30.0
"""For how many times as long as it kept the event loop busy a request keeps its turn: people have an eighth
of the loop at most (AT_ONCE / REST), and those of one Namespace a thirtieth."""

Answer = Callable[[Person, Mapping[str, str]], Coroutine[Any, Any, Mapping[str, Any] | Refusal]]


class People:
    """Answers people of these Namespaces, of all where none is named. `kept_in` names the store to them.

    `on_request` is told route and status of each request, for the metrics.
    """

    def __init__(
        self,
        api: ApiClient,
        store: Store,
        kept_in: str,
        on_request: Callable[[str, int], None] = lambda route, status: None,
        *,
        namespaces: Collection[str] = (),
        limits: Limits | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._store, self._kept_in, self._namespaces = store, kept_in, frozenset(namespaces)
        self._tokens, self._reviews = PeoplesTokens(api), Limits(REVIEW_RATE, REVIEW_BURST)
        self._limits, self._sleep = limits or Limits(RATE, BURST), sleep
        self._slots, self._under_way = Slots(AT_ONCE, AT_ONCE_OF_ONE), 0
        self._in_flight = Bytes(MOST_BYTES, MOST_BYTES_OF_ONE)
        self._routes = Routes(self._caller, self._claim, self._in_flight, BODY_LIMIT, on_request)

    @property
    def held(self) -> int:
        """Bytes of bodies and answers, for the metrics."""
        return self._in_flight.held

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        for path, known, answer in (
            (CACHES_PATH, ("after",), self._caches),
            (LIST_PATH, ("cache", "after"), self._list),
            (SHOW_PATH, ("cache", "dataKey"), self._show),
            (REMOVE_PATH, ("cache", "dataKey"), self._remove),
        ):
            name = f"people-{path.rpartition('/')[2]}"
            app.router.add_post(path, self._routes.route(name, self._reading(known, answer)))

    # --- What is asked --------------------------------------------------------------------------------

    async def _caches(self, person: Person, asked: Mapping[str, str]) -> Mapping[str, Any] | Refusal:
        page = await self._store.caches(person.namespace, asked["after"], CACHES_OF_A_PAGE)
        if isinstance(page, Outcome):
            return _refusal(page)
        items = [{"cache": one.cache, "entries": one.entries, "bytes": one.bytes} for one in page.items]
        return {"items": items, "after": page.after}

    async def _list(self, person: Person, asked: Mapping[str, str]) -> Mapping[str, Any] | Refusal:
        page = await self._store.entries(person.namespace, asked["cache"], asked["after"], ENTRIES_OF_A_PAGE)
        if isinstance(page, Outcome):
            return _refusal(page)
        return {"items": list(map(_item, page.items)), "after": page.after}

    async def _show(self, person: Person, asked: Mapping[str, str]) -> Mapping[str, Any] | Refusal:
        text = await self._store.read(person.namespace, asked["cache"], asked["dataKey"])
        return _refusal(text) if isinstance(text, Outcome) else {"entry": text or None}

    async def _remove(self, person: Person, asked: Mapping[str, str]) -> Mapping[str, Any] | Refusal:
        removed = await self._store.delete(person.namespace, asked["cache"], asked["dataKey"])
        if isinstance(removed, Outcome):
            return _refusal(removed)
        if removed:
            _log.info("an entry was removed", extra=fields(cache=asked["cache"], **person.told))
        return {"removed": removed}

    # --- Who asks, and when it is his turn ------------------------------------------------------------

    async def _caller(self, request: web.Request) -> Person | Refusal:
        token = request.headers.get(names.PEOPLES_TOKEN, "")
        if not token:
            return Refusal(HTTPStatus.UNAUTHORIZED, f"no token in the header {names.PEOPLES_TOKEN}")
        known = self._tokens.known(token)
        if known is None and (wait := self._reviews.take(request.remote or "")):
            return Refusal(HTTPStatus.TOO_MANY_REQUESTS, "too many tokens from this address", (), wait)
        return known or await self._tokens.caller(token)

    async def _claim(self, person: Person) -> Person | Refusal:
        if self._namespaces and person.namespace not in self._namespaces:
            return Refusal(HTTPStatus.FORBIDDEN, "the caches of this Namespace are not kept")
        if wait := self._limits.take(person.namespace):
            return Refusal(HTTPStatus.TOO_MANY_REQUESTS, "too many requests of this namespace", (), wait)
        return person

    def _reading(
        self, known: Collection[str], answer: Answer
    ) -> Callable[[Person, bytes], Awaitable[bytes | Refusal]]:
        """The answer to a body with these fields."""

        async def answered(person: Person, content: bytes) -> bytes | Refusal:
            asked = _asked(content, known)
            return asked if isinstance(asked, Refusal) else await self._in_turn(person, answer, asked)

        return answered

    async def _in_turn(self, person: Person, answer: Answer, asked: Mapping[str, str]) -> bytes | Refusal:
        users = self._slots.users(person.namespace)
        if users >= MOST_OF_ONE or (users and self._under_way >= MOST):
            said = "too many requests of people are under way"
            return Refusal(HTTPStatus.TOO_MANY_REQUESTS, said, (), 1)

        async def work() -> bytes | Refusal:
            found = await answer(person, asked)
            if isinstance(found, Refusal):
                return found
            return json.dumps({"store": self._kept_in, **found}).encode()

        self._under_way += 1
        try:
            async with asyncio.timeout(SECONDS) as limit, self._slots.take(person.namespace):
                spent = cost.Cost()
                result = await cost.metered(spent, work())
                limit.reschedule(None)
                await self._sleep(spent.seconds * REST)
                return result
        except TimeoutError:
            return unavailable(f"no answer within {SECONDS:.0f}s", Reason.UNDECIDED)
        finally:
            self._under_way -= 1


def _asked(content: bytes, known: Collection[str]) -> Mapping[str, str] | Refusal:
    """The fields of a body, `after` "" where it is left out."""
    found = json_object(content, known)
    if isinstance(found, Refusal):
        return found
    found = {"after": "", **found}
    errors = [
        FieldError(name, Kind.TYPE_INVALID if name in found else Kind.REQUIRED, "must be a string")
        for name in known
        if not isinstance(found.get(name), str)
    ]
    if not errors and "cache" in known and not spec.is_dns1123_subdomain(found["cache"]):
        errors.append(FieldError("cache", Kind.INVALID, "no cache can have this name"))
    return invalid(*errors) if errors else found


def _item(info: EntryInfo) -> Mapping[str, Any]:
    return {
        "dataKey": info.data_key,
        "bytes": info.bytes,
        "created": _time(info.created),
        "lastHit": _time(info.last_hit),
        "expires": _time(info.expires),
    }


def _time(time: datetime | None) -> str | None:
    return timestamp(time) if time else None


def _refusal(outcome: Outcome) -> Refusal:
    """What is told of a store that does not answer, or of a ConfigMap that is no cache."""
    if outcome.reason is Reason.RATE_LIMITED:
        return Refusal(HTTPStatus.TOO_MANY_REQUESTS, outcome.detail, (), 1)
    if outcome.reason in NOT_NOW:
        return unavailable(outcome.detail, outcome.reason)
    return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, outcome.detail, reason=outcome.reason)
