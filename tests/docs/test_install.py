"""docs/install.md: what it says of places where nobody has run stepmemo is what the manifests say."""

import json

import pytest

from memoize import names
from tests.manifests.rendering import (
    IMAGE_VOLUME,
    POSTGRESQL,
    PROGRAMS,
    VERIFY_ARTIFACTS,
    Json,
    find,
    overlay,
)
from tests.recordedpods import PODS

RESTRICTED_V2 = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image"),
    *("persistentVolumeClaim", "projected", "secret"),
}
"""Kinds of volumes that OpenShift's SCC of this name allows (openshift/cluster-kube-apiserver-operator,
bindata/bootkube/scc-manifests); it allocates a user, drops all capabilities, and takes the runtime's default
seccomp profile alone."""


def allows(spec: Json, containers: list[Json]) -> None:
    context = spec.get("securityContext", {})
    assert not {"runAsUser", "fsGroup", "supplementalGroups"} & context.keys()
    for container in containers:
        own = {**context, **container["securityContext"]}
        assert "runAsUser" not in own
        assert own["allowPrivilegeEscalation"] is False
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert own["seccompProfile"] == {"type": "RuntimeDefault"}
    for volume in spec["volumes"]:
        assert volume.keys() - {"name"} <= RESTRICTED_V2


@pytest.mark.parametrize("program", PROGRAMS)
def test_openshifts_restricted_v2_lets_the_programs_run(program: str) -> None:
    documents = overlay(POSTGRESQL, IMAGE_VOLUME, VERIFY_ARTIFACTS)
    spec = find(documents, "Deployment", program)["spec"]["template"]["spec"]
    allows(spec, spec["containers"])


@pytest.mark.parametrize("delivery", ["service", "image-volume"])
def test_and_steps_with_containers_of_ours(delivery: str) -> None:
    pod = json.loads((PODS / f"v4.1.2-initless/container.{delivery}.golden.json").read_text(encoding="utf-8"))
    spec = pod["spec"]
    every = [*spec.get("initContainers", ()), *spec["containers"]]
    ours = [container for container in every if container["name"] in names.CONTAINERS]
    assert ours
    spec["volumes"] = [one for one in spec["volumes"] if one["name"].startswith(names.VOLUME)]
    allows(spec, ours)
