"""What runs on the cluster: read, and with leave of the operator switched from one gate to the other."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from bench.chain import INIT
from bench.kube import MERGE_PATCH, Kube, KubeError

_DEPLOYMENT = "/apis/apps/v1/namespaces/{namespace}/deployments/stepmemo"
_PODS = "/api/v1/namespaces/{namespace}/pods"
_LABEL = "app.kubernetes.io/name=stepmemo"
_CONTAINER = "webhook"
_FLAG, _VARIABLE = "--gate", "STEPMEMO_GATE"
_ROLLOUT_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class Server:
    """stepmemo's Deployment."""

    kube: Kube
    namespace: str

    def gate(self) -> str:
        """How it delivers the gate."""
        return gate_of(self._container()) or INIT

    def switch(self, gate: str) -> None:
        """Have it deliver in this way; returns when no server of the other way is left. KubeError."""
        container = self._container()
        if any(one.startswith(_FLAG) for one in _words(container)):
            raise KubeError(f"the Deployment says {_FLAG} itself: use {_VARIABLE} instead")
        others = [one for one in container.get("env", ()) if one["name"] != _VARIABLE]
        # A merge patch takes a list whole, so the container goes as it is but for the one variable.
        changed = {**container, "env": [*others, {"name": _VARIABLE, "value": gate}]}
        spec = {"template": {"spec": {"containers": [changed]}}}
        self.kube.request("PATCH", self._path, {"spec": spec}, content_type=MERGE_PATCH)
        self._rolled_out()

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Go back to the gate of before when the block ends."""
        before = self.gate()
        try:
            yield
        finally:
            if self.gate() != before:
                self.switch(before)

    @property
    def _path(self) -> str:
        return _DEPLOYMENT.format(namespace=self.namespace)

    def _container(self) -> dict[str, Any]:
        containers = self.kube.request("GET", self._path)["spec"]["template"]["spec"]["containers"]
        return next(dict(one) for one in containers if one["name"] == _CONTAINER)

    def _rolled_out(self) -> None:
        deadline = time.monotonic() + _ROLLOUT_SECONDS
        while time.monotonic() < deadline:
            deployment = self.kube.request("GET", self._path)
            pods = self.kube.request("GET", _PODS.format(namespace=self.namespace), labelSelector=_LABEL)
            if rolled_out(deployment, len(pods["items"])):
                return
            time.sleep(0.5)
        raise KubeError(f"the Deployment does not roll out within {_ROLLOUT_SECONDS:.0f} s")


def gate_of(container: Mapping[str, Any]) -> str:
    """What the container says of the gate; "" where it leaves it to the default. The flag wins."""
    for word, following in pairwise([*_words(container), ""]):
        if word == _FLAG:
            return following
        if word.startswith(f"{_FLAG}="):
            return word.removeprefix(f"{_FLAG}=")
    return next(
        (str(one.get("value", "")) for one in container.get("env", ()) if one["name"] == _VARIABLE), ""
    )


def rolled_out(deployment: Mapping[str, Any], pods: int) -> bool:
    """Whether the Deployment is what its spec says, and none of its `pods` is one of before."""
    wanted, status = deployment["spec"]["replicas"], deployment.get("status", {})
    if status.get("observedGeneration") != deployment["metadata"]["generation"]:
        return False
    return {status.get("updatedReplicas"), status.get("readyReplicas"), pods} == {wanted}


def _words(container: Mapping[str, Any]) -> list[str]:
    return [str(word) for word in (*container.get("command", ()), *container.get("args", ()))]
