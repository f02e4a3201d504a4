"""A step with one output parameter, and entries that answer it."""

from datetime import UTC, datetime

from memoize.entry import Entry
from memoize.outputs import Declared
from memoize.step import Step

CACHE = "bench"
_OUTPUT = "out"


def step(key: str, cache: str = CACHE, node_id: str = "wf-1", workflow_uid: str = "uid") -> Step:
    """A step with one output parameter."""
    return Step(
        key=key,
        cache=cache,
        max_age="",
        node_id=node_id,
        workflow="wf",
        workflow_uid=workflow_uid,
        instance_id="",
        include_result=False,
        gc=False,
        declared=Declared(parameters=({"name": _OUTPUT},)),
    )


def entry(value: str = "some output") -> str:
    """An entry that answers that step, as Argo writes one."""
    outputs = {"parameters": [{"name": _OUTPUT, "value": value}], "exitCode": "0"}
    made = datetime(2025, 1, 1, tzinfo=UTC)
    return Entry(node_id="wf-0", outputs=outputs, created=made, last_hit=made).dump()


def entries(count: int, total: int) -> dict[str, str]:
    """So many entries by key, all of one size, that fill `total` bytes but for less than one byte each."""
    each = total // count
    padding = each - len(entry(""))
    if padding < 0:
        raise ValueError(f"{count} entries do not fit into {total} bytes")
    return {f"key-{number}": entry("x" * padding) for number in range(count)}
