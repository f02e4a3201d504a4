"""Step Pods of every layout, as Argo, podSpecPatch and other webhooks may leave them, for hypothesis."""

import json
from typing import Any

from hypothesis import strategies as st

from argo import names as argo
from memoize import names

Json = dict[str, Any]

FULL = {"cpu": "1", "memory": "1Gi"}
TOKEN = {"name": "kube-api-access-x", "mountPath": argo.SERVICEACCOUNT_DIR, "readOnly": True}
EXECUTORS_TOKEN = {"name": "exec-sa-token", "mountPath": argo.SERVICEACCOUNT_DIR, "readOnly": True}
ARGO = {"name": argo.VOLUME, "mountPath": argo.DIR}
BINARIES = {"name": "argoexec-bin", "mountPath": argo.BIN_DIR}
CONFIG = {"name": "argo-env-config", "mountPath": argo.CONFIG_DIR}
HOOKS = {"preStop": {"sleep": {"seconds": 1}}}

_QUANTITIES = st.sampled_from(["0", "10m", "1", "1e3", "64Mi", "0.5"])
_AMOUNTS = st.dictionaries(st.sampled_from(["cpu", "memory", "nvidia.com/gpu"]), _QUANTITIES)
RESOURCES = st.fixed_dictionaries({}, optional={"requests": _AMOUNTS, "limits": _AMOUNTS}) | st.builds(
    lambda full: {"requests": dict(full), "limits": dict(full)}, st.just(FULL)
)
_COMMANDS = st.lists(st.text(max_size=8), min_size=1, max_size=3)
_FOREIGN = st.fixed_dictionaries(
    {"name": st.sampled_from(["istio-proxy", "vault"]), "image": st.just("mesh"), "resources": RESOURCES},
    optional={
        "command": _COMMANDS,
        "lifecycle": st.just(HOOKS),
        "restartPolicy": st.just("Always"),
        "volumeMounts": st.just([{"name": "certs", "mountPath": "/certs"}]),
        "securityContext": st.just({"runAsUser": 0}),
    },
)
_KEYS = st.text(min_size=1, max_size=20).filter(lambda t: t.strip() and "{{" not in t and "}}" not in t)
# Made once: hypothesis checks each strategy that it first meets, which takes longer than to draw.
_LAYOUTS = st.sampled_from(["3.5", "3.6", "init-less"])
_KINDS = st.sampled_from(["container", "script", "containerSet", "resource", "data"])
_MAINS = st.sampled_from([["main"], ["a", "main"], ["a", "b"]])
_SIDECARS = st.sampled_from([[], ["db"]])
_INITS = st.sampled_from([[], ["prep"], ["prep", "fetch"]])
_PLUGINS = st.sampled_from([[], ["x"]])
_RESOURCES_OF_ALL = st.none() | RESOURCES
_SOME_FOREIGN = st.lists(_FOREIGN, max_size=2, unique_by=lambda c: str(c["name"]))
_OF_THE_POD = st.fixed_dictionaries(
    {},
    optional={
        "imagePullSecrets": st.lists(st.sampled_from([{"name": "ours"}, {"name": "theirs"}]), max_size=2),
        "securityContext": st.sampled_from([{}, {"runAsUser": 0}, {"runAsUser": 7, "fsGroup": 7}]),
        "resources": RESOURCES,
    },
)
_MODES = st.sampled_from(["use", "refresh", "readonly"])
_CHANGES = st.sampled_from([{"lifecycle": HOOKS}, {"restartPolicy": "Always"}, {"command": None}])


@st.composite
def step_pods(draw: st.DrawFn) -> Json:
    """Any step Pod that check or capture fit into."""
    layout = draw(_LAYOUTS)
    kind = draw(_KINDS)
    mains = draw(_MAINS) if kind == "containerSet" else ["main"]
    sidecars = draw(_SIDECARS)
    inits = draw(_INITS)
    alone = kind == "data" or (kind == "resource" and draw(st.booleans()))
    auxiliary = [] if alone else ["supervisor" if layout == "init-less" else "wait"]
    bodies = {"containerSet": {"containers": [{"name": name, "image": "x"} for name in mains]}}
    template = {
        "name": "step",
        kind: bodies.get(kind, {"image": "x"}),
        "initContainers": [{"name": name, "image": "x"} for name in inits],
        "outputs": {"parameters": [{"name": "out", "valueFrom": {"path": "/tmp/out"}}]},
    }
    offloaded = draw(st.booleans())
    argos_inits = [] if layout == "init-less" else ["init"]
    plugins = draw(_PLUGINS)
    holder = (argos_inits or auxiliary or mains)[0]

    def container(name: str) -> Json:
        env = [{"name": argo.ENV_CONTAINER_NAME, "value": name}]
        if layout == "3.5" or name == holder:
            text = argo.TEMPLATE_OFFLOADED if offloaded else json.dumps(template)
            env.append({"name": argo.ENV_TEMPLATE, "value": text})
        mounts = [ARGO, EXECUTORS_TOKEN if name in auxiliary and draw(st.booleans()) else TOKEN]
        mounts += [BINARIES] if layout == "init-less" else []
        mounts += [CONFIG] if offloaded and name == holder else []
        made = {"name": name, "image": "x", "command": draw(_COMMANDS), "env": env, "volumeMounts": mounts}
        return made | {"resources": draw(RESOURCES) if same is None else same}

    same = draw(_RESOURCES_OF_ALL)
    regular = [*auxiliary, *mains, *sidecars, *(f"artifact-plugin-{name}" for name in plugins)]
    before = [*argos_inits, *(f"init-artifact-{name}" for name in plugins), *inits]
    spec: Json = {
        "restartPolicy": "Never",
        "containers": [container(name) for name in draw(st.permutations(regular))],
        "initContainers": [container(name) for name in before],
        "volumes": [{"name": "theirs", "emptyDir": {}}],
    }
    _spoil(draw, spec, may_lose_command=[*before], may_have_hooks=[*before, *mains, *sidecars])
    for place in ("containers", "initContainers"):
        for foreign in draw(_SOME_FOREIGN):
            at = draw(st.integers(0, len(spec[place])))
            spec[place].insert(at, foreign | {"name": f"{foreign['name']}-{place}"})
    if not spec["initContainers"] and draw(st.booleans()):
        del spec["initContainers"]
    spec |= draw(_OF_THE_POD)
    owner = {"apiVersion": argo.API_VERSION, "kind": "Workflow", "name": "w", "uid": "u"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "w-step-1",
            "labels": {argo.WORKFLOW_LABEL: "w"},
            "ownerReferences": [owner | {"controller": True}],
            "annotations": {
                argo.NODE_ID: "w-1",
                names.KEY: draw(_KEYS),
                names.CACHE: "memo",
                names.MODE: draw(_MODES),
            },
        },
        "spec": spec,
    }


def _spoil(draw: st.DrawFn, spec: Json, may_lose_command: list[str], may_have_hooks: list[str]) -> None:
    """Now and then a container that nothing may go before."""
    if draw(st.integers(0, 3)):
        return
    change = draw(_CHANGES)
    wanted = may_lose_command if "command" in change else may_have_hooks
    if wanted:
        name = draw(st.sampled_from(wanted))
        for container in [*spec["containers"], *spec["initContainers"]]:
            if container["name"] == name:
                container.update(change)
