"""A start that releases first: on the API server itself, and by a keeper that is killed at every start."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from argo import names as argo
from devcluster.api.server import write_kubeconfig
from keeper import release_first as releasing
from keeper.controller import LEASE
from keeper.release_first import release_first
from kube import client, pages
from kube.leader_election import Lease
from memoize import names
from server.events import Events
from server.metrics import Metrics
from tests.beside import beside
from tests.cluster import Cluster
from tests.keeper.keepers import ACCOUNT
from tests.keeper.program import running
from tests.keeper.proxy import Proxy, refusing
from tests.keeper.site import Site
from tests.manifests.rendering import rules_of
from tests.waiting import until
from tests.webhook.serving import api_client, certify

OTHER = {"name": "other.dev/gate"}
NAMELESS = {"metadata": {"labels": {names.RESULT: names.RESULT_GATED}}}
WHY = "Undecided: the keeper was killed at its last starts, and released it before this one"


@pytest.fixture
def site(cluster: Cluster) -> Site:
    return Site.new(cluster)


async def release(site: Site, proxy: Proxy | None = None, metrics: Metrics | None = None) -> None:
    """Do so as the keeper's account."""
    proxy, metrics = proxy or Proxy(site.cluster), metrics or Metrics()
    token = site.cluster.service_account(site.namespace, ACCOUNT, rules_of("stepmemo-keeper"))
    async with proxy.serving() as url, api_client(site.cluster, url=url, token=token) as api:
        events = Events(api, metrics.event_dropped, "stepmemo-keeper", "test")
        async with beside(events.run()):
            lease = Lease(api, site.namespace, LEASE, "a", renew=0.02)
            await release_first(api, lease, [site.namespace], metrics, events)


def gates(site: Site, name: str) -> list[str]:
    return [gate["name"] for gate in site.get(name)["spec"].get("schedulingGates") or ()]


def reason(site: Site, name: str) -> Any:
    return site.get(name)["metadata"]["annotations"].get(names.REASON)


@pytest.mark.contract
async def test_all_gated_pods_run_whatever_they_say(site: Site) -> None:
    plain = [site.pod(number) for number in range(25)]
    broken = site.pod(100, change={names.PLAN: "{" * 1000})
    unknown = site.pod(101, change={names.PLAN: '{"version":99}'})
    metrics = Metrics()

    await release(site, metrics=metrics)

    for name in [*plain, broken, unknown]:
        assert not site.held(name)
        assert site.label(name) == names.RESULT_SKIPPED
        assert reason(site, name) == WHY
    assert b'stepmemo_steps_total{reason="Undecided"} 27.0' in metrics.render()
    lease = site.cluster.get("Lease", site.namespace, LEASE)[1]
    assert not lease["spec"].get("holderIdentity"), "the keeper itself stands for it next"


@pytest.mark.contract
async def test_gates_of_others_and_pods_without_ours_stay_as_they_are(site: Site) -> None:
    namespace = site.namespace
    both, running = site.pod(0), site.pod(1, held=False)
    pod = site.get(both)
    for field in ("uid", "resourceVersion", "creationTimestamp", "managedFields"):
        pod["metadata"].pop(field, None)
    del pod["status"]
    pod["metadata"]["name"] = "both"
    pod["spec"]["schedulingGates"] = [OTHER, *pod["spec"]["schedulingGates"]]
    assert site.cluster.create(pod)[0] == 201
    before = site.get(running)["metadata"]["resourceVersion"]

    metrics = Metrics()
    await release(site, metrics=metrics)

    assert gates(site, "both") == [OTHER["name"]]
    assert b'stepmemo_steps_total{reason="Undecided"} 2.0' in metrics.render()
    assert site.label(running) == names.RESULT_MISS
    assert site.get(running)["metadata"]["resourceVersion"] == before
    assert site.cluster.get("Pod", namespace, both)[1]["metadata"]["labels"][names.RESULT] == "skipped"


@pytest.mark.contract
async def test_a_pod_that_was_to_run_already_keeps_its_label_and_is_stored_later(site: Site) -> None:
    name = site.pod()
    site.cluster.patch(
        "Pod", site.namespace, name, {"metadata": {"labels": {names.RESULT: names.RESULT_MISS}}}
    )
    await release(site)
    assert not site.held(name)
    assert site.label(name) == names.RESULT_MISS


@pytest.mark.contract
async def test_a_pod_that_lost_its_label_is_found_by_its_plan_and_pods_of_others_are_not_touched(
    site: Site,
) -> None:
    lost = site.pod(0)
    site.cluster.patch("Pod", site.namespace, lost, {"metadata": {"labels": {names.RESULT: None}}})
    spec = {"containers": [{"name": "c", "image": "x"}], "schedulingGates": [OTHER]}
    theirs = {"kind": "Pod", "metadata": {"name": "theirs", "namespace": site.namespace}, "spec": spec}
    assert site.cluster.create({"apiVersion": "v1", **theirs})[0] == 201
    theirs["metadata"] |= {"name": "forged", "annotations": {names.PLAN: "x"}}
    assert site.cluster.create({"apiVersion": "v1", **theirs})[0] == 201
    proxy, metrics = Proxy(site.cluster), Metrics()
    await release(site, proxy, metrics)
    assert not site.held(lost)
    assert gates(site, "theirs") == gates(site, "forged") == [OTHER["name"]]
    patched = sorted(call.says for call in proxy.calls if call.method == "PATCH")
    assert patched == ["PATCH pods/forged", f"PATCH pods/{lost}"], "each once, refused by a policy or not"
    assert b'stepmemo_steps_total{reason="Undecided"} 1.0' in metrics.render()


@pytest.mark.contract
async def test_no_pod_runs_beside_an_answer_that_was_posted_for_it(site: Site) -> None:
    answered, again, late = site.pod(0), site.pod(1), site.pod(2)
    other = site.pod(3, change={argo.NODE_NAME: "wf[0].another"})
    posted(site, answered, site.get(answered)["metadata"]["uid"])
    posted(site, again, "of an earlier Pod")
    posted(site, other, "of an earlier Pod")
    site.report(late)
    gate_went: list[tuple[str, bool]] = []
    proxy = Proxy(site.cluster)

    def watching(method: str, path: str) -> web.Response | None:
        if method == "PATCH" and path == f"pods/{answered}":
            gate_went.append((path, site.result(answered) is not None))
        return None

    proxy.fault = watching
    await release(site, proxy)

    assert [there for _, there in gate_went] == [True, False], "marked, then taken back, then released"
    assert site.result(answered) is None
    assert site.result(again) is None, "it proves to be the same node"
    assert site.result(other) is not None, "it does not"
    assert site.value(late) == "of the step itself"
    assert not any(site.held(name) for name in (answered, again, other, late))


async def test_a_pod_that_succeeds_at_that_moment_keeps_its_answer(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last request of the keeper that was killed may come through late."""
    monkeypatch.setattr(releasing, "_FIRST_PAUSE", 0.01)
    name = site.pod()
    posted(site, name, site.get(name)["metadata"]["uid"])
    proxy = Proxy(site.cluster)

    def finish(method: str, path: str) -> web.Response | None:
        if method == "PATCH" and path == f"pods/{name}" and not site.succeeded(name):
            labels = {"metadata": {"labels": {names.RESULT: names.RESULT_HIT}}}
            over = {**labels, "status": {"phase": "Succeeded"}}
            assert site.cluster.patch("Pod", site.namespace, name, over, subresource="status")[0] == 200
        return None

    proxy.fault = finish
    await release(site, proxy)
    assert site.value(name) == "ours"
    assert site.label(name) == names.RESULT_HIT


def posted(site: Site, name: str, uid: str) -> None:
    site.report(name, "ours")
    annotations = {names.POSTED_FOR: uid}
    status, body = site.cluster.patch(
        "WorkflowTaskResult", site.namespace, name, {"metadata": {"annotations": annotations}}
    )
    assert status == 200, body


async def test_a_pod_that_takes_no_word_of_ours_loses_its_gate_alone(site: Site) -> None:
    name = site.pod()
    proxy = Proxy(site.cluster)
    proxy.fault = refusing(422, f"PATCH pods/{name}", times=1)
    await release(site, proxy)
    assert not site.held(name)
    assert site.label(name) == names.RESULT_GATED
    assert reason(site, name) is None


@pytest.mark.parametrize("status", [403, 409, 429, 500])
async def test_what_fails_is_said_and_tried_again(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(releasing, "_FIRST_PAUSE", 0.01)
    first, second = site.pod(0), site.pod(1)
    proxy = Proxy(site.cluster)
    proxy.fault_all = refusing(status, "GET pods", times=1)
    proxy.fault = refusing(status, f"PATCH pods/{first}", f"GET workflowtaskresults/{second}", times=4)
    await release(site, proxy)
    assert not site.held(first)
    assert not site.held(second)
    assert "cannot list gated Pods" in caplog.text
    assert "cannot release a gated Pod" in caplog.text


@pytest.mark.parametrize("page", [{"items": 7}, {"items": [{}]}, {"items": [NAMELESS]}])
async def test_an_answer_that_makes_no_sense_ends_nothing(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, page: dict[str, Any]
) -> None:
    monkeypatch.setattr(releasing, "_FIRST_PAUSE", 0.01)
    name = site.pod()
    proxy, answers = Proxy(site.cluster), [page]

    def once(method: str, path: str) -> web.Response | None:
        return web.json_response(answers.pop()) if path == "pods" and answers else None

    proxy.fault_all = once
    await release(site, proxy)
    assert not answers
    assert not site.held(name)
    assert "cannot list gated Pods: an answer that makes no sense" in caplog.text


async def test_pods_with_metadata_that_fill_a_page_are_released_one_by_one(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 50_000
    monkeypatch.setattr(client, "MOST_BYTES", 2 * size)
    monkeypatch.setattr(pages, "MOST_PAGE_BYTES", 2 * size)
    filled = [site.pod(number, change={"example.com/much": "x" * size}) for number in range(4)]
    await release(site)
    assert not any(site.held(name) for name in filled)


async def test_a_list_that_fails_is_made_again_and_no_other(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(releasing, "_FIRST_PAUSE", 0.01)
    name, proxy = site.pod(), Proxy(site.cluster)
    lists: list[str] = []
    failing = refusing(500, "GET pods")

    def fault(method: str, path: str) -> web.Response | None:
        if (method, path) != ("GET", "pods"):
            return None
        lists.append(path)
        return failing(method, path) if len(lists) in (1, 3, 4) else None

    proxy.fault_all = fault
    await release(site, proxy)
    assert not site.held(name)
    assert len(lists) == 2 + 3, "both selectors, and three times again the one that failed"


async def test_a_pod_that_cannot_be_released_does_not_stop_the_start_for_ever(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(releasing, "DEADLINE", 5.0)
    first, second = site.pod(0), site.pod(1)
    proxy = Proxy(site.cluster)
    proxy.fault = refusing(403, f"PATCH pods/{first}")
    await release(site, proxy)
    assert site.held(first)
    assert not site.held(second)
    assert "some Pods may be gated still: the start goes on" in caplog.text


async def test_while_another_keeper_renews_the_lease_the_pods_are_left_to_it(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(releasing, "LEASE_SECONDS", 1.0)
    name = site.pod()
    async with api_client(site.cluster) as api:
        acting = Lease(api, site.namespace, LEASE, "b", renew=0.02)
        async with beside(acting.run()):
            await until(lambda: acting.is_leader)
            await release(site)
            assert acting.is_leader
    assert site.held(name)
    assert "another keeper acts" in caplog.text


async def test_without_a_right_to_the_lease_they_are_released_all_the_same(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(releasing, "LEASE_SECONDS", 0.5)
    name = site.pod()
    proxy = Proxy(site.cluster)
    proxy.fault_all = refusing(403, "leases")
    await release(site, proxy)
    assert not site.held(name)


# --- the whole program


@pytest.mark.slow
async def test_held_pods_run_though_every_keeper_is_killed_as_soon_as_it_looks_at_them(
    site: Site, tmp_path: Path
) -> None:
    """The poison: the keeper that lists the caches is killed, as if a list were too much for its memory."""
    certify(tmp_path / "certs")
    kubeconfig = tmp_path / "kubeconfig"
    argv = ("--certs=files", f"--cert-dir={tmp_path / 'certs'}", f"--namespaces={site.namespace}")
    pods = [site.pod(number) for number in range(15)]
    proxy = Proxy(site.cluster)
    looked = asyncio.Event()
    killed = 0

    def poison(method: str, path: str) -> web.Response | None:
        if path != "configmaps":
            return None
        looked.set()
        return web.json_response({"kind": "Status", "code": 503}, status=503)

    proxy.fault_all = poison
    async with proxy.serving() as url:
        write_kubeconfig(kubeconfig, url, site.cluster.ca_file, site.cluster.admin_token)
        environ = {"KUBECONFIG": str(kubeconfig), "STEPMEMO_NAMESPACE": site.namespace}
        while any(site.held(name) for name in pods):
            looked.clear()
            with running(tmp_path, environ, *argv) as keeper:
                assert killed < 3, keeper.log
                await until(lambda: looked.is_set() or keeper.process.poll() is not None)
                assert keeper.process.poll() is None, keeper.log
                keeper.process.send_signal(signal.SIGKILL)
                await asyncio.to_thread(keeper.process.wait)
            killed += 1
    assert killed == 3
    assert {reason(site, name) for name in pods} == {WHY}
    assert set(site.labels(pods)) == {names.RESULT_SKIPPED}
