"""The trial of image volumes, with API servers that know them, do not, may not say, or are in trouble."""

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from copy import deepcopy
from typing import Any

import pytest
from aiohttp import web

from server.settings import SettingsError
from tests.cluster import Cluster
from tests.keeper.troubled import Answer, answering, broken, gibberish, hang, overloaded
from tests.webhook.serving import api_client
from webhook import settings
from webhook.inject import preflight
from webhook.inject.containers import InjectSettings
from webhook.inject.preflight import NoAnswer, Taken, UnansweredError, Unusable

Json = dict[str, Any]
SETTINGS = InjectSettings(image="stepmemo:test")
SENT = preflight.pod_template(SETTINGS)
RULE = {"apiGroups": [""], "resources": ["podtemplates"], "verbs": ["create"]}


# --- What an answer means ----------------------------------------------------------------------------


def defaulted(answer: Json) -> Json:
    """What a server adds, and what a policy may change."""
    answer["metadata"]["name"] = "stepmemo-preflight-x"
    spec = answer["template"]["spec"]
    spec["dnsPolicy"] = "ClusterFirst"
    spec["volumes"].insert(0, {"name": "other", "emptyDir": {}})
    for container in spec["containers"]:
        container["image"] = "mirror.test/stepmemo:test"
    return answer


def without_the_volume(answer: Json) -> Json:
    """A server from 1.31 on, its feature off."""
    spec = answer["template"]["spec"]
    spec.pop("volumes")
    for container in spec["containers"]:
        container.pop("volumeMounts", None)
    return answer


def with_an_empty_directory(answer: Json) -> Json:
    """A server that has never heard of the field."""
    (volume,) = answer["template"]["spec"]["volumes"]
    del volume["image"]
    volume["emptyDir"] = {}
    return answer


def without_the_rules(answer: Json) -> Json:
    del answer["template"]["spec"]["containers"][0]["restartPolicyRules"]
    return answer


@pytest.mark.parametrize("change", [lambda same: same, defaulted])
def test_what_comes_back_whole_is_taken(change: Callable[[Json], Json]) -> None:
    assert preflight.evaluate_preflight(SENT, 201, change(deepcopy(SENT))) == Taken()


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        (without_the_volume, "spec.containers[main].volumeMounts, spec.volumes"),
        (with_an_empty_directory, "spec.volumes[stepmemo-image].image"),
        (without_the_rules, "spec.containers[stepmemo].restartPolicyRules"),
    ],
)
def test_what_comes_back_with_less_is_refused_and_what_is_lost_is_named(
    change: Callable[[Json], Json], lost: str
) -> None:
    verdict = preflight.evaluate_preflight(SENT, 201, change(deepcopy(SENT)))
    assert isinstance(verdict, Unusable)
    assert f"drops {lost}: Kubernetes 1.35 or newer is needed" in verdict.why
    assert "use --injection=init-container" in verdict.why


@pytest.mark.parametrize("template", [None, [], {}, {"spec": {"volumes": 1, "containers": ["x"]}}])
def test_a_template_of_another_shape_is_refused(template: object) -> None:
    assert isinstance(
        preflight.evaluate_preflight(SENT, 201, {"kind": "PodTemplate", "template": template}), Unusable
    )


@pytest.mark.parametrize("answer", [None, [], "<html>", {}, {"kind": "Status"}])
def test_an_answer_that_is_no_pod_template_says_nothing(answer: object) -> None:
    assert isinstance(preflight.evaluate_preflight(SENT, 200, answer), NoAnswer)


@pytest.mark.parametrize("code", [400, 404, 413, 422])
def test_a_refusal_is_told_in_the_servers_words(code: int) -> None:
    verdict = preflight.evaluate_preflight(SENT, code, {"message": "PodTemplate is invalid: template.spec"})
    assert isinstance(verdict, Unusable)
    assert (
        f"refuses it: {code} PodTemplate is invalid: template.spec; or use --injection=init-container"
        in verdict.why
    )


def test_a_missing_right_names_what_gives_it() -> None:
    message = 'podtemplates is forbidden: User "u" cannot create resource "podtemplates" in API group ""'
    verdict = preflight.evaluate_preflight(SENT, 403, {"message": message})
    assert isinstance(verdict, Unusable)
    assert f"may not be tried: 403 {message}; apply manifests/components/image-volume" in verdict.why


def test_a_policy_that_forbids_it_is_told_in_its_own_words() -> None:
    verdict = preflight.evaluate_preflight(SENT, 403, {"message": "exceeded quota: few-things"})
    assert isinstance(verdict, Unusable)
    assert "refuses it: 403 exceeded quota: few-things; or use --injection=init-container" in verdict.why


@pytest.mark.parametrize("code", [401, 408, 409, 429, 500, 503, 504])
@pytest.mark.parametrize("answer", [None, [], {"message": "later"}])
def test_trouble_says_nothing_about_the_fields(code: int, answer: object) -> None:
    assert isinstance(preflight.evaluate_preflight(SENT, code, answer), NoAnswer)


def test_errors_begin_with_the_setting() -> None:
    gate = settings.DECLARED["injection"]
    assert f'{gate}: "image-volume"' == preflight._SETTING


# --- Against an API ----------------------------------------------------------------------------------


@pytest.mark.contract
async def test_the_right_of_the_component_is_enough(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    token = cluster.service_account(namespace, "stepmemo", [RULE])
    async with api_client(cluster, token=token) as api:
        await preflight.require_image_volumes(api, namespace, SETTINGS)
    assert cluster.list("PodTemplate", namespace)[1]["items"] == []


@pytest.mark.contract
async def test_without_the_right_it_is_refused_at_once(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    token = cluster.service_account(namespace, "powerless", [])
    async with api_client(cluster, token=token) as api:
        with pytest.raises(
            SettingsError, match=r'^--injection \(STEPMEMO_INJECTION\): "image-volume" may not be tried: 403'
        ):
            await preflight.require_image_volumes(api, namespace, SETTINGS)


@pytest.mark.contract
async def test_a_namespace_that_is_not_there_is_named(cluster: Cluster) -> None:
    async with api_client(cluster) as api:
        with pytest.raises(SettingsError, match='404 namespaces "nowhere" not found'):
            await preflight.require_image_volumes(api, "nowhere", SETTINGS)


def asking(answer: Answer) -> AbstractAsyncContextManager[str]:
    return answering(answer, "POST", "/api/v1/namespaces/stepmemo/podtemplates")


@pytest.mark.parametrize("trouble", [hang, overloaded, broken, gibberish])
async def test_an_api_server_in_trouble_is_asked_until_patience_ends(
    cluster: Cluster, trouble: Answer
) -> None:
    async with asking(trouble) as url, api_client(cluster, url=url) as api:
        with pytest.raises(UnansweredError, match=r"could not be tried in 0\.3 s"):
            await preflight.require_image_volumes(api, "stepmemo", SETTINGS, seconds=0.3, pause=0.01)


async def test_an_api_server_that_is_away_is_asked_until_patience_ends(cluster: Cluster) -> None:
    async with api_client(cluster, url="http://127.0.0.1:1") as api:
        with pytest.raises(UnansweredError, match="Cannot connect"):
            await preflight.require_image_volumes(api, "stepmemo", SETTINGS, seconds=0.3, pause=0.01)


async def test_trouble_that_passes_is_forgotten(cluster: Cluster) -> None:
    asked: list[Json] = []

    async def recovering(request: web.Request) -> web.StreamResponse:
        assert request.query == {"dryRun": "All"}
        asked.append(json.loads(await request.read()))
        if len(asked) < 3:
            return await broken(request)
        return web.json_response(asked[-1], status=201)

    async with asking(recovering) as url, api_client(cluster, url=url) as api:
        await preflight.require_image_volumes(api, "stepmemo", SETTINGS, seconds=20, pause=0.01)
    assert asked == [SENT, SENT, SENT]
