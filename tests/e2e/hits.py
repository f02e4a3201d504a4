"""Kinds of hits: workflows to run with Argo's own memoization and with stepmemo, beside each other.

Most are shapes of shapes.py, made once for each way of memoizing; the rest is what only makes sense here.
"""

import json
from dataclasses import dataclass
from typing import Any

from tests.e2e.compare import NOTHING
from tests.e2e.shapes import CONFIG_MAP, SHAPES, Call, Shape, call, dag, made, reads, steps
from tests.e2e.steps import (
    RANDOM,
    Template,
    arguments,
    container,
    entry,
    look,
    memo,
    opted_in,
    parameter,
    shell,
)

RETRY, RESUBMIT = "retry", "resubmit --memoized"
"""Commands of the argo CLI."""
WORLD = "world"
"""ConfigMap: its `works` decides how the step `check` ends, `yes` or `no`."""
METRIC = "stepmemo_e2e_hits"
"""A metric with the label `run`: the workflow's name."""
OUT = {"steps": "{{steps.a.outputs.parameters.out}}", "dag": "{{tasks.a.outputs.parameters.out}}"}


@dataclass(frozen=True)
class Kind:
    """A row of docs/argo-own-memoization.md.

    `because`: why it breaks where Argo memoizes; for readers.
    `entry`: what the cache holds under the key `k` before the first run.
    `then`: the command that follows, once the workflow has failed and the world was mended.
    `metric`: whether each run is to emit METRIC.
    `lacks`: a pattern for hooks that no hit of stepmemo's has, as docs/limits.md says.
    """

    shape: Shape
    because: str = ""
    entry: str = ""
    then: str = ""
    metric: bool = False
    lacks: str = NOTHING

    @property
    def apart(self) -> str:
        """A pattern for the names of nodes that are not compared."""
        return NOTHING if self.lacks != NOTHING else self.shape.apart


def _of(main: Template, *templates: Template, runs: tuple[str, ...] = (), **spec: Any) -> Shape:
    """A shape of these templates and of `look`."""
    whole = {"entrypoint": "main", "templates": [main, *templates, look()]} | spec
    return Shape(json.loads(json.dumps(whole)), runs=frozenset(runs))


def _step(script: str = f"{RANDOM} > /tmp/out", **template: Any) -> Template:
    return container(script, memoize=memo(max_age="24h"), **template)


def _then_look(kind: str, *between: Call) -> Template:
    """Calls `step`, what is between, and `look` with the output of `step`."""
    make = steps if kind == "steps" else dag
    return make(call("step"), *between, call("look", x=OUT[kind]))


_CHECK = {
    "name": "check",
    "container": shell(
        'test "$WORKS" = yes',
        env=[{"name": "WORKS", "valueFrom": {"configMapKeyRef": {"name": WORLD, "key": "works"}}}],
    ),
}
_SET = {
    "name": "step",
    "metadata": opted_in(),
    "memoize": memo(max_age="24h"),
    "containerSet": {
        "containers": [
            {"name": "first"} | shell("true"),
            {"name": "main", "dependencies": ["first"]} | shell(f"{RANDOM} > /tmp/out"),
        ]
    },
    "outputs": {"parameters": [parameter()]},
}
_DRAW = _step(f"{RANDOM} > /tmp/a", outputs={"artifacts": [{"name": "a", "path": "/tmp/a"}]})
_READ = {
    "name": "read",
    "inputs": {"artifacts": [{"name": "a", "path": "/tmp/a"}]},
    "outputs": {"parameters": [parameter("seen", "/tmp/a")]},
    "container": shell("test -e /tmp/a"),
}
_COUNTED = {
    "prometheus": [
        {
            "name": METRIC,
            "help": "runs of a step",
            "counter": {"value": "1"},
            "labels": [{"key": "run", "value": "{{workflow.name}}"}],
        }
    ]
}


def _failing(kind: str, step: Template) -> Shape:
    return _of(_then_look(kind, call("check")), step, _CHECK)


def _whole(kind: str) -> Shape:
    """A memoized template without a Pod, around a step that is not memoized."""
    inner = {
        "name": "inner",
        "container": shell(f"{RANDOM} > /tmp/out"),
        "outputs": {"parameters": [parameter()]},
    }
    out = [{"name": "out", "valueFrom": {"parameter": OUT[kind]}}]
    make = steps if kind == "steps" else dag
    whole = make(call("inner"), name="step", outputs={"parameters": out})
    return _of(_then_look("steps"), whole | {"metadata": opted_in(), "memoize": memo(max_age="24h")}, inner)


_NO_ATTEMPTS = (
    "a hit is a node of type Retry without attempts, and the DAG takes the tasks after it for these; the "
    "tasks that really come next are never looked at"
)
_HOOKS = (
    "a DAG looks at the hooks of a task whose node is there only until the task after it has begun, which "
    "is at once after a hit"
)
_NEVER_RUNNING = "a hit is never seen running"
_GLOBAL = "global names are exported where a Pod ends, and a hit has none"
_LOOKED_FOR = "a hit has no `hostNodeName`, and the reference is waited for"
_FROM_THE_ENTRY = "a hit takes the entry's outputs whole"

KINDS: dict[str, dict[str, Kind]] = {
    "Order of steps": {
        "steps, one after the other": Kind(SHAPES["steps: in a row"]),
        "tasks, one after the other": Kind(SHAPES["dag: in a row"]),
        "tasks of a diamond": Kind(SHAPES["a diamond"]),
        "`target` of a DAG": Kind(SHAPES["a target"]),
        "the same key twice, side by side": Kind(SHAPES["steps: the same key side by side"]),
        "a single step": Kind(SHAPES["a single step"]),
        "steps in a DAG": Kind(SHAPES["dag: steps in it"]),
        "recursion": Kind(SHAPES["steps: recursion"]),
        "a template within the call": Kind(SHAPES["dag: a template within the call"]),
        "a `templateRef`": Kind(SHAPES["a template of another object"]),
        "a `workflowTemplateRef`": Kind(SHAPES["a workflow of another object"]),
    },
    "Loops": {
        "`withItems`, its outputs looped over, in steps": Kind(SHAPES["steps: a loop over what a loop gave"]),
        "`withItems`, its outputs looped over, in a DAG": Kind(SHAPES["dag: a loop over what a loop gave"]),
        "`withItems` of maps": Kind(SHAPES["dag: a loop over maps"]),
        "`withParam` of a hit's result": Kind(SHAPES["dag: a loop over a hit's result"]),
        "`withSequence` of a hit's result": Kind(SHAPES["steps: a loop as often as a hit says"]),
        "results of a loop, used": Kind(SHAPES["steps: a loop whose results are maps"]),
        "a key whose `result` was stored, in a loop that asks for none": Kind(
            SHAPES["steps: a loop whose results nobody asks for"],
            because=f"{_FROM_THE_ENTRY}: the `result` is read as JSON where the loop ends",
        ),
    },
    "Conditions and failures": {
        "`when` on a hit's output": Kind(SHAPES["steps: a condition on a parameter"]),
        "`when` that skips, with `depends: b.Skipped`": Kind(
            SHAPES["dag: a condition on a result that does not hold"]
        ),
        "`valueFrom.default` of a skipped task": Kind(SHAPES["dag: the default of a step that is skipped"]),
        "`continueOn`": Kind(SHAPES["steps: a failure that is allowed"]),
        "`depends` on a status": Kind(SHAPES["dag: a failure that is allowed"]),
        "`AnySucceeded` of a fan": Kind(SHAPES["any of a fan has succeeded"]),
        "`failFast: false` beside a failure": Kind(SHAPES["a sibling fails, not fast"]),
    },
    "Hooks": {
        "exit hook with the step's output": Kind(SHAPES["steps: an exit hook with an output"]),
        "exit hook with the task's output": Kind(SHAPES["dag: an exit hook with an output"]),
        "hook on success, of a step": Kind(SHAPES["steps: a hook that waits for success"]),
        "hook on success, of a task": Kind(SHAPES["dag: a hook that waits for success"], because=_HOOKS),
        "hook while it runs, of a step": Kind(
            SHAPES["steps: a hook while it runs"], because=_NEVER_RUNNING, lacks=r"hooks\.running$"
        ),
        "hook while it runs, of a task": Kind(
            SHAPES["dag: a hook while it runs"], because=_NEVER_RUNNING, lacks=r"hooks\.running$"
        ),
        "memoized `onExit` of the workflow": Kind(SHAPES["an exit handler"]),
        "hook on success, of the workflow": Kind(SHAPES["a hook of the workflow"]),
        "hook while it runs, of the workflow": Kind(
            _of(
                _then_look("steps"),
                _step(),
                hooks={
                    "running": {
                        "template": "look",
                        "arguments": arguments(x="{{workflow.status}}"),
                        "expression": 'workflow.status == "Running"',
                    }
                },
            ),
            because="a workflow of nothing but hits is over in one look of the controller",
        ),
    },
    "Retries": {
        "`retryStrategy`, in steps": Kind(SHAPES["steps: a retry strategy"]),
        "`retryStrategy`, a task after it": Kind(SHAPES["dag: a retry strategy"], because=_NO_ATTEMPTS),
        "`retryStrategy`, what comes after it is skipped": Kind(
            SHAPES["dag: a retry strategy before what is skipped"], because=_NO_ATTEMPTS
        ),
        "`retryStrategy`, at the head of a diamond": Kind(
            SHAPES["a diamond whose first task has a retry strategy"], because=_NO_ATTEMPTS
        ),
        "`retryStrategy` and `withItems`, a task after it": Kind(
            SHAPES["dag: a loop of retries"], because=_NO_ATTEMPTS
        ),
        "`templateDefaults.retryStrategy`, a task after it": Kind(
            SHAPES["dag: a retry strategy by default"], because=_NO_ATTEMPTS
        ),
        "`retryStrategy` of the workflow": Kind(SHAPES["dag: a retry strategy of the workflow"]),
        "`retryStrategy` of a task that nothing comes after": Kind(
            SHAPES["dag: a retry strategy and nothing after it"]
        ),
        "`retryStrategy` with an exit hook": Kind(SHAPES["dag: an exit hook of a retried step"]),
        "`retryStrategy` of what calls it": Kind(SHAPES["dag: a retry strategy over what calls it"]),
        "a step that was retried": Kind(SHAPES["steps: a step that was retried"]),
        "`retryStrategy` and a mutex, in steps": Kind(SHAPES["steps: a mutex and a retry strategy"]),
        "`retryStrategy` and a mutex, a task after it": Kind(
            SHAPES["dag: a mutex and a retry strategy"], because=_NO_ATTEMPTS
        ),
        "`{{retries}}` in the key": Kind(
            _of(
                _then_look("steps"),
                container(memoize=memo("k-{{retries}}", max_age="24h"), retryStrategy={"limit": "1"}),
            ),
            because="the key is read before there is an attempt, so the tag stays in it",
        ),
    },
    "Values": {
        "`result`, in steps": Kind(SHAPES["refers to {{steps.a.outputs.result}}"]),
        "`result`, in a DAG": Kind(SHAPES["refers to {{tasks.a.outputs.result}}"]),
        "`id`, `startedAt`, `finishedAt`, `exitCode`": Kind(SHAPES["steps: all of a node at once"]),
        "`hostNodeName`, in steps": Kind(SHAPES["refers to {{steps.a.hostNodeName}}"], because=_LOOKED_FOR),
        "`hostNodeName`, in a DAG": Kind(SHAPES["refers to {{tasks.a.hostNodeName}}"], because=_LOOKED_FOR),
        "`globalName` of a parameter, used by a step": Kind(
            SHAPES["steps: refers to {{workflow.outputs.parameters.g}}"], because=_GLOBAL
        ),
        "`globalName` of a parameter, used by a task": Kind(
            SHAPES["dag: refers to {{workflow.outputs.parameters.g}}"], because=_GLOBAL
        ),
        "`globalName` of an artifact, used by a step": Kind(
            SHAPES["steps: refers to {{workflow.outputs.artifacts.g}}"], because=_GLOBAL
        ),
        "`globalName` of an artifact, used by a task": Kind(
            SHAPES["dag: refers to {{workflow.outputs.artifacts.g}}"], because=_GLOBAL
        ),
        "`globalName` of what calls it": Kind(SHAPES["steps: an output handed up under a global name"]),
        "one key, two global names": Kind(
            SHAPES["dag: one step, two global names"], because=f"{_FROM_THE_ENTRY}; {_GLOBAL}"
        ),
        "`valueFrom.parameter` of what calls it": Kind(SHAPES["steps: an output handed up by name"]),
        "`valueFrom.expression` of what calls it": Kind(SHAPES["dag: an output handed up by an expression"]),
        "outputs of more than 1 MiB with their escapes": Kind(
            _of(
                steps(call("step"), call("look", x="{{steps.a.status}}")),
                _step("head -c 600000 /dev/zero | tr '\\0' '\"' > /tmp/out"),
                runs=("step",),
            ),
            because="the entry is saved in two requests, the second is refused, and what the first has made "
            "is no cache to anybody",
        ),
        "an entry without outputs": Kind(
            _of(_then_look("steps"), _step()), because=_FROM_THE_ENTRY, entry=entry(None)
        ),
        "an entry without the value that is needed": Kind(
            _of(_then_look("dag"), _step()),
            because=_FROM_THE_ENTRY,
            entry=entry({"parameters": [{"name": "out"}]}),
        ),
    },
    "Artifacts": {
        "an artifact that a memoized step reads": Kind(SHAPES["dag: a memoized step that reads an artifact"]),
        "an artifact by `subPath`": Kind(SHAPES["steps: an artifact within an artifact"]),
        "an optional artifact that is missing": Kind(SHAPES["steps: an optional artifact that is missing"]),
        "`archiveLogs`": Kind(SHAPES["logs that are archived"]),
        "`artifactGC`, once the objects are collected": Kind(
            _of(
                steps(call("step"), reads("{{steps.a.outputs.artifacts.a}}")),
                _DRAW,
                _READ,
                artifactGC={"strategy": "OnWorkflowCompletion"},
                runs=("step",),
            ),
            because="the entry names objects that are gone",
        ),
    },
    "Templates": {
        "`containerSet` with outputs": Kind(SHAPES["a container set"]),
        "`containerSet` with a result": Kind(SHAPES["a container set with a result"]),
        "`resource`": Kind(
            _of(
                _then_look("steps"),
                made(manifest=json.dumps(CONFIG_MAP | {"metadata": {"name": "made-once"}}))
                | {"name": "step", "memoize": memo(max_age="24h")},
            )
        ),
        "`daemon`": Kind(
            SHAPES["a daemon"], because="a daemon that was stored has no address in the next run"
        ),
        "`steps`, memoized as a whole (left to Argo)": Kind(_whole("steps")),
        "`dag`, memoized as a whole (left to Argo)": Kind(_whole("dag")),
        "`suspend` (left to Argo)": Kind(
            _of(
                steps({"template": "step"}, call("look", x="done")),
                {"name": "step", "metadata": opted_in(), "memoize": memo(max_age="24h")}
                | {"suspend": {"duration": "1"}},
                runs=("step",),
            )
        ),
        "`metrics`": Kind(
            _of(_then_look("steps"), _step(metrics=_COUNTED)),
            because="metrics are emitted for a node that an earlier look saw unfinished, and a hit never is",
            metric=True,
        ),
    },
    "Locks and limits": {
        "a mutex of the template, in steps": Kind(SHAPES["steps: a mutex"]),
        "a mutex of the template, in a DAG": Kind(SHAPES["dag: a mutex"]),
        "a mutex of the workflow": Kind(SHAPES["a mutex of the workflow"]),
        "a semaphore": Kind(SHAPES["a semaphore"]),
        "`parallelism` of a template": Kind(SHAPES["one after the other by parallelism"]),
        "`timeout` and `activeDeadlineSeconds`": Kind(SHAPES["dag: a time limit"]),
        "`suspend` between": Kind(SHAPES["steps: a pause between"]),
        "`podGC`": Kind(_of(_then_look("steps"), _step(), podGC={"strategy": "OnPodCompletion"})),
    },
    "`argo retry` and `argo resubmit` of a workflow that failed after the hit": {
        "`argo retry`, steps": Kind(_failing("steps", _step()), then=RETRY),
        "`argo retry`, DAG": Kind(_failing("dag", _step()), then=RETRY),
        "`argo retry`, `containerSet`": Kind(_failing("steps", _SET), then=RETRY),
        "`argo retry`, `retryStrategy`": Kind(
            _failing("steps", _step(retryStrategy={"limit": "1"})),
            because="the attempts that a retry starts from are missing",
            then=RETRY,
        ),
        "`argo resubmit --memoized`": Kind(_failing("steps", _step()), then=RESUBMIT),
    },
}

ROWS: dict[str, Kind] = {says: kind for group in KINDS.values() for says, kind in group.items()}
