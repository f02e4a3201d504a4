"""stepmemo as it is installed on the cluster: settings, replicas and certificate of both programs."""

import base64
import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest

from tests.e2e.kube import kubectl, wait_for

SERVICE, DIRECT = "service", "direct"
"""Values of the webhook's `--access`."""
CONFIGURATION = "stepmemo"
NAMESPACE = "stepmemo"
WEBHOOK, KEEPER = "stepmemo-webhook", "stepmemo-keeper"
"""The Deployments, and their Services."""
PROGRAMS = (WEBHOOK, KEEPER)
OUTAGES = "STEPMEMO_E2E_OUTAGES"
"""Set to 1: both Deployments may be scaled, restarted and killed."""
outages = pytest.mark.skipif(os.environ.get(OUTAGES) != "1", reason=f"{OUTAGES} is not 1")
_ROLLOUT_SECONDS = 120

Object = dict[str, Any]


@functools.cache
def access() -> str:
    """How a step's cache is reached."""
    return setting(_deployment(WEBHOOK), "access") or SERVICE


def setting(deployment: Mapping[str, Any], name: str) -> str:
    """What the Deployment says of a setting, by flag or by variable; "" where it leaves it at the default."""
    container = _container(deployment)
    words = [*container.get("command", ()), *container.get("args", ()), ""]
    for word, following in pairwise(words):
        if word == f"--{name}":
            return following
        if word.startswith(f"--{name}="):
            return word.partition("=")[2]
    variable = f"STEPMEMO_{name.upper().replace('-', '_')}"
    return next((one.get("value", "") for one in container.get("env", ()) if one["name"] == variable), "")


def container(program: str) -> Object:
    """What the Deployment has a replica run."""
    return _container(_deployment(program))


def needs(wanted: str) -> None:
    """Skips the test where the webhook is set to the other access, and says why."""
    if access() != wanted:
        pytest.skip(f"the webhook runs with --access {access()}")


def pods(program: str) -> list[Object]:
    """The replicas of a program."""
    listed: list[Object] = json.loads(_kubectl("get", "pods", *_selecting(program), "-o", "json"))["items"]
    return listed


def scale(program: str, replicas: int) -> None:
    """Returns when there are so many, all of them ready, and no Pod of another number."""
    _kubectl("scale", f"deployment/{program}", f"--replicas={replicas}")
    _rolled_out(program)


def replicas(program: str) -> int:
    """How many there should be."""
    wanted: int = _deployment(program)["spec"]["replicas"]
    return wanted


@contextmanager
def away(*programs: str) -> Iterator[dict[str, int]]:
    """No replica of these until the block ends; how many there were."""
    before = {program: replicas(program) for program in programs}
    for program in before:
        scale(program, 0)
    try:
        yield before
    finally:
        for program, count in before.items():
            scale(program, count)


def restart(program: str) -> None:
    """Replace every replica in the Deployment's own way; returns when the new ones alone are there, ready."""
    _kubectl("rollout", "restart", f"deployment/{program}")
    _rolled_out(program)


def kill(program: str) -> None:
    """Ends every replica at once, without a word to them; returns when others are ready."""
    _kubectl("delete", "pods", *_selecting(program), "--grace-period=0", "--force")
    _rolled_out(program)


def command(*words: str) -> str:
    """What the `stepmemo` command prints; it reaches the cluster as kubectl does."""
    done = subprocess.run([sys.executable, "-m", "cli", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def ca() -> str:
    """PEM of the authority that the server's certificate is from."""
    got = kubectl("get", "mutatingwebhookconfiguration", CONFIGURATION, "-o", "json").stdout
    return base64.b64decode(json.loads(got)["webhooks"][0]["clientConfig"]["caBundle"]).decode()


def _rolled_out(program: str) -> None:
    """kubectl does not wait for the end of those that are replaced; who looks at all would see them go."""
    _kubectl("rollout", "status", f"deployment/{program}", f"--timeout={_ROLLOUT_SECONDS}s")
    wanted = replicas(program)
    wait_for(f"{wanted} replicas", lambda: len(pods(program)) == wanted or None, _ROLLOUT_SECONDS)


def _selecting(program: str) -> tuple[str, str]:
    component = program.removeprefix("stepmemo-")
    return "-l", f"app.kubernetes.io/name=stepmemo,app.kubernetes.io/component={component}"


def _container(deployment: Mapping[str, Any]) -> Object:
    found: Object = deployment["spec"]["template"]["spec"]["containers"][0]
    return found


def _deployment(program: str) -> Object:
    found: Object = json.loads(_kubectl("get", "deployment", program, "-o", "json"))
    return found


def _kubectl(*args: str) -> str:
    return kubectl("-n", NAMESPACE, *args).stdout
