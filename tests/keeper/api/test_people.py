"""The routes for people, over a socket, with a database behind them."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from keeper.api import people as serving
from keeper.api.handlers import LOOKUP_PATH, CacheService
from keeper.api.people import CACHES_PATH, EARLIER_PATH, LIST_PATH, REMOVE_PATH, SHOW_PATH, People
from keeper.store import CacheInfo, EntryInfo, Page, Store
from memoize import configmap, names
from memoize.entry import Entry
from memoize.key import data_key
from memoize.outcome import Outcome
from memoize.reasons import Reason
from server.rate_limit import RateLimits
from tests.cluster import Cluster
from tests.keeper.api.steps import make_pod, token_of
from tests.keeper.store.backing import CACHE, Backing
from tests.waiting import until
from tests.webhook.serving import api_client

NOW = datetime.now(UTC).replace(microsecond=0)
LONG_KEY = "a key with spaces"
IN_DATABASE = pytest.mark.parametrize("backing", ["postgresql"], indirect=True)


def text(**fields: Any) -> str:
    known: dict[str, Any] = {"node_id": "n", "outputs": {"result": "r"}, "created": NOW, "last_hit": None}
    return Entry(**{**known, **fields}).dump()


def peoples_token(cluster: Cluster, namespace: str, account: str = "default", **spec: Any) -> str:
    path = cluster.path("ServiceAccount", namespace, account, "token")
    wanted = {"audiences": [names.TOKEN_AUDIENCE], "expirationSeconds": 600, **spec}
    status, body, _ = cluster.request("POST", path, {"spec": wanted})
    assert status == 201, body
    token: str = body["status"]["token"]
    return token


class Answer(NamedTuple):
    status: int
    body: Any
    headers: Any


class Desk:
    """The service, and a person of the Namespace."""

    def __init__(
        self, cluster: Cluster, namespace: str, client: Any, people: People, requests: list[tuple[str, int]]
    ) -> None:
        self.cluster, self.namespace, self.client, self.people = cluster, namespace, client, people
        self.requests = requests

    async def ask(self, path: str, token: str | None = None, /, **asked: Any) -> Answer:
        token = peoples_token(self.cluster, self.namespace) if token is None else token
        return await self.send(path, {names.PEOPLES_TOKEN: token}, json.dumps(asked).encode())

    async def send(self, path: str, headers: dict[str, str], body: bytes = b"{}") -> Answer:
        async with self.client.post(path, data=body, headers=headers) as response:
            return Answer(response.status, await response.json(), response.headers)


@asynccontextmanager
async def desk_of(cluster: Cluster, namespace: str, store: Any, **options: Any) -> AsyncIterator[Desk]:
    async with api_client(cluster) as api:
        requests: list[tuple[str, int]] = []
        app = web.Application(client_max_size=1024)
        service = CacheService(api, store)
        service.add_to(app)
        told = lambda route, status: requests.append((route, status))  # noqa: E731
        people = People(api, store, "postgresql", told, **options)
        people.add_to(app)
        client: Any = TestClient(TestServer(app))
        await client.start_server()
        try:
            yield Desk(cluster, namespace, client, people, requests)
        finally:
            await client.close()
            await service.close()


@pytest_asyncio.fixture
async def desk(backing: Backing, store: Store) -> AsyncIterator[Desk]:
    async with desk_of(backing.cluster, backing.namespace, store) as desk:
        yield desk


class Scripted:
    """A store that says what it is told to, and remembers what it was asked."""

    def __init__(self, **answers: Any) -> None:
        self.answers, self.asked = answers, list[tuple[Any, ...]]()

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def answer(*asked: Any) -> Any:
            self.asked.append((name, *asked))
            found = self.answers[name]
            return await found(*asked) if callable(found) else found

        return answer


async def put(store: Store, namespace: str, key: str, value: str) -> None:
    assert (await store.put(namespace, CACHE, key, value, NOW)).reason is Reason.STORED


@IN_DATABASE
@pytest.mark.contract
async def test_people_see_the_caches_of_their_namespace_and_the_entries(
    backing: Backing, store: Store, desk: Desk
) -> None:
    plain, long = text(max_age="2h"), text(key=LONG_KEY, template="say")
    await put(store, backing.namespace, "a", plain)
    await put(store, backing.namespace, data_key(LONG_KEY), long)
    size = configmap.size(plain) + configmap.size(long)
    assert (await desk.ask(CACHES_PATH)).body == {
        "store": "postgresql",
        "items": [{"cache": CACHE, "entries": 2, "bytes": size}],
        "after": "",
    }
    listed = (await desk.ask(LIST_PATH, cache=CACHE)).body
    assert (listed["store"], listed["after"]) == ("postgresql", "")
    items = {item["dataKey"]: item for item in listed["items"]}
    assert items.keys() == {"a", data_key(LONG_KEY)}
    assert items["a"] == {
        "dataKey": "a",
        "bytes": configmap.size(plain),
        "created": NOW.isoformat().replace("+00:00", "Z"),
        "lastHit": None,
        "expires": (NOW + timedelta(hours=2)).isoformat().replace("+00:00", "Z"),
        "template": None,
    }
    assert items[data_key(LONG_KEY)]["template"] == "say"
    shown = await desk.ask(SHOW_PATH, cache=CACHE, dataKey=data_key(LONG_KEY))
    assert shown.body == {"store": "postgresql", "entry": long}
    assert (await desk.ask(SHOW_PATH, cache=CACHE, dataKey="none")).body["entry"] is None
    asked = {"cache": CACHE, "dataKey": "a", "template": "say"}
    found = (await desk.ask(EARLIER_PATH, before="", **asked)).body
    assert found == {"store": "postgresql", "dataKey": data_key(LONG_KEY), "entry": long}
    found = (await desk.ask(EARLIER_PATH, before="2020-01-31T12:00:00Z", **asked)).body
    assert found == {"store": "postgresql", "dataKey": None, "entry": None}
    assert desk.requests == [
        ("people-caches", 200),
        ("people-entries", 200),
        ("people-entry", 200),
        ("people-entry", 200),
        ("people-earlier", 200),
        ("people-earlier", 200),
    ]


@IN_DATABASE
@pytest.mark.contract
async def test_people_remove_an_entry_for_good(backing: Backing, store: Store, desk: Desk) -> None:
    for key in "ab":
        await put(store, backing.namespace, key, text())
    assert (await desk.ask(REMOVE_PATH, cache=CACHE, dataKey="a")).body["removed"] is True
    assert (await desk.ask(REMOVE_PATH, cache=CACHE, dataKey="a")).body["removed"] is False
    async with backing.keeper() as other:
        assert [await other.read(backing.namespace, CACHE, key) for key in "ab"] == ["", text()]


@IN_DATABASE
@pytest.mark.contract
async def test_nobody_sees_or_removes_anything_of_another_namespace(
    backing: Backing, store: Store, desk: Desk
) -> None:
    await put(store, backing.namespace, "a", text(template="say"))
    other = peoples_token(desk.cluster, desk.cluster.namespace())
    assert (await desk.ask(CACHES_PATH, other)).body["items"] == []
    elsewhere = await desk.ask(CACHES_PATH, other, after=f"{desk.namespace}/a")
    assert elsewhere.body.get("items", []) == []
    assert (await desk.ask(LIST_PATH, other, cache=CACHE)).body["items"] == []
    assert (await desk.ask(SHOW_PATH, other, cache=CACHE, dataKey="a")).body["entry"] is None
    asked = {"cache": CACHE, "template": "say", "dataKey": "", "before": ""}
    assert (await desk.ask(EARLIER_PATH, other, **asked)).body["entry"] is None
    assert (await desk.ask(REMOVE_PATH, other, cache=CACHE, dataKey="a")).body["removed"] is False
    assert (await desk.ask(SHOW_PATH, cache=CACHE, dataKey="a")).body["entry"] == text(template="say")


@pytest.mark.contract
async def test_a_steps_token_is_nobodys_here_and_a_persons_is_no_steps(cluster: Cluster) -> None:
    namespace, store = cluster.namespace(), Scripted()
    step = token_of(cluster, make_pod(cluster, namespace))
    person = peoples_token(cluster, namespace)
    async with desk_of(cluster, namespace, store) as desk:
        for path in (CACHES_PATH, LIST_PATH, SHOW_PATH, EARLIER_PATH, REMOVE_PATH):
            refused = await desk.ask(path, step, cache=CACHE, dataKey="a")
            assert (refused.status, refused.body["reason"]) == (401, "Unauthorized")
        refused = await desk.send(LOOKUP_PATH, {"Authorization": f"Bearer {person}"})
        assert refused.status == 401
    assert store.asked == []


@pytest.mark.contract
@pytest.mark.parametrize("audience", ["other", "https://kubernetes.default.svc"])
async def test_a_token_for_another_audience_is_refused(cluster: Cluster, audience: str) -> None:
    namespace = cluster.namespace()
    token = peoples_token(cluster, namespace, audiences=[audience])
    async with desk_of(cluster, namespace, Scripted()) as desk:
        assert (await desk.ask(CACHES_PATH, token)).status == 401


async def test_a_token_in_another_header_is_none(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    token = peoples_token(cluster, namespace)
    async with desk_of(cluster, namespace, Scripted()) as desk:
        refused = await desk.send(CACHES_PATH, {"Authorization": f"Bearer {token}"})
    assert (refused.status, refused.body["message"]) == (401, "no token in the header Stepmemo-Token")


async def test_a_namespace_that_is_not_kept_is_refused(cluster: Cluster) -> None:
    async with desk_of(cluster, cluster.namespace(), Scripted(), namespaces=["other"]) as desk:
        refused = await desk.ask(CACHES_PATH)
    assert (refused.status, refused.body["message"]) == (403, "the caches of this Namespace are not kept")


@pytest.mark.parametrize(
    ("path", "asked", "field"),
    [
        (CACHES_PATH, {"after": 1}, "after"),
        (LIST_PATH, {}, "cache"),
        (LIST_PATH, {"cache": None}, "cache"),
        (LIST_PATH, {"cache": "../x"}, "cache"),
        (LIST_PATH, {"cache": "a", "after": []}, "after"),
        (SHOW_PATH, {"cache": "a"}, "dataKey"),
        (REMOVE_PATH, {"cache": "A", "dataKey": "k"}, "cache"),
        (REMOVE_PATH, {"cache": "a", "dataKey": ["k"]}, "dataKey"),
        (EARLIER_PATH, {"cache": "a", "dataKey": "k", "before": ""}, "template"),
        *(
            (EARLIER_PATH, {"cache": "a", "dataKey": "k", "template": "t", "before": before}, "before")
            for before in (1, "soon", "0001-01-01T00:00:00+23:59")
        ),
        (CACHES_PATH, {"cache": "a"}, ""),
    ],
)
async def test_a_question_that_is_none_is_told_by_its_field(
    cluster: Cluster, path: str, asked: dict[str, Any], field: str
) -> None:
    store = Scripted()
    async with desk_of(cluster, cluster.namespace(), store) as desk:
        refused = await desk.ask(path, **asked)
    assert refused.status == 422
    assert [cause["field"] for cause in refused.body["details"]["causes"]] == [field]
    assert store.asked == []


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'"x"', b"\xff"])
async def test_a_body_of_any_bytes_is_answered(cluster: Cluster, body: bytes) -> None:
    namespace = cluster.namespace()
    headers = {names.PEOPLES_TOKEN: peoples_token(cluster, namespace)}
    async with desk_of(cluster, namespace, Scripted()) as desk:
        assert (await desk.send(LIST_PATH, headers, body)).status in (400, 422)
        large = await desk.send(LIST_PATH, headers, b" " * (serving.BODY_LIMIT + 1))
        assert large.status == 413


@IN_DATABASE
@pytest.mark.parametrize("key", ["", "../x", "a/b", "a" * 300, "ü", "\0"])
async def test_a_data_key_of_any_text_finds_nothing(desk: Desk, key: str) -> None:
    assert (await desk.ask(SHOW_PATH, cache=CACHE, dataKey=key)).body["entry"] is None
    assert (await desk.ask(REMOVE_PATH, cache=CACHE, dataKey=key)).body["removed"] is False


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Outcome(Reason.RATE_LIMITED, "too often"), 429),
        (Outcome(Reason.STORE_UNAVAILABLE, "the database is away"), 503),
        (Outcome(Reason.API_UNAVAILABLE, "could not get configmaps"), 503),
        (Outcome(Reason.CONFLICT, "it kept changing"), 503),
        (Outcome(Reason.NOT_A_CACHE, "it lacks the label"), 422),
    ],
)
async def test_a_store_that_does_not_answer_is_told_with_when_to_ask_again(
    cluster: Cluster, outcome: Outcome, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    store = Scripted(caches=outcome, entries=outcome, read=outcome, earlier=outcome, delete=outcome)
    async with desk_of(cluster, cluster.namespace(), store) as desk:
        for path in (CACHES_PATH, LIST_PATH, SHOW_PATH, EARLIER_PATH, REMOVE_PATH):
            asked = {} if path == CACHES_PATH else {"cache": CACHE}
            asked |= {"dataKey": "a"} if path in (SHOW_PATH, EARLIER_PATH, REMOVE_PATH) else {}
            asked |= {"template": "say", "before": ""} if path == EARLIER_PATH else {}
            refused = await desk.ask(path, **asked)
            assert (refused.status, refused.body["message"]) == (status, outcome.detail)
            assert refused.headers.get("Retry-After") == (None if status == 422 else "1")
    logged = [vars(record)["fields"] for record in caplog.records if record.name.startswith("keeper")]
    assert {one["reason"] for one in logged} == {outcome.reason}


async def test_a_page_is_bounded_and_leads_to_the_next(cluster: Cluster) -> None:
    name, time = "x" * 253, datetime(2026, 7, 31, tzinfo=UTC)
    caches = Page([CacheInfo("n", name, 1 << 40, 1 << 40)] * serving.CACHES_OF_A_PAGE, "next")
    entries = Page([EntryInfo(name, 1 << 40, time, time, time)] * serving.ENTRIES_OF_A_PAGE, "next")
    store = Scripted(caches=caches, entries=entries)
    async with desk_of(cluster, cluster.namespace(), store) as desk:
        pages = [
            await desk.ask(CACHES_PATH, after="here"),
            await desk.ask(LIST_PATH, cache="c", after="here"),
        ]
    assert store.asked == [
        ("caches", desk.namespace, "here", serving.CACHES_OF_A_PAGE),
        ("entries", desk.namespace, "c", "here", serving.ENTRIES_OF_A_PAGE),
    ]
    for page in pages:
        assert page.body["after"] == "next"
        assert int(page.headers["Content-Length"]) < 256 << 10


async def test_requests_of_a_namespace_are_limited_and_the_others_are_served(cluster: Cluster) -> None:
    store = Scripted(caches=Page([], ""))
    async with desk_of(cluster, cluster.namespace(), store, limits=RateLimits(0.001, 2)) as desk:
        answers = [await desk.ask(CACHES_PATH) for _ in range(3)]
        other = await desk.ask(CACHES_PATH, peoples_token(cluster, cluster.namespace()))
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert int(answers[2].headers["Retry-After"]) > 0
    assert other.status == 200


async def test_unknown_tokens_from_one_address_are_limited(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "REVIEW_BURST", 2)
    monkeypatch.setattr(serving, "REVIEW_RATE", 0.001)
    store = Scripted(caches=Page([], ""))
    async with desk_of(cluster, cluster.namespace(), store) as desk:
        known = peoples_token(cluster, desk.namespace)
        unknown = [f"a.b.{number}" for number in range(5)]  # a few more may be had in advance
        answers = [await desk.ask(CACHES_PATH, token) for token in (known, *unknown, known)]
    assert [answers[at].status for at in (0, 1, -2, -1)] == [200, 401, 429, 200]


async def test_who_sends_many_unknown_tokens_by_the_api_server_leaves_others_who_come_by_it_theirs(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "REVIEW_BURST", 20)
    monkeypatch.setattr(serving, "REVIEW_RATE", 0.001)
    store = Scripted(caches=Page([], ""))

    async def ask(token: str, said: str, added: str) -> int:
        headers = {names.PEOPLES_TOKEN: token, "X-Forwarded-For": f"{said}, {added}"}
        return (await desk.send(CACHES_PATH, headers)).status

    async with desk_of(cluster, cluster.namespace(), store) as desk:
        flood = [await ask(f"a.b.{number}", f"192.0.2.{number}", "192.0.2.1") for number in range(40)]
        other = await ask(peoples_token(cluster, desk.namespace), "192.0.2.1", "192.0.2.2")
    assert set(flood) == {401, 429}
    assert other == 200


@pytest.mark.parametrize("broken", ["no entry", "x" * serving.LONG])
async def test_what_is_no_entry_is_not_removed(cluster: Cluster, broken: str) -> None:
    store = Scripted(read=broken)
    async with desk_of(cluster, cluster.namespace(), store) as desk:
        refused = await desk.ask(REMOVE_PATH, cache=CACHE, dataKey="k")
    assert (refused.status, refused.body["message"]) == (422, "it is not an entry, so it is left")
    assert store.asked == [("read", desk.namespace, CACHE, "k")]


async def test_a_request_whose_body_does_not_come_has_its_place_among_those_of_its_namespace(
    cluster: Cluster,
) -> None:
    async def never() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async def post(headers: dict[str, str]) -> None:
        await desk.client.post(CACHES_PATH, data=never(), headers=headers)

    async with desk_of(cluster, cluster.namespace(), Scripted(caches=Page([], ""))) as desk:
        headers = {names.PEOPLES_TOKEN: peoples_token(cluster, desk.namespace)}
        held = [asyncio.create_task(post(headers)) for _ in range(serving.MOST_OF_ONE)]
        await until(lambda: desk.people._under_way.total() == serving.MOST_OF_ONE)
        refused = await desk.send(CACHES_PATH, headers)
        other = await desk.ask(CACHES_PATH, peoples_token(cluster, cluster.namespace()))
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
    assert (refused.status, other.status) == (429, 200)


async def test_a_namespace_has_one_turn_at_a_time_and_a_short_line_beside_which_others_are_served(
    cluster: Cluster,
) -> None:
    end, others = asyncio.Event(), cluster.namespace()

    async def caches(namespace: str, *_: Any) -> Page[CacheInfo]:
        if namespace != others:
            await end.wait()
        return Page([], "")

    store = Scripted(caches=caches)
    async with desk_of(cluster, cluster.namespace(), store) as desk:
        token = peoples_token(cluster, desk.namespace)
        asked = [asyncio.create_task(desk.ask(CACHES_PATH, token)) for _ in range(serving.MOST_OF_ONE + 1)]
        done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result().status for task in done] == [429]
        assert (await desk.ask(CACHES_PATH, peoples_token(cluster, others))).status == 200
        assert [one[1] for one in store.asked] == [desk.namespace, others]
        end.set()
        assert sorted(answer.status for answer in await asyncio.gather(*asked)) == [200] * 8 + [429]


async def test_many_requests_of_some_namespaces_keep_no_other_from_its_first(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "MOST", 2)
    end, others = asyncio.Event(), cluster.namespace()

    async def caches(namespace: str, *_: Any) -> Page[CacheInfo]:
        if namespace != others:
            await end.wait()
        return Page([], "")

    async with desk_of(cluster, cluster.namespace(), Scripted(caches=caches)) as desk:
        token = peoples_token(cluster, desk.namespace)
        asked = [asyncio.create_task(desk.ask(CACHES_PATH, token)) for _ in range(3)]
        done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        assert [(task.result().status, task.result().headers["Retry-After"]) for task in done] == [(429, "1")]
        assert (await desk.ask(CACHES_PATH, peoples_token(cluster, others))).status == 200
        end.set()
        await asyncio.gather(*asked)


async def test_who_waits_too_long_is_told_to_ask_again(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "SECONDS", 0.1)

    async def never(*_: Any) -> None:
        await asyncio.Event().wait()

    async with desk_of(cluster, cluster.namespace(), Scripted(caches=never)) as desk:
        refused = await desk.ask(CACHES_PATH)
    assert (refused.status, refused.headers["Retry-After"]) == (503, "1")


async def test_who_kept_the_loop_busy_keeps_his_turn_for_much_longer(cluster: Cluster) -> None:
    rests = list[float]()

    async def sleep(seconds: float) -> None:
        rests.append(seconds)

    large = "x" * configmap.MOST_BYTES
    store = Scripted(read=large, caches=Page([], ""))
    async with desk_of(cluster, cluster.namespace(), store, sleep=sleep) as desk:
        await desk.ask(CACHES_PATH)
        assert (await desk.ask(SHOW_PATH, cache=CACHE, dataKey="k")).body["entry"] == large
        await until(lambda: len(rests) == 2)
    small, big = rests
    assert 0 < small < big <= serving.LONGEST_REST, "a megabyte as JSON counts as well"
    assert serving.AT_ONCE / serving.REST < 0.15


async def test_the_answer_comes_first_and_the_next_one_of_the_namespace_waits_for_the_rest(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "SECONDS", 0.5)
    monkeypatch.setattr(serving, "LONGEST_REST", 1e-9)
    rested, rests, others = asyncio.Event(), list[float](), cluster.namespace()

    async def sleep(seconds: float) -> None:
        rests.append(seconds)
        await rested.wait()

    store = Scripted(caches=Page([], ""))
    async with desk_of(cluster, cluster.namespace(), store, sleep=sleep) as desk:
        token = peoples_token(cluster, desk.namespace)
        assert (await desk.ask(CACHES_PATH, token)).status == 200
        assert (await desk.ask(CACHES_PATH, token)).status == 503
        assert (await desk.ask(CACHES_PATH, peoples_token(cluster, others))).status == 200
        assert set(rests) == {1e-9, 0}, "who had no turn keeps none"
        rested.set()
        assert (await desk.ask(CACHES_PATH, token)).status == 200


async def test_who_does_not_take_his_answer_has_his_turn_and_is_cut_off(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "SEND_SECONDS", 0.3)
    store = Scripted(read="\0" * configmap.MOST_BYTES)
    async with desk_of(cluster, cluster.namespace(), store) as desk:
        headers = {names.PEOPLES_TOKEN: peoples_token(cluster, desk.namespace)}
        body = json.dumps({"cache": CACHE, "dataKey": "k"}).encode()
        head = f"POST {SHOW_PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        _, writer = await asyncio.open_connection("127.0.0.1", desk.client.port, limit=1024)
        writer.write(head.encode() + b"\r\n" + body)
        await until(lambda: desk.people.in_flight.held > configmap.MOST_BYTES)
        assert desk.people._slots.users(desk.namespace) == 1
        await until(lambda: not desk.people.in_flight.held)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
    assert serving.AT_ONCE * 6 * configmap.MOST_BYTES < serving.MOST_BYTES


async def test_the_log_says_who_asked_and_no_key_no_value_and_no_token(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    store = Scripted(read=text(key="s3cret"), delete=True)
    async with desk_of(cluster, cluster.namespace(), store) as desk:
        token = peoples_token(cluster, desk.namespace)
        for path in (SHOW_PATH, REMOVE_PATH):
            assert (await desk.ask(path, token, cache=CACHE, dataKey="s3cret")).status == 200
    ours = [record for record in caplog.records if record.name.startswith("keeper")]
    said = [{"message": record.getMessage(), **vars(record)["fields"]} for record in ours]
    who = {"namespace": desk.namespace, "account": "default"}
    assert said == [
        {"message": "answered", "route": "people-entry", "status": 200, **who},
        {"message": "an entry was removed", "cache": CACHE, **who},
        {"message": "answered", "route": "people-remove", "status": 200, **who},
    ]


async def test_a_bug_is_told_as_one(cluster: Cluster) -> None:
    async with desk_of(cluster, cluster.namespace(), Scripted()) as desk:  # its answers are missing
        assert (await desk.ask(CACHES_PATH)).status == 500
