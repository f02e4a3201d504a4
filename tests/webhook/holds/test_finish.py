from datetime import UTC, datetime, timedelta
from typing import Any

import jsonpatch
import pytest

from memoize import names
from memoize.entry import Entry
from memoize.outcome import Outcome
from memoize.reasons import Reason
from tests.webhook.holds.tendedpods import GATE, held
from webhook.holds import finish
from webhook.holds.tended import Stray, Tended, read

Json = dict[str, Any]
NOW = datetime(2026, 1, 1, 12, 0, 0, 900_000, tzinfo=UTC)


def entry(age: timedelta | None = timedelta(hours=3), workflow: str = "first") -> Entry:
    created = NOW - age if age is not None else None
    return Entry("first-1", {}, created, None, workflow=workflow)


def tended(pod: Json) -> Tended:
    found = read(pod)
    assert isinstance(found, Tended), found
    return found


@pytest.mark.parametrize("case", ["container", "container-set", "sidecars-and-init"])
def test_a_completed_pod_succeeded_with_every_container_at_0(case: str) -> None:
    pod = held(f"v4.1.2-legacy/{case}")
    status = finish.status(tended(pod), entry(), NOW)["status"]
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
    metadata = finish.status(tended(held()), entry(), NOW)["metadata"]
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
    message = finish.status(tended(held()), entry(age), NOW)["status"]["message"]
    assert message == f"answered from cache memo with the outputs of workflow first, stored {told} ago"


def test_an_entry_of_argos_own_is_named_by_its_node() -> None:
    message = finish.status(tended(held()), entry(None, workflow=""), NOW)["status"]["message"]
    assert message == "answered from cache memo with the outputs of node first-1"


def released(pod: Json, seen: Json, outcome: Outcome) -> Json:
    found = read(seen)
    assert isinstance(found, Tended | Stray)
    changed: Json = jsonpatch.apply_patch(
        pod, finish.release(found, names.RESULT_MISS, outcome), in_place=False
    )
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
    changed = released(pod, pod, Outcome(Reason.NOT_ITSELF))
    assert changed["metadata"]["annotations"] == {names.REASON: "NotItself"}


@pytest.mark.parametrize("why", ["another Pod", "other gates", "no gate", "no gates"])
def test_releasing_is_refused_for_any_other_pod_or_gate(why: str) -> None:
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
        released(pod, seen, Outcome(Reason.MISS))


def test_the_end_is_told_to_this_pod_alone() -> None:
    patch = finish.outcome(tended(held()), names.RESULT_STORED, Outcome(Reason.STORED))
    assert patch == {
        "metadata": {
            "uid": "pod-uid",
            "labels": {names.RESULT: "stored"},
            "annotations": {names.REASON: "Stored"},
        }
    }
