from datetime import UTC, datetime, timedelta
from typing import Any

import jsonpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keeper import patches
from keeper.steppods import GatedStep, InvalidStep, read
from kube import client
from memoize import names
from memoize.entry import Entry
from memoize.outcome import Outcome
from memoize.reasons import Reason
from tests.keeper.gatedsteps import GATE, held

Json = dict[str, Any]
NOW = datetime(2026, 1, 1, 12, 0, 0, 900_000, tzinfo=UTC)


def entry(age: timedelta | None = timedelta(hours=3), workflow: str = "first") -> Entry:
    created = NOW - age if age is not None else None
    return Entry("first-1", {}, created, None, workflow=workflow)


def parsed(pod: Json) -> GatedStep:
    found = read(pod)
    assert isinstance(found, GatedStep), found
    return found


@pytest.mark.parametrize("case", ["container", "container-set", "sidecars-and-init"])
def test_a_completed_pod_succeeded_with_every_container_at_0(case: str) -> None:
    pod = held(f"v4.1.2-legacy/{case}")
    status = patches.status(parsed(pod), entry(), NOW)["status"]
    assert (status["phase"], status["reason"], status["startTime"]) == (
        "Succeeded",
        "Memoized",
        "2026-01-01T12:00:00Z",
    )
    wanted = [container["name"] for container in pod["spec"]["containers"]]
    assert [container["name"] for container in status["containerStatuses"]] == wanted
    for container in status["containerStatuses"]:
        assert container["state"] == {
            "terminated": {
                "exitCode": 0,
                "reason": "Completed",
                "startedAt": "2026-01-01T12:00:00Z",
                "finishedAt": "2026-01-01T12:00:00Z",
            }
        }
        assert {"image", "imageID", "ready", "restartCount"} <= container.keys()


def test_completing_is_for_this_very_version_and_says_so_on_the_pod() -> None:
    metadata = patches.status(parsed(held()), entry(), NOW)["metadata"]
    assert metadata == {
        "uid": "pod-uid",
        "resourceVersion": "7",
        "labels": {names.RESULT: names.RESULT_HIT},
        "annotations": {names.REASON: "Hit"},
    }


@pytest.mark.parametrize(
    ("age", "told"),
    [
        (timedelta(seconds=-5), "0s"),
        (timedelta(seconds=119), "1m59s"),
        (timedelta(minutes=2), "2m"),
        (timedelta(minutes=119), "1h59m"),
        (timedelta(hours=3), "3h"),
        (timedelta(days=400), "400d"),
    ],
)
def test_the_message_names_the_original_workflow_and_its_age(age: timedelta, told: str) -> None:
    message = patches.status(parsed(held()), entry(age), NOW)["status"]["message"]
    assert message == f"served from cache memo with the outputs of workflow first, stored {told} ago"


def test_an_entry_of_argos_own_is_named_by_its_node() -> None:
    message = patches.status(parsed(held()), entry(None, workflow=""), NOW)["status"]["message"]
    assert message == "served from cache memo with the outputs of node first-1"


def released(pod: Json, seen: Json, outcome: Outcome, less: int = 0) -> Json:
    found = read(seen)
    assert isinstance(found, GatedStep | InvalidStep)
    request = patches.release(found, names.RESULT_MISS, outcome)[less]
    assert request.content_type == client.JSON_PATCH
    changed: Json = jsonpatch.apply_patch(pod, request.body, in_place=False)
    return changed


@pytest.mark.parametrize("before", [[], [{"name": "others"}]])
@pytest.mark.parametrize("after", [[], [{"name": "queue"}]])
def test_releasing_takes_our_gate_alone_and_says_why(before: list[Json], after: list[Json]) -> None:
    pod = held()
    pod["spec"]["schedulingGates"] = [*before, GATE, *after]
    changed = released(pod, pod, Outcome(Reason.EXPIRED, "older than 1h"))
    assert changed["spec"]["schedulingGates"] == [*before, *after]
    assert changed["metadata"]["labels"][names.RESULT] == names.RESULT_MISS
    assert changed["metadata"]["annotations"][names.REASON] == "Expired: older than 1h"
    for part in (pod, changed):
        part["metadata"]["labels"].pop(names.RESULT)
        part["metadata"]["annotations"].pop(names.REASON, None)
        part["spec"].pop("schedulingGates")
    assert changed == pod


def test_a_pod_that_lost_its_annotations_can_be_released() -> None:
    pod = held()
    del pod["metadata"]["annotations"]
    changed = released(pod, pod, Outcome(Reason.IDENTITY_MISMATCH))
    assert changed["metadata"]["annotations"] == {names.REASON: "IdentityMismatch"}


def test_releasing_leaves_the_reason_away_and_then_the_label_where_they_are_refused() -> None:
    pod = held()
    others = [{"name": "queue"}]
    pod["spec"]["schedulingGates"] = [GATE, *others]
    outcome = Outcome(Reason.MISS, "why")
    whole, labelled = (released(pod, pod, outcome, less) for less in range(2))
    (_, _, bare) = patches.release(parsed(pod), names.RESULT_MISS, outcome)
    assert bare == (
        {
            "metadata": {"uid": "pod-uid"},
            "spec": {"schedulingGates": [{"name": names.SCHEDULING_GATE, "$patch": "delete"}]},
        },
        client.STRATEGIC_MERGE_PATCH,
    )
    pod["spec"]["schedulingGates"] = others
    pod["metadata"]["labels"][names.RESULT] = names.RESULT_MISS
    assert labelled == pod
    pod["metadata"]["annotations"][names.REASON] = "Miss: why"
    assert whole == pod


def test_a_pod_is_told_to_run_by_its_label_where_the_reason_is_refused() -> None:
    pod = held()
    whole, labelled = patches.announce_release(parsed(pod), Outcome(Reason.EXPIRED, "why"))
    for request, why in ((whole, Reason.EXPIRED), (labelled, Reason.UNDECIDED)):
        told = read(jsonpatch.apply_patch(pod, request.body, in_place=False))
        assert isinstance(told, GatedStep)
        assert told.release_reason is not None
        assert told.release_reason.reason is why


@given(st.text())
def test_the_reason_is_never_longer_than_what_admission_leaves_room_for(detail: str) -> None:
    for text in (detail, detail * 1000):
        (whole, _) = patches.final_label(parsed(held()), names.RESULT_SKIPPED, Outcome(Reason.MISS, text))
        assert isinstance(whole.body, dict)
        said = whole.body["metadata"]["annotations"][names.REASON]
        told = f"Miss: {text}" if text else "Miss"
        assert len(said.encode()) <= names.LONGEST_REASON
        if len(told.encode()) <= names.LONGEST_REASON:
            assert said == told
        else:
            assert said.endswith("…")
            assert told.startswith(said.removesuffix("…"))


@pytest.mark.parametrize("less", range(2))
@pytest.mark.parametrize("why", ["another Pod", "other gates", "no gate", "no gates"])
def test_releasing_is_refused_for_any_other_pod_or_gate(why: str, less: int) -> None:
    pod, seen = held(), held()
    if why == "another Pod":
        pod["metadata"]["uid"] = "another"
    elif why == "other gates":
        pod["spec"]["schedulingGates"].insert(0, {"name": "queue"})
    elif why == "no gate":
        pod["spec"]["schedulingGates"] = []
    else:
        del pod["spec"]["schedulingGates"]
    with pytest.raises(
        (jsonpatch.JsonPatchTestFailed, jsonpatch.JsonPatchConflict, jsonpatch.JsonPointerException)
    ):
        released(pod, seen, Outcome(Reason.MISS), less)


def test_the_end_is_told_to_this_pod_alone() -> None:
    whole, less = patches.final_label(parsed(held()), names.RESULT_STORED, Outcome(Reason.STORED))
    marked = {"uid": "pod-uid", "labels": {names.RESULT: "stored"}}
    assert whole.body == {"metadata": {**marked, "annotations": {names.REASON: "Stored"}}}
    assert less.body == {"metadata": marked}


def test_a_pod_succeeds_without_the_reason_where_that_is_refused() -> None:
    whole, less = patches.complete(parsed(held()), entry(), NOW)
    assert whole.body == patches.status(parsed(held()), entry(), NOW)
    assert isinstance(whole.body, dict)
    del whole.body["metadata"]["annotations"]
    assert less.body == whole.body
