"""The whole service, with tokens as the kubelet gets them, over a socket."""

import asyncio
import gzip
import io
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from argo import names as argo
from keeper.api import handlers as serving
from keeper.api import request, routes
from keeper.api.auth import FRESH, Tokens
from keeper.api.handlers import ENTRIES_PATH, LOOKUP_PATH, CacheService
from keeper.api.in_flight import MOST_BYTES_OF_ONE, Bytes
from keeper.artifacts.verifier import ObjectGone, Probe, There, Unknown, Verifier
from memoize import names
from memoize.key import data_key
from memoize.outcome import Outcome
from memoize.reasons import Reason
from server.child import Child
from server.rate_limit import RateLimits
from tests.cluster import Cluster
from tests.keeper.api.steps import CACHE, KEY, annotations, container, entry, make_pod, token_of
from tests.keeper.artifacts.test_verifier import Bucket, at, repository
from tests.keeper.stores import config_maps
from tests.waiting import until
from tests.webhook.serving import api_client

NOW = datetime(2026, 7, 31, 12, tzinfo=UTC)
CACHE_LABELS = {"labels": {argo.CONFIGMAP_TYPE: argo.CONFIGMAP_TYPE_CACHE}}
LONG_KEY = "a key with spaces"
LONG = {"seconds": 60.0, "queue_timeout": 60.0}
"""For a child process, where the time that it takes is not the subject: also on a busy machine."""


class Answer(NamedTuple):
    status: int
    body: Any
    headers: Any

    @property
    def fields(self) -> list[str]:
        return [cause["field"] for cause in self.body["details"]["causes"]]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Setting:
    """A namespace, and the service, reachable over HTTP."""

    def __init__(
        self,
        cluster: Cluster,
        client: Any,
        requests: list[tuple[str, int]],
        found: list[tuple[str, ...]],
        clock: Clock,
        service: CacheService,
    ) -> None:
        self.cluster, self.client, self.requests, self.clock = cluster, client, requests, clock
        self.service, self.found = service, found
        self.namespace = cluster.namespace()

    def step(self, name: str = "wf-a-123", namespace: str = "", **metadata: Any) -> str:
        """Make a step Pod; its token."""
        return token_of(self.cluster, make_pod(self.cluster, namespace or self.namespace, name, **metadata))

    async def ask(self, path: str, token: str, body: object = None, **headers: str) -> Answer:
        data = io.BytesIO(
            body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
        )
        sent = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", **headers}
        async with self.client.post(path, data=data, headers=sent) as response:
            return Answer(response.status, await response.json(), response.headers)

    async def look_up(self, token: str, body: object = None) -> Answer:
        return await self.ask(LOOKUP_PATH, token, body)

    async def store(self, token: str, text: object = None, **more: Any) -> Answer:
        return await self.ask(ENTRIES_PATH, token, {"entry": entry() if text is None else text, **more})

    def make_cache(self, namespace: str = "", **fields: Any) -> None:
        metadata = {
            **fields.pop("metadata", CACHE_LABELS),
            "name": CACHE,
            "namespace": namespace or self.namespace,
        }
        status, body = self.cluster.create({"kind": "ConfigMap", "metadata": metadata, **fields})
        assert status == 201, body

    def data(self, namespace: str = "") -> dict[str, str]:
        status, body = self.cluster.get("ConfigMap", namespace or self.namespace, CACHE)
        return (body.get("data") or {}) if status == 200 else {}


class Serving:
    """The service against a cluster, as the cluster's admin.

    `read` stands in for the store's; hits are noted alone. With a `probe` artifacts are looked for.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        read: Callable[..., Awaitable[Outcome]] | None = None,
        limits: RateLimits | None = None,
        in_flight: Bytes | None = None,
        namespaces: Sequence[str] = (),
        probe: Probe | None = None,
    ) -> None:
        self._cluster, self._read, self._limits = cluster, read, limits
        self._in_flight, self._namespaces, self._probe = in_flight, namespaces, probe

    async def __aenter__(self) -> Setting:
        self._api = api_client(self._cluster)
        api = await self._api.__aenter__()
        requests: list[tuple[str, int]] = []
        found: list[tuple[str, ...]] = []
        clock = Clock()
        self._store = config_maps(api)
        self._store.hit = lambda *entry: found.append(entry)
        if self._read is not None:
            self._store.read = self._read
        self._verifier = Verifier(self._store.drop)
        if self._probe is not None:
            self._verifier.use({repository(): self._probe})
        self._service = service = CacheService(
            api,
            self._store,
            lambda route, status: requests.append((route, status)),
            tokens=Tokens(api, clock=clock),
            limits=self._limits,
            in_flight=self._in_flight,
            namespaces=self._namespaces,
            verifier=self._verifier if self._probe else None,
            now=lambda: NOW,
        )
        service._child = Child(request.__name__, **LONG)
        app = web.Application(client_max_size=1024)
        service.add_to(app)
        self._client: Any = TestClient(TestServer(app))
        await self._client.start_server()
        return Setting(self._cluster, self._client, requests, found, clock, service)

    async def __aexit__(self, *exc_info: Any) -> None:
        await self._client.close()
        await self._service.close()
        await self._verifier.close()
        await self._store.close()
        await self._api.__aexit__(*exc_info)


@pytest.fixture
async def setting(cluster: Cluster) -> AsyncIterator[Setting]:
    async with Serving(cluster) as setting:
        yield setting


@pytest.mark.contract
async def test_what_one_pod_stores_another_one_of_its_key_finds(setting: Setting) -> None:
    stored = await setting.store(setting.step())
    assert (stored.status, stored.body["reason"]) == (200, "Stored")
    found = await setting.look_up(setting.step("wf-a-124"))
    assert found.status == 200
    assert found.body == {"entry": setting.data()[KEY]}
    assert json.loads(found.body["entry"])["outputs"] == {"result": "r"}
    assert setting.requests == [("entries", 200), ("lookup", 200)]
    assert setting.found == [(setting.namespace, "my-cache", KEY, setting.data()[KEY])]


@pytest.mark.contract
async def test_where_there_is_no_cache_nothing_is_found(setting: Setting) -> None:
    token = setting.step()
    assert (await setting.look_up(token)).body == {"entry": None}
    setting.make_cache(data={"other": "x"})
    assert (await setting.look_up(token)).body == {"entry": None}
    assert setting.found == []


@pytest.mark.contract
async def test_an_entry_is_made_by_the_clock_of_the_service(setting: Setting) -> None:
    await setting.store(setting.step(), entry(creationTimestamp="2030-01-01T00:00:00Z"))
    stored = json.loads(setting.data()[KEY])
    assert stored["creationTimestamp"] == stored["lastHitTimestamp"] == "2026-07-31T12:00:00Z"


@pytest.mark.contract
async def test_a_key_of_any_characters_is_stored_under_its_digest(setting: Setting) -> None:
    token = setting.step(annotations=annotations(key=LONG_KEY))
    assert (await setting.store(token, entry(stepmemo={"key": LONG_KEY}))).body["reason"] == "Stored"
    assert setting.data().keys() == {data_key(LONG_KEY)}
    assert (await setting.look_up(token)).body["entry"]


@pytest.mark.contract
async def test_a_pod_reaches_no_cache_of_another_namespace(setting: Setting) -> None:
    other = setting.cluster.namespace()
    setting.make_cache(other, data={KEY: "theirs"})
    token = setting.step()
    assert (await setting.look_up(token)).body == {"entry": None}
    await setting.store(token)
    assert setting.data(other) == {KEY: "theirs"}
    assert setting.data().keys() == {KEY}


@pytest.mark.contract
@pytest.mark.parametrize("name", ["../../other/configmaps/x", "a/b", "{{workflow.name}}", ""])
async def test_a_pod_with_a_cache_name_that_is_none_reaches_nothing(setting: Setting, name: str) -> None:
    token = setting.step(annotations=annotations(cache=name))
    answer = await setting.store(token)
    assert answer.status == 403
    assert f"metadata.annotations[{names.CACHE}]" in answer.fields


@pytest.mark.contract
async def test_a_token_for_another_audience_is_refused(setting: Setting) -> None:
    pod = make_pod(setting.cluster, setting.namespace)
    answer = await setting.look_up(token_of(setting.cluster, pod, "https://kubernetes.default.svc"))
    assert (answer.status, answer.body["reason"]) == (401, "Unauthorized")
    assert (await setting.store(setting.cluster.admin_token)).status == 401
    assert setting.data() == {}


@pytest.mark.contract
async def test_a_pod_that_was_deleted_is_refused_though_its_token_was_good_just_now(setting: Setting) -> None:
    token = setting.step()
    assert (await setting.look_up(token)).status == 200
    path = setting.cluster.path("Pod", setting.namespace, "wf-a-123")
    assert setting.cluster.request("DELETE", path, {"gracePeriodSeconds": 0}).status == 200
    assert (await setting.store(token)).status == 403
    setting.clock.now += FRESH
    # The API server itself remembers a good token for some seconds; the Pod's absence it tells at once.
    assert (await setting.store(token)).status in (401, 403)
    setting.step()
    assert (await setting.store(token)).status in (401, 403)
    assert setting.data() == {}


@pytest.mark.contract
async def test_the_token_of_an_earlier_pod_of_the_same_name_is_refused(setting: Setting) -> None:
    token = setting.step()
    await setting.look_up(token)
    path = setting.cluster.path("Pod", setting.namespace, "wf-a-123")
    assert setting.cluster.request("DELETE", path, {"gracePeriodSeconds": 0}).status == 200
    setting.step()
    answer = await setting.store(token)
    assert (answer.status, answer.body["message"]) == (403, "the token is of an earlier Pod of that name")


@pytest.mark.contract
async def test_a_pod_that_is_being_deleted_is_refused(setting: Setting) -> None:
    token = setting.step(finalizers=["stepmemo.dev/test"])
    await setting.look_up(token)
    setting.cluster.delete("Pod", setting.namespace, "wf-a-123")
    try:
        assert (await setting.store(token)).status == 403
    finally:
        setting.cluster.patch("Pod", setting.namespace, "wf-a-123", {"metadata": {"finalizers": None}})


@pytest.mark.contract
async def test_a_pod_that_is_over_is_refused(setting: Setting) -> None:
    token = setting.step()
    over = {"status": {"phase": "Succeeded"}}
    status, body = setting.cluster.patch("Pod", setting.namespace, "wf-a-123", over, subresource="status")
    assert status == 200, body
    assert (await setting.store(token)).body["message"] == "the Pod is over"


@pytest.mark.contract
@pytest.mark.parametrize(
    ("claimed", "field"),
    [({"key": "hello-2"}, "key"), ({"cache": "other"}, "cache"), ({"key": 1}, "key"), ({"key": None}, "key")],
)
async def test_a_request_for_a_key_or_cache_that_the_pod_does_not_carry_is_refused(
    setting: Setting, claimed: Any, field: str
) -> None:
    token = setting.step()
    for answer in (await setting.look_up(token, claimed), await setting.store(token, **claimed)):
        assert (answer.status, answer.body["reason"]) == (403, "Forbidden")
        assert answer.fields == [field]
    assert setting.data() == {}


async def test_a_request_may_repeat_what_the_pod_says(setting: Setting) -> None:
    assert (await setting.store(setting.step(), key=KEY, cache=CACHE)).body["reason"] == "Stored"


async def test_a_forged_entry_is_refused(setting: Setting) -> None:
    token = setting.step()
    forged = entry(
        nodeID="wf-666", stepmemo={"key": "hello-2", "maxAge": "1h", "pod": "other", "workflow": "other"}
    )
    answer = await setting.store(token, forged)
    assert answer.status == 403
    assert answer.fields == [
        "entry.nodeID",
        "entry.stepmemo.key",
        "entry.stepmemo.maxAge",
        "entry.stepmemo.pod",
        "entry.stepmemo.workflow",
    ]
    assert setting.data() == {}


async def test_an_entry_under_a_digest_must_say_its_key(setting: Setting) -> None:
    token = setting.step(annotations=annotations(key=LONG_KEY))
    assert (await setting.store(token)).fields == ["entry.stepmemo.key"]


@pytest.mark.parametrize("removed", [names.KEY, argo.NODE_ID, names.CACHE])
async def test_a_pod_that_is_no_memoized_step_gets_nothing(setting: Setting, removed: str) -> None:
    said = {name: value for name, value in annotations().items() if name != removed}
    answer = await setting.store(setting.step(annotations=said))
    assert (answer.status, answer.fields) == (403, [f"metadata.annotations[{removed}]"])


async def test_a_pod_whose_key_still_holds_a_tag_gets_nothing(setting: Setting) -> None:
    answer = await setting.look_up(setting.step(annotations=annotations(key="{{inputs.parameters.x}}")))
    assert (answer.status, answer.fields) == (403, [f"metadata.annotations[{names.KEY}]"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (7, "FieldValueTypeInvalid"),
        ("", "FieldValueInvalid"),
        ("[]", "FieldValueInvalid"),
        (entry(outputs={"result": 7}), "FieldValueInvalid"),
        (entry(nodeID=""), "FieldValueInvalid"),
    ],
)
async def test_what_is_no_entry_is_refused_by_field(setting: Setting, text: object, reason: str) -> None:
    answer = await setting.store(setting.step(), text)
    assert (answer.status, answer.body["reason"]) == (422, "Invalid")
    (cause,) = answer.body["details"]["causes"]
    assert (cause["field"], cause["reason"]) == ("entry", reason)


async def test_an_absent_entry_and_unknown_fields_are_said(setting: Setting) -> None:
    token = setting.step()
    absent = await setting.ask(ENTRIES_PATH, token)
    unknown = await setting.look_up(token, {"entry": "x"})
    assert absent.body["details"]["causes"][0]["reason"] == "FieldValueRequired"
    assert unknown.body["details"]["causes"][0]["reason"] == "FieldValueUnknown"


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"[" * 100_000])
async def test_a_body_that_is_no_object_is_a_bad_request(setting: Setting, content: bytes) -> None:
    answer = await setting.ask(LOOKUP_PATH, setting.step(), content)
    assert (answer.status, answer.body["reason"]) == (400, "BadRequest")


LARGE = {"result": "x" * (100 << 10)}


async def test_a_large_entry_is_read_in_a_child_process_and_stored(setting: Setting) -> None:
    token = setting.step()
    stored = await setting.store(token, entry(outputs=LARGE))
    assert (stored.status, stored.body["reason"]) == (200, "Stored")
    assert setting.service._child.pid is not None
    forged = await setting.store(token, entry(outputs=LARGE, nodeID="another"))
    assert forged.status == 403
    assert forged.body["details"]["causes"][0]["message"] == "Forbidden: not the node that the Pod is of"


async def test_a_large_entry_that_finds_no_place_is_to_come_again(setting: Setting) -> None:
    setting.service._child = Child(request.__name__, of_one=0)
    answer = await setting.store(setting.step(), entry(outputs=LARGE))
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")


async def test_a_large_entry_is_to_come_again_where_the_process_does_not_start(setting: Setting) -> None:
    setting.service._child = Child("no_such_module", **LONG)
    answer = await setting.store(setting.step(), entry(outputs=LARGE))
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert answer.body["message"] == "large entries cannot be read now"


async def test_a_large_entry_that_takes_too_long_is_not_stored(setting: Setting) -> None:
    setting.service._child = Child(request.__name__, **LONG | {"seconds": 0.0})
    answer = await setting.store(setting.step(), entry(outputs=LARGE))
    # It may be the machine's fault, and the entry is as good in a moment.
    assert (answer.status, answer.body["message"]) == (503, "large entries cannot be read now")
    assert setting.data() == {}


async def test_an_entry_of_more_than_a_megabyte_is_too_large(setting: Setting) -> None:
    token = setting.step()
    large = await setting.store(token, entry(outputs={"result": "x" * (1 << 20)}))
    larger = await setting.ask(ENTRIES_PATH, token, b" " * (serving.BODY_LIMIT + 1))
    bomb = gzip.compress(b" " * (serving.BODY_LIMIT + 1))
    packed = await setting.ask(ENTRIES_PATH, token, bomb, **{"Content-Encoding": "gzip"})
    assert {large.status, larger.status, packed.status} == {413}
    assert large.body["reason"] == "RequestEntityTooLarge"


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
@pytest.mark.contract
async def test_an_entry_of_almost_a_megabyte_is_stored(setting: Setting) -> None:
    answer = await setting.store(setting.step(), entry(outputs={"result": '"' * 500_000}))
    assert answer.body["reason"] == "Stored"


async def test_a_body_that_is_not_what_it_says_is_a_bad_request(setting: Setting) -> None:
    answer = await setting.ask(ENTRIES_PATH, setting.step(), b"not gzip", **{"Content-Encoding": "gzip"})
    assert answer.status == 400


async def test_a_body_that_does_not_come_is_not_waited_for(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "BODY_SECONDS", 0.1)
    token = setting.step()

    async def never() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    headers = {"Authorization": f"Bearer {token}"}
    async with setting.client.post(LOOKUP_PATH, data=never(), headers=headers) as response:
        assert response.status == 408


async def started(setting: Setting, token: str, size: int) -> tuple[Any, "asyncio.Task[int]"]:
    """An upload of which so many bytes are there and the rest is not: its end, and its status to come."""
    end = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"{" + b" " * (size - 1)
        await end.wait()
        yield b"}"

    async def status() -> int:
        headers = {"Authorization": f"Bearer {token}"}
        async with setting.client.post(ENTRIES_PATH, data=body(), headers=headers) as response:
            return int(response.status)

    return end, asyncio.create_task(status())


async def test_a_namespace_fills_its_own_part_and_the_others_are_served_beside_it(cluster: Cluster) -> None:
    in_flight = Bytes(50_000, 20_000)
    async with Serving(cluster, in_flight=in_flight) as setting:
        others = [cluster.namespace() for _ in range(2)]
        mine, (second, third) = setting.step(), [setting.step(namespace=name) for name in others]
        end, first = await started(setting, mine, 15_000)
        await until(lambda: in_flight.held == 15_000)
        own = await setting.ask(ENTRIES_PATH, mine, b" " * 15_000)
        assert (own.status, own.headers["Retry-After"]) == (429, "1")
        end_second, beside = await started(setting, second, 18_000)
        await until(lambda: in_flight.held == 33_000)
        all_of_them = await setting.ask(ENTRIES_PATH, third, b" " * 18_000)
        assert (all_of_them.status, all_of_them.headers["Retry-After"]) == (503, "1")
        assert (await setting.look_up(third)).status == 200
        end.set()
        end_second.set()
        assert [await first, await beside] == [422, 422]
        await until(lambda: in_flight.held == 0)
        assert (await setting.ask(ENTRIES_PATH, mine, b" " * 15_000)).status == 400


async def test_an_answer_counts_as_a_body_does(cluster: Cluster) -> None:
    async with Serving(cluster, in_flight=Bytes(50_000, 1_000)) as setting:
        token = setting.step()
        setting.make_cache(data={KEY: "x" * 2_000})
        assert (await setting.look_up(token)).status == 429
        setting.cluster.patch("ConfigMap", setting.namespace, CACHE, {"data": {KEY: "x" * 500}})
        assert (await setting.look_up(token)).status == 200


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
async def test_a_hundred_entries_of_a_megabyte_at_once_never_hold_more_than_the_share_of_their_namespace(
    cluster: Cluster,
) -> None:
    in_flight, most = Bytes(), [0]
    counted = in_flight.of

    @contextmanager
    def watched(namespace: str) -> Iterator[Any]:
        with counted(namespace) as more:

            def told(size: int) -> None:
                more(size)
                most[0] = max(most[0], in_flight.held)

            yield told

    in_flight.of = watched
    async with Serving(cluster, in_flight=in_flight) as setting:
        token = setting.step()
        body = json.dumps({"entry": entry(outputs={"result": "x" * 950_000})}).encode()
        answers = await asyncio.gather(*(setting.ask(ENTRIES_PATH, token, body) for _ in range(100)))
        assert {200, 429} <= {answer.status for answer in answers} <= {200, 429, 503}
        assert most[0] <= MOST_BYTES_OF_ONE
        await until(lambda: in_flight.held == 0)
        assert (await setting.look_up(token)).body["entry"]


async def test_a_namespace_that_is_not_kept_gets_nothing(cluster: Cluster) -> None:
    kept = cluster.namespace()
    async with Serving(cluster, namespaces=[kept]) as setting:
        answer = await setting.store(setting.step())
        assert (answer.status, answer.body["message"]) == (403, "the caches of this Namespace are not kept")
        assert (await setting.store(setting.step(namespace=kept))).status == 200


async def test_a_pod_gets_what_its_mode_has_it_ask_for_and_no_more(setting: Setting) -> None:
    namespace = setting.namespace
    reads, writes, none = (
        token_of(setting.cluster, make_pod(setting.cluster, namespace, name, ours=ours))
        for name, ours in (
            ("wf-a-1", [container("-c", "9")]),
            ("wf-a-2", [container("-t", "9")]),
            ("wf-a-3", []),
        )
    )
    text = entry(stepmemo={"workflow": "wf"})
    assert [(await setting.store(token, text)).status for token in (reads, writes, none)] == [403, 200, 403]
    assert [(await setting.look_up(token)).status for token in (reads, writes, none)] == [200, 403, 403]


@pytest.mark.parametrize("header", ["", "Basic x", "bearer", "Bearer "])
async def test_without_a_bearer_token_nobody_is_asked(setting: Setting, header: str) -> None:
    async with setting.client.post(LOOKUP_PATH, headers={"Authorization": header}) as response:
        assert response.status == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert (await response.json())["kind"] == "Status"


async def test_a_namespace_that_asks_too_much_is_told_when_to_come_again(cluster: Cluster) -> None:
    async with Serving(cluster, limits=RateLimits(0.1, 2, clock=Clock())) as setting:
        token, other = setting.step(), setting.step(namespace=cluster.namespace())
        answers = [await setting.look_up(token) for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        assert answers[2].headers["Retry-After"] == "10"
        assert answers[2].body["details"]["retryAfterSeconds"] == 10
        assert (await setting.look_up(other)).status == 200


async def test_many_unknown_tokens_from_one_address_do_not_reach_the_api_server(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "REVIEW_BURST", 2)
    monkeypatch.setattr(serving, "REVIEW_RATE", 0.001)  # or a slow machine would be allowed another one
    async with Serving(cluster) as setting:
        token = setting.step()
        assert (await setting.look_up(token)).status == 200
        statuses = [(await setting.look_up(f"a.b.{number}")).status for number in range(3)]
        assert statuses == [401, 429, 429]
        assert (await setting.look_up(token)).status == 200


@pytest.mark.contract
async def test_a_config_map_that_is_no_cache_is_neither_read_nor_written(setting: Setting) -> None:
    setting.make_cache(metadata={}, data={KEY: entry()})
    token = setting.step()
    read, written = await setting.look_up(token), await setting.store(token)
    assert (read.body["entry"], read.body["reason"], written.body["reason"]) == (
        None,
        "NotACache",
        "NotACache",
    )


async def test_a_cache_that_cannot_be_read_now_is_worth_another_try(cluster: Cluster) -> None:
    async def read(namespace: str, cache: str, data_key: str) -> Outcome:
        return Outcome(Reason.API_UNAVAILABLE, "could not get configmaps")

    async with Serving(cluster, read=read) as setting:
        answer = await setting.look_up(setting.step())
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")


async def test_a_bug_is_told_as_one(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    async def read(namespace: str, cache: str, data_key: str) -> Outcome:
        raise RuntimeError("a bug")

    async with Serving(cluster, read=read) as setting:
        answer = await setting.look_up(setting.step())
    assert (answer.status, answer.body["reason"]) == (500, "InternalError")
    assert "a bug" in caplog.text


async def test_the_log_holds_no_key_no_value_and_no_token(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "s3cret"
    async with Serving(cluster) as setting:
        token = setting.step(annotations=annotations(key=f"{secret}-key"))
        await setting.store(token, entry(outputs={"result": secret}))
        await setting.store(token, entry(nodeID=secret))
        await setting.store(token, secret, key=secret)
        await setting.look_up(token)
        await setting.look_up(secret)
    ours = [record for record in caplog.records if record.name.startswith("keeper")]
    said = [f"{record.getMessage()} {vars(record).get('fields')}" for record in ours]
    assert len(said) == 5
    assert [line for line in said if secret in line or token in line] == []
    assert sum("'reason'" in line for line in said) == 4


@pytest.mark.contract
async def test_hundreds_of_pods_at_once_are_all_served(setting: Setting) -> None:
    tokens = [
        setting.step(f"wf-a-{number}", annotations=annotations(key=f"key-{number}")) for number in range(100)
    ]
    texts = [entry(stepmemo={"pod": f"wf-a-{number}"}) for number in range(100)]
    answers = await asyncio.gather(*(setting.store(*pair) for pair in zip(tokens, texts, strict=True)))
    assert {answer.body.get("reason") for answer in answers} == {"Stored"}
    assert len(setting.data()) == 100


# --- Artifacts of entries ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (There('"1"'), None),
        (There('"2"'), "ArtifactChanged"),
        (ObjectGone(), "ArtifactGone"),
        (Unknown("no answer", down=True), None),
    ],
)
async def test_an_entry_is_served_as_far_as_its_artifacts_let_it(
    cluster: Cluster, answer: There | ObjectGone | Unknown, reason: str | None
) -> None:
    bucket = Bucket()
    async with Serving(cluster, probe=bucket) as setting:
        await setting.store(setting.step(), entry(outputs={"result": "r", "artifacts": [at("a")]}))
        assert json.loads(setting.data()[KEY])["stepmemo"]["etags"] == {"out": '"1"'}
        bucket.answers["a"] = answer
        found = await setting.look_up(setting.step("wf-a-124"))
        if reason is None:
            assert found.body == {"entry": setting.data()[KEY]}
        else:
            assert (found.body["entry"], found.body["reason"]) == (None, reason)
        assert len(setting.found) == (reason is None)
        await until(lambda: (KEY in setting.data()) is (answer != ObjectGone()))


async def test_who_waits_in_a_pod_is_served_where_a_repository_is_slow(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "VERIFY_SECONDS", 0.01)
    bucket = Bucket()
    async with Serving(cluster, probe=bucket) as setting:
        await setting.store(setting.step(), entry(outputs={"result": "r", "artifacts": [at("a")]}))
        bucket.open.clear()
        found = await setting.look_up(setting.step("wf-a-124"))
        assert found.body == {"entry": setting.data()[KEY]}
        bucket.open.set()
        await until(lambda: bucket.at_once == 0)


async def test_an_entry_that_is_long_to_read_is_stored_without_etags(cluster: Cluster) -> None:
    async with Serving(cluster, probe=Bucket()) as setting:
        outputs = {"result": "r" * 70_000, "artifacts": [at("a")]}
        assert (await setting.store(setting.step(), entry(outputs=outputs))).body["reason"] == "Stored"
        assert "etags" not in json.loads(setting.data()[KEY])["stepmemo"]
