"""What runs on the cluster: read, and with leave of the operator set to look keys up in another way."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from bench.chain import INIT_CONTAINER, SERVICE
from bench.kube import MERGE_PATCH, Kube, KubeError

_DEPLOYMENT = "/apis/apps/v1/namespaces/{namespace}/deployments/stepmemo-webhook"
_PODS = "/api/v1/namespaces/{namespace}/pods"
_LABEL = "app.kubernetes.io/name=stepmemo,app.kubernetes.io/component=webhook"
_CONTAINER = "webhook"
_VARIABLES = {"--access": "STEPMEMO_ACCESS", "--injection": "STEPMEMO_INJECTION"}
_DIRECT = "direct"
_ROLLOUT_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class Server:
    """The Deployment of the webhook: by its settings steps are looked up in one way or another."""

    kube: Kube
    namespace: str

    def lookup(self) -> str:
        """How it looks keys up: `service`, or by which injection in the Pod."""
        return lookup_of(self._container())

    def switch(self, lookup: str) -> None:
        """Have it look keys up in this way; returns when no server of another way is left. KubeError."""
        container = self._container()
        for flag, variable in _VARIABLES.items():
            if any(one.startswith(flag) for one in _words(container)):
                raise KubeError(f"the Deployment says {flag} itself: use {variable} instead")
        values = (SERVICE, INIT_CONTAINER) if lookup == SERVICE else (_DIRECT, lookup)
        settings = dict(zip(_VARIABLES.values(), values, strict=True))
        others = [one for one in container.get("env", ()) if one["name"] not in settings]
        # A merge patch takes a list whole, so the container goes as it is but for the two variables.
        ours = [{"name": name, "value": value} for name, value in settings.items()]
        changed = {**container, "env": [*others, *ours]}
        spec = {"template": {"spec": {"containers": [changed]}}}
        self.kube.request("PATCH", self._path, {"spec": spec}, content_type=MERGE_PATCH)
        self._rolled_out()

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Go back to the way of before when the block ends."""
        before = self.lookup()
        try:
            yield
        finally:
            if self.lookup() != before:
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


def lookup_of(container: Mapping[str, Any]) -> str:
    """How a server in this container looks keys up: `service`, or by which injection in the Pod."""
    if (_setting(container, "--access") or SERVICE) == SERVICE:
        return SERVICE
    return _setting(container, "--injection") or INIT_CONTAINER


def _setting(container: Mapping[str, Any], flag: str) -> str:
    """What the container says of a setting; "" where it leaves it to the default. The flag wins."""
    for word, following in pairwise([*_words(container), ""]):
        if word == flag:
            return following
        if word.startswith(f"{flag}="):
            return word.removeprefix(f"{flag}=")
    variables = {one["name"]: str(one.get("value", "")) for one in container.get("env", ())}
    return variables.get(_VARIABLES[flag], "")


def rolled_out(deployment: Mapping[str, Any], pods: int) -> bool:
    """Whether the Deployment is what its spec says, and none of its `pods` is one of before."""
    wanted, status = deployment["spec"]["replicas"], deployment.get("status", {})
    if status.get("observedGeneration") != deployment["metadata"]["generation"]:
        return False
    return {status.get("updatedReplicas"), status.get("readyReplicas"), pods} == {wanted}


def _words(container: Mapping[str, Any]) -> list[str]:
    return [str(word) for word in (*container.get("command", ()), *container.get("args", ()))]
