"""Injection done in another way: by changing a copy of the Pod, from the words of the docs alone."""

import json
from copy import deepcopy
from typing import Any

from argo import names as argo
from memoize import names
from webhook.inject import resources
from webhook.inject.containers import InjectSettings
from webhook.inject.resources import Work

Json = dict[str, Any]
WORK = ["--", "python3", "-S", "-E", "-B", "-m", "sidecar"]
SHARED = {"name": "stepmemo", "mountPath": "/stepmemo"}
BIN = {"name": "stepmemo-bin", "mountPath": "/stepmemo-bin"}
TOKEN = {"name": "stepmemo-token", "mountPath": "/var/run/secrets/stepmemo", "readOnly": True}
IMAGE = {"name": "stepmemo-image", "mountPath": "/stepmemo-image", "readOnly": True}
ARGOS_OWN = ("init", "wait", "supervisor")


def mutated(pod: Json, settings: InjectSettings, step: str) -> Json | None:
    """The Pod with check and capture in it, None where it has to be left alone; `step` is STEPMEMO_STEP."""
    pod = deepcopy(pod)
    spec, mode = pod["spec"], pod["metadata"]["annotations"][names.MODE]
    inits, regular = list(spec.get("initContainers") or []), list(spec["containers"])
    argos = [c for c in regular if "env" in c]
    argos_inits = [c for c in inits if "env" in c]
    recorded = [c for c in argos if not c["name"].startswith("artifact-plugin-")]
    template_has_inits = any(
        c["name"] != "init" and not c["name"].startswith("init-artifact-") for c in argos_inits
    )
    by_init = settings.injection == "init-container" or template_has_inits
    wrapped = [*argos, *argos_inits] if by_init else argos
    check = mode != "refresh" and all(map(may_be_wrapped, wrapped))
    capture = mode != "readonly"
    if not check and not capture:
        return None
    if not check:
        wrapped, by_init = recorded, settings.injection == "init-container"

    security: Json = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    if spec.get("securityContext", {}).get("runAsUser") == 0:
        security["runAsUser"] = 65532
    ours: Json = {"image": settings.image, "imagePullPolicy": "IfNotPresent", "securityContext": security}
    full, some = settings.limits, settings.requests

    def asking(work: Work) -> Json:
        asked = resources.ours(pod_spec, work, some, full)
        return {**ours, "resources": asked} if asked else ours

    pod_spec = deepcopy(spec)
    fields = {"POD_NAME": "name", "POD_UID": "uid", "NAMESPACE": "namespace"}
    env = [{"name": "STEPMEMO_STEP", "value": step}] + [
        {"name": f"STEPMEMO_{name}", "valueFrom": {"fieldRef": {"fieldPath": f"metadata.{field}"}}}
        for name, field in fields.items()
    ]
    if settings.service is not None:
        env.append({"name": "STEPMEMO_SERVICE", "value": settings.service.url})
        env.append({"name": "STEPMEMO_SERVICE_CA", "value": settings.service.ca})

    authority = sorted(argos, key=lambda c: (c["name"] not in ARGOS_OWN, c["name"] != "main"))
    offloaded = [c for c in [*argos_inits, *argos] if mounted(c, argo.CONFIG_DIR)]
    token = mounted(authority[0], argo.SERVICEACCOUNT_DIR)
    config = mounted(offloaded[0], argo.CONFIG_DIR) if offloaded else None
    files = mounted(authority[0], argo.DIR), mounted(argos[0], argo.BIN_DIR)
    own = [SHARED] if settings.service is None else [SHARED, TOKEN]
    check_mounts = [*own, *reading(token, config)]
    all_mounts = [*own, *reading(token, *files, config)]

    mains = main_containers(recorded, [*argos_inits, *argos])
    letters = dict.fromkeys(ARGOS_OWN, "-w") | dict.fromkeys(mains, "-M")
    awaited = [word for c in recorded for word in (letters.get(c["name"], "-s"), c["name"])]
    for container in wrapped:
        records = ["-r", container["name"]] if capture and container in recorded else []
        waits = ["-t", "2000"] if check and not by_init else []
        entrypoint = "/stepmemo-bin/entrypoint" if by_init else "/stepmemo-image/opt/stepmemo/entrypoint"
        program = {**BIN, "readOnly": True} if by_init else IMAGE
        container["volumeMounts"] = [*container["volumeMounts"], SHARED, program]
        container["command"] = [entrypoint, *waits, *records, "--", *container["command"]]

    words = ["/opt/stepmemo/entrypoint", "capture"]
    words += ["-c", "2000"] if check and not by_init else []
    words += ["-t", "2000"] if capture else []
    words += ["-m", "48", *(awaited if capture else []), *WORK]
    work = Work.BOTH if check and not by_init else Work.CAPTURE
    sidecar = {"name": "stepmemo", **asking(work), "command": words, "env": env, "volumeMounts": all_mounts}
    if by_init:
        first = {"name": "stepmemo-check", **asking(Work.LOOK_UP)}
        if check:
            first["command"] = ["/opt/stepmemo/entrypoint", "check", "-t", "2000", "-m", "48", *WORK]
            first |= {"env": env, "volumeMounts": [*check_mounts, BIN]}
        else:
            first |= {"command": ["/opt/stepmemo/entrypoint", "check"], "volumeMounts": [SHARED, BIN]}
        spec["initContainers"] = [first, *inits]
        spec["containers"] = [*regular, *([sidecar] if capture else [])]
    else:
        if check:
            rule = {"action": "Restart", "exitCodes": {"operator": "In", "values": [137]}}
            sidecar |= {"restartPolicy": "Never", "restartPolicyRules": [rule]}
        spec["containers"] = [sidecar, *regular]
    spec["volumes"] = [*spec["volumes"], {"name": "stepmemo", "emptyDir": {"sizeLimit": "16Mi"}}]
    if settings.service is not None:
        source = {"audience": "stepmemo", "expirationSeconds": 3600, "path": "token"}
        projected = {"sources": [{"serviceAccountToken": source}]}
        spec["volumes"].append({"name": "stepmemo-token", "projected": projected})
        pod["metadata"]["labels"]["stepmemo.dev/result"] = "in-pod"
    if by_init:
        spec["volumes"].append({"name": "stepmemo-bin", "emptyDir": {"sizeLimit": "16Mi"}})
    else:
        image = {"reference": settings.image, "pullPolicy": "IfNotPresent"}
        spec["volumes"].append({"name": "stepmemo-image", "image": image})
    secrets = spec.get("imagePullSecrets") or []
    if {"name": "ours"} not in secrets:
        spec["imagePullSecrets"] = [*secrets, {"name": "ours"}]
    return pod


def may_be_wrapped(container: Json) -> bool:
    return bool(
        container.get("command")
        and "lifecycle" not in container
        and container.get("restartPolicy") != "Always"
    )


def main_containers(recorded: list[Json], everything: list[Json]) -> list[str]:
    """From the template where it can be read; else `main`, or whatever is not Argo's own."""
    texts = [e["value"] for c in everything for e in c["env"] if e["name"] == argo.ENV_TEMPLATE]
    workers = [c["name"] for c in recorded if c["name"] not in ARGOS_OWN]
    if texts[0] == argo.TEMPLATE_OFFLOADED:
        return ["main"] if "main" in workers else workers
    container_set = json.loads(texts[0]).get("containerSet")
    return [c["name"] for c in container_set["containers"]] if container_set else ["main"]


def mounted(container: Json, path: str) -> Json | None:
    return next((mount for mount in container["volumeMounts"] if mount["mountPath"] == path), None)


def reading(*mounts: Json | None) -> list[Json]:
    return [{**mount, "readOnly": True} for mount in mounts if mount is not None]
