"""What became of a step's memoization, told by its Pod, wherever it was decided.

The keeper says it in the Pod's metadata; containers of ours say it in their termination messages.
"""

import json
from typing import Any, NamedTuple

from memoize import names

_FINAL = (names.RESULT_HIT, names.RESULT_STORED, names.RESULT_SKIPPED)

Pod = dict[str, Any]


class Memoization(NamedTuple):
    """`result` as `kubectl get pods -L stepmemo.dev/result` shows it; "" while there is none."""

    result: str
    reason: str
    detail: str = ""


def memoization(pod: Pod) -> Memoization:
    """Of a Pod in any state, memoized or not."""
    metadata = pod["metadata"]
    result = metadata.get("labels", {}).get(names.RESULT, "")
    if result in _FINAL:
        reason, _, detail = metadata.get("annotations", {}).get(names.REASON, "").partition(": ")
        return Memoization(result, reason, detail)
    said = _last_words(pod)
    if said and (said[-1]["reason"] == "Hit" or len(said) == len(_ours(pod))):
        return Memoization(_RESULTS.get(said[-1]["reason"], names.RESULT_SKIPPED), *said[-1].values())
    return Memoization(result, "")


_RESULTS = {"Hit": names.RESULT_HIT, "Stored": names.RESULT_STORED}


def is_held(pod: Pod) -> bool:
    """Whether it waits for our word to be scheduled."""
    return any(gate["name"] == names.SCHEDULING_GATE for gate in pod["spec"].get("schedulingGates", ()))


def is_unscheduled_hit(pod: Pod) -> bool:
    """Whether it was answered as it should: over, by our word, without ever having met a node."""
    status = pod["status"]
    return (
        status["phase"] == "Succeeded"
        and status.get("reason") == "Memoized"
        and not pod["spec"].get("nodeName")
        and memoization(pod).result == names.RESULT_HIT
    )


def has_none_of_ours(pod: Pod) -> bool:
    """Whether it has neither a container nor a volume of ours."""
    spec = pod["spec"]
    parts = [*spec["containers"], *spec.get("initContainers", ()), *spec.get("volumes", ())]
    return not any(part["name"].startswith("stepmemo") for part in parts)


def _last_words(pod: Pod) -> list[dict[str, str]]:
    """The termination messages of our containers, in the order in which they run, up to one that says Hit."""
    status = pod["status"]
    told = {
        one["name"]: one.get("state", {}).get("terminated", {}).get("message", "")
        for one in [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    }
    found: list[dict[str, str]] = []
    for name in _ours(pod):
        if told.get(name, "").startswith("{") and not (found and found[-1]["reason"] == "Hit"):
            message = json.loads(told[name])
            found.append({part: message[part] for part in ("reason", "detail")})
    return found


def _ours(pod: Pod) -> list[str]:
    containers = [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]
    return [name for name in names.CONTAINERS if any(one["name"] == name for one in containers)]
