import asyncio
from typing import Any

import pytest
from aiohttp import web

from keeper.api import auth as reviewing
from keeper.api.auth import FRESH, FRESH_REFUSAL, Caller, PeoplesTokens, Person, Tokens
from keeper.api.errors import ErrorAnswer
from memoize import names
from tests.cluster import Cluster
from tests.keeper.api.asked import recorded
from tests.keeper.api.steps import make_pod, token_of
from tests.keeper.troubled import Answer, answering, broken, gibberish, hang, overloaded
from tests.webhook.serving import api_client


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def code(answer: Caller | Person | ErrorAnswer) -> int:
    return answer.code if isinstance(answer, ErrorAnswer) else 200


@pytest.mark.contract
async def test_a_token_names_its_pod(cluster: Cluster) -> None:
    pod = make_pod(cluster, cluster.namespace())
    metadata = pod["metadata"]
    async with api_client(cluster) as api:
        answer = await Tokens(api).caller(token_of(cluster, pod))
    assert answer == Caller(metadata["namespace"], "default", metadata["name"], metadata["uid"])


@pytest.mark.contract
async def test_a_token_for_another_audience_is_refused(cluster: Cluster) -> None:
    pod = make_pod(cluster, cluster.namespace())
    async with api_client(cluster) as api:
        assert code(await Tokens(api).caller(token_of(cluster, pod, "somebody-else"))) == 401


@pytest.mark.contract
async def test_the_tokens_of_the_api_server_are_refused(cluster: Cluster) -> None:
    of_account = cluster.service_account(cluster.namespace(), "step", [])
    async with api_client(cluster) as api:
        tokens = Tokens(api)
        assert code(await tokens.caller(of_account)) == 401
        assert code(await tokens.caller(cluster.admin_token)) == 401


@pytest.mark.contract
async def test_a_token_of_no_pod_is_refused(cluster: Cluster) -> None:
    path = cluster.path("ServiceAccount", cluster.namespace(), "default", "token")
    status, body, _ = cluster.request("POST", path, {"spec": {"audiences": [names.TOKEN_AUDIENCE]}})
    assert status == 201, body
    async with api_client(cluster) as api:
        assert code(await Tokens(api).caller(body["status"]["token"])) == 401


@pytest.mark.contract
async def test_a_token_of_a_pod_that_is_gone_is_refused(cluster: Cluster) -> None:
    pod = make_pod(cluster, cluster.namespace())
    token, metadata = token_of(cluster, pod), pod["metadata"]
    path = cluster.path("Pod", metadata["namespace"], metadata["name"])
    assert cluster.request("DELETE", path, {"gracePeriodSeconds": 0}).status == 200
    async with api_client(cluster) as api:
        assert code(await Tokens(api).caller(token)) == 401


@pytest.mark.contract
@pytest.mark.parametrize("token", ["", "x", "a.b.c", "x" * 20_000, "ü", "a\nb", "\udcff"])
async def test_what_is_no_token_is_refused(cluster: Cluster, token: str) -> None:
    async with api_client(cluster) as api:
        assert code(await Tokens(api).caller(token)) == 401


@pytest.mark.contract
async def test_without_the_right_to_review_nobody_is_told_that_his_token_is_bad(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    token = token_of(cluster, make_pod(cluster, namespace))
    server = cluster.service_account(namespace, "server", [])
    async with api_client(cluster, token=server) as api:
        assert code(await Tokens(api).caller(token)) == 503


def test_no_more_than_a_minute_passes_until_a_token_is_reviewed_again() -> None:
    assert FRESH_REFUSAL < FRESH <= 60


async def test_a_review_serves_for_a_while(cluster: Cluster) -> None:
    token, clock = token_of(cluster, make_pod(cluster, cluster.namespace())), Clock()
    async with api_client(cluster) as api:
        tokens = Tokens(api, clock=clock)
        with recorded(api) as asked:
            await asyncio.gather(*(tokens.caller(token) for _ in range(5)))
            clock.now += FRESH - 1
            await tokens.caller(token)
            assert len(asked) == 1
            clock.now += 1
            assert tokens.known(token) is None
            await tokens.caller(token)
            assert len(asked) == 2


async def test_a_refusal_serves_for_less_long(cluster: Cluster) -> None:
    clock = Clock()
    async with api_client(cluster) as api:
        tokens = Tokens(api, clock=clock)
        with recorded(api) as asked:
            await tokens.caller("a.b.c")
            await tokens.caller("a.b.c")
            assert len(asked) == 1
            clock.now += FRESH_REFUSAL
            await tokens.caller("a.b.c")
            assert len(asked) == 2


async def test_no_token_is_kept(cluster: Cluster) -> None:
    token = token_of(cluster, make_pod(cluster, cluster.namespace()))
    async with api_client(cluster) as api:
        tokens = Tokens(api)
        await tokens.caller(token)
    assert token not in repr(vars(tokens))


async def test_memory_is_bounded(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reviewing, "MOST", 2)
    async with api_client(cluster) as api:
        tokens = Tokens(api)
        for token in ("a", "b", "c"):
            await tokens.caller(token)
    assert tokens.known("a") is None
    assert tokens.known("c") is not None


async def test_reviews_under_way_are_bounded(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reviewing, "MOST_AT_ONCE", 1)
    monkeypatch.setattr(reviewing, "MOST_WAITING", 1)
    monkeypatch.setattr(reviewing, "TIMEOUT", 0.1)
    async with answering(hang, "POST") as url, api_client(cluster, url=url) as api:
        tokens = Tokens(api)
        answers = await asyncio.gather(*(tokens.caller(token) for token in "abca"))
    said = [answer.message for answer in answers if isinstance(answer, ErrorAnswer)]
    assert [message == "too many tokens are being reviewed" for message in said] == [
        False,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize("answer", [hang, overloaded, broken, gibberish])
async def test_an_api_server_in_trouble_makes_no_token_bad(
    cluster: Cluster, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reviewing, "TIMEOUT", 0.1)
    async with answering(answer, "POST") as url, api_client(cluster, url=url) as api:
        tokens = Tokens(api)
        refusal = await tokens.caller("a.b.c")
        assert isinstance(refusal, ErrorAnswer)
        assert refusal.code == 503
        assert refusal.headers == {"Retry-After": "1"}
        assert tokens.known("a.b.c") is None


GOOD: dict[str, Any] = {
    "authenticated": True,
    "audiences": [names.TOKEN_AUDIENCE],
    "user": {
        "username": "system:serviceaccount:ns:default",
        "extra": {
            "authentication.kubernetes.io/pod-name": ["pod"],
            "authentication.kubernetes.io/pod-uid": ["uid"],
        },
    },
}


@pytest.mark.parametrize(
    "status",
    [
        {**GOOD, "authenticated": False},
        {**GOOD, "authenticated": "true"},
        {**GOOD, "audiences": None},
        {**GOOD, "audiences": ["https://kubernetes.default.svc"]},
        {**GOOD, "user": None},
        {**GOOD, "user": {**GOOD["user"], "username": "system:node:ns:default"}},
        {**GOOD, "user": {**GOOD["user"], "username": "system:serviceaccount:ns"}},
        {**GOOD, "user": {**GOOD["user"], "username": "system:serviceaccount::default"}},
        {**GOOD, "user": {**GOOD["user"], "username": "somebody"}},
        {**GOOD, "user": {**GOOD["user"], "extra": None}},
        {**GOOD, "user": {**GOOD["user"], "extra": {"authentication.kubernetes.io/pod-name": ["pod"]}}},
    ],
)
async def test_only_a_whole_answer_for_our_audience_counts(cluster: Cluster, status: Any) -> None:
    told = [GOOD, status]

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response({"status": told.pop(0)}, status=201)

    async with answering(answer, "POST") as url, api_client(cluster, url=url) as api:
        tokens = Tokens(api)
        assert await tokens.caller("good") == Caller("ns", "default", "pod", "uid")
        assert code(await tokens.caller("bad")) == 401


PERSONS: dict[str, Any] = {**GOOD, "user": {"username": "system:serviceaccount:ns:default"}}


@pytest.mark.parametrize(
    "status",
    [
        GOOD,
        {**PERSONS, "authenticated": False},
        {**PERSONS, "audiences": ["https://kubernetes.default.svc"]},
        {**PERSONS, "user": {"username": "somebody"}},
        {**PERSONS, "user": {"username": "system:serviceaccount:ns:"}},
        *(
            {**PERSONS, "user": {**PERSONS["user"], "extra": {f"authentication.kubernetes.io/{name}": ["x"]}}}
            for name in ("pod-name", "pod-uid")
        ),
    ],
)
async def test_a_person_is_an_account_of_which_nothing_says_that_it_is_a_pods(
    cluster: Cluster, status: Any
) -> None:
    told = [PERSONS, status]

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response({"status": told.pop(0)}, status=201)

    async with answering(answer, "POST") as url, api_client(cluster, url=url) as api:
        tokens = PeoplesTokens(api)
        assert await tokens.caller("good") == Person("ns", "default")
        assert code(await tokens.caller("bad")) == 401
