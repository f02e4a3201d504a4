"""The capture: what it keeps, and what it must not, against an API server that does as it should."""

import json
import os
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from argo import names as argo
from memoize import names
from memoize.key import data_key
from memoize.outputs import Declared
from memoize.reasons import Reason
from tests.sidecar import faults
from tests.sidecar.faults import CONFIGMAPS, LIMIT, RESULTS, Fault
from tests.sidecar.steppod import CACHE_LABELS, OUTPUTS, POD_UID, Pod, cached, entry, have_entry, have_result

S3 = {"s3": {"endpoint": "minio:9000", "bucket": "b", "key": "wf/wf-123"}}


def used(days: int, **more: Any) -> str:
    """An entry that was made, and last hit, so many days before a certain one."""
    time = f"2026-07-{30 - days:02}T00:00:00Z"
    return entry(creationTimestamp=time, lastHitTimestamp=time, **more)


@pytest.fixture(autouse=True)
def _main_succeeded(pod: Pod):
    pod.main_ended()


def test_the_outputs_are_stored_as_argo_would_store_them(pod: Pod, api: faults.Api):
    have_result(api)
    assert pod.run("capture").reason is Reason.STORED
    stored = cached(api)["hello-1"]
    made = datetime.fromisoformat(stored["creationTimestamp"])
    assert stored == {
        "nodeID": "wf-123",
        "outputs": {**OUTPUTS, "exitCode": "0"},
        "creationTimestamp": stored["creationTimestamp"],
        "lastHitTimestamp": stored["creationTimestamp"],
        "stepmemo": {"pod": "wf-step-123", "workflow": "wf"},
    }
    assert abs(datetime.now(UTC) - made) < timedelta(seconds=60)
    labels = api.objects[CONFIGMAPS]["my-cache"]["metadata"]["labels"]
    assert labels == {argo.CONFIGMAP_TYPE: argo.CONFIGMAP_TYPE_CACHE}


def test_what_was_stored_answers_the_next_step(pod: Pod, api: faults.Api):
    have_result(api)
    pod.run("capture")
    del api.objects[RESULTS]["wf-123"]
    assert pod.run("check").reason is Reason.HIT
    assert cached(api)["hello-1"]["outputs"] == {**OUTPUTS, "exitCode": "0"}
    assert api.objects[RESULTS]["wf-123"]["outputs"] == OUTPUTS


def test_a_long_key_of_any_characters_is_stored_under_its_digest_with_the_key_beside_it(
    pod: Pod, api: faults.Api
):
    key = 'quote " newline \n ünicode ' + "x" * 5000
    pod.change(key=key, max_age="1h")
    have_result(api)
    pod.run("capture")
    assert cached(api)[data_key(key)]["stepmemo"]["key"] == key
    assert cached(api)[data_key(key)]["stepmemo"]["maxAge"] == "1h"


def test_only_the_own_key_is_touched(pod: Pod, api: faults.Api):
    have_result(api)
    have_entry(api, "another")
    before = dict(api.objects[CONFIGMAPS]["my-cache"]["data"])
    pod.run("capture")
    after = api.objects[CONFIGMAPS]["my-cache"]["data"]
    assert {key: value for key, value in after.items() if key != "hello-1"} == before


def test_an_older_entry_is_overwritten(pod: Pod, api: faults.Api):
    have_result(api)
    have_entry(api)
    pod.run("capture")
    assert cached(api)["hello-1"]["nodeID"] == "wf-123"


def test_a_cache_without_data_keeps_what_somebody_else_writes_at_the_same_moment(pod: Pod, api: faults.Api):
    have_result(api)
    api.put(CONFIGMAPS, "my-cache", metadata=CACHE_LABELS)
    api.once("PATCH", CONFIGMAPS, faults.OK, Fault(409))
    assert pod.run("capture").reason is Reason.STORED
    assert cached(api).keys() == {"hello-1"}


def test_a_config_map_without_the_label_is_not_written_to(pod: Pod, api: faults.Api):
    have_result(api)
    api.put(CONFIGMAPS, "my-cache", data={"mine": "x"})
    assert pod.run("capture").reason is Reason.NOT_A_CACHE
    assert api.objects[CONFIGMAPS]["my-cache"]["data"] == {"mine": "x"}


def test_an_immutable_cache_is_told_by_name(pod: Pod, api: faults.Api):
    have_result(api)
    api.put(CONFIGMAPS, "my-cache", metadata=CACHE_LABELS, data={"a": "b"}, immutable=True)
    ended = pod.run("capture")
    assert ended.reason is Reason.NOT_A_CACHE
    assert "immutable" in ended.log


def test_a_full_cache_loses_its_expired_entries_and_nothing_else(pod: Pod, api: faults.Api):
    have_result(api)
    old = {"creationTimestamp": "2020-01-01T00:00:00Z"}
    data = {
        "expired": entry(**old, stepmemo={"maxAge": "1h", "pod": "x" * 500}),
        "fresh": entry(stepmemo={"maxAge": "24h"}),
        "without-an-age": entry(**old),
        "not-ours": "x",
    }
    data["fill"] = "y" * (LIMIT - sum(map(len, data.values())))
    api.put(CONFIGMAPS, "my-cache", metadata=CACHE_LABELS, data=dict(data))
    assert pod.run("capture").reason is Reason.STORED
    assert api.objects[CONFIGMAPS]["my-cache"]["data"].keys() == data.keys() - {"expired"} | {"hello-1"}


def test_a_full_cache_loses_what_was_not_used_for_the_longest_time(pod: Pod, api: faults.Api):
    have_result(api)
    data = {f"k{age}": used(age, extra="y" * 50_000) for age in range(22)}
    data["fill"] = "z" * (LIMIT - sum(map(len, data.values())))
    api.put(CONFIGMAPS, "my-cache", metadata=CACHE_LABELS, data=dict(data))
    assert pod.run("capture").reason is Reason.STORED
    assert "entries of" in pod.last_word["detail"]
    left = api.objects[CONFIGMAPS]["my-cache"]["data"].keys()
    gone = data.keys() - left
    assert {"fill", "hello-1"} <= left
    assert gone == {f"k{21 - number}" for number in range(len(gone))}
    assert 1 <= len(gone) <= 5


@pytest.mark.parametrize("by", ["the variable", "the annotation"])
def test_a_cache_is_kept_below_a_lower_limit(pod: Pod, api: faults.Api, by: str):
    have_result(api)
    metadata: dict[str, Any] = dict(CACHE_LABELS)
    if by == "the variable":
        pod.environment[names.ENV_CACHE_MAX_BYTES] = "10000"
    else:
        metadata["annotations"] = {names.MAX_BYTES: "10k"}
    data = {f"k{age}": used(age, extra="y" * 900) for age in range(9)}
    data["fill"] = "z" * (10_000 - sum(map(len, data.values())))
    api.put(CONFIGMAPS, "my-cache", metadata=metadata, data=dict(data))
    assert pod.run("capture").reason is Reason.STORED
    left = api.objects[CONFIGMAPS]["my-cache"]["data"]
    assert {"hello-1", "fill", "k0"} <= left.keys()
    assert "k8" not in left
    assert sum(map(len, left.values())) <= 10_000


@pytest.mark.parametrize("by", ["the variable", "the annotation"])
def test_an_entry_beyond_a_lower_limit_is_not_kept(pod: Pod, api: faults.Api, by: str):
    have_result(api, outputs={"parameters": [{"name": "out", "value": "x" * 10_000}]})
    metadata: dict[str, Any] = dict(CACHE_LABELS)
    if by == "the variable":
        pod.environment[names.ENV_CACHE_MAX_BYTES] = "10000"
    else:
        metadata["annotations"] = {names.MAX_BYTES: "10k"}
    api.put(CONFIGMAPS, "my-cache", metadata=metadata, data={"other": entry()})
    assert pod.run("capture").reason is Reason.CACHE_FULL
    assert "the 10000 that the ConfigMap may hold" in pod.last_word["detail"]
    assert api.objects[CONFIGMAPS]["my-cache"]["data"] == {"other": entry()}


def test_a_bad_annotation_is_told_and_ignored(pod: Pod, api: faults.Api):
    have_result(api)
    metadata = {**CACHE_LABELS, "annotations": {names.MAX_BYTES: "12 GB"}}
    api.put(CONFIGMAPS, "my-cache", metadata=metadata, data={"other": entry()})
    assert pod.run("capture").reason is Reason.STORED
    assert 'max-bytes: "12 GB" must be a number of bytes' in pod.last_word["detail"]
    assert api.objects[CONFIGMAPS]["my-cache"]["data"].keys() == {"other", "hello-1"}


@pytest.mark.parametrize("status", [413, 500])
def test_what_etcd_or_a_proxy_refuses_makes_room_once(pod: Pod, api: faults.Api, status: int):
    have_result(api)
    data = {f"k{days}": used(days) for days in range(20)}
    api.put(CONFIGMAPS, "my-cache", metadata=CACHE_LABELS, data=dict(data))
    message = "etcdserver: request is too large"
    refusal = Fault(status, body={**faults.status(status, "InternalError"), "message": message})
    api.on_next(faults.Call.ADD_ENTRY, refusal)
    assert pod.run("capture").reason is Reason.STORED
    left = api.objects[CONFIGMAPS]["my-cache"]["data"].keys()
    assert {"hello-1", "k0", "k9"} <= left
    assert "k19" not in left
    assert api.count("PATCH", CONFIGMAPS) == 2


def test_a_cache_is_made_below_a_lower_limit(pod: Pod, api: faults.Api):
    have_result(api)
    pod.environment[names.ENV_CACHE_MAX_BYTES] = "10000"
    assert pod.run("capture").reason is Reason.STORED
    assert api.objects[CONFIGMAPS]["my-cache"]["data"].keys() == {"hello-1"}


def test_an_expired_entry_that_is_written_anew_while_we_look_is_not_dropped(pod: Pod, api: faults.Api):
    have_result(api)
    old = entry(creationTimestamp="2020-01-01T00:00:00Z", stepmemo={"maxAge": "1h", "pod": "x" * 500})
    fresh = {"key": entry(), "fill": "y" * (LIMIT - len(old))}
    api.put(CONFIGMAPS, "my-cache", metadata=CACHE_LABELS, data={**fresh, "key": old})
    api.meanwhile(
        "GET",
        CONFIGMAPS,
        lambda: api.put(CONFIGMAPS, "my-cache", metadata=CACHE_LABELS, data=dict(fresh)),
    )
    assert pod.run("capture").reason is Reason.STORED
    assert api.objects[CONFIGMAPS]["my-cache"]["data"].keys() == {"key", "fill", "hello-1"}


def test_a_label_taken_away_while_we_look_counts(pod: Pod, api: faults.Api):
    have_result(api)
    api.put(CONFIGMAPS, "my-cache", metadata=CACHE_LABELS)
    api.meanwhile("GET", CONFIGMAPS, lambda: api.put(CONFIGMAPS, "my-cache", data={"mine": "x"}))
    assert pod.run("capture").reason is Reason.NOT_A_CACHE
    assert api.objects[CONFIGMAPS]["my-cache"]["data"] == {"mine": "x"}


def test_a_cache_that_stays_full_keeps_no_entry(pod: Pod, api: faults.Api):
    have_result(api)
    api.put(CONFIGMAPS, "my-cache", metadata=CACHE_LABELS, data={"fill": "y" * LIMIT})
    assert pod.run("capture").reason is Reason.CACHE_FULL
    assert api.objects[CONFIGMAPS]["my-cache"]["data"].keys() == {"fill"}


def test_an_entry_larger_than_any_cache_is_not_even_sent(pod: Pod, api: faults.Api):
    have_result(api, outputs={"parameters": [{"name": "out", "value": "x" * LIMIT}]})
    assert pod.run("capture").reason is Reason.CACHE_FULL
    assert api.count("PATCH", CONFIGMAPS) == 0


@pytest.mark.parametrize("code", ["", "1", "137", "0x"])
def test_a_step_that_did_not_end_with_0_is_not_stored(pod: Pod, api: faults.Api, code: str):
    have_result(api)
    pod.main_ended(code)
    assert pod.run("capture").reason is Reason.STEP_FAILED
    assert api.requests == []


@pytest.mark.parametrize(
    ("deadline", "reason"),
    [("2001-01-01T00:00:00+02:00", Reason.STEP_FAILED), ("2999-01-01T00:00:00Z", Reason.STORED)],
)
def test_a_step_that_ended_after_its_deadline_is_not_stored(
    pod: Pod, api: faults.Api, deadline: str, reason: Reason
):
    """Argo's `wait` signals it then; a program that ends with 0 on SIGTERM has written half its outputs."""
    pod.change(deadline=deadline)
    have_result(api)
    assert pod.run("capture").reason is reason


def test_every_container_of_a_set_must_have_ended_with_0(pod: Pod, api: faults.Api):
    pod.change(declared=Declared(mains=("a", "b")))
    pod.main_ended(name="a")
    have_result(api)
    assert pod.run("capture").reason is Reason.STEP_FAILED
    pod.main_ended(name="b")
    assert pod.run("capture").reason is Reason.STORED
    assert "exitCode" not in cached(api)["hello-1"]["outputs"]


def test_a_result_that_was_not_reported_complete_is_waited_for_and_not_stored(pod: Pod, api: faults.Api):
    pod.timeout_ms = 1200
    have_result(api, complete="false")
    assert pod.run("capture").reason is Reason.OUTPUTS_INCOMPLETE
    assert api.count("PATCH", RESULTS) > 1
    assert not api.objects[CONFIGMAPS]


def test_a_result_that_comes_a_moment_late_is_stored(pod: Pod, api: faults.Api):
    have_result(api)
    api.once("PATCH", RESULTS, Fault(404), Fault(404))
    assert pod.run("capture").reason is Reason.STORED


@pytest.mark.parametrize(
    "outputs",
    [
        None,
        {},
        {"parameters": [{"name": "out"}]},
        {"parameters": [{"name": "out", "value": None}]},
        {"result": 1},
    ],
)
def test_a_result_without_a_declared_output_is_not_stored(pod: Pod, api: faults.Api, outputs: object):
    have_result(api, outputs=outputs)
    assert pod.run("capture").reason is Reason.OUTPUTS_INCOMPLETE
    assert not api.objects[CONFIGMAPS]


def test_an_answer_of_our_own_is_never_stored_again(pod: Pod, api: faults.Api):
    have_result(api, annotations={names.POSTED_FOR: POD_UID})
    assert pod.run("capture").reason is Reason.OUTPUTS_INCOMPLETE
    assert not api.objects[CONFIGMAPS]


def test_artifacts_are_stored_with_their_full_location(pod: Pod, api: faults.Api):
    archive = {"s3": {"endpoint": "minio:9000", "bucket": "b"}}
    pod.change(declared=Declared(artifacts=({"name": "res"},), archive=archive))
    have_result(api, outputs={"artifacts": [{"name": "res", "path": "/res", "s3": {"key": "k/res.tgz"}}]})
    pod.run("capture")
    assert cached(api)["hello-1"]["outputs"]["artifacts"] == [
        {
            "name": "res",
            "path": "/res",
            "s3": {"endpoint": "minio:9000", "bucket": "b", "key": "k/res.tgz"},
            "artifactGC": {"strategy": "Never"},
        }
    ]


def test_artifacts_that_argo_will_delete_are_not_stored(pod: Pod, api: faults.Api):
    pod.change(gc=True, declared=Declared(artifacts=({"name": "res"},)))
    have_result(api, outputs={"artifacts": [{"name": "res", **S3}]})
    assert pod.run("capture").reason is Reason.ARTIFACT_GC
    assert not api.objects[CONFIGMAPS]


def test_an_offloaded_template_is_read_from_argos_directory(pod: Pod, api: faults.Api):
    pod.change(declared=None)
    template = {
        "containerSet": {"containers": [{"name": "a"}, {"name": "main"}]},
        "outputs": {"parameters": [{"name": "out"}]},
    }
    (pod.argo / "template").write_text(json.dumps(template))
    have_result(api)
    assert pod.run("capture").reason is Reason.STEP_FAILED
    pod.main_ended(name="a")
    assert pod.run("capture").reason is Reason.STORED


@pytest.mark.parametrize("beside", [None, "", "[]"])
def test_an_offloaded_template_is_read_from_its_config_map_where_argos_init_wrote_none(
    pod: Pod, api: faults.Api, beside: str | None
):
    pod.change(declared=None)
    if beside is not None:
        (pod.argo / "template").write_text(beside)
    template = {"data": {}, "outputs": {"parameters": [{"name": "out"}]}}
    (pod.config / argo.ENV_TEMPLATE).write_text(json.dumps(template))
    have_result(api)
    assert pod.run("capture").reason is Reason.STORED


def test_without_the_offloaded_template_nothing_is_stored(pod: Pod, api: faults.Api):
    pod.change(declared=None)
    have_result(api)
    assert pod.run("capture").reason is Reason.OUTPUTS_INCOMPLETE


def times(pod: Pod, container: str, began: int, ended: int) -> None:
    """Have that container's command run from one moment to the other, in seconds."""
    lock = pod.shared / f"lock-{container}"
    lock.touch()
    os.utime(lock, (began, began))
    os.utime(pod.argo / "ctr" / container / "exitcode", (ended, ended))


def test_how_long_the_step_took_is_in_the_entry(pod: Pod, api: faults.Api):
    have_result(api)
    times(pod, "main", 1_000_000, 1_000_312)
    pod.run("capture")
    assert cached(api)["hello-1"]["stepmemo"]["tookSeconds"] == 312


def test_a_container_set_takes_from_its_first_start_to_its_last_end(pod: Pod, api: faults.Api):
    pod.change(declared=Declared(mains=("a", "b", "c")))
    have_result(api)
    for container, began, ended in (("a", 10, 15), ("b", 7, 12), ("c", 9, 27)):
        pod.main_ended(name=container)
        times(pod, container, began, ended)
    pod.run("capture")
    assert cached(api)["hello-1"]["stepmemo"]["tookSeconds"] == 20


def test_a_clock_that_was_set_back_says_nothing_of_the_time(pod: Pod, api: faults.Api):
    have_result(api)
    times(pod, "main", 1_000_312, 1_000_000)
    pod.run("capture")
    assert "tookSeconds" not in cached(api)["hello-1"]["stepmemo"]


def test_storing_is_told_as_an_event(pod: Pod, api: faults.Api):
    have_result(api)
    pod.run("capture")
    (event,) = api.objects[faults.EVENTS].values()
    assert event["reason"] == "MemoizationStored"
    assert event["type"] == "Normal"


def test_not_storing_is_told_as_an_event_with_the_reason_code(pod: Pod, api: faults.Api):
    have_result(api)
    api.put(CONFIGMAPS, "my-cache", data={})
    pod.run("capture")
    (event,) = api.objects[faults.EVENTS].values()
    assert event["reason"] == "MemoizationSkipped"
    assert event["type"] == "Warning"
    assert event["message"].startswith("NotACache: ")
