"""The check: what it decides, against an API server that does as it should."""

import json

import pytest

from argo import names as argo
from memoize import names
from memoize.outputs import Declared
from memoize.reasons import Reason
from tests.sidecar import faults
from tests.sidecar.faults import CONFIGMAPS, EVENTS, RESULTS
from tests.sidecar.steppod import CACHE_LABELS, OUTPUTS, POD_UID, Pod, entry, have_entry


def test_an_entry_answers_the_step_with_a_complete_result_owned_by_the_workflow(pod: Pod, api: faults.Api):
    pod.change(instance_id="blue")
    have_entry(api)

    ended = pod.run("check")

    assert ended.reason is Reason.HIT
    assert pod.decision == names.DECISION_HIT
    result = api.objects[RESULTS]["wf-123"]
    assert result["outputs"] == OUTPUTS
    assert result["metadata"]["labels"] == {
        argo.WORKFLOW_LABEL: "wf",
        argo.OUTPUTS_COMPLETED: "true",
        argo.INSTANCE_ID: "blue",
    }
    assert result["metadata"]["annotations"] == {names.POSTED_FOR: POD_UID}
    assert result["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Workflow",
            "name": "wf",
            "uid": "7c1d7c0c-0000-4000-8000-000000000001",
        }
    ]


def test_a_controller_without_an_instance_id_gets_no_label_for_it(pod: Pod, api: faults.Api):
    have_entry(api)
    pod.run("check")
    assert argo.INSTANCE_ID not in api.objects[RESULTS]["wf-123"]["metadata"]["labels"]


def test_the_log_line_and_the_last_word_name_the_outcome_and_never_the_key(pod: Pod, api: faults.Api):
    have_entry(api)
    ended = pod.run("check")
    assert ended.log.startswith("stepmemo: reason=Hit namespace=ns workflow=wf node=wf-123 cache=my-cache ")
    assert "hello-1" not in ended.log
    assert pod.last_word["reason"] == "Hit"


def test_a_cache_that_does_not_exist_is_a_miss(pod: Pod, api: faults.Api):
    assert pod.run("check").reason is Reason.MISS
    assert pod.decision == names.DECISION_RUN
    assert not api.objects[RESULTS]


@pytest.mark.parametrize("labels", [{}, {argo.CONFIGMAP_TYPE: "Parameter"}])
def test_a_config_map_without_the_label_answers_nothing(pod: Pod, api: faults.Api, labels: dict[str, str]):
    api.put(CONFIGMAPS, "my-cache", metadata={"labels": labels}, data={"hello-1": entry()})
    assert pod.run("check").reason is Reason.NOT_A_CACHE
    assert pod.decision == names.DECISION_RUN


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", Reason.BROKEN_ENTRY),
        ("[" * 100_000, Reason.BROKEN_ENTRY),
        (entry(outputs=None), Reason.INCOMPLETE_ENTRY),
        (entry(outputs={"parameters": [{"name": "out"}]}), Reason.INCOMPLETE_ENTRY),
        (entry(creationTimestamp="2020-01-01T00:00:00Z"), Reason.EXPIRED),
    ],
    ids=["no JSON", "too deep", "no outputs", "an output without value", "too old"],
)
def test_an_entry_that_does_not_answer_lets_the_step_run(
    pod: Pod, api: faults.Api, text: str, reason: Reason
):
    pod.change(max_age="1h")
    have_entry(api, text=text)
    assert pod.run("check").reason is reason
    assert pod.decision == names.DECISION_RUN
    assert not api.objects[RESULTS]


def test_a_step_without_outputs_is_answered_by_an_entry_without_outputs(pod: Pod, api: faults.Api):
    pod.change(declared=Declared())
    have_entry(api, text=entry(outputs=None))
    assert pod.run("check").reason is Reason.HIT
    assert "outputs" not in api.objects[RESULTS]["wf-123"]


def test_artifacts_of_an_answer_are_never_deleted_with_the_workflow_that_gets_it(pod: Pod, api: faults.Api):
    gc = {"artifactGC": {"strategy": "OnWorkflowDeletion"}}
    pod.change(declared=Declared(artifacts=({"name": "res", "path": "/res", **gc},)))
    have_entry(api, text=entry(outputs={"artifacts": [{"name": "res", "s3": {"key": "k"}, **gc}]}))
    pod.run("check")
    posted = api.objects[RESULTS]["wf-123"]["outputs"]["artifacts"]
    assert posted == [
        {"name": "res", "path": "/res", "s3": {"key": "k"}, "artifactGC": {"strategy": "Never"}}
    ]


def test_a_step_is_answered_under_the_names_that_its_own_template_gives(pod: Pod, api: faults.Api):
    pod.change(declared=Declared(parameters=({"name": "out", "globalName": "mine"},)))
    theirs = {"name": "out", "value": "v", "globalName": "theirs"}
    have_entry(api, text=entry(outputs={"parameters": [theirs], "result": "not asked for"}))
    assert pod.run("check").reason is Reason.HIT
    posted = api.objects[RESULTS]["wf-123"]["outputs"]
    assert posted == {"parameters": [{"name": "out", "value": "v", "globalName": "mine"}]}


def test_an_offloaded_template_is_read_from_the_mounted_config_map(pod: Pod, api: faults.Api):
    pod.change(declared=None)
    template = {"outputs": {"parameters": [{"name": "other", "valueFrom": {"path": "/x"}}]}, "container": {}}
    (pod.config / "ARGO_TEMPLATE").write_text(json.dumps(template))
    have_entry(api)
    assert pod.run("check").reason is Reason.INCOMPLETE_ENTRY


def test_a_step_of_an_offloaded_template_is_answered_under_its_own_names(pod: Pod, api: faults.Api):
    pod.change(declared=None)
    mine = {"name": "out", "globalName": "mine", "valueFrom": {"path": "/x"}}
    (pod.config / "ARGO_TEMPLATE").write_text(json.dumps({"outputs": {"parameters": [mine]}}))
    have_entry(api, text=entry(outputs={"parameters": [{"name": "out", "value": "v"}]}))
    assert pod.run("check").reason is Reason.HIT
    assert api.objects[RESULTS]["wf-123"]["outputs"] == {"parameters": [{**mine, "value": "v"}]}


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ({"daemon": True}, Reason.UNSUPPORTED_TEMPLATE),
        ({"memoize": {"key": "k"}}, Reason.OPTED_OUT),
        ({"resource": {"setOwnerReference": True}}, Reason.OWNED_BY_WORKFLOW),
    ],
)
@pytest.mark.parametrize("verb", ["check", "capture"])
def test_an_offloaded_template_that_is_not_ours_to_memoize_is_left_alone(
    pod: Pod, api: faults.Api, verb: str, template: dict[str, object], reason: Reason
):
    pod.change(declared=None)
    (pod.config / "ARGO_TEMPLATE").write_text(json.dumps(template))
    have_entry(api)
    before = dict(api.objects[CONFIGMAPS])
    assert pod.run(verb).reason is reason
    assert not api.objects[RESULTS]
    assert api.objects[CONFIGMAPS] == before


@pytest.mark.parametrize("content", [None, "", "[]", "[" * 100_000, '{"outputs": {"parameters": "x"}}'])
def test_an_offloaded_template_that_cannot_be_read_lets_the_step_run(
    pod: Pod, api: faults.Api, content: str | None
):
    pod.change(declared=None)
    if content is not None:
        (pod.config / "ARGO_TEMPLATE").write_text(content)
    have_entry(api)
    assert pod.run("check").reason is Reason.UNDECIDED
    assert pod.decision == names.DECISION_RUN


def test_a_lost_claim_leaves_everything_to_its_holder(pod: Pod, api: faults.Api):
    (pod.shared / names.CLAIM_FILE).touch()
    have_entry(api)
    assert pod.run("check").reason is Reason.UNDECIDED
    assert pod.decision == ""
    assert not api.objects[RESULTS]


@pytest.mark.parametrize("word", [names.DECISION_HIT, names.DECISION_RUN])
def test_a_second_check_of_a_restarted_pod_changes_nothing(pod: Pod, api: faults.Api, word: str):
    (pod.shared / names.CLAIM_FILE).touch()
    (pod.shared / names.DECISION_FILE).write_text(word)
    have_entry(api)
    for verb in ("check", "retract"):
        assert pod.run(verb).reason is Reason.UNDECIDED
    assert pod.decision == word
    assert api.requests == []


def test_files_are_readable_by_any_user_whatever_the_umask(pod: Pod, api: faults.Api):
    import os

    before = os.umask(0o077)
    try:
        pod.run("check")
    finally:
        os.umask(before)
    for name in (names.CLAIM_FILE, names.DECISION_FILE):
        assert (pod.shared / name).stat().st_mode & 0o777 == 0o644
    assert {path.name for path in pod.shared.iterdir()} == {names.CLAIM_FILE, names.DECISION_FILE}


def test_a_result_that_argo_reported_before_is_left_alone_and_the_step_runs(pod: Pod, api: faults.Api):
    have_entry(api)
    there = api.put(RESULTS, "wf-123", metadata={"labels": {argo.OUTPUTS_COMPLETED: "false"}})
    before = json.dumps(there)
    assert pod.run("check").reason is Reason.UNDECIDED
    assert pod.decision == names.DECISION_RUN
    assert json.dumps(api.objects[RESULTS]["wf-123"]) == before


def test_a_result_posted_for_an_earlier_pod_of_the_node_is_taken_back_before_the_step_runs(
    pod: Pod, api: faults.Api
):
    have_entry(api)
    api.put(
        RESULTS,
        "wf-123",
        metadata={
            "labels": {argo.OUTPUTS_COMPLETED: "true"},
            "annotations": {names.POSTED_FOR: "another-pod"},
        },
        outputs=OUTPUTS,
    )
    pod.run("check")
    assert pod.decision == names.DECISION_RUN
    assert "outputs" not in api.objects[RESULTS]["wf-123"]


def test_outputs_that_the_api_server_refuses_are_a_broken_entry(pod: Pod, api: faults.Api):
    have_entry(api)
    api.always("POST", RESULTS, faults.Fault(422))
    assert pod.run("check").reason is Reason.BROKEN_ENTRY
    assert pod.decision == names.DECISION_RUN


def test_a_hit_is_told_as_an_event_on_the_workflow_and_a_miss_is_not(pod: Pod, api: faults.Api):
    have_entry(api)
    pod.run("check")
    (event,) = api.objects[EVENTS].values()
    assert event["reason"] == "MemoizationHit"
    assert event["involvedObject"]["kind"] == "Workflow"
    assert "secret-value" not in json.dumps(event)
    assert "hello-1" not in json.dumps(event)


def test_a_miss_makes_no_event(pod: Pod, api: faults.Api):
    pod.run("check")
    assert api.count("POST", EVENTS) == 0


@pytest.mark.parametrize("fault", [faults.Fault(403), faults.Fault(500), faults.Fault("hang")])
def test_an_event_that_cannot_be_posted_changes_nothing_and_takes_no_time(
    pod: Pod, api: faults.Api, fault: faults.Fault
):
    have_entry(api)
    api.always("POST", EVENTS, fault)
    ended = pod.run("check")
    assert ended.reason is Reason.HIT
    assert pod.decision == names.DECISION_HIT
    assert ended.seconds < pod.timeout_ms / 1000


def test_a_key_that_argo_would_refuse_is_looked_up_by_its_digest(pod: Pod, api: faults.Api):
    key = 'any "key",\nwith ünicode ' + "x" * 5000
    pod.change(key=key)
    from memoize.key import data_key

    have_entry(api, data_key(key), entry(stepmemo={"key": key}))
    assert pod.run("check").reason is Reason.HIT


def test_an_immutable_cache_answers(pod: Pod, api: faults.Api):
    api.put(CONFIGMAPS, "my-cache", metadata=CACHE_LABELS, data={"hello-1": entry()}, immutable=True)
    assert pod.run("check").reason is Reason.HIT
