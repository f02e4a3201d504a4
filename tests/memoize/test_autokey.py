"""Keys that write themselves: what is another step, and what is not."""

import copy
import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argo import names as argo
from argo.steppod import StepPod
from memoize import autokey, keyparts, names
from memoize.autokey import MOST_REFERENCES, AutoKey, ObjectReference, Version
from memoize.key import data_key
from tests.argopods import LAYOUTS, pod_of
from tests.recordedpods import PODS
from tests.work import grows

Json = dict[str, Any]


def _key(pod: Json) -> AutoKey:
    step = StepPod.parse(pod, "n")
    assert isinstance(step, StepPod)
    key = autokey.of_pod(step)
    assert isinstance(key, AutoKey), key
    return key


def _recorded(path: Path) -> Json:
    pod: Json = json.loads(path.read_text())
    pod["metadata"]["annotations"][names.KEY] = "auto"
    return pod


CASES = sorted({path.stem for path in PODS.glob("*/*.json") if "." not in path.stem})
OFFLOADED = "large-template"


@pytest.mark.parametrize("case", [case for case in CASES if case != OFFLOADED])
def test_every_version_and_layout_of_argo_comes_to_the_same_key(case: str):
    keys = {path.parent.name: _key(_recorded(path)).digest for path in PODS.glob(f"*/{case}.json")}
    assert len(set(keys.values())) == 1, keys


def test_recorded_steps_have_keys_of_their_own_but_where_only_what_does_not_count_differs():
    # One command with the same output, beside other resources, accounts, users and hooks.
    same = {"executor-service-account", "gc-ttl-hooks", "non-root", "pod-spec-patch", "special-characters"}
    cases: dict[str, set[str]] = {}
    for case in (case for case in CASES if case != OFFLOADED):
        cases.setdefault(_key(_recorded(PODS / "v4.1.2-legacy" / f"{case}.json")).digest, set()).add(case)
    assert [found for found in cases.values() if len(found) > 1] == [same]


@pytest.mark.parametrize(
    "twin", sorted(PODS.glob("*/*.golden.json")), ids=lambda p: f"{p.parent.name}/{p.stem}"
)
def test_containers_of_ours_change_no_key(twin: Path):
    original = twin.with_name(f"{twin.name.partition('.')[0]}.json")
    if original.stem != OFFLOADED:
        assert _key(_recorded(twin)).parts == _key(_recorded(original)).parts


def test_a_template_that_is_not_in_the_pod_has_no_key():
    step = StepPod.parse(_recorded(PODS / "v4.1.2-legacy" / f"{OFFLOADED}.json"), "n")
    assert isinstance(step, StepPod)
    assert autokey.of_pod(step) == "its template takes more than 128 KiB and is not in the Pod"


WHOLE: Json = {
    "name": "step",
    "inputs": {
        "parameters": [{"name": "n", "value": "1"}],
        "artifacts": [
            {"name": "in", "path": "/in", "s3": {"key": "w-0/w-0-step/in.tgz"}},
            {"name": "text", "path": "/text", "raw": {"data": "hello"}},
        ],
    },
    "container": {
        "image": "busybox:1.36",
        "command": ["sh", "-c"],
        "args": ["run --n 1"],
        "workingDir": "/work",
        "env": [
            {"name": "MODE", "value": "fast"},
            {"name": "SEED", "value": "7"},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "creds", "key": "token"}}},
        ],
        "envFrom": [{"configMapRef": {"name": "settings"}}],
        "resources": {"requests": {"cpu": "1"}},
        "volumeMounts": [
            {"name": "models", "mountPath": "/models", "readOnly": True},
            {"name": "conf", "mountPath": "/conf"},
            {"name": "tmp", "mountPath": "/scratch"},
        ],
    },
    "sidecars": [
        {"name": "db", "image": "postgres:16", "command": ["postgres"], "args": ["-c", "fsync=off"]}
    ],
    "initContainers": [{"name": "prep", "image": "busybox:1.36", "command": ["sh", "-c", "echo prep"]}],
    "volumes": [
        {"name": "models", "persistentVolumeClaim": {"claimName": "models"}},
        {"name": "conf", "configMap": {"name": "conf"}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
    ],
    "outputs": {
        "parameters": [{"name": "out", "valueFrom": {"path": "/out"}, "globalName": "g"}],
        "artifacts": [{"name": "res", "path": "/res", "s3": {"key": "results/res.tgz"}}],
    },
    "metadata": {"labels": {"team": "a"}},
    "retryStrategy": {"limit": 3},
    "nodeSelector": {"zone": "a"},
}
SCRIPT: Json = {"script": {"image": "python:3.13", "command": ["python"], "source": "print(1)"}}
SET: Json = {
    "containerSet": {
        "containers": [
            {"name": "a", "image": "busybox:1.36", "command": ["sh", "-c", "echo a > /ws/a"]},
            {
                "name": "main",
                "image": "busybox:1.36",
                "command": ["cat"],
                "args": ["/ws/a"],
                "dependencies": ["a"],
            },
        ]
    }
}
RESOURCE: Json = {
    "resource": {"action": "create", "manifest": "kind: ConfigMap", "successCondition": "a == b"}
}
DATA: Json = {
    "data": {
        "source": {"artifactPaths": {"name": "t", "s3": {"key": "in"}}},
        "transformation": [{"expression": "filter(data, true)"}],
    }
}
TEMPLATES = {"container": WHOLE, "script": SCRIPT, "containerSet": SET, "resource": RESOURCE, "data": DATA}


@cache
def _unchanged(kind: str, layout: str) -> AutoKey:
    """The key of one of TEMPLATES."""
    return _key(pod_of(TEMPLATES[kind], layout=layout))


def _at(template: Json, *path: str | int) -> Any:
    found: Any = template
    for step in path:
        found = found[step]
    return found


def _set(value: Any, *path: str | int) -> Callable[[Json], None]:
    def change(template: Json) -> None:
        _at(template, *path[:-1])[path[-1]] = value

    return change


def _gone(*path: str | int) -> Callable[[Json], None]:
    def change(template: Json) -> None:
        del _at(template, *path[:-1])[path[-1]]

    return change


def _reversed(*path: str | int) -> Callable[[Json], None]:
    def change(template: Json) -> None:
        _at(template, *path).reverse()

    return change


def _required(label: str, *values: str) -> Json:
    terms = [{"matchExpressions": [{"key": label, "operator": "In", "values": list(values)}]}]
    node = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    return {"nodeAffinity": node}


ANOTHER_STEP = [
    ("container", _set("busybox:1.37", "container", "image"), ["image"]),
    ("container", _set("mirror/busybox:1.36", "container", "image"), ["image"]),
    ("container", _set(["bash", "-c"], "container", "command"), ["command"]),
    ("container", _set(["run --n 2"], "container", "args"), ["args"]),
    ("container", _set(["run", "--n 1"], "container", "args"), ["args"]),
    ("container", _gone("container", "args"), ["args"]),
    ("container", _set("/", "container", "workingDir"), ["workingDir"]),
    ("container", _set("slow", "container", "env", 0, "value"), ["env/MODE"]),
    ("container", _set("DEPTH", "container", "env", 0, "name"), ["env/DEPTH", "env/MODE"]),
    ("container", _gone("container", "env", 1), ["env/SEED"]),
    ("container", _set("$(SEED)", "container", "env", 0, "value"), ["env"]),
    (
        "container",
        _set("other", "container", "env", 2, "valueFrom", "secretKeyRef", "name"),
        ["env/TOKEN"],
    ),
    (
        "container",
        _set({"name": "ARGO_MINE", "value": "1"}, "container", "env", 1),
        ["env/ARGO_MINE", "env/SEED"],
    ),
    ("container", _set("others", "container", "envFrom", 0, "configMapRef", "name"), ["envFrom"]),
    ("container", _set({"postStart": {"exec": {"command": ["x"]}}}, "container", "lifecycle"), ["lifecycle"]),
    ("container", _set("/m", "container", "volumeMounts", 0, "mountPath"), ["mounts"]),
    ("container", _set("sub", "container", "volumeMounts", 0, "subPath"), ["mounts"]),
    ("container", _gone("container", "volumeMounts", 0), ["mounts", "volumes/models"]),
    ("container", _set("m2", "volumes", 0, "persistentVolumeClaim", "claimName"), ["volumes/models"]),
    ("container", _set("conf2", "volumes", 1, "configMap", "name"), ["volumes/conf"]),
    ("container", _set("w-1/w-1-step/in.tgz", "inputs", "artifacts", 0, "s3", "key"), ["artifact/in"]),
    (
        "container",
        _set(
            {"endpoint": "minio:9000", "bucket": "c", "key": "w-0/w-0-step/in.tgz"},
            "inputs",
            "artifacts",
            0,
            "s3",
        ),
        ["artifact/in"],
    ),
    ("container", _set("/in2", "inputs", "artifacts", 0, "path"), ["artifact/in"]),
    ("container", _set(0, "inputs", "artifacts", 0, "mode"), ["artifact/in"]),
    ("container", _set("bye", "inputs", "artifacts", 1, "raw", "data"), ["artifact/text"]),
    ("container", _gone("inputs", "artifacts", 1), ["artifact/text"]),
    ("container", _set("/o", "outputs", "parameters", 0, "valueFrom", "path"), ["output/parameter/out"]),
    ("container", _set("results/2.tgz", "outputs", "artifacts", 0, "s3", "key"), ["output/artifact/res"]),
    ("container", _set({"none": {}}, "outputs", "artifacts", 0, "archive"), ["output/artifact/res"]),
    ("container", _gone("outputs", "artifacts", 0), ["output/artifact/res"]),
    ("container", _set("postgres:17", "sidecars", 0, "image"), ["sidecars/db/image"]),
    ("container", _set(["-c"], "sidecars", 0, "args"), ["sidecars/db/args"]),
    ("container", _set(["x"], "initContainers", 0, "command"), ["initContainers/prep/command"]),
    ("container", _set(True, "container", "tty"), ["tty"]),
    ("container", _set(True, "sidecars", 0, "mirrorVolumeMounts"), ["sidecars/db/mirrorVolumeMounts"]),
    (
        "container",
        _set("Always", "initContainers", 0, "restartPolicy"),
        ["initContainers/prep/restartPolicy"],
    ),
    ("container", _set({"x": "new in Kubernetes"}, "container", "fresh"), ["fresh"]),
    ("container", _set("arm64", "nodeSelector", "kubernetes.io/arch"), ["platform"]),
    ("container", _set("windows", "nodeSelector", "beta.kubernetes.io/os"), ["platform"]),
    ("container", _set(_required("kubernetes.io/arch", "arm64"), "affinity"), ["platform"]),
    ("script", _set("print(2)", "script", "source"), ["script"]),
    ("script", _set("print(1)\n", "script", "source"), ["script"]),
    ("script", _set("python:3.14", "script", "image"), ["image"]),
    ("script", _set(["pypy"], "script", "command"), ["command"]),
    ("containerSet", _set("x:2", "containerSet", "containers", 0, "image"), ["containers/a/image"]),
    ("containerSet", _set(["/ws/b"], "containerSet", "containers", 1, "args"), ["containers/main/args"]),
    (
        "containerSet",
        _gone("containerSet", "containers", 1, "dependencies"),
        ["containers/main/dependencies"],
    ),
    ("resource", _set("kind: Secret", "resource", "manifest"), ["resource"]),
    ("resource", _set("apply", "resource", "action"), ["resource"]),
    ("data", _set("other", "data", "source", "artifactPaths", "s3", "key"), ["data"]),
    ("data", _set("map(data, true)", "data", "transformation", 0, "expression"), ["data"]),
]


@pytest.mark.parametrize(
    ("kind", "change", "parts"), ANOTHER_STEP, ids=[f"{i}-{p[0]}" for i, (_, _, p) in enumerate(ANOTHER_STEP)]
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_another_step_has_another_key_and_the_part_says_why(
    layout: str, kind: str, change: Callable[[Json], None], parts: list[str]
):
    template = copy.deepcopy(TEMPLATES[kind])
    change(template)
    before, after = _unchanged(kind, layout), _key(pod_of(template, layout=layout))
    assert before.digest != after.digest
    told = keyparts.changed(before.digests, after.digests)
    assert told == parts
    assert keyparts.changed(before.short, after.short) == told


DEFAULTED = {"accessKeySecret": {"name": "s", "key": "k"}, "endpoint": "minio:9000", "bucket": "b"}
THE_SAME = [
    ("container", _set("other", "name")),
    ("container", _set({"requests": {"cpu": "4"}}, "container", "resources")),
    ("container", _set({"zone": "b"}, "nodeSelector")),
    ("container", _set([{"operator": "Exists"}], "tolerations")),
    ("container", _set({"labels": {"team": "b"}}, "metadata")),
    ("container", _gone("retryStrategy")),
    ("container", _set(_required("kubernetes.io/hostname", "a"), "affinity")),
    ("container", _set([{"action": "Restart"}], "container", "restartPolicyRules")),
    ("container", _set("10m", "timeout")),
    ("container", _set(60, "activeDeadlineSeconds")),
    ("container", _set({"runAsUser": 1}, "securityContext")),
    ("container", _set("builder", "serviceAccountName")),
    ("container", _set("Always", "container", "imagePullPolicy")),
    ("container", _set({"runAsUser": 1}, "container", "securityContext")),
    ("container", _set({"httpGet": {"port": 80}}, "container", "readinessProbe")),
    ("container", _reversed("container", "env")),
    ("container", _reversed("container", "volumeMounts")),
    ("container", _reversed("volumes")),
    ("container", _reversed("inputs", "artifacts")),
    ("container", _set("2Gi", "volumes", 2, "emptyDir", "sizeLimit")),
    ("container", _set("h", "outputs", "parameters", 0, "globalName")),
    ("container", _set({"strategy": "Never"}, "outputs", "artifacts", 0, "artifactGC")),
    ("container", _set({"key": "w-0/w-0-step/in.tgz"} | DEFAULTED, "inputs", "artifacts", 0, "s3")),
    ("container", _set([{"name": "n", "value": "2"}], "inputs", "parameters")),
    ("container", _set({"archiveLogs": True, "s3": DEFAULTED | {"key": "x"}}, "archiveLocation")),
    (
        "container",
        _set("c", "inputs", "artifacts", 0, "s3", "bucket"),
    ),  # without an endpoint Argo takes its own
    ("container", _set({"limits": 1}, "synchronization")),
]


@pytest.mark.parametrize(("kind", "change"), THE_SAME, ids=map(str, range(len(THE_SAME))))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_step_has_the_same_key(layout: str, kind: str, change: Callable[[Json], None]):
    template = copy.deepcopy(TEMPLATES[kind])
    change(template)
    assert _key(pod_of(template, layout=layout, run="z")).parts == _unchanged(kind, "4.1").parts


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_step_has_one_key_in_every_run_and_layout(kind: str):
    keys = {_key(pod_of(TEMPLATES[kind], layout=layout, run=run)).key for layout in LAYOUTS for run in "abc"}
    assert len(keys) == 1


def test_another_repository_is_another_place_for_an_input_by_key_alone():
    moved = WHOLE | {"archiveLocation": {"s3": {"endpoint": "minio:9000", "bucket": "new", "key": "k"}}}
    assert keyparts.changed(_key(pod_of(WHOLE)).short, _key(pod_of(moved)).short) == ["artifact/in"]


@pytest.mark.parametrize(
    ("patch", "part"),
    [
        ({"image": "evil:1"}, "image"),
        ({"args": ["x"]}, "args"),
        ({"command": ["x"]}, "command"),
        ({"env": [{"name": "MODE", "value": "x"}]}, "env/MODE"),
        ({"workingDir": "/x"}, "workingDir"),
    ],
)
def test_what_a_pod_spec_patch_changes_counts(patch: Json, part: str):
    template = {"container": {"image": "busybox", "command": ["sh"]}}
    assert keyparts.changed(_key(pod_of(template)).short, _key(pod_of(template, patch=patch)).short) == [part]


def _named(field: str) -> Json:
    return {"fieldRef": {"apiVersion": "v1", "fieldPath": field}}


DOWN = {"items": [{"path": "p", **_named("metadata.annotations['param']")}]}
READS_METADATA: dict[str, tuple[Json, list[str]]] = {
    "a variable": (
        {
            "container": {
                "image": "x",
                "env": [{"name": "P", "valueFrom": _named("metadata.labels['a.b/l']")}],
            }
        },
        ["env/P"],
    ),
    "a variable among others in their order": (
        {
            "container": {
                "image": "x",
                "env": [
                    {"name": "P", "valueFrom": _named("metadata.annotations['param']")},
                    {"name": "Q", "value": "$(P)"},
                ],
            }
        },
        ["env"],
    ),
    "a file": (
        {
            "container": {"image": "x", "volumeMounts": [{"name": "d", "mountPath": "/d"}]},
            "volumes": [{"name": "d", "downwardAPI": DOWN}],
        },
        ["volumes/d"],
    ),
    "a file beside others": (
        {
            "container": {"image": "x", "volumeMounts": [{"name": "d", "mountPath": "/d"}]},
            "volumes": [{"name": "d", "projected": {"sources": [{"downwardAPI": DOWN}]}}],
        },
        ["volumes/d"],
    ),
    "none of them": ({"container": {"image": "x"}}, []),
    "what is of one run": (
        {
            "container": {
                "image": "x",
                "env": [{"name": "P", "valueFrom": _named(f"metadata.labels['{argo.WORKFLOW_LABEL}']")}],
            }
        },
        [],
    ),
}


@pytest.mark.parametrize(("template", "parts"), READS_METADATA.values(), ids=READS_METADATA)
def test_a_label_or_annotation_counts_by_its_text_where_the_step_reads_it(template: Json, parts: list[str]):
    first, second = (
        _key(
            pod_of(
                template | {"metadata": {"labels": {"a.b/l": text}, "annotations": {"param": text}}}, run=text
            )
        )
        for text in ("s3cret", "other")
    )
    assert keyparts.changed(first.short, second.short) == parts
    if parts and parts[0].startswith("env"):
        assert "s3cret" not in json.dumps(first.shown)


@pytest.mark.parametrize("mode", [420, 493])
def test_the_mode_of_the_files_of_a_volume_counts(mode: int):
    def made(mode: int) -> AutoKey:
        volume = {"projected": {"defaultMode": mode, "sources": [{"configMap": {"name": "c"}}]}}
        container = {"image": "x", "volumeMounts": [{"name": "d", "mountPath": "/d"}]}
        return _key(pod_of({"container": container, "volumes": [{"name": "d", **volume}]}))

    assert (made(420).digest == made(mode).digest) == (mode == 420)


@pytest.mark.parametrize(
    ("image", "other", "same"),
    [
        ("app@sha256:ab", "app:v1@sha256:ab", True),
        ("app:v1@sha256:ab", "app:v2@sha256:ab", True),
        ("r:5000/app:v1@sha256:ab", "r:5000/app@sha256:ab", True),
        ("r:5000/app@sha256:ab", "r:5000/other@sha256:ab", False),
        ("app:v1@sha256:ab", "app:v1@sha256:cd", False),
        ("app:v1", "app:v2", False),
        ("r:5000/app", "r:5001/app", False),
    ],
)
def test_an_image_by_digest_counts_by_its_digest(image: str, other: str, same: bool):
    first, second = (_key(pod_of({"container": {"image": i, "command": ["x"]}})) for i in (image, other))
    assert (first.digest == second.digest) is same


def test_the_order_of_variables_counts_where_they_refer_to_each_other():
    env = [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)2"}]
    first, second = (
        _key(pod_of({"container": {"image": "x", "command": ["x"], "env": e}})) for e in (env, env[::-1])
    )
    assert first.digest != second.digest


def test_what_other_webhooks_add_to_run_beside_the_step_does_not_count():
    pod = pod_of(WHOLE)
    pod["spec"]["containers"].append({"name": "istio-proxy", "image": "istio", "args": ["proxy"]})
    pod["spec"]["initContainers"].insert(0, {"name": "istio-init", "image": "istio"})
    token = {"name": "aws-iam-token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}
    pod["spec"]["volumes"].append(token)
    main = next(c for c in pod["spec"]["containers"] if c["name"] == "main")
    main["volumeMounts"].append({"name": "aws-iam-token", "mountPath": "/var/run/secrets/eks"})
    assert _key(pod).parts == _key(pod_of(WHOLE)).parts


def test_a_secret_in_the_place_of_the_service_accounts_token_is_its_authors():
    def mounting(secret: str) -> Json:
        mount = {"name": "s", "mountPath": argo.SERVICEACCOUNT_DIR}
        volume = {"name": "s", "secret": {"secretName": secret}}
        pod = pod_of({"container": {"image": "x", "volumeMounts": [mount]}, "volumes": [volume]})
        main = next(c for c in pod["spec"]["containers"] if c["name"] == "main")
        others = [one for one in main["volumeMounts"] if one["mountPath"] != argo.SERVICEACCOUNT_DIR]
        main["volumeMounts"] = [*others, mount]  # where there is one, the API server adds no token
        return pod

    assert keyparts.changed(_key(mounting("a")).short, _key(mounting("b")).short) == ["volumes/s"]


@pytest.mark.parametrize(
    "name", ["input-artifacts", "argo-staging", "argoexec-bin", "stepmemo", "stepmemo-bin"]
)
def test_a_volume_that_bears_a_name_of_argos_or_ours_is_its_authors(name: str):
    def claiming(claim: str) -> Json:
        container = {"image": "x", "volumeMounts": [{"name": name, "mountPath": "/data"}]}
        volume = {"name": name, "persistentVolumeClaim": {"claimName": claim}}
        pod = pod_of({"container": container, "volumes": [volume]})
        kept = [one for one in pod["spec"]["volumes"] if one["name"] != name]
        pod["spec"]["volumes"] = [*kept, volume]
        return pod

    assert keyparts.changed(_key(claiming("a")).short, _key(claiming("b")).short) == [f"volumes/{name}"]


def test_init_containers_run_in_their_order():
    prep, fetch = ({"name": name, "image": "x", "command": [name]} for name in ("prep", "fetch"))
    orders = ([prep, fetch], [fetch, prep])
    first, second = (_key(pod_of(SCRIPT | {"initContainers": order})) for order in orders)
    assert keyparts.changed(first.short, second.short) == ["initOrder"]


def test_salt_is_a_part():
    keys = {_key(pod_of(WHOLE, **salt)).digest for salt in ({}, {"salt": "1"}, {"salt": "2"})}
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("names_left_out", "change"),
    [
        ("env/MODE", _set("slow", "container", "env", 0, "value")),
        ("env/SEED, env/MODE", _gone("container", "env", 0)),
        ("env/SEED env/MODE\n", _set("slow", "container", "env", 0, "value")),
        ("artifact/in", _set("other/key", "inputs", "artifacts", 0, "s3", "key")),
        ("artifact/res", _set("other/key", "outputs", "artifacts", 0, "s3", "key")),
    ],
)
def test_what_is_left_out_does_not_count(names_left_out: str, change: Callable[[Json], None]):
    template = copy.deepcopy(WHOLE)
    change(template)
    first, second = (_key(pod_of(t, key_ignore=names_left_out)) for t in (WHOLE, template))
    assert first.digest == second.digest
    assert _key(pod_of(WHOLE)).digest != _key(pod_of(template)).digest


def test_an_output_whose_place_is_left_out_is_still_declared():
    template = copy.deepcopy(WHOLE)
    del template["outputs"]["artifacts"][0]
    first, second = (_key(pod_of(t, key_ignore="artifact/res")) for t in (WHOLE, template))
    assert first.digest != second.digest


def test_a_key_names_its_form_and_is_one_that_argo_takes():
    key = _key(pod_of(WHOLE)).key
    assert re.fullmatch("auto-v1-[0-9a-f]{64}", key)
    assert argo.CACHE_KEY.fullmatch(key)
    assert data_key(key) == key


def test_a_key_of_this_form_never_changes():
    """Whoever has to change these digests makes another form: two programs of different releases may run."""
    digests = {kind: _key(pod_of(template)).digest[:16] for kind, template in TEMPLATES.items()}
    assert digests == {
        "container": "c1f53b8b223be9af",
        "script": "e929609fb9b0e0d7",
        "containerSet": "c3e8b7e04b646046",
        "resource": "01270e53e5c582da",
        "data": "2617ce9b85bb4263",
    }


def test_arguments_that_are_not_in_the_pod_make_no_key():
    pod = pod_of(WHOLE)
    main = next(c for c in pod["spec"]["containers"] if c["name"] == "main")
    main["env"].append({"name": "ARGO_CONTAINER_ARGS_FILE", "value": "/argo/config/ARGO_CONTAINER_ARGS_FILE"})
    step = StepPod.parse(pod, "n")
    assert isinstance(step, StepPod)
    assert autokey.of_pod(step) == "the arguments of container main take more than 128 KiB"


# --- Versions of Secrets and ConfigMaps ---------------------------------------------------------------


def _referring(**fields: Any) -> Json:
    """A template with these fields of its container, beside volumes of every kind that is from an object."""
    volumes = [
        {"name": "s", "secret": {"secretName": "files", "items": [{"key": "a", "path": "a"}]}},
        {"name": "c", "configMap": {"name": "conf"}},
        {
            "name": "p",
            "projected": {
                "sources": [
                    {"secret": {"name": "projected"}},
                    {"configMap": {"name": "projected"}},
                    {"serviceAccountToken": {"path": "t"}},
                    {"downwardAPI": {"items": []}},
                ]
            },
        },
        {"name": "d", "csi": {"driver": "x", "nodePublishSecretRef": {"name": "credentials"}}},
        {"name": "e", "emptyDir": {}},
    ]
    return {"container": {"image": "x:1", "command": ["x"], **fields}, "volumes": volumes}


def _env(*names: str) -> list[Json]:
    """A variable from a Secret's key for each name, which is the Secret's too."""
    return [{"name": n, "valueFrom": {"secretKeyRef": {"name": n, "key": "k"}}} for n in names]


def _mounting(*volumes: str) -> list[Json]:
    return [{"name": name, "mountPath": f"/{name}"} for name in volumes]


SECRET, CONFIG_MAP = "Secret", "ConfigMap"
REFERRING: dict[str, tuple[Json, list[tuple[str, str]]]] = {
    "nothing": (_referring(), []),
    "a variable from a Secret": (_referring(env=_env("a")), [(SECRET, "a")]),
    "a variable from a ConfigMap": (
        _referring(env=[{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}]),
        [(CONFIG_MAP, "c")],
    ),
    "a variable from a field": (
        _referring(env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}]),
        [],
    ),
    "two variables from one Secret": (
        _referring(env=[*_env("a"), {**_env("a")[0], "name": "B"}]),
        [(SECRET, "a")],
    ),
    "variables whose order counts": (
        _referring(env=[*_env("a"), {"name": "B", "value": "$(a)"}]),
        [(SECRET, "a")],
    ),
    "all variables of objects": (
        _referring(envFrom=[{"secretRef": {"name": "s"}}, {"prefix": "P", "configMapRef": {"name": "c"}}]),
        [(CONFIG_MAP, "c"), (SECRET, "s")],
    ),
    "files of a Secret": (_referring(volumeMounts=_mounting("s")), [(SECRET, "files")]),
    "files of a ConfigMap": (_referring(volumeMounts=_mounting("c")), [(CONFIG_MAP, "conf")]),
    "files of several": (
        _referring(volumeMounts=_mounting("p")),
        [(CONFIG_MAP, "projected"), (SECRET, "projected")],
    ),
    "credentials of a volume": (_referring(volumeMounts=_mounting("d", "e")), []),
    "an init container": (
        {**_referring(), "initContainers": [{"name": "i", "image": "x", "command": ["x"], "env": _env("a")}]},
        [(SECRET, "a")],
    ),
    "a sidecar": (
        {**_referring(), "sidecars": [{"name": "i", "image": "x", "command": ["x"], "env": _env("a")}]},
        [(SECRET, "a")],
    ),
    "a containerSet": (
        {
            "containerSet": {
                "containers": [{"name": "main", "image": "x", "command": ["x"], "env": _env("a")}]
            }
        },
        [(SECRET, "a")],
    ),
}


def _step(template: Json, **options: Any) -> StepPod:
    step = StepPod.parse(pod_of(template, **options), "n")
    assert isinstance(step, StepPod)
    return step


def _versions(template: Json, version: Version = ("u", "1")) -> dict[ObjectReference, Version]:
    return dict.fromkeys(autokey.references(_step(template)), version)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("template", "referred"), REFERRING.values(), ids=REFERRING)
def test_what_variables_and_files_of_a_step_are_from_is_what_it_refers_to(
    layout: str, template: Json, referred: list[tuple[str, str]]
):
    assert list(autokey.references(_step(template, layout=layout))) == referred


def test_what_is_left_out_is_not_referred_to():
    template = _referring(env=_env("a", "b"))
    assert autokey.references(_step(template, key_ignore="env/a")) == (ObjectReference(SECRET, "b"),)


@pytest.mark.parametrize(("template", "referred"), REFERRING.values(), ids=REFERRING)
def test_versions_are_parts_of_their_own_beside_those_that_there_are_without(
    template: Json, referred: list[tuple[str, str]]
):
    step = _step(template)
    without, key = autokey.of_pod(step), autokey.of_pod(step, _versions(template))
    assert isinstance(without, AutoKey)
    assert isinstance(key, AutoKey)
    added = {f"ref/{kind.lower()}/{name}": ("u", "1") for kind, name in referred}
    assert key.parts == {**without.parts, **added}
    assert (key.key == without.key) == (not referred)
    assert autokey.without_versions(key.short) == without.short


@pytest.mark.parametrize(
    ("before", "after"),
    [(("u", "1"), ("u", "2")), (("u", "1"), ("v", "1")), (("u", "1"), ()), (("u1", ""), ("u", "1"))],
    ids=["changed", "made anew", "deleted", "what is joined"],
)
def test_another_version_is_another_key_and_the_part_says_which_object_it_is_of(
    before: Version, after: Version
):
    template = _referring(env=_env("a", "b"), volumeMounts=_mounting("c"))
    versions = _versions(template)
    keys = [
        autokey.of_pod(_step(template), {**versions, ObjectReference(SECRET, "b"): one})
        for one in (before, after)
    ]
    first, second = keys
    assert isinstance(first, AutoKey)
    assert isinstance(second, AutoKey)
    assert keyparts.changed(first.short, second.short) == ["ref/secret/b"]
    assert first.key != second.key


@pytest.mark.parametrize(("kind", "name"), [(SECRET, "a"), (CONFIG_MAP, "conf")])
def test_where_a_version_is_not_known_there_is_no_key(kind: str, name: str):
    template = _referring(env=_env("a"), volumeMounts=_mounting("c"))
    versions = _versions(template)
    del versions[ObjectReference(kind, name)]
    assert autokey.of_pod(_step(template), versions) == (
        f"a {kind} that it refers to could not be read: write a key for this template, or have "
        "--auto-key-references set to name"
    )


@pytest.mark.parametrize("more", [0, 1])
def test_the_versions_of_so_many_objects_and_no_more_are_counted(more: int):
    template = _referring(env=_env(*(f"s{i}" for i in range(MOST_REFERENCES + 5 * more))))
    key = autokey.of_pod(_step(template), _versions(template))
    if more:
        assert str(key).startswith("it refers to more than 20 Secrets and ConfigMaps: ")
    else:
        assert isinstance(key, AutoKey)
    assert len(autokey.references(_step(template))) == MOST_REFERENCES + more


def test_a_step_without_a_key_refers_to_nothing():
    step = StepPod.parse(_recorded(PODS / "v4.1.2-legacy" / f"{OFFLOADED}.json"), "n")
    assert isinstance(step, StepPod)
    assert autokey.references(step) == ()
    assert autokey.of_pod(step, {}) == autokey.of_pod(step)


def test_what_is_shown_holds_no_value_of_a_variable():
    template = {"container": {"image": "x", "command": ["x"], "env": [{"name": "P", "value": "s3cret"}]}}
    nested = {
        "container": {"image": "x", "env": [*template["container"]["env"], {"name": "Q", "value": "$(P)"}]}
    }
    inits = template | {"initContainers": [{"name": "prep", **template["container"]}]}
    of_set = {"containerSet": {"containers": [{"name": "main", **nested["container"]}]}}
    for one in (template, nested, inits, of_set):
        key = _key(pod_of(one))
        assert "s3cret" in json.dumps(key.parts)
        assert "s3cret" not in json.dumps([key.shown, key.short])


@pytest.mark.parametrize(
    "where",
    [
        {"git": {"repo": "https://me:s3cret@example.com/a.git"}},
        {
            "http": {
                "url": "https://s3cret@example.com/a",
                "headers": [{"name": "Authorization", "value": "s3cret"}],
            }
        },
        {"http": {"url": "https://example.com/a", "auth": {"oauth2": {"scopes": ["s3cret"]}}}},
    ],
)
def test_what_is_shown_holds_no_credentials_of_an_artifact(where: Json):
    for kind, name in (("inputs", "artifact/a"), ("outputs", "output/artifact/a")):
        shown = _key(pod_of(SCRIPT | {kind: {"artifacts": [{"name": "a", "path": "/a", **where}]}})).shown
        assert "example.com/a" in json.dumps(shown[name])
        assert "s3cret" not in json.dumps(shown)


DIGESTS = st.sampled_from(["00000000", "11111111"])
SHORT = st.dictionaries(
    st.one_of(
        st.sampled_from(["image", "args", "script", "salt"]),
        st.builds("env/{}".format, st.text("ab", min_size=1, max_size=2)),
        st.builds("containers/{}/env/{}".format, st.sampled_from("xy"), st.sampled_from("abc")),
        st.builds("containers/{}/image".format, st.sampled_from("xy")),
    ),
    DIGESTS,
    max_size=12,
)
GROUPS = st.sampled_from(["env", "containers", "containers/x", "containers/x/env", "containers/y"])


@given(SHORT, SHORT, st.lists(GROUPS, max_size=3), st.lists(GROUPS, max_size=3))
def test_groups_tell_whether_anything_in_them_changed(
    before: dict[str, str], after: dict[str, str], first: list[str], second: list[str]
):
    def grouped(short: dict[str, str], groups: list[str]) -> dict[str, str]:
        for group in groups:
            short = keyparts.collapsed(short, group)
        return short

    told = keyparts.changed(grouped(before, first), grouped(after, second))
    assert bool(told) == (before != after)


def test_a_name_with_slashes_makes_no_groups():
    env = [{"name": "a/b/c", "value": "1"}, {"name": "a", "value": "2"}]
    assert "env/a%2Fb%2Fc" in _key(pod_of({"container": {"image": "x", "env": env}})).parts


def test_names_that_are_written_alike_are_not_one():
    first, second = (
        _key(pod_of({"container": {"image": "x", "env": [{"name": name, "value": "1"}]}}))
        for name in ("a/b", "a%2Fb")
    )
    assert first.digest != second.digest


@pytest.mark.parametrize("count", [0, 10, 60, 3000])
def test_short_digests_stay_short(count: int):
    env = [{"name": f"VARIABLE_{i}", "value": str(i)} for i in range(count)]
    parts = _key(pod_of(WHOLE | {"container": {"image": "x", "env": env}}))
    assert len(json.dumps(dict(parts.short), separators=(",", ":"))) <= keyparts.LONGEST
    assert ("env/VARIABLE_0" in parts.short) == (0 < count <= 20)


def test_short_digests_stay_short_whatever_the_containers():
    sidecars = [{"name": f"s{i}", "image": "x", "command": [str(i)]} for i in range(300)]
    short = _key(pod_of(WHOLE | {"sidecars": sidecars})).short
    assert len(json.dumps(dict(short), separators=(",", ":"))) <= keyparts.LONGEST


def _few(*texts: str) -> st.SearchStrategy[str]:
    """Few enough that two draws are often equal, and often differ in one place alone."""
    return st.sampled_from(texts)


_ENV = st.lists(
    st.fixed_dictionaries({"name": _few("A", "B", "ARGO_A")}, optional={"value": _few("", "1", "$(A)")})
    | st.fixed_dictionaries(
        {"name": _few("S", "T"), "valueFrom": st.just({"secretKeyRef": {"name": "s", "key": "k"}})}
    ),
    max_size=3,
    unique_by=lambda entry: str(entry["name"]),
)
_VOLUMES = {
    "none": {"emptyDir": {}},
    "claim": {"persistentVolumeClaim": {"claimName": "c"}},
    "conf": {"configMap": {"name": "c"}},
}
_MOUNTS = st.lists(
    st.builds(
        lambda volume, path: {"name": volume, "mountPath": path}, _few(*_VOLUMES), _few("/a", "/b", "/c")
    ),
    max_size=2,
    unique_by=lambda mount: mount["mountPath"],
)
_CONTAINER = st.fixed_dictionaries(
    {"image": _few("x:1", "x:2", "x:1@sha256:a", "x:2@sha256:a", "x@sha256:b"), "command": st.just(["sh"])},
    optional={
        "args": st.lists(_few("a", "b", "a b"), max_size=2),
        "workingDir": _few("", "/w"),
        "env": _ENV,
        "volumeMounts": _MOUNTS,
        "resources": st.sampled_from([{}, {"limits": {"cpu": "1"}}]),
        "imagePullPolicy": _few("Always", "Never"),
    },
)
_ARTIFACTS = st.lists(
    st.builds(
        lambda name, where: {"name": name, "path": f"/{name}", **where},
        _few("p", "q"),
        st.sampled_from([{"raw": {"data": "d"}}, {"s3": {"key": "k"}}, {"s3": {"key": "l"}}]),
    ),
    max_size=2,
    unique_by=lambda artifact: str(artifact["name"]),
)


@st.composite
def templates(draw: st.DrawFn) -> Json:
    """A template with a container or a script."""
    kind = draw(_few("container", "script"))
    body = draw(_CONTAINER)
    if kind == "script":
        body = {**body, "source": draw(_few("one", "two", "one\n"))}
        body.pop("args", None)
    paths = draw(st.lists(_few("/x", "/y"), max_size=1))
    return {
        "name": draw(_few("step", "another")),
        kind: body,
        "inputs": {"artifacts": draw(_ARTIFACTS)},
        "outputs": {"parameters": [{"name": "o", "valueFrom": {"path": path}} for path in paths]},
        "volumes": [{"name": name, **source} for name, source in _VOLUMES.items()],
        "retryStrategy": {"limit": draw(st.integers(0, 2))},
        "nodeSelector": {"zone": draw(_few("a", "b"))},
    }


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Json, Json]:
    """Two templates that have much in common, in other orders."""
    one, other = draw(templates()), draw(templates())
    kind = "script" if "script" in one else "container"
    taken = draw(st.sets(_few("name", "inputs", "outputs", "retryStrategy", "nodeSelector"), max_size=2))
    mixed = copy.deepcopy(one) | {field: other[field] for field in taken}
    theirs = other.get(kind, {})
    if theirs:
        field = draw(st.sampled_from(sorted(theirs)))
        mixed[kind][field] = theirs[field]
    for values in (
        mixed["inputs"]["artifacts"],
        mixed[kind].get("env", []),
        mixed[kind].get("volumeMounts", []),
    ):
        values[:] = draw(st.permutations(values))
    return one, mixed


def _meaning(template: Json) -> object:
    """What a person would say makes the step, in another way than the product does."""
    kind = "script" if "script" in template else "container"
    body = template[kind]
    image, at, digest = body["image"].partition("@")
    env = [(e["name"], e.get("value") or str(e.get("valueFrom", ""))) for e in body.get("env", ())]
    refers = any("$(" in value for _, value in env)
    return (
        kind,
        (image.split(":")[0], digest) if at else image,
        tuple(body.get("args", ())),
        body.get("source"),
        body.get("workingDir", ""),
        tuple(env) if refers else frozenset(env),
        frozenset((m["name"], m["mountPath"]) for m in body.get("volumeMounts", ())),
        frozenset(json.dumps(a, sort_keys=True) for a in template["inputs"]["artifacts"]),
        tuple(p["valueFrom"]["path"] for p in template["outputs"]["parameters"]),
    )


@given(pairs(), st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS))
def test_two_steps_have_one_key_if_and_only_if_they_are_the_same_step(
    pair: tuple[Json, Json], layout: str, another: str
):
    one, other = pair
    first, second = _key(pod_of(one, layout=layout)), _key(pod_of(other, layout=another, run="z"))
    assert (first.digest == second.digest) == (_meaning(one) == _meaning(other))
    assert (first.short == second.short) == (first.digest == second.digest)


@given(templates(), st.data(), st.sampled_from(LAYOUTS))
def test_one_change_is_told_by_the_part_that_it_is_in(template: Json, data: st.DataObject, layout: str):
    changed = copy.deepcopy(template)
    kind = "script" if "script" in template else "container"
    changed[kind][data.draw(_few("image", "workingDir"))] = "/other"
    before, after = (_key(pod_of(t, layout=layout)).short for t in (template, changed))
    told = keyparts.changed(before, after)
    assert len(told) == 1
    assert told[0] in ("image", "workingDir")


def test_the_work_grows_with_what_is_in_the_pod():
    def made(count: int) -> Json:
        env = [{"name": f"V{i}", "value": str(i)} for i in range(count)]
        mounts = [{"name": f"v{i}", "mountPath": f"/m{i}"} for i in range(count)]
        volumes = [{"name": f"v{i}", "emptyDir": {}} for i in range(count)]
        artifacts = [{"name": f"a{i}", "path": f"/a{i}", "s3": {"key": str(i)}} for i in range(count)]
        sidecars = [{"name": f"s{i}", "image": "x", "command": ["x"], "env": env[:2]} for i in range(count)]
        container = {"image": "x", "args": ["x"] * count, "env": env, "volumeMounts": mounts}
        inputs = {"artifacts": artifacts}
        return pod_of(
            {"container": container, "inputs": inputs, "volumes": volumes, "sidecars": sidecars},
            key_ignore=" ".join(f"env/V{i}" for i in range(0, count, 2)),
        )

    assert grows(lambda pod: _key(pod).annotations, made, 40) <= 2.3
