"""What runs on the cluster: Deployments that are read, and with leave of the operator set otherwise."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from bench.chain import INIT_CONTAINER, SERVICE
from bench.kube import STRATEGIC_MERGE_PATCH, Kube, KubeError

_DEPLOYMENT = "/apis/apps/v1/namespaces/{}/deployments/{}"
_PODS = "/api/v1/namespaces/{}/pods"
_WEBHOOK, _CONTAINER = "stepmemo-webhook", "webhook"
_VARIABLES = {"--access": "STEPMEMO_ACCESS", "--injection": "STEPMEMO_INJECTION"}
_DIRECT = "direct"
_ROLLOUT_SECONDS = 180.0

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Deployment:
    """A Deployment of one namespace."""

    kube: Kube
    namespace: str
    name: str

    def containers(self) -> list[Object]:
        """Of its Pods, as they are to be."""
        return list(self._read()["spec"]["template"]["spec"]["containers"])

    def set_variables(self, container: str, variables: Mapping[str, Object | None]) -> None:
        """Give a container these entries of `env` by name, None for none at all, and wait for the roll-out.

        KubeError where that takes too long.
        """
        env = [
            {"name": name, "$patch": "delete"}
            if entry is None
            else {"value": None, "valueFrom": None, **entry}
            for name, entry in variables.items()
        ]
        spec = {"template": {"spec": {"containers": [{"name": container, "env": env}]}}}
        self.kube.request("PATCH", self._path, {"spec": spec}, content_type=STRATEGIC_MERGE_PATCH)
        self._rolled_out()

    def pods(self) -> list[Object]:
        """Its Pods."""
        labels = self._read()["spec"]["selector"]["matchLabels"]
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        found = self.kube.request("GET", _PODS.format(self.namespace), labelSelector=selector)
        return list(found["items"])

    def _rolled_out(self) -> None:
        deadline = time.monotonic() + _ROLLOUT_SECONDS
        while time.monotonic() < deadline:
            if rolled_out(self._read(), len(self.pods())):
                return
            time.sleep(0.5)
        raise KubeError(f"the Deployment {self.name} does not roll out within {_ROLLOUT_SECONDS:.0f} s")

    def _read(self) -> Object:
        return self.kube.request("GET", self._path)

    @property
    def _path(self) -> str:
        return _DEPLOYMENT.format(self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class Server:
    """The Deployment of the webhook: by its settings steps are looked up in one way or another."""

    deployment: Deployment

    @classmethod
    def of(cls, kube: Kube, namespace: str) -> "Server":
        """The one in this namespace."""
        return cls(Deployment(kube, namespace, _WEBHOOK))

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
        settings = zip(_VARIABLES.values(), values, strict=True)
        entries = {name: {"name": name, "value": value} for name, value in settings}
        self.deployment.set_variables(_CONTAINER, entries)

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Go back to the way of before when the block ends."""
        before = self.lookup()
        try:
            yield
        finally:
            if self.lookup() != before:
                self.switch(before)

    def _container(self) -> Object:
        return next(one for one in self.deployment.containers() if one["name"] == _CONTAINER)


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
