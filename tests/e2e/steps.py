"""Templates for the end-to-end suite: each prints RAN when its own command runs."""

import json
from datetime import UTC, datetime
from typing import Any

from tests.e2e.run import RAN

RANDOM = "cat /proc/sys/kernel/random/uuid"
HALF = "trap 'echo half > /tmp/out; exit 0' TERM; while :; do sleep 0.1; done"
"""Ends with 0 when it is told to stop, its work half done."""

Template = dict[str, Any]


def memo(key: str = "k", cache: str = "memo", max_age: str | None = None) -> dict[str, Any]:
    """Argo's own block."""
    block: dict[str, Any] = {"key": key, "cache": {"configMap": {"name": cache}}}
    return block | ({"maxAge": max_age} if max_age else {})


def opted_in(**annotations: str) -> dict[str, Any]:
    return {"annotations": {"stepmemo.dev/memoize": "true"} | annotations}


def memoized(key: str = "k", **template: Any) -> Template:
    """A memoized template `step`, but for what it does."""
    return {"name": "step", "metadata": opted_in(), "memoize": memo(key)} | template


def shell(script: str, **container: Any) -> dict[str, Any]:
    """A container that says that it ran and then runs `script`."""
    command = ["sh", "-c", f"echo {RAN}; {script}"]
    return {"image": "busybox", "imagePullPolicy": "IfNotPresent", "command": command} | container


def parameter(name: str = "out", path: str = "/tmp/out") -> dict[str, Any]:
    """An output parameter read from a file."""
    return {"name": name, "valueFrom": {"path": path}}


def container(script: str = f"{RANDOM} > /tmp/out", outputs: Any = ..., **template: Any) -> Template:
    """A memoized container template `step` with the output parameter `out`."""
    if outputs is ...:
        outputs = {"parameters": [parameter()]}
    return memoized(outputs=outputs, container=shell(script)) | template


def script(source: str = RANDOM, **template: Any) -> Template:
    """A memoized script template `step`; its result is what it prints last, so RAN goes to stderr."""
    body = {
        "image": "busybox",
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh"],
        "source": f"echo {RAN} >&2\n{source}",
    }
    return memoized(script=body) | template


def use(name: str = "use") -> Template:
    """A template that is not memoized, with an input `x` that comes out as `seen`."""
    return {
        "name": name,
        "inputs": {"parameters": [{"name": "x"}]},
        "outputs": {"parameters": [parameter("seen", "/tmp/seen")]},
        "container": shell("echo -n '{{inputs.parameters.x}}' > /tmp/seen"),
    }


def look(*names: str) -> Template:
    """A template `look` that runs nothing: its node shows what Argo resolved its inputs to."""
    inputs = {"parameters": [{"name": name} for name in names or ("x",)]}
    return {"name": "look", "inputs": inputs, "suspend": {"duration": "0"}}


def arguments(**parameters: str) -> dict[str, Any]:
    return {"parameters": [{"name": name, "value": value} for name, value in parameters.items()]}


def in_a_row(*steps: dict[str, Any]) -> Template:
    """The template `main`: steps a, b, c …, one after the other; each is a template's name and what else."""
    named = [[{"name": letter} | step] for letter, step in zip("abcdef", steps, strict=False)]
    return {"name": "main", "steps": named}


def entry(outputs: object, **fields: object) -> str:
    """An entry of a cache as Argo would write it, made now."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    whole = {"nodeID": "by-hand", "outputs": outputs, "creationTimestamp": now, "lastHitTimestamp": now}
    return json.dumps(whole | fields)


def answer(value: str) -> str:
    """An entry that answers `container()`."""
    return entry({"parameters": [{"name": "out", "value": value}], "exitCode": "0"})
