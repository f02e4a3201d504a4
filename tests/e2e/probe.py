"""What the cluster runs, told from the Pod of a trivial memoized step."""

import functools
import json
import os
import re
from dataclasses import dataclass
from typing import Any

import pytest

from argo import names as argo_names
from memoize import names
from tests.e2e import server
from tests.e2e.cluster import fresh_namespace
from tests.e2e.kube import kubectl, wait_for
from tests.e2e.steps import container

_TAG = re.compile(r":v?(\d+\.\d+\.\d+)[^/]*$")


@dataclass(frozen=True)
class Setting:
    """Versions without `v`; `layout` of Argo's Pods.

    `delivery`: where a step's look-up is made: `service`, outside of its Pod, or in it, by an entrypoint that
    an init container (`init`) or the image as a volume (`image-volume`) brings.
    """

    argo: str
    layout: str
    delivery: str
    kubernetes: str

    @property
    def column(self) -> str:
        """Its name in docs/compatibility.json."""
        return f"{self.argo} · {self.layout} · {self.delivery}"

    @property
    def auxiliary(self) -> str:
        """The container of Argo's beside the step's own."""
        return argo_names.SUPERVISOR_CONTAINER if self.layout == "init-less" else argo_names.WAIT_CONTAINER

    def is_before(self, *version: int) -> bool:
        """Compares as many parts as are given."""
        return tuple(int(part) for part in self.argo.split("."))[: len(version)] < version

    def since(self, major: int, minor: int, otherwise: str) -> None:
        """Skips the test where Argo is older, and says why."""
        if self.is_before(major, minor):
            pytest.skip(f"before Argo {major}.{minor}, {otherwise}")


@functools.cache
def probe() -> Setting:
    """Asked once in a session."""
    with fresh_namespace() as namespace:
        run = namespace.workflow(namespace.submit(container("true", outputs={})))
        pod = wait_for("Pod of a step", lambda: next(iter(run.pods()), None))
    version = json.loads(kubectl("version", "-o", "json").stdout)["serverVersion"]["gitVersion"]
    return read(pod, server.access(), version.removeprefix("v"), os.environ.get("STEPMEMO_E2E_ARGO"))


def read(pod: dict[str, Any], access: str, kubernetes: str, argo: str | None = None) -> Setting:
    """The setting that a step's Pod shows; `argo` is the version where no image tag tells it."""
    containers = {c["name"]: c for c in pod["spec"]["containers"]}
    layout = "init-less" if argo_names.SUPERVISOR_CONTAINER in containers else "legacy"
    executor = containers[
        argo_names.SUPERVISOR_CONTAINER if layout == "init-less" else argo_names.WAIT_CONTAINER
    ]
    tag = _TAG.search(executor["image"])
    if argo is None and tag is None:
        raise AssertionError(f"{executor['image']}: name the version of Argo in STEPMEMO_E2E_ARGO")
    delivery = _delivery(pod)
    if delivery is None or (delivery == server.SERVICE) is not (access == server.SERVICE):
        raise AssertionError(
            f"stepmemo, set to --access {access}, did not look the key of a memoized step up: see its log"
        )
    return Setting(argo or tag[1], layout, delivery, kubernetes)


def _delivery(pod: dict[str, Any]) -> str | None:
    """None where stepmemo has left the Pod alone, or only stores its outputs from within."""
    if any(c["name"] == names.CHECK_CONTAINER for c in pod["spec"].get("initContainers", ())):
        return "init"
    if any(volume["name"] == names.IMAGE_VOLUME for volume in pod["spec"].get("volumes", ())):
        return "image-volume"
    return server.SERVICE if names.PLAN in pod["metadata"].get("annotations", {}) else None
