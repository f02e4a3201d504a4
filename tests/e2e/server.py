"""stepmemo as it is installed on the cluster: its settings, its replicas, its certificate."""

import base64
import functools
import json
import subprocess
import sys
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest

from tests.e2e.kube import kubectl, wait_for

SERVICE, DIRECT = "service", "direct"
"""Values of the server's `--access`."""
NAME = "stepmemo"
NAMESPACE = "stepmemo"
_CONTAINER = "webhook"
_SELECTOR = f"app.kubernetes.io/name={NAME}"
_ROLLOUT_SECONDS = 120

Object = dict[str, Any]


@functools.cache
def access() -> str:
    """How a step's cache is reached."""
    return setting(_deployment(), "access") or SERVICE


def setting(deployment: Mapping[str, Any], name: str) -> str:
    """What the Deployment says of a setting, by flag or by variable; "" where it leaves it at the default."""
    containers = deployment["spec"]["template"]["spec"]["containers"]
    container = next(one for one in containers if one["name"] == _CONTAINER)
    words = [*container.get("command", ()), *container.get("args", ()), ""]
    for word, following in pairwise(words):
        if word == f"--{name}":
            return following
        if word.startswith(f"--{name}="):
            return word.partition("=")[2]
    variable = f"STEPMEMO_{name.upper().replace('-', '_')}"
    return next((one.get("value", "") for one in container.get("env", ()) if one["name"] == variable), "")


def needs(wanted: str) -> None:
    """Skips the test where the server is set to the other access, and says why."""
    if access() != wanted:
        pytest.skip(f"the server runs with --access {access()}")


def pods() -> list[Object]:
    """The replicas."""
    listed: list[Object] = json.loads(_kubectl("get", "pods", "-l", _SELECTOR, "-o", "json"))["items"]
    return listed


def scale(replicas: int) -> None:
    """Returns when there are so many, all of them ready, and no Pod of another number."""
    _kubectl("scale", f"deployment/{NAME}", f"--replicas={replicas}")
    _kubectl("rollout", "status", f"deployment/{NAME}", f"--timeout={_ROLLOUT_SECONDS}s")
    wait_for(f"{replicas} replicas", lambda: len(pods()) == replicas or None, _ROLLOUT_SECONDS)


def replicas() -> int:
    """How many there should be."""
    wanted: int = _deployment()["spec"]["replicas"]
    return wanted


def kill() -> None:
    """Ends every replica at once, without a word to them; returns when others are ready."""
    _kubectl("delete", "pods", "-l", _SELECTOR, "--grace-period=0", "--force")
    _kubectl("rollout", "status", f"deployment/{NAME}", f"--timeout={_ROLLOUT_SECONDS}s")


def command(*words: str) -> str:
    """What the `stepmemo` command prints; it reaches the cluster as kubectl does."""
    done = subprocess.run([sys.executable, "-m", "cli", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def ca() -> str:
    """PEM of the authority that the server's certificate is from."""
    got = kubectl("get", "mutatingwebhookconfiguration", NAME, "-o", "json").stdout
    return base64.b64decode(json.loads(got)["webhooks"][0]["clientConfig"]["caBundle"]).decode()


def log(since: str = "10m") -> str:
    """What the replicas have logged."""
    return _kubectl("logs", "-l", _SELECTOR, f"--since={since}", "--tail=-1", "--prefix")


def _deployment() -> Object:
    found: Object = json.loads(_kubectl("get", "deployment", NAME, "-o", "json"))
    return found


def _kubectl(*args: str) -> str:
    return kubectl("-n", NAMESPACE, *args).stdout
