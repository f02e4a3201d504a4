"""Every request of the sidecar against everything an API server and a network can do to it.

What must hold: the run ends within its time; the word is `run` only when nothing of ours answers the step,
now or later; no entry but the step's own is touched.
"""

import itertools

import pytest

from argo import names as argo
from memoize import names
from memoize.reasons import Reason
from memoize.taskresult import posted_by_us
from sidecar import check
from tests.sidecar import faults
from tests.sidecar.faults import CONFIGMAPS, EVENTS, RESULTS, Call, Fault
from tests.sidecar.steppod import CACHE_LABELS, POD_UID, Ended, Pod, cached, entry, have_entry, have_result

pytestmark = pytest.mark.slow

SHORT = 1200
"""Milliseconds for a run whose fault lasts. One without takes some forty, ten times that when busy."""
RETRY_AFTER_A_DAY = (("Retry-After", "86400"),)
REFUSALS = (401, 403, 404, 409, 410, 413, 422)
BROKEN = ("reset", "hang", "garbage", 429, 500, 503)
LASTING = [Fault(seen) for seen in (*REFUSALS, *BROKEN)] + [Fault(429, headers=RETRY_AFTER_A_DAY)]
BRIEFLY = [Fault(seen) for seen in ("reset", "garbage", 429, 500)]
UNREADABLE = [Fault("cut", applied=True), Fault("text", applied=True)]
UNSURE = [
    Fault(seen, applied)
    for seen, applied in itertools.product(("reset", "hang", "garbage", 500), (True, False))
]


def name(fault: Fault) -> str:
    return f"{fault.seen}{'-applied' * fault.applied}{f'-late{fault.late}' * bool(fault.late)}"


def time_for(fault: Fault) -> int:
    """Milliseconds for a run that meets the fault again and again: few where it lasts until they are over."""
    return 4000 if fault.seen in REFUSALS and fault.seen != 409 else SHORT


def answered(api: faults.Api) -> bool:
    """The controller takes the step for answered."""
    results = api.objects[RESULTS].values()
    return any(result["metadata"]["labels"][argo.OUTPUTS_COMPLETED] == "true" for result in results)


def holds(pod: Pod, api: faults.Api, ended: Ended) -> None:
    """What must hold after a check, whatever happened to it."""
    assert ended.seconds < 2 * pod.timeout_ms / 1000  # the machine may be busy
    assert ended.reason is not Reason.INTERNAL_ERROR
    if pod.decision == names.DECISION_HIT:
        assert answered(api)
    elif pod.decision == names.DECISION_RUN:
        assert not answered(api)
    else:
        the_entrypoint_retracts(pod, api)


def the_entrypoint_retracts(pod: Pod, api: faults.Api) -> None:
    """The API server has recovered by the time the entrypoint sees that there is no decision."""
    for method in ("PATCH", "POST"):
        api.always(method, RESULTS, faults.OK)
    assert (pod.shared / names.CLAIM_FILE).exists()
    assert "retracted" in pod.run("retract").log
    assert not answered(api)


@pytest.mark.parametrize("fault", LASTING + UNREADABLE, ids=name)
def test_a_look_up_that_never_succeeds_lets_the_step_run(pod: Pod, api: faults.Api, fault: Fault):
    pod.timeout_ms = time_for(fault)
    have_entry(api)
    api.always("GET", CONFIGMAPS, fault)
    ended = pod.run("check")
    holds(pod, api, ended)
    assert pod.decision == names.DECISION_RUN
    assert api.count("POST", RESULTS) == 0
    expected = {401: Reason.FORBIDDEN, 403: Reason.FORBIDDEN, 404: Reason.MISS}
    assert ended.reason is expected.get(fault.seen, Reason.API_UNAVAILABLE)


@pytest.mark.parametrize("fault", BRIEFLY + UNREADABLE, ids=name)
def test_a_look_up_that_fails_once_is_repeated(pod: Pod, api: faults.Api, fault: Fault):
    have_entry(api)
    api.once("GET", CONFIGMAPS, fault)
    assert pod.run("check").reason is Reason.HIT


@pytest.mark.parametrize(
    ("verb", "call"), [("check", Call.READ_CACHE), ("check", Call.POST_RESULT), ("capture", Call.READ_RESULT)]
)
def test_a_part_of_the_work_that_hangs_leaves_time_for_what_comes_after_it(
    pod: Pod, api: faults.Api, verb: str, call: Call
):
    pod.timeout_ms = 4000
    pod.main_ended()
    have_entry(api)
    api.on(call, Fault("hang"))
    assert pod.run(verb).seconds < 0.75 * pod.timeout_ms / 1000


@pytest.mark.parametrize(("age", "reason"), [(0, Reason.HIT), (3, Reason.API_UNAVAILABLE), (5, Reason.HIT)])
def test_the_time_that_python_took_to_come_up_counts_unless_it_cannot_be_true(
    pod: Pod, api: faults.Api, age: float, reason: Reason
):
    pod.timeout_ms = 4000
    have_entry(api)
    assert pod.run("check", age).reason is reason


@pytest.mark.parametrize("verb", ["check", "capture"])
def test_a_server_that_is_away_is_not_asked_to_take_an_event(pod: Pod, api: faults.Api, verb: str):
    pod.timeout_ms = SHORT
    pod.main_ended()
    for call in (Call.READ_CACHE, Call.READ_RESULT):
        api.on(call, Fault(500))
    assert pod.run(verb).reason is Reason.API_UNAVAILABLE
    assert api.count("POST", EVENTS) == 0


def test_a_server_that_nobody_listens_for_lets_the_step_run(pod: Pod):
    pod.timeout_ms = SHORT
    pod.environment["KUBERNETES_SERVICE_PORT"] = "1"
    assert pod.run("check").reason is Reason.API_UNAVAILABLE
    assert pod.decision == names.DECISION_RUN


@pytest.mark.parametrize("fault", LASTING, ids=name)
def test_a_result_that_is_refused_lets_the_step_run(pod: Pod, api: faults.Api, fault: Fault):
    pod.timeout_ms = time_for(fault)
    have_entry(api)
    api.always("POST", RESULTS, fault)
    ended = pod.run("check")
    holds(pod, api, ended)
    assert ended.reason is not Reason.HIT


@pytest.mark.parametrize("fault", UNREADABLE, ids=name)
def test_a_created_result_whose_reply_is_unreadable_is_there_all_the_same(
    pod: Pod, api: faults.Api, fault: Fault
):
    have_entry(api)
    api.always("POST", RESULTS, fault)
    assert pod.run("check").reason is Reason.HIT
    assert api.count("POST", RESULTS) == 1


@pytest.mark.parametrize(
    "fault", [Fault(code, applied) for code in (200, 202, 204) for applied in (True, False)], ids=name
)
def test_a_success_that_is_not_an_api_servers_word_on_a_create_is_no_answer(
    pod: Pod, api: faults.Api, fault: Fault
):
    have_entry(api)
    api.always("POST", RESULTS, fault)
    api.on(Call.KEEP_OUT, faults.OK)
    ended = pod.run("check")
    holds(pod, api, ended)
    assert pod.decision == names.DECISION_RUN


def test_a_result_for_this_pod_that_is_not_reported_complete_answers_nothing(pod: Pod, api: faults.Api):
    have_entry(api)
    have_result(api, complete="false", annotations={names.POSTED_FOR: POD_UID})
    ended = pod.run("check")
    assert pod.decision == names.DECISION_RUN
    holds(pod, api, ended)
    assert names.POSTED_FOR not in api.objects[RESULTS]["wf-123"]["metadata"]["annotations"]


@pytest.mark.parametrize("fault", [f for f in UNSURE if f.seen != "hang"] + [Fault(429)], ids=name)
def test_a_result_whose_fate_is_unknown_once_becomes_a_hit(pod: Pod, api: faults.Api, fault: Fault):
    have_entry(api)
    api.once("POST", RESULTS, fault)
    ended = pod.run("check")
    holds(pod, api, ended)
    assert ended.reason is Reason.HIT
    assert pod.decision == names.DECISION_HIT


@pytest.mark.parametrize("fault", UNSURE, ids=name)
def test_a_result_whose_fate_stays_unknown_is_retracted_before_the_step_runs(
    pod: Pod, api: faults.Api, fault: Fault
):
    pod.timeout_ms = SHORT
    have_entry(api)
    api.once("POST", RESULTS, fault)
    api.always("POST", RESULTS, fault)
    api.always("PATCH", RESULTS, faults.OK)
    ended = pod.run("check")
    holds(pod, api, ended)


def test_who_is_too_late_takes_back_no_version_but_that_of_its_own_request(pod: Pod, api: faults.Api):
    """One that was found after a lost reply may be what the step itself has reported meanwhile."""
    have_entry(api)
    api.once("POST", RESULTS, Fault("reset", applied=True))
    reported = {"parameters": [{"name": "out", "value": "of the step"}]}

    def run_and_report() -> None:
        (pod.shared / names.DECISION_FILE).write_text(names.DECISION_RUN)
        api.objects[RESULTS]["wf-123"]["outputs"] = reported

    api.meanwhile("PATCH", RESULTS, run_and_report)
    assert pod.run("check").reason is Reason.UNDECIDED
    assert api.objects[RESULTS]["wf-123"]["outputs"] == reported


@pytest.mark.parametrize("late", [1, 2, 3])
@pytest.mark.parametrize("seen", ["hang", "reset"])
def test_a_result_that_arrives_while_it_is_retracted_never_answers_the_step(
    pod: Pod, api: faults.Api, seen: str, late: int
):
    pod.timeout_ms = SHORT
    have_entry(api)
    api.once("POST", RESULTS, Fault(seen, late=late))
    api.always("GET", EVENTS, faults.OK)
    ended = pod.run("check")
    holds(pod, api, ended)
    if seen == "hang":
        assert pod.decision == names.DECISION_RUN
        # Make up the missing requests: the late one must have nothing left to do.
        for _ in range(late):
            api.serve("GET", "/api/v1/namespaces/ns/configmaps/my-cache", "", None)
        assert api.late_statuses
        assert not answered(api)


@pytest.mark.parametrize(
    "retraction", [Fault(s) for s in (401, 403, 409, 422, "reset", "hang", 500)], ids=name
)
@pytest.mark.parametrize("post", [Fault("hang", applied=True), Fault("hang")], ids=name)
def test_a_retraction_that_does_not_succeed_leaves_the_word_to_the_entrypoint(
    pod: Pod, api: faults.Api, post: Fault, retraction: Fault
):
    pod.timeout_ms = 2 * SHORT
    have_entry(api)
    api.once("POST", RESULTS, post)
    api.always("PATCH", RESULTS, retraction)
    ended = pod.run("check")
    assert pod.decision == ""
    assert ended.reason is Reason.UNDECIDED
    holds(pod, api, ended)


@pytest.mark.parametrize("call", [Call.TAKE_BACK, Call.KEEP_OUT])
def test_a_retraction_that_meets_conflict_after_conflict_asks_at_intervals(
    pod: Pod, api: faults.Api, call: Call
):
    pod.timeout_ms = SHORT
    if call is Call.TAKE_BACK:
        have_result(api, annotations={names.POSTED_FOR: POD_UID})
    api.on(call, Fault(409))
    pod.run("retract")
    assert 2 <= api.calls.count(call) <= SHORT / 1000 / check._BETWEEN_CONFLICTS


@pytest.mark.parametrize("fault", BRIEFLY, ids=name)
@pytest.mark.parametrize("request_of_it", ["PATCH", "POST"])
def test_a_retraction_that_fails_once_is_repeated(
    pod: Pod, api: faults.Api, request_of_it: str, fault: Fault
):
    api.once(request_of_it, RESULTS, fault)
    assert "retracted" in pod.run("retract").log
    assert not answered(api)
    assert "wf-123" in api.objects[RESULTS]


def test_after_a_retraction_a_late_result_meets_a_conflict(pod: Pod, api: faults.Api):
    pod.run("retract")
    tombstone = api.objects[RESULTS]["wf-123"]
    assert tombstone["metadata"]["labels"][argo.OUTPUTS_COMPLETED] == "false"
    assert not posted_by_us(tombstone)
    have_entry(api)
    pod.run("check")
    assert pod.decision == names.DECISION_RUN
    assert not answered(api)


@pytest.mark.parametrize("fault", LASTING + UNREADABLE, ids=name)
def test_a_result_that_cannot_be_read_is_not_stored(pod: Pod, api: faults.Api, fault: Fault):
    pod.timeout_ms = time_for(fault)
    pod.main_ended()
    have_result(api)
    have_entry(api, "another")
    api.always("PATCH", RESULTS, fault)
    ended = pod.run("capture")
    assert ended.seconds < 2 * pod.timeout_ms / 1000  # the machine may be busy
    assert ended.reason in (Reason.FORBIDDEN, Reason.API_UNAVAILABLE, Reason.OUTPUTS_INCOMPLETE)
    assert cached(api).keys() == {"another"}


@pytest.mark.parametrize("fault", [Fault(s) for s in (*REFUSALS, "hang", 429, 500)], ids=name)
@pytest.mark.parametrize("method", ["PATCH", "POST", "GET"])
def test_a_cache_that_cannot_be_written_costs_the_entry_alone(
    pod: Pod, api: faults.Api, method: str, fault: Fault
):
    pod.timeout_ms = time_for(fault)
    pod.main_ended()
    have_result(api)
    if method == "PATCH":
        have_entry(api, "another")
    elif method == "GET":
        api.put(CONFIGMAPS, "my-cache", metadata=CACHE_LABELS)
    api.always(method, CONFIGMAPS, fault)
    ended = pod.run("capture")
    assert ended.seconds < 2 * pod.timeout_ms / 1000  # the machine may be busy
    expected = {
        401: Reason.FORBIDDEN,
        403: Reason.FORBIDDEN,
        409: Reason.CONFLICT,
        413: Reason.CACHE_FULL,
    }
    if method == "PATCH":  # not there, though creating it meets a conflict
        expected[404] = Reason.CONFLICT
    assert ended.reason is expected.get(fault.seen, Reason.API_UNAVAILABLE)
    if method == "PATCH":
        assert cached(api).keys() == {"another"}


@pytest.mark.parametrize(
    "fault",
    [Fault(seen, applied) for seen in ("reset", "garbage", 409, 429, 500) for applied in (True, False)]
    + UNREADABLE,
    ids=name,
)
@pytest.mark.parametrize("method", ["PATCH", "POST"])
def test_a_cache_that_fails_once_gets_the_entry(pod: Pod, api: faults.Api, method: str, fault: Fault):
    pod.main_ended()
    have_result(api)
    if method == "PATCH":
        have_entry(api, "another")
    api.once(method, CONFIGMAPS, fault)
    assert pod.run("capture").reason is Reason.STORED
    assert cached(api).keys() == {"hello-1"} | ({"another"} if method == "PATCH" else set())


def test_a_cache_that_is_not_full_keeps_what_has_expired(pod: Pod, api: faults.Api):
    """Its data came while we looked why a cache without any took no entry."""
    pod.main_ended()
    have_result(api)
    data = {"old": entry(creationTimestamp="2020-01-01T00:00:00Z", stepmemo={"maxAge": "1h"})}
    api.put(CONFIGMAPS, "my-cache", metadata=CACHE_LABELS)
    api.meanwhile(
        "PATCH", CONFIGMAPS, lambda: api.put(CONFIGMAPS, "my-cache", metadata=CACHE_LABELS, data=data)
    )
    assert pod.run("capture").reason is Reason.STORED
    assert cached(api).keys() == {"hello-1", "old"}
