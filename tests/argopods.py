"""Step Pods as Argo's controller makes them of a template, in each layout: what recorded Pods do not show.

`tests/memoize/test_autokey.py` holds this to the recorded ones.
"""

import copy
import json
from typing import Any

from argo import names as argo
from memoize import names

Json = dict[str, Any]

LAYOUTS = ("3.5", "3.6", "4.1", "init-less")


def pod_of(
    template: Json, *, layout: str = "4.1", run: str = "a", patch: Json | None = None, **annotations: str
) -> Json:
    """The Pod of a template whose tags are resolved.

    `run` tells one workflow's Pod from another's; `patch` are fields that a podSpecPatch gives to `main`;
    `annotations` are ours (`salt`, `key_ignore`).
    """
    template = {"name": "step", "inputs": {}, "outputs": {}} | copy.deepcopy(template)
    said = template.get("metadata", {})
    ours = {names.KEY: "auto", names.CACHE: "memo"}
    ours |= {f"{names.DOMAIN}/{name.replace('_', '-')}": text for name, text in annotations.items()}
    repository = {"endpoint": "minio:9000", "bucket": "b", "key": f"w-{run}/w-{run}-step"}
    whole = {"archiveLocation": {"s3": repository}} | template
    if layout != "3.5":
        whole["inputs"] = {k: v for k, v in whole["inputs"].items() if k == "artifacts"}
    text = json.dumps(whole)
    executor = f"quay.io/argoproj/argoexec:v{ {'3.5': '3.5.15', '3.6': '3.6.19'}.get(layout, '4.1.2') }"
    binary = "/argo-bin/bin/argoexec" if layout == "init-less" else "/var/run/argo/argoexec"
    token = {"name": f"kube-api-access-{run}", "mountPath": argo.SERVICEACCOUNT_DIR, "readOnly": True}
    shared = {"name": argo.VOLUME, "mountPath": argo.DIR}

    def with_argos(container: Json, name: str, *, carries: bool = False) -> Json:
        env = [{"name": argo.ENV_CONTAINER_NAME, "value": name}]
        if carries or layout == "3.5":
            env.append({"name": argo.ENV_TEMPLATE, "value": text})
        env += [{"name": "ARGO_NODE_ID", "value": f"w-{run}"}]
        if layout in ("4.1", "init-less"):
            env += [
                {"name": "ARGO_WORKFLOW_NAME", "value": f"w-{run}"},
                {"name": "TRACEPARENT", "value": run},
            ]
        made = {"image": executor, "resources": {}} | copy.deepcopy(container) | {"name": name}
        for field in ("dependencies", "mirrorVolumeMounts"):
            made.pop(field, None)
        made["env"] = [*made.get("env", ()), *env]
        made["volumeMounts"] = [*made.get("volumeMounts", ()), shared, token]
        return made

    def wrapped(container: Json, name: str) -> Json:
        made = with_argos(container, name)
        made["command"] = [binary, "emissary", "--loglevel", "info", "--", *made.get("command", ())]
        if layout == "init-less":
            made["volumeMounts"].append({"name": "argoexec-bin", "mountPath": "/argo-bin", "readOnly": True})
        return made

    script = template.get("script")
    main = script or template.get("container") or {"command": ["argoexec", "resource", "create"]}
    main = {k: v for k, v in main.items() if k != "source"} | (patch or {})
    if script:
        main |= {"args": ["/argo/staging/script"]}
        main["volumeMounts"] = [
            *main.get("volumeMounts", ()),
            {"name": "argo-staging", "mountPath": "/argo/staging"},
        ]
    for artifact in template["inputs"].get("artifacts", ()):
        place = {"mountPath": artifact["path"], "subPath": artifact["name"]}
        if layout == "init-less":
            place = {"mountPath": "/argo/inputs/artifacts"}
        main["volumeMounts"] = [*main.get("volumeMounts", ()), {"name": "input-artifacts"} | place]
    of_set = template.get("containerSet")
    members = {c["name"]: c for c in of_set["containers"]} if of_set else {"main": main}
    auxiliary = "supervisor" if layout == "init-less" else "wait"
    containers = [
        with_argos({"command": ["argoexec", auxiliary]}, auxiliary, carries=layout == "init-less"),
        *(wrapped(container, name) for name, container in members.items()),
        *(wrapped(container, container["name"]) for container in template.get("sidecars", ())),
    ]
    inits = [with_argos(c, c["name"], carries=True) for c in template.get("initContainers", ())]
    if layout != "init-less":
        inits.insert(0, with_argos({"command": ["argoexec", "init"]}, "init", carries=True))
    argos = [argo.VOLUME, "tmp-dir-argo", "input-artifacts", "argo-staging"]
    binaries = [{"name": "argoexec-bin", "image": {"reference": executor}}] if layout == "init-less" else []
    projected = {"sources": [{"serviceAccountToken": {"path": "token"}}]}
    owner = {"apiVersion": argo.API_VERSION, "kind": "Workflow", "name": f"w-{run}", "uid": f"uid-{run}"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"w-{run}",
            "namespace": "n",
            "labels": {argo.WORKFLOW_LABEL: f"w-{run}", **said.get("labels", {})},
            "ownerReferences": [owner | {"controller": True}],
            "annotations": {
                argo.NODE_ID: f"w-{run}",
                argo.NODE_NAME: f"w-{run}",
                **said.get("annotations", {}),
                **ours,
            },
        },
        "spec": {
            "restartPolicy": "Never",
            **{field: template[field] for field in ("nodeSelector", "affinity") if field in template},
            "volumes": [
                *({"name": name, "emptyDir": {}} for name in argos),
                *binaries,
                {"name": token["name"], "projected": projected},
                *copy.deepcopy(template.get("volumes", [])),
            ],
            "initContainers": inits,
            "containers": containers,
        },
    }
