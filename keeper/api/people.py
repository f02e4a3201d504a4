"""The service's HTTP side for people: `/v1/people/…`, which `stepmemo` asks where entries are in a database.

Each is a POST, with its question in the body: a path or query would stand in the API server's audit log.

             question                        answer, beside "store"
    caches   {"after": "…"}                  {"items": [{"cache", "entries", "bytes"}], "after"}
    entries  {"cache": "…", "after": "…"}    {"items": [{"dataKey", "bytes", …}], "after"}
    entry    {"cache": "…", "dataKey": "…"}  {"entry": its text, null for none}
    earlier  {"cache", "template", …}        {"dataKey": of the entry, null for none; "entry": its text}
    remove   {"cache": "…", "dataKey": "…"}  {"removed": whether there was one}

`earlier` finds what a step is compared with (memoize.earlier): `dataKey` is the step's own, and `before` when
its Pod was created, RFC 3339, "" where that is not known.

`after` is "" for the first page, and that of the page before for the next; "" says that there is none.

They come through the API server's service proxy, which is asked as anything else of the API server is, and
takes the Authorization header for itself: it is not handed on (WithAuthentication in apiserver,
endpoints/filters/authentication.go). So the token has a header of its own. It names an account and no Pod:
who can make one may do all that a step of that account may, so he is shown that Namespace's caches.

What a step finds is shown, whatever it is; what is no entry is not removed.

Nobody's step waits for any of this. People have few turns, of each Namespace one, which last until the answer
is taken; and who kept the event loop busy lets it rest for much longer before the next has the turn.
"""

import asyncio
import json
import logging
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, NamedTuple

from aiohttp import web
from kubernetes_asyncio.client import ApiClient

from argo.fields import FieldError, Kind
from keeper.api.auth import PeoplesTokens, Person
from keeper.api.errors import ErrorAnswer, unavailable
from keeper.api.in_flight import Bytes
from keeper.api.request import invalid, json_object
from keeper.api.routes import Routes
from keeper.slots import Slots
from keeper.store import NOT_NOW, EntryInfo, Store
from kube import cost
from memoize import names, spec
from memoize.entry import BrokenEntry, Entry, timestamp
from memoize.outcome import Outcome
from memoize.reasons import Reason
from server.logs import fields
from server.rate_limit import FairLimit, RateLimits

_log = logging.getLogger(__name__)

CACHES_PATH = "/v1/people/caches"
LIST_PATH = "/v1/people/entries"
SHOW_PATH = "/v1/people/entry"
EARLIER_PATH = "/v1/people/earlier"
REMOVE_PATH = "/v1/people/remove"

BODY_LIMIT = 4 << 10
"""Bytes of a body: two names, or a name and where a page ended."""
CACHES_OF_A_PAGE, ENTRIES_OF_A_PAGE = 50, 500
"""A ConfigMap has to be read for what it comes to; and 500 entries with data keys of 253 characters, of
templates with names of 128, are some 300 KiB."""
RATE, BURST = 20.0, 200
"""Requests of one Namespace a second."""
REVIEW_RATE, REVIEW_BURST = 20.0, 200
"""Unknown tokens from one address a second; where it is the API server's, those who come by it share them."""
ADDRESSES, CLIENTS = 200, 1_000
"""Addresses of which that is remembered, and of each the clients who share it."""
AT_ONCE, AT_ONCE_OF_ONE = 4, 1
"""Requests that are worked on …"""
MOST, MOST_OF_ONE = 32, 8
"""… and with those that wait, beside the first of each Namespace: sidecars may want their connections."""
MOST_BYTES, MOST_BYTES_OF_ONE = 32 << 20, 8 << 20
"""Of bodies and answers: an entry of a megabyte is six as JSON in JSON, if it is made for that. So there is
room for the answers of all turns, and who takes his slowly has only his turn."""
SECONDS = 5.0
"""For an answer, its wait for others included …"""
SEND_SECONDS = 2.0
"""… and for it to be taken, which others may be waiting for."""
REST, LONGEST_REST = 30.0, 3.0
"""For how many times as long as it kept the event loop busy a request keeps its turn, but for so many seconds
at most, in which others still wait: people have an eighth of the loop at most (AT_ONCE / REST), and those of
one Namespace a thirtieth, while no answer takes more than a tenth of a second of it."""
LONG = 64 << 10
"""Characters of a text from which on it is read with less care whether it is an entry."""

_FORWARDED_FOR = "X-Forwarded-For"
_ADDRESS = 64
"""Characters of a client's address."""

Answer = Callable[[Person, Mapping[str, str]], Coroutine[Any, Any, Mapping[str, Any] | ErrorAnswer]]


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
        limits: RateLimits | None = None,
        sleep: Callable[[float], Coroutine[Any, Any, object]] = asyncio.sleep,
    ) -> None:
        self._store, self._kept_in, self._namespaces = store, kept_in, frozenset(namespaces)
        self._tokens, self._reviews = PeoplesTokens(api), OrderedDict[str, FairLimit]()
        self._limits, self._sleep = limits or RateLimits(RATE, BURST), sleep
        self._slots, self._under_way = Slots(AT_ONCE, AT_ONCE_OF_ONE), Counter[str]()
        self._rests: set[asyncio.Task[None]] = set()
        self.in_flight = Bytes(MOST_BYTES, MOST_BYTES_OF_ONE)
        self._routes = Routes(
            self._caller,
            self._claim,
            self.in_flight,
            BODY_LIMIT,
            on_request,
            level=logging.INFO,
            send_seconds=SEND_SECONDS,
        )

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        for path, known, answer in (
            (CACHES_PATH, ("after",), self._caches),
            (LIST_PATH, ("cache", "after"), self._list),
            (SHOW_PATH, ("cache", "dataKey"), self._show),
            (EARLIER_PATH, ("cache", "template", "dataKey", "before"), self._earlier),
            (REMOVE_PATH, ("cache", "dataKey"), self._remove),
        ):
            name = f"people-{path.rpartition('/')[2]}"
            app.router.add_post(path, self._routes.route(name, self._reading(known, answer)))

    # --- What is asked --------------------------------------------------------------------------------

    async def _caches(self, person: Person, asked: Mapping[str, str]) -> Mapping[str, Any] | ErrorAnswer:
        page = await self._store.caches(person.namespace, asked["after"], CACHES_OF_A_PAGE)
        if isinstance(page, Outcome):
            return _refusal(page)
        items = [{"cache": one.cache, "entries": one.entries, "bytes": one.bytes} for one in page.items]
        return {"items": items, "after": page.after}

    async def _list(self, person: Person, asked: Mapping[str, str]) -> Mapping[str, Any] | ErrorAnswer:
        page = await self._store.entries(person.namespace, asked["cache"], asked["after"], ENTRIES_OF_A_PAGE)
        if isinstance(page, Outcome):
            return _refusal(page)
        return {"items": list(map(_item, page.items)), "after": page.after}

    async def _show(self, person: Person, asked: Mapping[str, str]) -> Mapping[str, Any] | ErrorAnswer:
        text = await self._store.read(person.namespace, asked["cache"], asked["dataKey"])
        return _refusal(text) if isinstance(text, Outcome) else {"entry": text or None}

    async def _earlier(self, person: Person, asked: Mapping[str, str]) -> Mapping[str, Any] | ErrorAnswer:
        try:
            before = datetime.fromisoformat(asked["before"]).astimezone(UTC) if asked["before"] else None
        except (ValueError, OverflowError):
            return invalid(FieldError("before", Kind.INVALID, "must be a time, as 2026-01-31T12:00:00Z"))
        found = await self._store.earlier(
            person.namespace, asked["cache"], asked["template"], asked["dataKey"], before
        )
        if isinstance(found, Outcome):
            return _refusal(found)
        return {"dataKey": found.data_key, "entry": found.text} if found else {"dataKey": None, "entry": None}

    async def _remove(self, person: Person, asked: Mapping[str, str]) -> Mapping[str, Any] | ErrorAnswer:
        place = person.namespace, asked["cache"], asked["dataKey"]
        text = await self._store.read(*place)
        if isinstance(text, Outcome):
            return _refusal(text)
        if text and not _is_entry(text):
            said = "it is not an entry, so it is left"
            return ErrorAnswer(HTTPStatus.UNPROCESSABLE_ENTITY, said, reason=Reason.BROKEN_ENTRY)
        removed = await self._store.delete(*place)
        if isinstance(removed, Outcome):
            return _refusal(removed)
        if removed:
            _log.info("an entry was removed", extra=fields(cache=asked["cache"], **person.told))
        return {"removed": removed}

    # --- Who asks, and when it is his turn ------------------------------------------------------------

    async def _caller(self, request: web.Request) -> Person | ErrorAnswer:
        token = request.headers.get(names.PEOPLES_TOKEN, "")
        if not token:
            return ErrorAnswer(HTTPStatus.UNAUTHORIZED, f"no token in the header {names.PEOPLES_TOKEN}")
        known = self._tokens.known(token)
        if known is None and not self._may_be_reviewed(request):
            return ErrorAnswer(HTTPStatus.TOO_MANY_REQUESTS, "too many tokens from this address", (), 1)
        return known or await self._tokens.caller(token)

    def _may_be_reviewed(self, request: web.Request) -> bool:
        """Whether one more unknown token is not too many: for the address, and for whom it speaks.

        A proxy adds whom it speaks for at the end (ReverseProxy in Go's net/http/httputil, which the API
        server's is made of). Who is no proxy can say what he likes there, and shares his own address's.
        """
        remote = request.remote or ""
        limit = self._reviews.setdefault(remote, FairLimit(REVIEW_RATE, REVIEW_BURST, most=CLIENTS))
        self._reviews.move_to_end(remote)
        if len(self._reviews) > ADDRESSES:
            self._reviews.popitem(last=False)
        return limit.take(
            request.headers.getall(_FORWARDED_FOR, [""])[-1].rpartition(",")[2].strip()[:_ADDRESS]
        )

    @asynccontextmanager
    async def _claim(self, person: Person) -> AsyncIterator["_Visit | ErrorAnswer"]:
        namespace = person.namespace
        if self._namespaces and namespace not in self._namespaces:
            yield ErrorAnswer(HTTPStatus.FORBIDDEN, "the caches of this Namespace are not kept")
        elif wait := self._limits.take(namespace):
            yield ErrorAnswer(HTTPStatus.TOO_MANY_REQUESTS, "too many requests of this namespace", (), wait)
        elif (mine := self._under_way[namespace]) >= MOST_OF_ONE or (
            mine and self._under_way.total() >= MOST
        ):
            said = "too many requests of people are under way"
            yield ErrorAnswer(HTTPStatus.TOO_MANY_REQUESTS, said, (), 1)
        else:
            visit = _Visit(person, AsyncExitStack(), cost.Cost())
            self._under_way[namespace] += 1
            try:
                yield visit
            finally:
                self._under_way -= Counter([namespace])
                self._rest(visit)

    def _rest(self, visit: "_Visit") -> None:
        """Give the turn back, when the event loop has rested."""

        async def rest() -> None:
            async with visit.turn:
                await self._sleep(min(visit.spent.seconds * REST, LONGEST_REST))

        task = asyncio.create_task(rest())
        self._rests.add(task)
        task.add_done_callback(self._rests.discard)

    def _reading(
        self, known: Collection[str], answer: Answer
    ) -> "Callable[[_Visit, bytes], Awaitable[bytes | ErrorAnswer]]":
        """The answer to a body with these fields."""

        async def answered(visit: _Visit, content: bytes) -> bytes | ErrorAnswer:
            asked = _asked(content, known)
            return asked if isinstance(asked, ErrorAnswer) else await self._in_turn(visit, answer, asked)

        return answered

    async def _in_turn(
        self, visit: "_Visit", answer: Answer, asked: Mapping[str, str]
    ) -> bytes | ErrorAnswer:
        async def work() -> bytes | ErrorAnswer:
            found = await answer(visit.person, asked)
            if isinstance(found, ErrorAnswer):
                return found
            return json.dumps({"store": self._kept_in, **found}).encode()

        try:
            async with asyncio.timeout(SECONDS):
                await visit.turn.enter_async_context(self._slots.take(visit.person.namespace))
                return await cost.metered(visit.spent, work())
        except TimeoutError:
            return unavailable(f"no answer within {SECONDS:.0f}s", Reason.UNDECIDED)


class _Visit(NamedTuple):
    """Somebody who is served."""

    person: Person
    turn: AsyncExitStack
    """What he has the turn by, once it has come."""
    spent: cost.Cost

    @property
    def told(self) -> Mapping[str, str]:
        return self.person.told


def _is_entry(text: str) -> bool:
    try:
        Entry.parse(text) if len(text) < LONG else Entry.parse_times(text)
    except BrokenEntry:
        return False
    return True


def _asked(content: bytes, known: Collection[str]) -> Mapping[str, str] | ErrorAnswer:
    """The fields of a body, `after` "" where it is left out."""
    found = json_object(content, known)
    if isinstance(found, ErrorAnswer):
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
        "template": info.template or None,
    }


def _time(time: datetime | None) -> str | None:
    return timestamp(time) if time else None


def _refusal(outcome: Outcome) -> ErrorAnswer:
    """What is told of a store that does not answer, or of a ConfigMap that is no cache."""
    if outcome.reason is Reason.RATE_LIMITED:
        return ErrorAnswer(HTTPStatus.TOO_MANY_REQUESTS, outcome.detail, (), 1)
    if outcome.reason in NOT_NOW:
        return unavailable(outcome.detail, outcome.reason)
    return ErrorAnswer(HTTPStatus.UNPROCESSABLE_ENTITY, outcome.detail, reason=outcome.reason)
