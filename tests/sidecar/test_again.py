"""Each verb run a second time, and after every other: containers are started again, Pods made anew."""

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argo import names as argo
from memoize import names
from memoize.entry import Entry
from memoize.reasons import Reason
from sidecar.deadline import Deadline
from sidecar.direct import ConfigMapCache
from sidecar.kube import Client
from sidecar.settings import Server
from tests.memoize.test_entry import NOW
from tests.sidecar import faults
from tests.sidecar.faults import CONFIGMAPS, RESULTS
from tests.sidecar.steppod import CACHE_LABELS, OUTPUTS, POD_UID, Pod, cached, entry, have_entry, have_result

over_both = pytest.mark.parametrize("access", ["direct", "service"])


def state(pod: Pod, api: faults.Api) -> str:
    """All that the next run could find, but versions and times."""
    objects = {kind: there for kind, there in api.objects.items() if kind != faults.EVENTS}
    text = json.dumps([objects, pod.decision, sorted(path.name for path in pod.shared.iterdir())])
    assert "secret-value" in text or not objects
    return text


def new_pod(pod: Pod) -> None:
    """The same node gets another Pod: Argo makes one anew when the first was lost before it started."""
    for path in pod.shared.iterdir():
        path.unlink()
    pod.environment[names.ENV_POD_UID] = "another-pod"


@over_both
@pytest.mark.parametrize("first", ["hit", "miss"])
@pytest.mark.parametrize("again", ["check", "retract"])
def test_after_a_decision_neither_another_check_nor_a_retraction_changes_anything(
    pod: Pod, api: faults.Api, first: str, again: str
):
    have_entry(api, "hello-1" if first == "hit" else "another")
    pod.run("check")
    before, asked = state(pod, api), len(api.requests)
    for _ in range(2):
        assert pod.run(again).reason is Reason.UNDECIDED
    assert state(pod, api) == before
    assert len(api.requests) == asked


@over_both
def test_a_second_check_of_a_pod_whose_files_were_lost_is_a_hit_without_a_second_answer(
    pod: Pod, api: faults.Api
):
    have_entry(api)
    pod.run("check")
    before = json.dumps(api.objects[RESULTS])
    for path in pod.shared.iterdir():
        path.unlink()
    assert pod.run("check").reason is Reason.HIT
    assert json.dumps(api.objects[RESULTS]) == before


@over_both
def test_another_pod_of_a_node_that_was_answered_takes_the_answer_back_and_runs(pod: Pod, api: faults.Api):
    have_entry(api)
    pod.run("check")
    new_pod(pod)
    pod.run("check")
    assert pod.decision == names.DECISION_RUN
    result = api.objects[RESULTS]["wf-123"]
    assert result["metadata"]["labels"][argo.OUTPUTS_COMPLETED] == "false"
    assert "outputs" not in result


@over_both
def test_a_second_retraction_finds_nothing_left_to_do(pod: Pod, api: faults.Api):
    (pod.shared / names.CLAIM_FILE).touch()
    pod.run("retract")
    before = json.dumps(api.objects[RESULTS])
    assert "retracted" in pod.run("retract").log
    assert json.dumps(api.objects[RESULTS]) == before


@over_both
@pytest.mark.parametrize("decided", [True, False])
def test_a_retraction_never_takes_back_what_the_step_itself_reported(
    pod: Pod, api: faults.Api, decided: bool
):
    (pod.shared / names.CLAIM_FILE).touch()
    if decided:
        (pod.shared / names.DECISION_FILE).write_text(names.DECISION_RUN)
    have_result(api)
    before = json.dumps(api.objects[RESULTS])
    pod.run("retract")
    assert json.dumps(api.objects[RESULTS]) == before


@over_both
def test_a_second_capture_stores_the_same_and_touches_nothing_else(pod: Pod, api: faults.Api):
    pod.main_ended()
    have_result(api)
    have_entry(api, "another")
    assert pod.run("capture").reason is Reason.STORED
    once = cached(api)
    assert pod.run("capture").reason is Reason.STORED
    twice = cached(api)
    for data in (once, twice):
        for field in ("creationTimestamp", "lastHitTimestamp"):
            del data["hello-1"][field]
    assert once == twice


@over_both
@pytest.mark.parametrize("kept", [POD_UID, "another-pod"])
def test_a_capture_after_a_hit_stores_nothing(pod: Pod, api: faults.Api, kept: str):
    """Not even where the answer was another Pod's, and the step has reported into it since."""
    have_entry(api)
    pod.run("check")
    pod.main_ended()
    have_result(api, annotations={names.POSTED_FOR: kept})
    before = json.dumps(api.objects[CONFIGMAPS])
    assert pod.run("capture").reason is Reason.OUTPUTS_INCOMPLETE
    assert json.dumps(api.objects[CONFIGMAPS]) == before


@over_both
def test_a_step_that_stored_answers_its_like_and_a_retraction_after_all_leaves_both(
    pod: Pod, api: faults.Api
):
    assert pod.run("check").reason is Reason.MISS
    pod.main_ended()
    have_result(api)
    assert pod.run("capture").reason is Reason.STORED
    del api.objects[RESULTS]["wf-123"]
    new_pod(pod)
    assert pod.run("check").reason is Reason.HIT
    before = state(pod, api)
    pod.run("retract")
    assert state(pod, api) == before


# --- What others keep in the same ConfigMap -----------------------------------------------------------

PLACES = st.from_regex(r"[-._a-zA-Z0-9]{1,20}", fullmatch=True).filter(lambda place: place != "hello-1")
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=40) | st.sampled_from(
    [entry(), entry(later=[1.0, "é"]), entry().replace(" ", "\n\t"), "{", "null"]
)
TOO_LONG = faults.status(422, "Invalid", "FieldValueTooLong")
ENTRY = Entry("wf-123", OUTPUTS, NOW, NOW)


@pytest.fixture
def store(
    server: tuple[str, int], credentials: Path, api: faults.Api
) -> Callable[[dict[str, str] | None, bool], dict[str, str]]:
    """Store an entry into a cache with this data; return what is there then."""

    def store(data: dict[str, str] | None, full: bool) -> dict[str, str]:
        api.put(CONFIGMAPS, "my-cache", metadata=CACHE_LABELS, **({} if data is None else {"data": data}))
        if full:
            api.on_next(faults.Call.ADD_ENTRY, faults.Fault(422, body=TOO_LONG))
        with closing(Client(Server(*server, credentials))) as client:
            outcome = ConfigMapCache(client, "ns", "my-cache").store("hello-1", ENTRY, NOW, Deadline(10))
        assert outcome.reason is Reason.STORED
        return dict(api.objects[CONFIGMAPS]["my-cache"].get("data", {}))

    return store


def test_every_other_entry_stays_as_it_is_to_the_byte(
    store: Callable[[dict[str, str] | None, bool], dict[str, str]],
):
    @settings(max_examples=40, deadline=None)
    @given(st.none() | st.dictionaries(PLACES, TEXTS, max_size=5), st.booleans())
    def check(data: dict[str, str] | None, full: bool) -> None:
        after = store(data, full)
        assert after.pop("hello-1") == ENTRY.dump()
        assert after == (data or {})

    check()
