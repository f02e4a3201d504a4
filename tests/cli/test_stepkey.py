import json
from typing import Any

import pytest

from argo.steppod import StepPod
from cli import stepkey
from cli.stepkey import StepKey
from memoize import autokey, names
from memoize.autokey import AutoKey, ObjectReference
from memoize.key import data_key
from tests.argopods import pod_of

Json = dict[str, Any]
SAY: Json = {
    "name": "say",
    "container": {
        "image": "busybox:1.36",
        "command": ["echo"],
        "args": ["hello"],
        "env": [{"name": "TOKEN", "value": "secret"}, {"name": "FROM", "valueFrom": {"fieldRef": {}}}],
    },
}
OURS = f"auto-{autokey.FORM}-{'0' * 64}"
OTHER = f"auto-{autokey.FORM}-{'1' * 64}"


def key_of(pod: Json) -> StepKey:
    found = stepkey.of_pod(pod, "n")
    assert isinstance(found, StepKey), found
    return found


def test_the_parts_of_an_auto_key_are_shown_with_no_value_of_a_variable() -> None:
    key = key_of(pod_of(SAY))
    assert key.auto is not None
    rows = {name: (digest, value) for name, digest, value in key.rows()}
    assert rows["image"] == (key.auto.digests["image"][:8], "busybox:1.36")
    assert rows["args"][1] == '["hello"]'
    assert rows["env/TOKEN"][1].startswith("sha256:")
    assert "secret" not in json.dumps(key.item())
    facts = dict(key.facts())
    assert facts["Step"] == "w-a of workflow w-a (Pod w-a)"
    assert facts["Key"] == key.auto.key == key.item()["key"] == key.item()["dataKey"]
    assert {part["name"]: part["digest"] for part in key.item()["parts"]} == key.auto.digests


@pytest.mark.parametrize("changed", [False, True])
def test_of_a_key_with_versions_that_are_not_in_the_pod_that_is_told(*, changed: bool) -> None:
    secret = {"name": "S", "valueFrom": {"secretKeyRef": {"name": "creds", "key": "k"}}}
    pod = pod_of({**SAY, "container": {**SAY["container"], "env": [secret]}})
    step = StepPod.parse(pod, "n")
    assert isinstance(step, StepPod)
    computed = autokey.of_pod(step, {ObjectReference("Secret", "creds"): ("u", "1")})
    assert isinstance(computed, AutoKey)
    pod["metadata"]["annotations"] |= computed.annotations
    if changed:
        next(c for c in pod["spec"]["containers"] if c["name"] == "main")["image"] = "busybox:1.37"
    found = key_of(pod)
    assert (found.key == computed.key) == (not changed)
    assert ("changed after that" if changed else "versions of Secrets and ConfigMaps") in found.note


@pytest.mark.parametrize("said", ["auto", "computed", "of another form", "of another Pod"])
def test_of_a_pod_that_the_webhook_saw_the_key_is_told_and_whether_it_is_the_one_that_it_says(
    said: str,
) -> None:
    pod = pod_of(SAY)
    key = key_of(pod).key
    texts = {"computed": key, "of another form": f"auto-v99-{'0' * 64}", "of another Pod": OURS}
    if said != "auto":
        pod["metadata"]["annotations"] |= {names.KEY: texts[said], names.KEY_PARTS: "{}"}
    notes = {"of another form": "of the form v99", "of another Pod": "was changed after that"}
    found = key_of(pod)
    assert found.key == key
    assert notes.get(said, "") in found.note
    assert bool(found.note) == (said in notes)


@pytest.mark.parametrize(
    ("annotations", "key", "place"),
    [
        ({names.KEY: "greet-world"}, "greet-world", "greet-world"),
        ({names.KEY: "a b"}, "a b", data_key("a b")),
        ({names.KEY_DIGEST: f"sha256-{'0' * 64}"}, "", f"sha256-{'0' * 64}"),
        ({names.KEY: OURS}, OURS, OURS),
    ],
)
def test_a_key_that_its_author_wrote_is_told_as_such(annotations: Json, key: str, place: str) -> None:
    pod = pod_of(SAY)
    del pod["metadata"]["annotations"][names.KEY]
    pod["metadata"]["annotations"] |= annotations
    found = key_of(pod)
    assert (found.key, found.data_key, found.auto, found.rows()) == (key, place, None, [])
    assert dict(found.facts())["Auto"] == "no: its author wrote the key"
    assert dict(found.facts())["Key"] == (key or "too long to be in the Pod")
    assert "parts" not in found.item()


def without(pod: Json, *path: str) -> Json:
    inner = pod
    for field in path[:-1]:
        inner = inner[field]
    del inner[path[-1]]
    return pod


@pytest.mark.parametrize(
    ("pod", "why"),
    [
        (without(pod_of(SAY), "metadata", "ownerReferences"), "it is not a step of a workflow: "),
        (without(pod_of(SAY), "metadata", "annotations", names.KEY), f"no annotation {names.KEY}"),
        (without(pod_of(SAY), "metadata", "annotations", names.CACHE), f"[{names.CACHE}]: Required value"),
        (without(pod_of(SAY), "spec", "initContainers"), "cannot be told: it has no readable template"),
    ],
)
def test_a_pod_without_a_key_says_why(pod: Json, why: str) -> None:
    annotations = pod["metadata"]["annotations"]
    if names.CACHE not in annotations:
        annotations[names.KEY] = "k"
    found = stepkey.of_pod(pod, "n")
    assert isinstance(found, str)
    assert why in found


def workflow(*templates: Json, **spec: Any) -> Json:
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"generateName": "greet-"},
        "spec": {"templates": list(templates), **spec},
    }


AUTO: Json = {"metadata": {"annotations": {names.KEY: "auto", names.CACHE: "greetings"}}}
BLOCK: Json = {"memoize": {"key": "auto", "cache": {"configMap": {"name": "greetings"}}}}


@pytest.mark.parametrize("how", [AUTO, BLOCK])
def test_of_a_template_the_parts_are_shown_with_tags_left_in_and_no_digest_of_them(how: Json) -> None:
    tagged = {**SAY["container"], "args": ["{{inputs.parameters.who}}"]}
    (found,) = stepkey.of_object(workflow({**SAY, **how, "container": tagged}))
    assert isinstance(found, StepKey)
    rows = {name: (digest, value) for name, digest, value in found.rows()}
    assert rows["args"] == ("", '["{{inputs.parameters.who}}"]')
    assert (found.key, found.data_key) == ("", "")
    assert all("digest" not in part for part in found.item()["parts"])
    assert "stepmemo key pod/NAME" in found.note
    assert dict(found.facts())["Template"] == "say of Workflow/greet-"


def test_a_template_is_shown_with_what_its_workflow_says_of_the_platform() -> None:
    (found,) = stepkey.of_object(workflow({**SAY, **AUTO}, nodeSelector={"kubernetes.io/arch": "arm64"}))
    assert isinstance(found, StepKey)
    assert found.auto is not None
    assert found.auto.parts["platform"] == {"kubernetes.io/arch": "arm64"}


MAIN = {"image": "busybox", "command": ["sh"]}
S3 = {"endpoint": "minio:9000", "bucket": "b", "key": "k"}
TEMPLATES: Json = {
    "container": {**SAY, "volumes": [{"name": "v", "hostPath": {"path": "/v"}}]},
    "script": {"name": "script", "script": {**MAIN, "source": "echo hello"}},
    "containerSet": {
        "name": "set",
        "containerSet": {"containers": [{**MAIN, "name": "a"}, {**MAIN, "name": "b", "dependencies": ["a"]}]},
    },
    "beside others": {
        **SAY,
        "nodeSelector": {"kubernetes.io/arch": "arm64"},
        "sidecars": [{**MAIN, "name": "side"}],
        "initContainers": [{**MAIN, "name": "before"}],
        "inputs": {"artifacts": [{"name": "in", "path": "/in", "s3": S3}]},
        "outputs": {"parameters": [{"name": "out", "valueFrom": {"path": "/out"}}]},
    },
}


@pytest.mark.parametrize("case", TEMPLATES)
def test_a_template_without_tags_has_the_parts_that_its_pods_have(case: str) -> None:
    template = TEMPLATES[case]
    of_pod = key_of(pod_of(template))
    (found,) = stepkey.of_object(workflow({**template, **AUTO}))
    assert isinstance(found, StepKey)
    assert found.auto is not None
    assert of_pod.auto is not None
    assert found.auto.parts == of_pod.auto.parts


@pytest.mark.parametrize(
    ("obj", "found"),
    [
        (workflow(SAY), []),
        (workflow({**SAY, "memoize": {"key": 1}}), ["Workflow/greet-: spec.templates[0].memoize.key: "]),
        (workflow(SAY, templateDefaults=AUTO), ["say of Workflow/greet-"]),
        (workflow({**SAY, "metadata": {"annotations": {names.KEY: "k", names.CACHE: "c"}}}), ["say of Work"]),
        (
            workflow({"container": {"env": [1], "args": 2, "volumeMounts": "x"}, **AUTO}),
            ["Workflow/greet-: spec.templates[0].container.env[0] is not an object"],
        ),
    ],
)
def test_of_an_object_each_template_with_a_key_is_told(obj: Json, found: list[str]) -> None:
    told = [one if isinstance(one, str) else one.subject for one in stepkey.of_object(obj)]
    assert len(told) == len(found)
    assert all(one.startswith(beginning) for one, beginning in zip(told, found, strict=True))
