import json
import re
import time
from datetime import timedelta

import pytest
from aiohttp import web

from argo import names as argo
from keeper import breaker
from keeper.reconcile import PAUSE
from kube.leader_election import Lease
from memoize import names
from memoize.configmap import MOST_BYTES
from memoize.entry import Entry
from memoize.keeper_status import KeeperStatus, Namespaces, digest
from memoize.key import data_key
from memoize.plan import READS
from server.lookups import Lookups
from tests.cluster import Cluster
from tests.keeper.keepers import LEASE, Running, decided, keeping
from tests.keeper.proxy import Proxy, refusing
from tests.keeper.site import CACHE, KEY, OUT, PAUSED, RAN, SIMPLE, Site, outputs
from tests.keeper.test_breaker import created
from tests.waiting import until
from webhook.pods import room


@pytest.fixture
def site(cluster: Cluster) -> Site:
    return Site.new(cluster)


@pytest.mark.contract
async def test_a_hit_is_completed_without_a_node(site: Site) -> None:
    site.store()
    async with keeping(site) as running:
        name = site.pod()
        await decided(site, name)
    pod = site.get(name)
    assert site.label(name) == names.RESULT_HIT
    assert site.value(name) == OUT
    assert pod["status"]["phase"] == "Succeeded"
    assert pod["status"]["reason"] == "Memoized"
    assert "earlier" in pod["status"]["message"]
    assert not pod["spec"].get("nodeName")
    calls = [call.says.split("/")[0] for call in running.proxy.calls]
    assert [call for call in calls if call != "GET configmaps"] == [
        "GET workflows",
        "POST workflowtaskresults",
        "PATCH pods",
    ]


@pytest.mark.contract
async def test_of_equal_steps_one_runs_and_the_others_are_answered_with_its_outputs(site: Site) -> None:
    async with keeping(site):
        pods = [site.pod(number) for number in range(5)]
        await until(lambda: site.labels(pods) == ["gated"] * 4 + ["miss"])
        runner = next(name for name in pods if site.label(name) == names.RESULT_MISS)
        site.run(runner)
        await until(lambda: site.labels(pods) == ["hit"] * 4 + ["stored"])
    assert [site.value(name) for name in pods] == [RAN] * 5
    assert all(site.succeeded(name) for name in pods)
    entry = site.entry()
    assert entry is not None
    assert (entry.pod, entry.workflow, entry.took) == (runner, "wf", 5.0)


@pytest.mark.contract
async def test_in_a_full_cache_what_gated_pods_look_for_does_not_make_room(site: Site) -> None:
    old = site.now - timedelta(days=2)
    other = Entry("wf-0", outputs("y" * 50_000), old, site.now).dump()
    data = {f"other-{number}": other for number in range(20)}
    # Of no use to the Pods that look for it, so that one of them runs; and not used for the longest time.
    data[data_key(KEY)] = Entry("wf-0", None, old, old).dump()
    data["another-old-one"] = Entry("wf-0", None, old, old + timedelta(days=1)).dump()
    data["fill"] = "x" * (MOST_BYTES - sum(map(len, data.values())))
    site.put(data)
    async with keeping(site):
        pods, another = [site.pod(number) for number in range(3)], site.pod(4, key="another")
        await until(lambda: sorted(site.labels([*pods, another])) == ["gated"] * 2 + ["miss"] * 2)
        site.run(another)
        await until(lambda: site.label(another) == names.RESULT_STORED)
        left = site.cluster.get("ConfigMap", site.namespace, CACHE)[1]["data"]
        assert {data_key(KEY), data_key("another")} <= left.keys()
        assert "another-old-one" not in left
        site.run(next(name for name in pods if site.label(name) == names.RESULT_MISS))
        await until(lambda: sorted(site.labels(pods)) == ["hit", "hit", "stored"])


@pytest.mark.contract
async def test_pods_that_were_held_before_the_keeper_came_are_decided(site: Site) -> None:
    site.store()
    hit, miss = site.pod(0), site.pod(1, key="another")
    async with keeping(site):
        await decided(site, hit, miss)
    assert site.label(hit) == names.RESULT_HIT
    assert site.label(miss) == names.RESULT_MISS
    assert not site.held(miss)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"created": None}, "Expired"),
        ({"outputs": {"parameters": []}}, "IncompleteEntry"),
        ({"key": "of another step"}, "KeyMismatch"),
    ],
)
async def test_an_entry_that_does_not_answer_lets_the_step_run(
    site: Site, changes: dict[str, object], reason: str
) -> None:
    site.store(**changes)
    async with keeping(site):
        name = site.pod(change={names.MAX_AGE: "1h"})
        await decided(site, name)
    assert site.label(name) == names.RESULT_MISS
    assert site.reason(name) == reason
    assert site.result(name) is None or not site.value(name)


async def test_a_result_comes_a_second_before_the_success_where_argo_could_miss_it(site: Site) -> None:
    site.store()
    proxy, begun = Proxy(site.cluster), dict[str, float]()

    def note(method: str, path: str) -> None:
        begun.setdefault(f"{method} {path}", time.monotonic())

    proxy.fault = note
    async with keeping(site, proxy):
        name = site.pod(case=PAUSED)
        await until(lambda: site.succeeded(name))
    assert begun[f"PATCH pods/{name}/status"] - begun["POST workflowtaskresults"] >= PAUSE


@pytest.mark.usefixtures("long_pause")
async def test_elsewhere_the_success_follows_its_result_at_once(site: Site) -> None:
    site.store()
    async with keeping(site):
        paused, simple = site.pod(0, case=PAUSED), site.pod(1, case=SIMPLE)
        await until(lambda: site.value(paused) == OUT and site.succeeded(simple))
        assert not site.succeeded(paused)


@pytest.mark.parametrize(
    ("said", "word", "event"),
    [
        ({"reason": "Stored", "detail": "9 bytes"}, names.RESULT_STORED, "MemoizationStored"),
        ({"reason": "Hit", "detail": "from n"}, names.RESULT_HIT, "MemoizationHit"),
        ({"reason": "CacheFull", "detail": "no room"}, names.RESULT_SKIPPED, "MemoizationSkipped"),
    ],
)
async def test_what_containers_of_ours_did_inside_a_pod_is_shown_on_it_and_told(
    site: Site, said: dict[str, str], word: str, event: str
) -> None:
    async with keeping(site):
        name = site.pod(held=False)
        inside = {"metadata": {"labels": {names.RESULT: names.RESULT_IN_POD}}}
        assert site.cluster.patch("Pod", site.namespace, name, inside)[0] == 200
        words = {"terminated": {"exitCode": 0, "message": json.dumps(said)}}
        ours = {
            "name": names.CAPTURE_CONTAINER,
            "image": "x",
            "imageID": "",
            "ready": False,
            "restartCount": 0,
        }
        status = {"phase": "Succeeded", "containerStatuses": [{**ours, "state": words}]}
        answer, body = site.cluster.patch(
            "Pod", site.namespace, name, {"status": status}, subresource="status"
        )
        assert answer == 200, body
        await until(lambda: site.label(name) == word)
        await until(lambda: any(event in told for told in site.events()))
    assert site.reason(name) == said["reason"]


async def test_when_the_runner_fails_its_waiters_run_side_by_side(site: Site) -> None:
    async with keeping(site):
        pods = [site.pod(number) for number in range(4)]
        await until(lambda: site.labels(pods) == ["gated"] * 3 + ["miss"])
        runner = next(name for name in pods if site.label(name) == names.RESULT_MISS)
        site.end(runner, phase="Failed", code=1)
        await until(lambda: site.labels(pods) == ["miss"] * 3 + ["skipped"])
    assert {site.reason(name) for name in pods} == {"StepFailed", "SharedRunFailed"}
    assert not any(site.held(name) for name in pods)


async def test_when_the_runner_is_deleted_its_waiters_run(site: Site) -> None:
    async with keeping(site):
        pods = [site.pod(number) for number in range(3)]
        await until(lambda: site.labels(pods) == ["gated"] * 2 + ["miss"])
        runner = next(name for name in pods if site.label(name) == names.RESULT_MISS)
        site.delete(runner)
        pods.remove(runner)
        await decided(site, *pods)
    assert site.labels(pods) == ["miss"] * 2


async def test_nobody_follows_for_longer_than_its_limit(site: Site) -> None:
    async with keeping(site):
        runner = site.pod(0)
        await decided(site, runner)
        waiter = site.pod(1, seconds=2)
        await decided(site, waiter)
    assert site.label(runner) == names.RESULT_MISS
    assert site.reason(waiter) == "SharedRunTimeout"
    assert not site.held(waiter)


async def test_an_entry_of_somebody_else_answers_those_who_wait(site: Site) -> None:
    async with keeping(site):
        runner, waiter = site.pod(0), site.pod(1)
        await until(lambda: site.labels([runner, waiter]) == ["gated", "miss"])
        if site.label(runner) == names.RESULT_GATED:
            runner, waiter = waiter, runner
        site.store()
        await decided(site, waiter)
    assert site.label(runner) == names.RESULT_MISS
    assert site.label(waiter) == names.RESULT_HIT


async def test_without_a_right_to_the_caches_a_pod_is_released_when_its_time_is_over(site: Site) -> None:
    proxy = Proxy(site.cluster)
    proxy.fault_all = refusing(403, "configmaps")
    site.store()
    name = site.pod()
    async with keeping(site, proxy, gate_timeout=0.5, wait=False) as running:
        await decided(site, name)
        assert not running.keeper.ready
    assert site.label(name) == names.RESULT_MISS
    assert site.reason(name) == "Undecided"


@pytest.mark.contract
async def test_a_pod_of_a_workflow_that_is_not_there_gets_nothing_posted_and_runs(site: Site) -> None:
    site.store()
    site.cluster.delete("Workflow", site.namespace, "wf")
    async with keeping(site, gate_timeout=0.5):
        name = site.pod()
        await decided(site, name)
    assert site.label(name) == names.RESULT_MISS
    assert not site.value(name)


async def test_a_pod_that_claims_another_workflows_node_gets_nothing_posted_and_runs(site: Site) -> None:
    site.store()
    async with keeping(site):
        name = site.pod(change={argo.NODE_ID: "other-123"})
        await decided(site, name)
        await until(lambda: any("IdentityMismatch" in event for event in site.events()))
    assert site.label(name) == names.RESULT_SKIPPED
    assert site.reason(name) == "IdentityMismatch"
    assert not site.held(name)
    assert site.cluster.list("WorkflowTaskResult", site.namespace)[1]["items"] == []


async def test_a_held_pod_that_is_deleted_just_goes(site: Site) -> None:
    async with keeping(site) as running:
        runner, waiter = site.pod(0), site.pod(1)
        await until(lambda: site.labels([runner, waiter]) == ["gated", "miss"])
        gone = runner if site.label(runner) == names.RESULT_GATED else waiter
        site.delete(gone)
        site.store()
        other = site.pod(2)
        await decided(site, other)
        assert f"POST workflowtaskresults/{gone}" not in [call.says for call in running.proxy.calls]
    assert site.result(gone) is None


async def test_a_cache_that_could_not_be_read_for_a_moment_is_read_again_long_before_a_pod_is_given_up(
    site: Site,
) -> None:
    site.store()
    proxy = Proxy(site.cluster)
    proxy.fault = refusing(500, "GET configmaps", times=1)
    async with keeping(site, proxy, gate_timeout=3600.0):
        name = site.pod()
        await decided(site, name)
    assert site.label(name) == names.RESULT_HIT


@pytest.mark.parametrize("part", ["POST workflowtaskresults", "PATCH pods", "GET workflows"])
@pytest.mark.parametrize("status", [409, 429, 500, 503])
async def test_what_the_api_server_refuses_for_a_while_is_done_after(
    site: Site, part: str, status: int
) -> None:
    site.store()
    async with keeping(site) as running:
        running.proxy.fault = refusing(status, part, times=2)
        name = site.pod()
        await decided(site, name)
    assert site.label(name) == names.RESULT_HIT
    assert site.value(name) == OUT


async def test_a_retry_after_is_heeded(site: Site) -> None:
    site.store()
    proxy, asked = Proxy(site.cluster), list[float]()
    once = refusing(429, "POST workflowtaskresults", times=1, Retry_After="2")

    def fault(method: str, path: str) -> web.Response | None:
        if f"{method} {path}" == "POST workflowtaskresults":
            asked.append(time.monotonic())
        return once(method, path)

    proxy.fault = fault
    async with keeping(site, proxy):
        name = site.pod()
        await decided(site, name)
    assert asked[1] - asked[0] >= 2
    assert site.label(name) == names.RESULT_HIT


async def test_a_bug_of_ours_is_told_as_one_with_its_traceback_and_the_step_runs(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def bug(self: Lookups, owner: object) -> None:
        raise ValueError("tuple.index(x): x not in tuple")

    monkeypatch.setattr(Lookups, "workflow_metadata", bug)
    site.store()
    async with keeping(site, gate_timeout=1):
        name = site.pod()
        await decided(site, name)
    assert site.label(name) == names.RESULT_MISS
    assert site.reason(name).startswith("InternalError")
    told = [record for record in caplog.records if record.message.startswith("cannot reconcile a Pod")]
    assert told
    for record in told:
        assert record.fields["reason"] == "InternalError"
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], ValueError)


async def test_an_answer_that_is_nested_too_deep_is_the_api_servers_fault(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    left = ["[" * 100_000]

    def deep(method: str, path: str) -> web.Response | None:
        return web.Response(text=left.pop()) if left and method == "POST" else None

    site.store()
    async with keeping(site) as running:
        running.proxy.fault = deep
        name = site.pod()
        await decided(site, name)
    assert site.label(name) == names.RESULT_HIT
    (told,) = [r for r in caplog.records if r.message.startswith("cannot reconcile a Pod")]
    assert (told.fields["reason"], told.exc_info) == ("ApiUnavailable", None)


async def test_outputs_that_the_api_server_refuses_let_the_step_run(site: Site) -> None:
    site.store()
    async with keeping(site) as running:
        running.proxy.fault = refusing(422, "POST workflowtaskresults", times=1)
        name = site.pod()
        await decided(site, name)
    assert site.label(name) == names.RESULT_MISS
    assert site.reason(name) == "BrokenEntry"
    assert not site.value(name)


@pytest.mark.contract
@pytest.mark.parametrize("status", [403, 422, 500])
async def test_a_status_that_cannot_be_written_takes_the_result_back_and_lets_the_step_run(
    site: Site, status: int
) -> None:
    site.store()
    async with keeping(site, gate_timeout=1) as running:
        name = site.pod()
        running.proxy.fault = refusing(status, f"{name}/status")
        await decided(site, name)
        assert site.result(name) is None
        site.run(name)
        await until(lambda: site.label(name) == names.RESULT_STORED)
    assert site.value(name) == RAN
    assert names.POSTED_FOR not in (site.result(name) or {})["metadata"].get("annotations", {})


@pytest.mark.usefixtures("long_pause")
async def test_a_pod_that_is_released_by_hand_while_its_answer_is_on_its_way_runs_without_it(
    site: Site,
) -> None:
    site.store()
    async with keeping(site):
        name = site.pod(case=PAUSED)
        await until(lambda: site.value(name) == OUT)
        by_hand = [
            {"op": "remove", "path": "/spec/schedulingGates/0"},
            {"op": "replace", "path": "/metadata/labels/stepmemo.dev~1result", "value": "skipped"},
        ]
        assert site.cluster.patch("Pod", site.namespace, name, by_hand)[0] == 200
        await until(lambda: not site.value(name) or site.succeeded(name))
    assert not site.succeeded(name)


async def test_an_api_server_that_is_away_for_a_while_delays_and_no_more(site: Site) -> None:
    site.store()
    async with keeping(site) as running:
        running.proxy.cut = True
        name = site.pod()
        await until(lambda: running.proxy.turned_away >= 3)
        assert site.held(name)
        running.proxy.cut = False
        await decided(site, name)
    assert site.label(name) == names.RESULT_HIT


async def test_a_watched_step_that_fails_is_not_stored(site: Site) -> None:
    async with keeping(site):
        name = site.pod(held=False, share=False)
        site.report(name)
        site.end(name, phase="Failed", code=1)
        await until(lambda: site.label(name) == names.RESULT_SKIPPED)
    assert site.reason(name) == "StepFailed"
    assert site.entry() is None


@pytest.mark.contract
async def test_a_watched_step_is_stored_though_it_ended_while_nobody_was_there(site: Site) -> None:
    name = site.pod(held=False, share=False)
    site.run(name)
    async with keeping(site):
        await until(lambda: site.label(name) == names.RESULT_STORED)
    entry = site.entry()
    assert entry is not None
    assert entry.outputs == outputs(RAN)


async def test_a_step_of_a_workflow_that_is_shut_down_is_not_stored(site: Site) -> None:
    async with keeping(site):
        name = site.pod(held=False)
        site.shut_down()
        site.run(name)
        await until(lambda: site.label(name) == names.RESULT_SKIPPED)
    assert site.entry() is None


async def test_a_step_that_reported_nothing_is_not_stored(site: Site) -> None:
    async with keeping(site):
        name = site.pod(held=False)
        site.end(name)
        await until(lambda: site.label(name) == names.RESULT_SKIPPED)
    assert site.reason(name) == "OutputsIncomplete"


async def test_a_step_that_is_only_looked_up_runs_and_is_not_stored(site: Site) -> None:
    async with keeping(site):
        name = site.pod(capture=False)
        await decided(site, name)
        assert site.label(name) == names.RESULT_SKIPPED
        site.run(name)
        other = site.pod(1)
        await decided(site, other)
    assert site.entry() is None


@pytest.mark.parametrize("label", [None, names.RESULT_STORED])
async def test_a_gated_pod_that_lost_its_label_is_found_and_decided(
    site: Site, label: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keeper.pod_watch.SEARCH_SECONDS", 0.05)
    monkeypatch.setattr("keeper.pod_watch.SEARCH_GRACE", 0.05)
    site.store()
    name = site.pod()
    lost = {"metadata": {"labels": {names.RESULT: label}}}
    assert site.cluster.patch("Pod", site.namespace, name, lost)[0] == 200
    async with keeping(site):
        await until(lambda: site.succeeded(name))
    assert site.label(name) == names.RESULT_HIT


async def test_several_caches_and_keys_do_not_wait_for_each_other(site: Site) -> None:
    async with keeping(site):
        pods = [site.pod(number, key=f"{KEY}-{number}") for number in range(20)]
        await decided(site, *pods)
    assert site.labels(pods) == ["miss"] * 20


async def test_a_keeper_is_ready_once_it_sees_and_not_when_it_is_cut_off(site: Site) -> None:
    proxy = Proxy(site.cluster)
    proxy.cut = True
    async with keeping(site, proxy, wait=False) as running:
        await until(lambda: proxy.turned_away >= 3)
        assert not running.keeper.ready
        proxy.cut = False
        await until(lambda: running.keeper.ready)
        proxy.cut = True
        site.store()  # the watches break at the next word
        site.pod(held=False)
        await until(lambda: not running.keeper.ready)


async def test_a_keeper_that_stands_by_is_ready_too_and_takes_over_at_once_from_one_that_ends(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that there is no other way to it than that it is given up.
    defaults = Lease.__init__.__kwdefaults__
    monkeypatch.setattr(Lease.__init__, "__kwdefaults__", {**defaults, "duration": 3600.0})
    site.store()
    async with keeping(site) as first, keeping(site) as second:
        one = site.pod(0)
        await decided(site, one)
        assert first.proxy.calls
        assert not second.proxy.calls
        await first.end()
        other = site.pod(1)
        await decided(site, other)
        assert [call.says for call in second.proxy.calls if call.method == "POST"]
    assert site.labels([one, other]) == ["hit", "hit"]


# --- many at once, and what is refused for ever ----------------------------------------------


def fill(site: Site, name: str) -> None:
    """Somebody fills the Pod's annotations to the last byte."""
    found = site.get(name)["metadata"]["annotations"]
    used = sum(len(f"{key}{text}".encode()) for key, text in found.items())
    full = {"metadata": {"annotations": {"a": "x" * (room.ANNOTATIONS - used - 1)}}}
    assert site.cluster.patch("Pod", site.namespace, name, full)[0] == 200


def counted(running: Running, reason: str) -> float:
    """How many steps ended so, by the metrics."""
    found = re.search(rf'stepmemo_steps_total{{reason="{reason}"}} (\S+)', running.metrics.render().decode())
    return float(found[1]) if found else 0.0


def gauge(running: Running, name: str) -> str:
    (line,) = [line for line in running.metrics.render().decode().splitlines() if line.startswith(f"{name} ")]
    return line.partition(" ")[2]


@pytest.mark.contract
async def test_pods_whose_annotations_are_full_are_all_released_and_labelled(site: Site) -> None:
    gated = [site.pod(number, key=f"{KEY}-{number}") for number in range(8)]
    over = [site.pod(8 + number, held=False) for number in range(8)]
    for name in over:
        site.end(name, phase="Failed", code=1)
    for name in (*gated, *over):
        fill(site, name)
    async with keeping(site) as running:
        await until(lambda: not any(site.held(name) for name in gated))
        await until(lambda: site.labels(over) == [names.RESULT_SKIPPED] * 8)
    assert site.labels(gated) == [names.RESULT_MISS] * 8
    refused = [call for call in running.proxy.calls if call.status == 422]
    assert len(refused) <= 4 * 16, "a Pod that may have been answered says so, is read, and is let run"


async def test_a_label_that_is_refused_for_ever_is_tried_more_and_more_seldom_and_then_given_up(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keeper.controller.LABEL_DEADLINE", 1.0)
    async with keeping(site) as running:
        name = site.pod(held=False)
        running.proxy.fault = refusing(403, f"PATCH pods/{name}")
        site.run(name)
        await until(lambda: counted(running, "LabelRefused") == 1)
        await until(lambda: any("LabelRefused" in event for event in site.events()))
        tried = len(running.proxy.calls)
        site.cluster.patch("Pod", site.namespace, name, {"metadata": {"labels": {"a": "b"}}})
        other = site.pod(1, key="another")
        await decided(site, other)
        assert [call for call in running.proxy.calls[tried:] if name in call.path] == []
        assert counted(running, "Stored") == 1
        running.proxy.fault = lambda method, path: None
    entry = site.entry()
    assert entry is not None
    assert entry.pod == name
    async with keeping(site):
        await until(lambda: site.label(name) == names.RESULT_STORED)


async def test_a_release_that_is_refused_is_tried_until_it_is_taken(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keeper.controller.LABEL_DEADLINE", 0.0)
    async with keeping(site, gate_timeout=0.2) as running:
        name = site.pod()
        running.proxy.fault = refusing(403, f"PATCH pods/{name}", times=10)
        await until(lambda: not site.held(name))
    assert site.label(name) in (names.RESULT_MISS, names.RESULT_GATED)


@pytest.mark.contract
async def test_steps_beyond_what_is_remembered_of_a_namespace_run_and_are_labelled(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keeper.state.MOST_RECORDS", 2)
    async with keeping(site) as running:
        runner = site.pod(0)
        await decided(site, runner)
        waiter = site.pod(1)
        beyond = [site.pod(number) for number in range(2, 5)]
        await decided(site, *beyond)
        assert [site.reason(name) for name in beyond] == ["RecordsFull"] * 3
        assert site.labels(beyond) == [names.RESULT_SKIPPED] * 3
        assert not any(site.held(name) for name in beyond)
        await until(lambda: counted(running, "RecordsFull") == 3)
        site.run(runner)
        await decided(site, waiter)
        assert site.label(waiter) == names.RESULT_HIT
        after = site.pod(5)
        await until(lambda: site.label(after) == names.RESULT_HIT)


async def test_steps_beyond_it_that_are_over_before_the_keeper_comes_are_labelled_and_not_stored(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keeper.state.MOST_RECORDS", 1)
    pods = [site.pod(number, held=False, key=f"{KEY}-{number}") for number in range(3)]
    for name in pods:
        site.run(name)
    async with keeping(site):
        await until(lambda: names.RESULT_MISS not in site.labels(pods))
    assert site.labels(pods).count(names.RESULT_STORED) >= 1
    for name in pods:
        assert (site.label(name), site.reason(name)) in (
            (names.RESULT_STORED, "Stored"),
            (names.RESULT_SKIPPED, "RecordsFull"),
        )


async def test_a_namespace_whose_pods_wait_for_their_first_turn_is_backlogged(site: Site) -> None:
    for number in range(60):
        site.pod(number, key=f"{KEY}-{number}")
    async with keeping(site, requests_per_second=1) as first, keeping(site) as second:
        await until(lambda: first.keeper.backlogged == {site.namespace})
        assert float(gauge(first, "stepmemo_queue_depth")) > 0
        assert float(gauge(first, "stepmemo_queue_oldest_seconds")) > 1.9
        assert second.keeper.backlogged == frozenset(), "it does not act"
        assert float(gauge(second, "stepmemo_queue_depth")) == 0


async def test_what_all_replicas_see_is_shown_by_the_one_that_acts(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a sum over the replicas would count it twice."""
    monkeypatch.setattr(breaker, "GRACE", 0.05)
    monkeypatch.setattr(breaker, "PACE", 0.02)
    async with keeping(site) as first, keeping(site) as second:
        pods = [site.pod(number) for number in range(3)]
        created(site.cluster, site.namespace)
        await until(lambda: site.labels(pods) == ["gated", "gated", "miss"])
        for running in (first, second):
            await until(lambda running=running: len(running.keeper._records.gated) == 2)
            await until(lambda running=running: running.keeper.status.stopped.names)
        assert [gauge(one, "stepmemo_gated_pods") for one in (first, second)] == ["2.0", "0.0"]
        for one, waits in (first, True), (second, False):
            longest = float(gauge(one, 'stepmemo_gated_longest_wait_seconds{waits_for="equal_step"}'))
            assert (longest > 0) is waits
        assert [gauge(one, "stepmemo_breaker_open") for one in (first, second)] == ["1.0", "0.0"]
        assert [gauge(one, "stepmemo_queue_depth") for one in (first, second)] == ["0.0", "0.0"]


async def test_each_step_is_counted_once_by_its_final_label(site: Site) -> None:
    async with keeping(site) as running:
        pods = [site.pod(number) for number in range(3)]
        await until(lambda: sorted(site.labels(pods)) == ["gated", "gated", "miss"])
        site.run(next(name for name in pods if site.label(name) == names.RESULT_MISS))
        await until(lambda: sorted(site.labels(pods)) == ["hit", "hit", "stored"])
        # A step is counted after its label is there.
        for result, count in ("hit", "2.0"), ("stored", "1.0"), ("skipped", "0.0"):
            name = f'stepmemo_step_results_total{{result="{result}"}}'
            await until(lambda name=name, count=count: gauge(running, name) == count)


async def test_a_pod_that_is_being_deleted_waits_for_nobody(site: Site) -> None:
    """Who holds its finalizers may take as long as he likes: no alert of ours is about that."""
    async with keeping(site) as running:
        pods = [site.pod(number) for number in range(2)]
        await until(lambda: sorted(site.labels(pods)) == ["gated", "miss"])
        await until(lambda: gauge(running, "stepmemo_gated_pods") == "1.0")
        waiting = next(name for name in pods if site.label(name) == names.RESULT_GATED)
        finalizers = {"metadata": {"finalizers": ["test.stepmemo.dev/kept"]}}
        assert site.cluster.patch("Pod", site.namespace, waiting, finalizers)[0] == 200
        site.cluster.delete("Pod", site.namespace, waiting)
        await until(lambda: gauge(running, "stepmemo_gated_pods") == "0.0")
        assert site.held(waiting)


async def test_who_waits_for_an_equal_step_is_no_backlog(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kube.fair_queue.BACKLOGGED_AFTER", 0.0)
    async with keeping(site) as running:
        pods = [site.pod(number) for number in range(3)]
        await until(lambda: site.labels(pods) == ["gated", "gated", "miss"])
        await until(lambda: running.keeper.backlogged == frozenset())


async def test_a_key_whose_step_failed_is_not_shared_by_the_keeper_that_stood_by_either(site: Site) -> None:
    """Or a step that always fails would make all that are equal run in turn again, at each fail-over."""
    async with keeping(site) as first, keeping(site) as second:
        failed = site.pod(0)
        uid = site.get(failed)["metadata"]["uid"]
        await decided(site, failed)
        await until(lambda: second.keeper._records.get(uid) is not None)
        site.end(failed, phase="Failed", code=1)
        await until(lambda: site.label(failed) == names.RESULT_SKIPPED)
        await until(lambda: second.keeper._records.get(uid) is None)
        await first.end()
        equal = [site.pod(number) for number in range(1, 4)]
        await decided(site, *equal)
    assert site.labels(equal) == [names.RESULT_MISS] * 3


async def test_a_key_whose_step_failed_is_not_shared_by_a_new_keeper_where_a_pod_says_so(site: Site) -> None:
    site.pod(0, held=False, change={names.REASON: "SharedRunFailed"})
    async with keeping(site):
        equal = [site.pod(number) for number in range(1, 4)]
        await decided(site, *equal)
    assert site.labels(equal) == [names.RESULT_MISS] * 3


def published(site: Site) -> KeeperStatus | None:
    """What admission would go by."""
    status, lease = site.cluster.get("Lease", site.namespace, LEASE)
    annotations = (lease["metadata"].get("annotations") or {}) if status == 200 else {}
    return KeeperStatus.from_json(annotations.get(names.KEEPER_STATUS, ""))


@pytest.mark.contract
async def test_the_lease_says_whose_pods_are_kept_for_how_long_and_by_which_plans(site: Site) -> None:
    async with keeping(site, single_flight_timeout=90) as running:
        await until(lambda: (published(site) or KeeperStatus()).ready)
        kept = Namespaces(frozenset({site.namespace}))
        assert published(site) == KeeperStatus(ready=True, keeps=kept, wait_seconds=90, plans=READS)
        await until(lambda: running.keeper.acts)
    assert published(site) is None


async def test_the_lease_says_that_it_is_not_ready_while_it_cannot_see_the_caches(site: Site) -> None:
    proxy = Proxy(site.cluster)
    proxy.fault_all = refusing(403, "configmaps")
    async with keeping(site, proxy, wait=False) as running:
        await until(lambda: published(site) is not None)
        assert not running.keeper.ready
        assert published(site) == running.keeper.status


async def test_a_keeper_of_many_namespaces_never_says_that_it_keeps_all(site: Site) -> None:
    """A Pod that is gated where nobody looks waits for ever."""
    some = [f"team-{number}" for number in range(150)]
    async with keeping(site, namespaces=some, wait=False) as running:
        assert running.keeper.status.keeps == Namespaces(frozenset(some))
        assert not running.keeper.status.keeps.all


async def test_the_lease_says_where_injection_is_stopped_where_it_is_on_trial_and_which_steps_met_trouble(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "GRACE", 0.05)
    monkeypatch.setattr(breaker, "PACE", 0.02)
    passed = 0.0
    here = Namespaces(frozenset({site.namespace}))
    async with keeping(site, breaker_clock=lambda: time.monotonic() + passed):
        created(site.cluster, site.namespace)
        await until(lambda: (published(site) or KeeperStatus()).stopped == here)
        assert (published(site) or KeeperStatus()).trial == Namespaces()
        passed = breaker.TRIAL
        await until(lambda: (published(site) or KeeperStatus()).trial == here)
        assert (published(site) or KeeperStatus()).stopped == Namespaces()
        site.delete("hello-1")
        step = (digest(site.namespace, "hello-1"),)
        await until(lambda: (published(site) or KeeperStatus()).troubled == step)


async def test_a_namespace_that_cannot_be_read_keeps_no_other_from_being_decided(site: Site) -> None:
    async with keeping(site, namespaces=[site.namespace, "gone"]) as running:
        name = site.pod()
        await decided(site, name)
        assert running.keeper.status.ready
        assert running.keeper.status.backlogged == Namespaces.of(["gone"])


async def test_a_turn_that_waits_for_long_keeps_no_other_namespace_from_its_turn(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keeper.controller.SLOT_SECONDS", 0.05)
    other = Site.new(site.cluster)
    other.store()
    both = [site.namespace, other.namespace]
    async with keeping(site, namespaces=both, workers=1, token=site.cluster.admin_token) as running:
        running.proxy.fault = refusing(409, "PATCH configmaps", "POST configmaps")
        name = site.pod(held=False)
        site.run(name)
        await until(
            lambda: any("configmaps" in call.path for call in running.proxy.calls if call.status == 409)
        )
        answered = other.pod()
        await until(lambda: other.succeeded(answered))
        assert counted(running, "Conflict") == 0, "the turn was over"
        assert site.label(name) == names.RESULT_MISS
