"""Templates for the end-to-end suite: each prints RAN when its own command runs."""

from typing import Any

from tests.e2e.cluster import RAN

RANDOM = "cat /proc/sys/kernel/random/uuid"


def memo(key: str = "k", cache: str = "memo", max_age: str | None = None) -> dict[str, Any]:
    """Argo's own block."""
    block: dict[str, Any] = {"key": key, "cache": {"configMap": {"name": cache}}}
    return block | ({"maxAge": max_age} if max_age else {})


def opted_in(**annotations: str) -> dict[str, Any]:
    return {"annotations": {"stepmemo.dev/memoize": "true"} | annotations}


def shell(script: str, **container: Any) -> dict[str, Any]:
    """A container that says that it ran and then runs `script`."""
    command = ["sh", "-c", f"echo {RAN}; {script}"]
    return {"image": "busybox", "imagePullPolicy": "IfNotPresent", "command": command} | container


def container(script: str = f"{RANDOM} > /tmp/out", outputs: Any = ..., **template: Any) -> dict[str, Any]:
    """A memoized container template `step` with the output parameter `out`."""
    if outputs is ...:
        outputs = {"parameters": [{"name": "out", "valueFrom": {"path": "/tmp/out"}}]}
    return {
        "name": "step",
        "metadata": opted_in(),
        "memoize": memo(),
        "outputs": outputs,
        "container": shell(script),
    } | template


def script(source: str = RANDOM, **template: Any) -> dict[str, Any]:
    """A memoized script template `step`; its result is what it prints last, so RAN goes to stderr."""
    body = {
        "image": "busybox",
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh"],
        "source": f"echo {RAN} >&2\n{source}",
    }
    return {"name": "step", "metadata": opted_in(), "memoize": memo(), "script": body} | template
