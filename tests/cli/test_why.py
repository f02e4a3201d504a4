import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argo import names as argo
from argo.steppod import Owner
from cli.evidence import light
from cli.explanation import Facts, Told, earlier_in, explain, parse, told
from cli.explanations import TEXTS
from cli.keychange import Earlier
from memoize import keyparts, names
from memoize.outcome import Outcome
from memoize.reasons import Reason
from server import events
from tests.cli.caches import HOUR, entry, make
from tests.cli.conftest import NOW, Stepmemo
from tests.cluster import Cluster

Json = dict[str, Any]
NODE = "greet-x2k9f-2718281828"
POD = "greet-x2k9f-say-2718281828"
COMPUTED = f"auto-v1-{'0' * 64}"
REPORTER = events.ReportingController("stepmemo-keeper", "stepmemo-keeper-0")


def step_pod(label: str = "", reason: str = "", **annotations: str) -> Json:
    """A step's Pod as it is after the keeper's or the webhook's last word."""
    said = {names.REASON: reason} if reason else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": POD,
            "namespace": "work",
            "labels": {argo.WORKFLOW_LABEL: "greet-x2k9f", **({names.RESULT: label} if label else {})},
            "annotations": {
                argo.NODE_ID: NODE,
                argo.NODE_NAME: "greet-x2k9f[0].say",
                names.KEY: "greet-world",
                names.CACHE: "greetings",
                **said,
                **annotations,
            },
            "ownerReferences": [
                {
                    "apiVersion": argo.API_VERSION,
                    "kind": "Workflow",
                    "name": "greet-x2k9f",
                    "uid": "97cc533f-7d1c-4640-9e06-4bedb72ca564",
                    "controller": True,
                }
            ],
        },
        "spec": {"containers": [{"name": "main", "image": "busybox"}]},
    }


def computed(label: str, reason: str) -> Json:
    """The same with a key that was `auto`."""
    return step_pod(
        label, reason, **{names.KEY: COMPUTED, names.KEY_PARTS: keyparts.encode({"args": "f" * 8})}
    )


def with_ours(pod: Json, **messages: str) -> Json:
    """The Pod with our containers in it, which ended with these messages."""
    pod["spec"]["initContainers"] = [{"name": names.CHECK_CONTAINER, "image": "stepmemo"}]
    pod["spec"]["containers"].append({"name": names.CAPTURE_CONTAINER, "image": "stepmemo"})
    statuses = [
        {"name": name.replace("_", "-"), "state": {"terminated": {"exitCode": 0, "message": message}}}
        for name, message in messages.items()
    ]
    return {**pod, "status": {"containerStatuses": statuses}}


def node(number: str, name: str, **fields: Any) -> Json:
    found = {
        "id": f"greet-x2k9f-{number}",
        "name": f"greet-x2k9f[0].{name}",
        "displayName": name,
        "type": "Pod",
    }
    return {**found, "templateName": "say", **fields}


def facts(**known: Any) -> Facts:
    return Facts(namespace="work", workflow_name="greet-x2k9f", **known)


def cache(*entries: Any) -> Json:
    labels = {argo.CONFIGMAP_TYPE: argo.CONFIGMAP_TYPE_CACHE}
    return {"metadata": {"labels": labels}, "data": {one.key: one.dump() for one in entries}}


def test_every_code_has_a_text() -> None:
    assert set(TEXTS) == set(Reason)


@pytest.mark.parametrize("reason", Reason)
def test_a_text_is_whole_sentences_in_words_of_kubernetes_and_argo(reason: Reason) -> None:
    for text in TEXTS[reason]:
        assert text[0].isupper() or text.startswith("stepmemo")
        assert text.endswith(".")
        assert "  " not in text
        assert not set(text.lower().split()) & {"capture", "inject", "injected", "held", "plan", "reconcile"}


@pytest.mark.parametrize("reason", Reason)
def test_what_the_keeper_wrote_on_the_pod_is_told_with_what_to_do(reason: Reason) -> None:
    said = explain(facts(pod=step_pod(names.RESULT_SKIPPED, f"{reason}: so it is")), NOW)
    assert said.outcome == Outcome(reason, "so it is")
    assert said.text.startswith(
        f"Step say of workflow greet-x2k9f (Pod {POD}): {reason}. {TEXTS[reason].what}"
    )
    assert "stepmemo noted: so it is." in said.text
    assert "in the cache greetings, under the key 'greet-world'" in said.text
    assert said.text.endswith(TEXTS[reason].cure)


@pytest.mark.parametrize(
    ("known", "outcome", "says"),
    [
        (
            {"pod": step_pod(names.RESULT_HIT, "Hit"), "config_map": cache(entry())},
            Outcome(Reason.HIT),
            "It was looked up by the keeper, outside of its Pod, in the cache greetings, under the key "
            "'greet-world'. There is an entry for it now, made 3h ago by workflow greet-x2k9f.",
        ),
        (
            {
                "pod": step_pod(names.RESULT_HIT, "Hit"),
                "told": [Outcome(Reason.HIT, "saved 5m12s, from workflow old, 3h ago")],
            },
            Outcome(Reason.HIT, "saved 5m12s, from workflow old, 3h ago"),
            "stepmemo noted: saved 5m12s, from workflow old, 3h ago. ",
        ),
        ({"pod": step_pod(names.RESULT_GATED)}, Outcome(Reason.GATED), "has no node yet"),
        (
            {"pod": computed(names.RESULT_MISS, "Miss"), "compared": True, "node": node("1", "say")},
            Outcome(Reason.MISS),
            "There is nothing to compare it with: its cache has no earlier entry of the template say.",
        ),
        (
            {
                "pod": computed(names.RESULT_STORED, "Stored: 9 bytes"),
                "compared": True,
                "earlier": Earlier(COMPUTED.replace("0", "1"), entry(parts={"args": "0" * 8})),
                "node": {"templateRef": {"name": "library", "template": "say"}},
            },
            Outcome(Reason.STORED, "9 bytes"),
            "Compared with the newest earlier entry of the template say, made 3h ago by workflow "
            "greet-x2k9f: args changed.",
        ),
        (
            {"pod": step_pod(names.RESULT_MISS, "Expired: older than 1h"), "config_map": cache()},
            Outcome(Reason.EXPIRED, "older than 1h"),
            "There is no entry for it now.",
        ),
        ({"pod": step_pod(names.RESULT_MISS)}, Outcome(Reason.NOT_GATED), "The step runs without a lookup"),
        (
            {"pod": step_pod(names.RESULT_MISS, full="x" * (256 << 10))},
            None,
            "its outputs are to be stored. Why is not recorded on its Pod.",
        ),
        (
            {"pod": step_pod(names.RESULT_MISS), "told": [Outcome(Reason.EXPIRED, "older than 1h")]},
            Outcome(Reason.EXPIRED, "older than 1h"),
            "stepmemo noted: older than 1h.",
        ),
        (
            {"pod": step_pod(names.RESULT_SKIPPED)},
            None,
            "its outputs are not stored. Why is not recorded on its Pod.",
        ),
        (
            {"pod": step_pod(names.RESULT_MISS, "Miss"), "elsewhere": True, "kept": entry().dump()},
            Outcome(Reason.MISS),
            "There is an entry for it now, made 3h ago by workflow greet-x2k9f.",
        ),
        (
            {"pod": step_pod(names.RESULT_MISS, "Miss"), "elsewhere": True, "kept": ""},
            Outcome(Reason.MISS),
            "There is no entry for it now.",
        ),
        (
            {
                "pod": step_pod(names.RESULT_MISS, "Miss"),
                "elsewhere": True,
                "unseen": ["cannot ask the keeper"],
            },
            Outcome(Reason.MISS),
            "It was looked up by the keeper, outside of its Pod, in the cache greetings, under the key "
            "'greet-world'. There is nothing to do. Not seen: cannot ask the keeper.",
        ),
        (
            {"pod": step_pod(names.RESULT_STORED, "Stored: 200 bytes"), "config_map": cache(entry())},
            Outcome(Reason.STORED, "200 bytes"),
            "Why it ran, and was not answered from there, is no longer recorded: most often there was no "
            "entry.",
        ),
        (
            {"pod": with_ours(step_pod(names.RESULT_IN_POD), stepmemo_check='{"reason":"Hit","detail":"x"}')},
            Outcome(Reason.HIT, "x"),
            "It was looked up inside its Pod",
        ),
        (
            {
                "pod": with_ours(
                    step_pod(names.RESULT_IN_POD),
                    stepmemo_check='{"reason":"Miss","detail":""}',
                    stepmemo='{"reason":"StepFailed","detail":"did not end with 0: main"}',
                )
            },
            Outcome(Reason.STEP_FAILED, "did not end with 0: main"),
            "only steps that succeed are stored",
        ),
        ({"pod": with_ours(step_pod(), stepmemo="[]")}, Outcome(Reason.INJECTED), "looked up inside"),
        (
            {"pod": step_pod(), "workflow": {"metadata": {}}, "namespace_labels": {}},
            Outcome(Reason.NOT_A_STEP, "no container has a readable ARGO_TEMPLATE"),
            "is not one that Argo's controller made",
        ),
        (
            {
                "pod": step_pod(),
                "workflow": {"metadata": {"labels": {names.MODE: "off"}}},
                "namespace_labels": {},
            },
            Outcome(Reason.MODE_OFF),
            "stepmemo.dev/mode is `off`",
        ),
        (
            {"pod": step_pod(), "told": [Outcome(Reason.KEEPER_UNAVAILABLE, "no keeper")]},
            Outcome(Reason.KEEPER_UNAVAILABLE, "no keeper"),
            "stepmemo noted: no keeper.",
        ),
        (
            {"pod": step_pod(names.RESULT_SKIPPED, "NotACache"), "config_map": {"metadata": {}}},
            Outcome(Reason.NOT_A_CACHE),
            "The ConfigMap greetings is not a cache.",
        ),
        (
            {"told": [Outcome(Reason.STORED, "9 bytes")]},
            Outcome(Reason.STORED, "9 bytes"),
            "(its Pod is gone)",
        ),
        (
            {"result": {"metadata": {"annotations": {names.POSTED_FOR: "uid"}}}},
            Outcome(Reason.HIT),
            "its outputs came from the cache",
        ),
        (
            {"node": {"memoizationStatus": {"hit": True, "key": "k", "cacheName": "c"}}},
            None,
            "Argo's own memoization answered it from the cache c under the key 'k'",
        ),
        ({"node": {"type": "Suspend"}}, None, "a node of type Suspend, which has no Pod"),
        ({"node": {"type": "Pod"}}, None, "nothing says what stepmemo did with it"),
        ({"unseen": ["cannot list events: 403"]}, None, "Not seen: cannot list events: 403."),
    ],
)
def test_what_is_there_decides_what_is_said(known: Json, outcome: Outcome | None, says: str) -> None:
    said = explain(facts(**known), NOW)
    assert said.outcome == outcome
    assert says in said.text
    assert "\n" not in said.text


@pytest.mark.parametrize("reason", [Reason.HIT, Reason.EXPIRED, Reason.NOT_GATED, Reason.GATED])
def test_parts_are_compared_only_where_there_was_no_entry(reason: Reason) -> None:
    said = explain(facts(pod=computed(names.RESULT_SKIPPED, reason), compared=True), NOW)
    assert "compare" not in said.text


def test_programs_are_told_the_parts_that_changed() -> None:
    before = Earlier(f"auto-v1-{'1' * 64}", entry(template="say", parts={"args": "0" * 8}))
    said = explain(facts(pod=computed(names.RESULT_MISS, "Miss"), compared=True, earlier=before), NOW)
    assert said.changed == ["args"]
    assert "args changed" in said.text
    alone = explain(facts(pod=computed(names.RESULT_MISS, "Miss"), compared=True), NOW)
    assert alone.changed is None


@pytest.mark.parametrize(
    ("created", "found"), [("2026-03-01T12:00:00Z", "b"), ("2026-03-01T10:00:00Z", "a"), (None, "b")]
)
def test_what_a_step_is_compared_with_was_there_before_its_pod(created: str | None, found: str) -> None:
    pod = computed(names.RESULT_MISS, "Miss")
    pod["metadata"]["creationTimestamp"] = created
    data = {
        "a": entry(template="say").dump(),
        "b": entry(template="say", created=NOW - HOUR).dump(),
        COMPUTED: entry(template="say", created=NOW - HOUR).dump(),
    }
    chosen = earlier_in(data, facts(pod=pod, node=node("1", "say")))
    assert (chosen and chosen.data_key) == found


def test_a_pod_without_a_key_says_how_to_opt_in() -> None:
    pod = step_pod()
    del pod["metadata"]["annotations"][names.KEY]
    said = explain(facts(pod=pod, workflow={"metadata": {}}, namespace_labels={}), NOW)
    assert said.outcome == Outcome(Reason.NO_KEY)
    assert 'Opt in with stepmemo.dev/memoize: "true"' in said.text


def test_a_pod_that_admission_would_take_was_not_seen_by_it(pod: Json) -> None:
    workflow = {"metadata": {"uid": pod["metadata"]["ownerReferences"][0]["uid"]}}
    known = Facts(
        namespace=pod["metadata"]["namespace"],
        workflow_name=pod["metadata"]["labels"][argo.WORKFLOW_LABEL],
        pod=pod,
        workflow=workflow,
        namespace_labels={},
    )
    said = explain(known, NOW)
    assert said.outcome is None
    assert "stepmemo's webhook was not reached" in said.text
    assert "or for a reason whose Event is gone (NameClash, NoRoom, " in said.text
    assert explain(replace(known, namespace_labels={names.MEMOIZE: "false"}), NOW).outcome == Outcome(
        Reason.OPTED_OUT, "the Namespace says so"
    )


def test_of_the_pods_of_a_workflow_is_kept_what_explains_them(pod: Json) -> None:
    namespace = pod["metadata"]["namespace"]
    ran = with_ours(step_pod(names.RESULT_IN_POD), stepmemo_check='{"reason":"Miss","detail":""}')
    ran["spec"]["volumes"] = [{"name": "large", "x": "x" * 10_000}]
    unasked = json.loads(json.dumps(pod))
    del unasked["metadata"]["annotations"][names.KEY]
    labelled = json.loads(json.dumps(pod))
    labelled["metadata"]["labels"][names.RESULT] = names.RESULT_MISS
    for one in (ran, unasked, labelled, pod, {}, {"metadata": [], "spec": [], "status": 1}):
        kept = light(one, namespace)
        known = {"workflow": {"metadata": {}}, "namespace_labels": {}}
        assert explain(facts(pod=kept, **known), NOW) == explain(facts(pod=one, **known), NOW)
        assert light(kept, namespace) == kept
    for one in (ran, unasked, labelled):
        assert len(json.dumps(light(one, namespace))) < len(json.dumps(one)) / 2
    assert light(pod, namespace) is pod, "the whole of it says why it was left alone"


@pytest.mark.parametrize(
    ("unread", "without"),
    [
        ({"workflow": None}, "its Workflow, which is gone, or may not be read here"),
        (
            {"workflow": {"metadata": {"uid": "a-later-one"}}},
            "its Workflow, which is gone, or may not be read",
        ),
        ({"namespace_labels": None}, "the right to get the Namespace"),
    ],
)
def test_what_the_reader_may_not_see_is_not_blamed_on_stepmemo(unread: Json, without: str, pod: Json) -> None:
    known = Facts(
        namespace=pod["metadata"]["namespace"],
        workflow_name=pod["metadata"]["labels"][argo.WORKFLOW_LABEL],
        pod=pod,
        workflow={"metadata": {"uid": pod["metadata"]["ownerReferences"][0]["uid"]}},
        namespace_labels={},
    )
    said = explain(replace(known, **unread), NOW)
    assert said.outcome is None
    assert f"cannot be told without {without}" in said.text


OWNER = Owner("work", "greet-x2k9f", "uid")


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (
            events.hit_event(OWNER, NODE, entry(), REPORTER, NOW),
            Outcome(Reason.HIT, "saved 5m12s, from workflow greet-x2k9f, 3h ago"),
        ),
        (events.stored_event(OWNER, NODE, "200 bytes", REPORTER, NOW), Outcome(Reason.STORED, "200 bytes")),
        (
            events.skip_event(OWNER, NODE, Reason.FORBIDDEN, "a: b", REPORTER, NOW),
            Outcome(Reason.FORBIDDEN, "a: b"),
        ),
        (events.skip_event(OWNER, NODE, Reason.CONFLICT, "", REPORTER, NOW), Outcome(Reason.CONFLICT)),
    ],
)
def test_what_the_programs_write_into_events_is_read_again(event: Json, said: Outcome) -> None:
    assert told(event["message"]) == Told(NODE, said)


@given(st.text())
def test_any_text_may_stand_in_an_event_or_an_annotation(text: str) -> None:
    assert told(text) is None or parse(text) is not None
    explain(facts(pod=step_pod(names.RESULT_SKIPPED, text)), NOW)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=5,
)


@given(JSON, JSON, JSON, JSON)
def test_nothing_that_was_read_is_trusted_to_be_of_any_type(
    one: Any, two: Any, three: Any, four: Any
) -> None:
    pod = {"metadata": {"name": "p", "annotations": one, "labels": two}, "status": three, "spec": four}
    explain(
        facts(pod=pod, node=mapping(one), result=mapping(two), config_map={"metadata": one, "data": two}), NOW
    )


def mapping(value: Any) -> Json | None:
    return value if isinstance(value, dict) else None


def workflow(namespace: str, nodes: Json) -> Json:
    return {
        "apiVersion": argo.API_VERSION,
        "kind": "Workflow",
        "metadata": {"name": "greet-x2k9f", "namespace": namespace},
        "spec": {"entrypoint": "say", "templates": [{"name": "say", "container": {"image": "busybox"}}]},
        "status": {"nodes": nodes},
    }


@pytest.fixture
def namespace(cluster: Cluster) -> str:
    """A workflow of two steps: the Pod of one is there, of the other there is but an Event."""
    found = cluster.namespace()
    nodes = [node("2718281828", "say"), node("1", "shout"), node("2", "all", type="Steps")]
    status, made = cluster.create(workflow(found, {one["id"]: one for one in nodes}))
    assert status == 201, made
    pod = step_pod(names.RESULT_STORED, "Stored: 311 bytes")
    pod["metadata"]["namespace"] = found
    pod["metadata"]["ownerReferences"][0]["uid"] = made["metadata"]["uid"]
    assert cluster.create(pod)[0] == 201
    owner = Owner(found, "greet-x2k9f", made["metadata"]["uid"])
    event = events.hit_event(owner, "greet-x2k9f-1", entry(), REPORTER, NOW)
    assert cluster.create({"apiVersion": "v1", **event})[0] == 201
    make(cluster, found, "greetings", {"greet-world": entry().dump()})
    return found


SAY = (
    f"Step say of workflow greet-x2k9f (Pod {POD}): Stored. The step ran, and its outputs are in the "
    "cache: the next step with this key is answered from there. stepmemo noted: 311 bytes. Its place is "
    "in the cache greetings, under the key 'greet-world'. Why it ran, and was not answered from there, "
    "is no longer recorded: most often there was no entry. There is an entry for it now, made 3h ago by "
    "workflow greet-x2k9f. There is nothing to do."
)


@pytest.mark.contract
@pytest.mark.parametrize(
    "args",
    [[POD], [f"pod/{POD}"], ["greet-x2k9f", "say"], ["workflow/greet-x2k9f", NODE], ["wf/greet-x2k9f", POD]],
)
def test_a_step_is_explained_in_a_paragraph(args: list[str], namespace: str, stepmemo: Stepmemo) -> None:
    assert stepmemo("why", *args, "-n", namespace) == (0, f"{SAY}\n", "")


@pytest.mark.contract
def test_a_step_whose_pod_is_gone_is_explained_by_its_event(namespace: str, stepmemo: Stepmemo) -> None:
    code, out, err = stepmemo("why", "greet-x2k9f", "shout", "-n", namespace, "-o", "json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert (found["pod"], found["code"]) == (None, "Hit")
    assert found["detail"] == "saved 5m12s, from workflow greet-x2k9f, 3h ago"


@pytest.mark.contract
def test_the_steps_of_a_workflow_are_listed(namespace: str, stepmemo: Stepmemo) -> None:
    code, out, err = stepmemo("why", "greet-x2k9f", "-n", namespace)
    assert code == 0
    assert sorted(line.split() for line in out.splitlines()) == [
        ["STEP", "POD", "RESULT", "CODE"],
        ["say", POD, "stored", "Stored"],
        ["shout", "Hit"],
    ]
    assert err == "stepmemo why: say a STEP, or its POD, to read more of it\n"


def test_in_a_list_a_pod_that_was_left_alone_is_judged_by_its_namespace_too(
    cluster: Cluster, stepmemo: Stepmemo, pod: Json
) -> None:
    name = cluster.namespace({names.MEMOIZE: "false"})
    owner = pod["metadata"]["ownerReferences"][0]["name"]
    made = workflow(name, {})
    made["metadata"]["name"] = owner
    status, made = cluster.create(made)
    assert status == 201, made
    for number in range(2):
        metadata = {**pod["metadata"], "name": f"step-{number}", "namespace": name}
        metadata["annotations"] = {**metadata["annotations"], argo.NODE_ID: f"node-{number}"}
        metadata["ownerReferences"][0]["uid"] = made["metadata"]["uid"]
        status, answer = cluster.create({**pod, "metadata": metadata})
        assert status == 201, answer
    items = json.loads(stepmemo("why", owner, "-n", name, "-o", "json")[1])["items"]
    assert [item["code"] for item in items] == ["OptedOut", "OptedOut"]


@pytest.mark.parametrize("args", [[POD], ["greet-x2k9f", "say"]])
def test_of_a_computed_key_it_says_which_part_changed(
    args: list[str], cluster: Cluster, stepmemo: Stepmemo
) -> None:
    name = cluster.namespace()
    pod = computed(names.RESULT_MISS, "Miss")
    pod["metadata"]["namespace"] = name
    assert cluster.create(pod)[0] == 201
    assert cluster.create(workflow(name, {NODE: node("2718281828", "say")}))[0] == 201
    before = entry(template="say", parts={"args": "0" * 8, "env/A": "1" * 8})
    make(cluster, name, "greetings", {COMPUTED.replace("0", "1"): before.dump()})
    code, out, err = stepmemo("why", *args, "-n", name)
    assert (code, err) == (0, "")
    assert "made 3h ago by workflow greet-x2k9f: args changed, env A is gone." in out


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["none"], 1, "no Pod or Workflow none in the Namespace {}"),
        (["pod/none"], 1, "no Pod none in the Namespace {}"),
        (["greet-x2k9f", "none"], 1, "the Workflow greet-x2k9f has no step 'none', or it is gone"),
        (["job/x"], 2, "'job/x' names no Pod, Workflow or reason code"),
        (["NoSuchCode"], 2, "'NoSuchCode' names no Pod, Workflow or reason code"),
    ],
)
def test_what_is_not_there_is_told(
    args: list[str], code: int, said: str, namespace: str, stepmemo: Stepmemo
) -> None:
    found = stepmemo("why", *args, "-n", namespace)
    assert found == (code, "", f"stepmemo why: {said.format(namespace)}\n")


@pytest.mark.contract
def test_without_rights_it_says_what_it_could_not_see(
    cluster: Cluster, namespace: str, stepmemo: Stepmemo, kubeconfig_of: Any
) -> None:
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]
    kubeconfig = kubeconfig_of(cluster.service_account(namespace, "person", rules))
    code, out, err = stepmemo("why", POD, "-n", namespace, "--kubeconfig", kubeconfig)
    assert (code, err) == (0, "")
    assert "Stored. The step ran" in out
    for resource in ("workflows", "workflowtaskresults", "configmaps"):
        assert f"cannot get resource {json.dumps(resource)}" in out
    assert 'cannot list resource "events"' in out
    assert "There is no ConfigMap" not in out


def test_a_code_is_explained_without_a_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    from cli.__main__ import main

    assert main(["why", "CacheFull"]) == 0
    text = TEXTS[Reason.CACHE_FULL]
    assert capsys.readouterr().out == f"CacheFull. {text.what} {text.cure}\n"
