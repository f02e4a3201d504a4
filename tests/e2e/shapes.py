"""Shapes of use: small workflows whose memoized steps all hit in a second run.

Each is written once and, where Argo has it twice, made of steps and of tasks. In the text of a shape `OF` is
`steps` or `tasks`, and `SHAPE` a word of its own: no two shapes share an entry.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.compare import NOTHING
from tests.e2e.kube import argo
from tests.e2e.steps import (
    RANDOM,
    Template,
    arguments,
    container,
    look,
    memo,
    memoized,
    opted_in,
    parameter,
    script,
    shell,
    use,
)

Call = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """A workflow, and what its all-hit run may leave out or do again, as the docs say.

    `apart`: a pattern for the names of nodes that are not compared.
    `runs`: names of memoized templates that run in every run.
    `equal_at_once`: equal steps are under way side by side; they wait for one another by the keeper alone.
    """

    spec: dict[str, Any]
    objects: tuple[dict[str, Any], ...] = ()
    apart: str = NOTHING
    runs: frozenset[str] = frozenset()
    phase: str = "Succeeded"
    metadata: dict[str, Any] = field(default_factory=dict)
    equal_at_once: bool = False


def _x(**more: Any) -> dict[str, Any]:
    return {"inputs": {"parameters": [{"name": "x"} | more]}}


def _key(name: str) -> dict[str, Any]:
    return {"name": name, "memoize": memo(f"SHAPE-{name}", max_age="24h")}


def _key_of_x(name: str) -> dict[str, Any]:
    return _x() | {"name": name, "memoize": memo(f"SHAPE-{name}-{{{{inputs.parameters.x}}}}", max_age="24h")}


def _output(**more: Any) -> dict[str, Any]:
    return {"outputs": {"parameters": [parameter() | more]}}


def _drawn(**more: Any) -> Template:
    artifact = {"name": "a", "path": "/tmp/a"} | more
    return container(f"{RANDOM} > /tmp/a", outputs={"artifacts": [artifact]})


def _printed(word: str) -> Template:
    """Both its output parameter and its result are that word."""
    return script(f"echo '{word}' > /tmp/out; echo '{word}'", **_output())


def _once(name: str) -> str:
    return f"{RANDOM} > /tmp/out; test '{name}' = 1"


NUMBER = "echo $((0x$(cut -c 1-7 /proc/sys/kernel/random/uuid)))"
CONFIG_MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "made-"}}
STOCK: tuple[Template, ...] = (
    container() | _key("make"),
    container() | _key_of_x("each"),
    script() | _key("say"),
    script(f"{RANDOM}; echo of {{{{inputs.parameters.x}}}}") | _key_of_x("say-of"),
    script(NUMBER) | _key_of_x("count"),
    script(f"""echo "{{\\"of\\": \\"{{{{inputs.parameters.x}}}}\\", \\"at\\": $({NUMBER})}}" """)
    | _key_of_x("map"),
    _printed('["p", "q"]') | _key("list"),
    _printed("2") | _key("two"),
    _printed("yes") | _key("yes"),
    _printed('{"name": "n", "size": 3}') | _key("json"),
    _drawn() | _key("draw"),
    container(**_output(globalName="g")) | _key("global"),
    _drawn(globalName="g") | _key("global-drawn"),
    container("exit 3", outputs={}) | _key("fail"),
    container("true", outputs={}) | _key("nothing"),
    {"name": "break", "container": shell("exit 1")},
    {"name": "plain", "container": shell("true")},
    use(),
    look(),
    look("x", "y", "z", "u") | {"name": "look-at-four"},
    {
        "name": "read",
        "inputs": {"artifacts": [{"name": "a", "path": "/tmp/a"}]},
        "outputs": {"parameters": [parameter("seen", "/tmp/a")]},
        "container": shell("test -e /tmp/a"),
    },
)
"""Templates that shapes call by their names; those with a random output or result are memoized."""


def _named(calls: tuple[Call, ...]) -> list[Call]:
    return [{"name": letter} | call for letter, call in zip("abcdef", calls, strict=False)]


def steps(*calls: Call, name: str = "main", **more: Any) -> Template:
    """Calls a, b, c … one after the other; a call with `beside` is made together with the one before it."""
    groups: list[list[Call]] = []
    for call in _named(calls):
        beside = call.pop("beside", False)
        call.pop("depends", None)
        if beside and groups:
            groups[-1].append(call)
        else:
            groups.append([call])
    return {"name": name, "steps": groups} | more


def dag(*calls: Call, name: str = "main", **more: Any) -> Template:
    """The same calls as tasks: each depends on the one before it, unless it says on what."""
    tasks, before = [], ""
    for task in _named(calls):
        if not task.pop("beside", False):
            task = ({"depends": before} if before else {}) | task
        task.pop("continueOn", None)  # which Argo takes beside `dependencies` alone; `depends` says it
        tasks.append({part: value for part, value in task.items() if value != ""})
        before = task["name"]
    return {"name": name, "dag": {"tasks": tasks}} | more


def call(template: str, *, x: str | None = None, **more: Any) -> Call:
    return {"template": template} | ({} if x is None else {"arguments": arguments(x=x)}) | more


def reads(artifact: str, **more: Any) -> Call:
    """A call that takes that artifact."""
    taken = {"name": "a"} | (
        {"from": artifact} if artifact.startswith("{{") else {"fromExpression": artifact}
    )
    return {"template": "read", "arguments": {"artifacts": [taken | more]}}


OUT, RESULT = "{{OF.a.outputs.parameters.out}}", "{{OF.a.outputs.result}}"
FAN = {"withItems": ["1", "2", "3"]}
LOOP = call("each", x="{{item}}", **FAN)
GLOBAL = "{{workflow.outputs.parameters.g}}"

SOURCES = {
    "buildLocalScope": "workflow/controller/operator.go",
    "addNodeOutputsToLocalScope": "workflow/controller/operator.go",
    "processAggregateNodeOutputs": "workflow/controller/operator.go",
    "addParamToGlobalScope": "workflow/controller/operator.go",
    "addArtifactToGlobalScope": "workflow/controller/operator.go",
}
"""Where Argo 4.1.2 puts what later steps may refer to; util/variables/keys/noderef.go lists the names."""

REFERENCES: dict[str, tuple[str, tuple[Call, ...]]] = {
    "{{OF.a.id}}": ("buildLocalScope", (call("make"),)),
    "{{OF.a.status}}": ("buildLocalScope", (call("make"),)),
    "{{OF.a.startedAt}}": ("buildLocalScope", (call("make"),)),
    "{{OF.a.finishedAt}}": ("buildLocalScope", (call("make"),)),
    "{{OF.a.hostNodeName}}": ("buildLocalScope", (call("make"),)),
    "{{OF.a.exitCode}}": ("addNodeOutputsToLocalScope", (call("make"),)),
    RESULT: ("addNodeOutputsToLocalScope", (call("say"),)),
    OUT: ("addNodeOutputsToLocalScope", (call("make"),)),
    "{{OF.a.outputs.artifacts.a}}": ("addNodeOutputsToLocalScope", (call("draw"),)),
    "{{OF.loop.outputs.result}}": (
        "processAggregateNodeOutputs",
        (call("count", x="{{item}}", name="loop", **FAN),),
    ),
    "{{OF.loop.outputs.parameters}}": ("processAggregateNodeOutputs", (LOOP | {"name": "loop"},)),
    "{{OF.loop.outputs.parameters.out}}": ("processAggregateNodeOutputs", (LOOP | {"name": "loop"},)),
    "{{OF.loop.id}}": ("buildLocalScope", (LOOP | {"name": "loop"},)),
    "{{OF.loop.status}}": ("buildLocalScope", (LOOP | {"name": "loop"},)),
    "{{OF.loop.startedAt}}": ("buildLocalScope", (LOOP | {"name": "loop"},)),
    "{{OF.loop.finishedAt}}": ("buildLocalScope", (LOOP | {"name": "loop"},)),
    GLOBAL: ("addParamToGlobalScope", (call("global"),)),
    "{{workflow.outputs.artifacts.g}}": ("addArtifactToGlobalScope", (call("global-drawn"),)),
}
"""Each reference to a node that Argo resolves, where it does, and what a shape calls before it refers.

`.ip` is set for daemons alone (`assessNodeStatus`, workflow/controller/operator.go); they always run. The
shape "a daemon" has it. Hooks refer by the same names (`resolveExitTmplArgument`, exit_handler.go).
"""


def _refers(reference: str) -> Call:
    return reads(reference) if ".artifacts." in reference else call("look", x=reference)


Row = tuple[tuple[Call, ...], tuple[Template, ...], dict[str, Any]]


def row(*calls: Call, templates: tuple[Template, ...] = (), **more: Any) -> Row:
    """Calls of `main`, templates beside the stock, and the rest of a Workflow's spec or of a Shape."""
    return calls, templates, more


def sub(kind: str, *calls: Call, **more: Any) -> Template:
    return (steps if kind == "steps" else dag)(*calls, name="sub", **more)


def made(**resource: Any) -> Template:
    outputs = {"parameters": [{"name": "out", "valueFrom": {"jsonPath": "{.metadata.name}"}}]}
    return memoized(resource={"action": "create"} | resource, outputs=outputs) | _key("made")


def _set(*containers: dict[str, Any], **template: Any) -> Template:
    return memoized(containerSet={"containers": list(containers)}, **template) | _key("set")


HOOKED = {"template": "each", "arguments": arguments(x="of-the-hook")}
WITH_OUT = {"template": "each", "arguments": arguments(x=OUT)}
BOTH: dict[str, Row] = {
    # one after the other
    "in a row": row(call("make"), call("each", x=OUT), call("look", x="{{OF.b.outputs.parameters.out}}")),
    "without outputs": row(call("nothing"), call("look", x="done")),
    "side by side": row(
        call("make"),
        call("say", beside=True),
        call("look", x=f"{OUT} {{{{OF.b.outputs.result}}}}", depends="a && b"),
    ),
    "the same key side by side": row(
        *(call("make", beside=True) for _ in "ab"), call("look", x=OUT, depends="a && b"), equal_at_once=True
    ),
    "an expression": row(call("make"), call("look", x="{{=OF.a.outputs.parameters.out}}")),
    "an expression with an index": row(
        call("make"), call("look", x="{{=OF['a'].outputs.parameters['out']}}")
    ),
    "an expression of a result": row(call("two"), call("look", x="{{=asInt(OF.a.outputs.result) + 1}}")),
    "a path into a result": row(call("json"), call("look", x="{{=jsonpath(OF.a.outputs.result, '$.size')}}")),
    "several references in one text": row(
        call("make"),
        call("say"),
        call(
            "look", x=f"a={OUT} b={{{{OF.b.outputs.result}}}} c={{{{OF.a.status}}}} d={{{{OF.b.exitCode}}}}"
        ),
    ),
    "all of a node at once": row(
        call("make"),
        {
            "template": "look-at-four",
            "arguments": arguments(
                x="{{OF.a.id}}", y="{{OF.a.startedAt}}", z="{{OF.a.finishedAt}}", u="{{OF.a.exitCode}}"
            ),
        },
    ),
    # loops
    "a loop": row(LOOP),
    "a loop over a hit's result": row(call("list"), call("each", x="{{item}}", withParam=RESULT)),
    "a loop over a hit's parameter": row(call("list"), call("each", x="{{item}}", withParam=OUT)),
    "a loop over what a loop gave": row(
        LOOP | {"name": "loop"}, call("look", x="{{item}}", withParam="{{OF.loop.outputs.parameters.out}}")
    ),
    "a loop as often as a hit says": row(
        call("two"), call("each", x="{{item}}", withSequence={"count": RESULT})
    ),
    "a sequence with a format": row(
        call("each", x="{{item}}", withSequence={"start": "4", "end": "5", "format": "n%02X"})
    ),
    "a loop over maps": row(call("each", x="{{item.of}}", withItems=[{"of": "p"}, {"of": "q"}])),
    "a loop over numbers and words": row(call("each", x="{{item}}", withItems=[1, "one", True])),
    "a loop over nothing": row(call("each", x="{{item}}", withParam="[]"), call("look", x="done")),
    "a loop of one": row(call("each", x="{{item}}", withItems=["1"]), call("look", x="done")),
    "a loop with a condition": row(
        call("each", x="{{item}}", when="{{item}} != 2", **FAN), call("look", x="done")
    ),
    "a loop whose results are maps": row(
        call("map", x="{{item}}", name="loop", **FAN), call("look", x="{{OF.loop.outputs.result}}")
    ),
    "a loop whose results nobody asks for": row(
        call("say-of", x="1"),
        call("look", x=RESULT),
        call("say-of", x="{{item}}", **FAN),
        call("look", x="done"),
    ),
    "a loop in a loop": row(
        call("sub", x="{{item}}", withItems=["p", "q"]),
        templates=(
            steps(
                call("each", x="{{inputs.parameters.x}}-{{item}}", withItems=["1", "2"]), name="sub", **_x()
            ),
        ),
    ),
    "a loop of retries": row(
        call("again", x="{{item}}", **FAN),
        call("look", x="{{OF.a.outputs.parameters.out}}"),
        templates=(container(retryStrategy={"limit": "2"}) | _key_of_x("again"),),
    ),
    # conditions
    "a condition on a parameter": row(
        call("yes"), call("make", when=f"{OUT} == yes"), call("look", x="done")
    ),
    "a condition on a result that does not hold": row(
        call("yes"), call("make", when=f"{RESULT} != yes"), call("look", x="done", depends="b.Skipped")
    ),
    "a condition that is an expression": row(
        call("two"), call("make", when="{{=asInt(OF.a.outputs.result) > 1}}"), call("look", x="done")
    ),
    "a condition on a status": row(
        call("make"), call("say", when="{{OF.a.status}} == Succeeded"), call("look", x="done")
    ),
    "the default of a step that is skipped": row(
        call("yes"),
        call("defaulted", when=f"{RESULT} == no"),
        call("look", x="{{OF.b.outputs.parameters.out}}", depends="b.Skipped"),
        templates=(
            container(
                outputs={
                    "parameters": [{"name": "out", "valueFrom": {"path": "/tmp/out", "default": "none"}}]
                }
            )
            | _key("defaulted"),
        ),
    ),
    "a failure that is allowed": row(
        call("make"),
        call("break", continueOn={"failed": True}, depends="a"),
        call("look", x=OUT, depends="b.Failed"),
    ),
    "a memoized failure that is allowed": row(
        call("fail", continueOn={"failed": True}),
        call("look", x="{{OF.a.status}} {{OF.a.exitCode}}", depends="a.Failed"),
        runs=frozenset({"fail"}),
    ),
    # hooks
    "an exit hook": row(call("make", hooks={"exit": HOOKED}), call("look", x=OUT)),
    "an exit hook with an output": row(call("make", hooks={"exit": WITH_OUT})),
    "an exit hook with an artifact": row(call("draw", hooks={"exit": reads("{{OF.a.outputs.artifacts.a}}")})),
    "an exit hook with a condition": row(
        call("make", hooks={"exit": WITH_OUT | {"expression": "OF.a.status == 'Succeeded'"}})
    ),
    "a hook that waits for success": row(
        call("make", hooks={"good": HOOKED | {"expression": "OF.a.status == 'Succeeded'"}}),
        call("look", x=OUT),
    ),
    "a hook while it runs": row(
        call("slow", hooks={"running": HOOKED | {"expression": "OF.a.status == 'Running'"}}),
        call("look", x=OUT),
        templates=(container(f"sleep 4; {RANDOM} > /tmp/out") | _key("slow"),),
        apart=r"hooks\.running$",
    ),
    "an exit hook of a retried step": row(
        call("again", hooks={"exit": WITH_OUT}),
        templates=(container(retryStrategy={"limit": "2"}) | _key("again"),),
    ),
    "an exit hook of a loop": row(
        call("each", x="{{item}}", hooks={"exit": HOOKED}, **FAN),
        # In a DAG, Argo makes one of these in a look, and none once the loop is over: in either run some are
        # missing (executeDAGTask and assessDAGPhase, workflow/controller/dag.go).
        apart=r"\(\d:\d\)\.onExit$",
        equal_at_once=True,
    ),
    # retries
    "a retry strategy": row(
        call("again"),
        call("look", x=OUT),
        templates=(container(retryStrategy={"limit": "2"}) | _key("again"),),
    ),
    "a retry strategy and nothing after it": row(
        call("again"),
        templates=(container(retryStrategy={"limit": "2"}) | _key("again"),),
    ),
    "a retry strategy before what is skipped": row(
        call("again"),
        call("look", x="skipped", when="1 == 2"),
        templates=(container(retryStrategy={"limit": "2"}) | _key("again"),),
    ),
    "a step that was retried": row(
        call("again"),
        call("look", x=OUT),
        templates=(container(_once("{{retries}}"), retryStrategy={"limit": "2"}) | _key("again"),),
        apart=r"\.a\(\d\)$",
    ),
    "a retry strategy by default": row(
        call("make"), call("look", x=OUT), spec={"templateDefaults": {"retryStrategy": {"limit": "1"}}}
    ),
    "a retry strategy of the workflow": row(
        call("make"), call("look", x=OUT), spec={"retryStrategy": {"limit": "1"}}
    ),
    "a retry strategy over what calls it": row(
        call("sub"),
        call("look", x=OUT),
        templates=(
            sub(
                "steps",
                call("make"),
                retryStrategy={"limit": "1"},
                outputs={
                    "parameters": [
                        {"name": "out", "valueFrom": {"parameter": "{{steps.a.outputs.parameters.out}}"}}
                    ]
                },
            ),
        ),
    ),
    "the outcome of a retried step": row(
        call("again"),
        call("look", x="{{OF.a.status}} {{OF.a.exitCode}} {{OF.a.id}} {{OF.a.outputs.parameters.out}}"),
        templates=(container(retryStrategy={"limit": "2"}) | _key("again"),),
    ),
    # nested
    "steps in it": row(
        call("sub"),
        call("look", x="done"),
        templates=(sub("steps", call("make"), call("each", x="{{steps.a.outputs.parameters.out}}")),),
    ),
    "a dag in it": row(
        call("sub"),
        call("look", x="done"),
        templates=(sub("dag", call("make"), call("each", x="{{tasks.a.outputs.parameters.out}}")),),
    ),
    "a template within the call": row(
        {
            "inline": {
                "metadata": opted_in(),
                "memoize": memo("SHAPE-inline", max_age="24h"),
                "container": shell(f"{RANDOM} > /tmp/out"),
            }
            | _output()
        },
        call("look", x=OUT),
    ),
    "recursion": row(
        call("sub", x="1"),
        templates=(
            steps(
                call("each", x="{{inputs.parameters.x}}"),
                call("sub", x="{{=asInt(inputs.parameters.x) + 1}}", when="{{inputs.parameters.x}} < 3"),
                name="sub",
                **_x(),
            ),
        ),
    ),
    "an output handed up by name": row(
        call("sub"),
        call("look", x=OUT),
        templates=(
            sub(
                "steps",
                call("make"),
                outputs={
                    "parameters": [
                        {"name": "out", "valueFrom": {"parameter": "{{steps.a.outputs.parameters.out}}"}}
                    ]
                },
            ),
        ),
    ),
    "an output handed up under a global name": row(
        call("sub"),
        call("look", x=GLOBAL),
        templates=(
            sub(
                "steps",
                call("make"),
                outputs={
                    "parameters": [
                        {
                            "name": "out",
                            "valueFrom": {"parameter": "{{steps.a.outputs.parameters.out}}"},
                            "globalName": "g",
                        }
                    ]
                },
            ),
        ),
    ),
    "an output handed up by an expression": row(
        call("sub"),
        call("look", x=OUT),
        templates=(
            sub(
                "dag",
                call("say"),
                call("make", beside=True),
                outputs={
                    "parameters": [
                        {
                            "name": "out",
                            "valueFrom": {
                                "expression": "tasks.a.outputs.result + '-' + tasks.b.outputs.parameters.out"
                            },
                        }
                    ]
                },
            ),
        ),
    ),
    "an output of a loop handed up": row(
        call("sub"),
        call("look", x=OUT),
        templates=(
            sub(
                "steps",
                LOOP,
                outputs={
                    "parameters": [
                        {"name": "out", "valueFrom": {"parameter": "{{steps.a.outputs.parameters.out}}"}}
                    ]
                },
            ),
        ),
    ),
    "an artifact handed up": row(
        call("sub"),
        reads("{{OF.a.outputs.artifacts.a}}"),
        templates=(
            sub(
                "steps",
                call("draw"),
                outputs={"artifacts": [{"name": "a", "from": "{{steps.a.outputs.artifacts.a}}"}]},
            ),
        ),
    ),
    "an artifact handed up by an expression": row(
        call("sub"),
        reads("{{OF.a.outputs.artifacts.a}}"),
        templates=(
            sub(
                "dag",
                call("draw"),
                outputs={"artifacts": [{"name": "a", "fromExpression": "tasks.a.outputs.artifacts.a"}]},
            ),
        ),
    ),
    # locks and limits
    "a mutex": row(
        call("locked", x="1"),
        call("locked", x="2", beside=True),
        templates=(container(synchronization={"mutexes": [{"name": "SHAPE"}]}) | _key_of_x("locked"),),
    ),
    "a mutex and a retry strategy": row(
        call("locked"),
        call("look", x=OUT),
        templates=(
            container(synchronization={"mutexes": [{"name": "SHAPE"}]}, retryStrategy={"limit": "1"})
            | _key("locked"),
        ),
    ),
    "a time limit": row(
        call("limited"),
        call("look", x=OUT),
        templates=(container(activeDeadlineSeconds=300, timeout="300s") | _key("limited"),),
    ),
    "a pause between": row(
        call("make"),
        {"template": "pause"},
        call("each", x=OUT),
        templates=({"name": "pause", "suspend": {"duration": "1"}},),
    ),
    # artifacts
    "an artifact within an artifact": row(
        call("folder"),
        reads("{{OF.a.outputs.artifacts.a}}", subPath="b"),
        templates=(
            container(
                f"mkdir /tmp/a; {RANDOM} > /tmp/a/b",
                outputs={"artifacts": [{"name": "a", "path": "/tmp/a", "archive": {"none": {}}}]},
            )
            | _key("folder"),
        ),
    ),
    "a folder as a tar file": row(
        call("folder"),
        call("unpack")
        | {"arguments": {"artifacts": [{"name": "a", "from": "{{OF.a.outputs.artifacts.a}}"}]}},
        templates=(
            container(
                f"mkdir /tmp/a; {RANDOM} > /tmp/a/b", outputs={"artifacts": [{"name": "a", "path": "/tmp/a"}]}
            )
            | _key("folder"),
            {
                "name": "unpack",
                "inputs": {"artifacts": [{"name": "a", "path": "/tmp/a"}]},
                "outputs": {"parameters": [parameter("seen", "/tmp/a/b")]},
                "container": shell("true"),
            },
        ),
    ),
    "an artifact with its mode": row(
        call("moded"),
        reads("{{OF.a.outputs.artifacts.a}}"),
        templates=(_drawn(mode=0o600, archive={"none": {}}) | _key("moded"),),
    ),
    "an artifact under a key of its own": row(
        call("placed"),
        reads("{{OF.a.outputs.artifacts.a}}"),
        templates=(
            _drawn(archive={"tar": {"compressionLevel": 1}}, s3={"key": "stepmemo-e2e/SHAPE/a.tgz"})
            | _key("placed"),
        ),
    ),
    "an optional artifact that is missing": row(
        call("absent"),
        call("look", x=OUT),
        templates=(
            container(
                outputs={
                    "parameters": [parameter()],
                    "artifacts": [{"name": "a", "path": "/tmp/none", "optional": True}],
                }
            )
            | _key("absent"),
        ),
    ),
    "an artifact of a script": row(
        call("drawing"),
        reads("{{OF.a.outputs.artifacts.a}}"),
        call("look", x=RESULT),
        templates=(
            script(f"{RANDOM} | tee /tmp/a", outputs={"artifacts": [{"name": "a", "path": "/tmp/a"}]})
            | _key("drawing"),
        ),
    ),
    "a memoized step that reads an artifact": row(
        call("draw"),
        {
            "template": "copy",
            "arguments": {"artifacts": [{"name": "a", "from": "{{OF.a.outputs.artifacts.a}}"}]},
        },
        call("look", x="{{OF.b.outputs.parameters.out}}"),
        templates=(
            container("cp /tmp/a /tmp/out", inputs={"artifacts": [{"name": "a", "path": "/tmp/a"}]})
            | _key("copy"),
        ),
    ),
    # names for the whole workflow
    "one step, two global names": row(
        call("named", x="left"),
        call("named", x="right"),
        call("look", x="{{workflow.outputs.parameters.left}} {{workflow.outputs.parameters.right}}"),
        templates=(container(**_x(), **_output(globalName="{{inputs.parameters.x}}")) | _key("named"),),
    ),
}
"""Shapes that are made of steps and of tasks. `spec` goes into the Workflow's, the rest is the Shape's."""

STEP = row(call("make"), call("look", x="{{steps.a.outputs.parameters.out}}"))


def _library(kind: str, **spec: Any) -> dict[str, Any]:
    return argo(kind, {"name": "SHAPE"}, {"entrypoint": "make", "templates": [STOCK[0]]} | spec)


SEMAPHORE = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "SHAPE"}, "data": {"at-once": "1"}}
ONE: dict[str, tuple[Template | None, Row]] = {
    "a single step": (None, row(templates=(STOCK[0] | {"name": "main"},))),
    "the first of a key leads the second": (
        steps(
            call("make"),
            call("make"),
            call("look", x="{{steps.a.outputs.parameters.out}} {{steps.b.outputs.parameters.out}}"),
        ),
        row(),
    ),
    "a diamond": (
        dag(
            call("make"),
            call("each", x="{{tasks.a.outputs.parameters.out}}-1"),
            call("each", x="{{tasks.a.outputs.parameters.out}}-2", depends="a"),
            call(
                "look",
                x="{{tasks.b.outputs.parameters.out}} {{tasks.c.outputs.parameters.out}}",
                depends="b && c",
            ),
        ),
        row(),
    ),
    "a diamond whose first task has a retry strategy": (
        dag(
            call("again"),
            call("look", x="{{tasks.a.outputs.parameters.out}}-1"),
            call("look", x="{{tasks.a.outputs.parameters.out}}-2", depends="a"),
            call("look", x="done", depends="b && c"),
        ),
        row(templates=(container(retryStrategy={"limit": "2"}) | _key("again"),)),
    ),
    "a target": (
        None,
        row(
            templates=(
                {
                    "name": "main",
                    "dag": {
                        "target": "b",
                        "tasks": [
                            {"name": "a"} | call("make"),
                            {"name": "b", "depends": "a"}
                            | call("each", x="{{tasks.a.outputs.parameters.out}}"),
                            {"name": "c"} | call("say"),
                        ],
                    },
                },
            )
        ),
    ),
    "dependencies": (
        None,
        row(
            templates=(
                {
                    "name": "main",
                    "dag": {
                        "tasks": [
                            {"name": "a"} | call("make"),
                            {"name": "b", "dependencies": ["a"]}
                            | call("each", x="{{tasks.a.outputs.parameters.out}}"),
                        ]
                    },
                },
            )
        ),
    ),
    "dependencies on a failure that is allowed": (
        None,
        row(
            templates=(
                {
                    "name": "main",
                    "dag": {
                        "tasks": [
                            {"name": "a"} | call("make"),
                            {"name": "b"} | call("break", continueOn={"failed": True}),
                            {"name": "c", "dependencies": ["a", "b"]}
                            | call("each", x="{{tasks.a.outputs.parameters.out}}"),
                        ]
                    },
                },
            )
        ),
    ),
    "any of a fan has succeeded": (
        dag(LOOP, call("look", x="{{tasks.a.outputs.parameters.out}}", depends="a.AnySucceeded")),
        row(),
    ),
    "a choice of what succeeded": (
        dag(
            call("make"),
            call("break", depends=""),
            call(
                "look",
                x="{{tasks.a.outputs.parameters.out}}",
                depends="a.Succeeded && (b.Failed || b.Errored)",
            ),
        ),
        row(),
    ),
    "a sibling fails, not fast": (
        None,
        row(
            templates=(
                {
                    "name": "main",
                    "dag": {
                        "failFast": False,
                        "tasks": [
                            {"name": "a"} | call("make"),
                            {"name": "b"} | call("break"),
                            {"name": "c", "depends": "a"}
                            | call("each", x="{{tasks.a.outputs.parameters.out}}"),
                        ],
                    },
                },
            ),
            phase="Failed",
        ),
    ),
    "one after the other by parallelism": (steps(LOOP, parallelism=1), row(spec={"parallelism": 1})),
    "a mutex of the workflow": (
        steps(*STEP[0]),
        row(spec={"synchronization": {"mutexes": [{"name": "SHAPE"}]}}),
    ),
    "a semaphore": (
        steps(call("locked", x="1"), call("locked", x="2", beside=True)),
        row(
            templates=(
                container(
                    synchronization={"semaphores": [{"configMapKeyRef": {"name": "SHAPE", "key": "at-once"}}]}
                )
                | _key_of_x("locked"),
            ),
            objects=(SEMAPHORE,),
        ),
    ),
    # at the end of the workflow
    "an exit handler": (steps(*STEP[0]), row(spec={"onExit": "say"})),
    "an exit handler that is told how it ended": (
        steps(call("global")),
        row(
            templates=(
                steps(
                    call(
                        "look",
                        x="{{workflow.status}} {{workflow.failures}} {{workflow.outputs.parameters.g}}",
                    ),
                    name="end",
                ),
            ),
            spec={"onExit": "end"},
        ),
    ),
    "a memoized exit handler of a failure": (
        steps(call("make"), call("break")),
        row(spec={"onExit": "say"}, phase="Failed"),
    ),
    "an exit hook of the workflow": (
        steps(*STEP[0]),
        row(spec={"hooks": {"exit": {"template": "each", "arguments": arguments(x="{{workflow.status}}")}}}),
    ),
    "a hook of the workflow": (
        steps(*STEP[0]),
        row(
            spec={
                "hooks": {
                    "good": {
                        "template": "each",
                        "arguments": arguments(x="{{workflow.status}}"),
                        "expression": "workflow.status == 'Succeeded'",
                    }
                }
            },
        ),
    ),
    # what kinds of templates there are
    "a container set": (
        steps(call("set"), call("look", x="{{steps.a.outputs.parameters.out}}")),
        row(
            templates=(
                _set(
                    {"name": "first"} | shell("true"),
                    {"name": "main", "dependencies": ["first"]} | shell(f"{RANDOM} > /tmp/out"),
                    **_output(),
                ),
            )
        ),
    ),
    "a container set with a result": (
        dag(call("set"), call("look", x="{{tasks.a.outputs.result}}")),
        row(templates=(_set({"name": "main"} | shell(RANDOM)),)),
    ),
    "a container set without a main": (
        steps(call("set"), call("look", x="{{steps.a.status}}")),
        row(
            templates=(
                _set(
                    {"name": "first"} | shell("true"),
                    {"name": "then", "dependencies": ["first"]} | shell("true"),
                ),
            )
        ),
    ),
    "a resource": (
        steps(call("made"), call("look", x="{{steps.a.outputs.parameters.out}}")),
        row(templates=(made(manifest=json.dumps(CONFIG_MAP)),)),
    ),
    "a container's result": (
        steps(call("talk"), call("look", x="{{steps.a.outputs.result}}")),
        row(templates=(container(RANDOM, outputs={}) | _key("talk"),)),
    ),
    "a daemon": (
        steps(call("served"), call("look", x="{{steps.a.ip}}"), call("make")),
        row(
            templates=(
                {
                    "name": "served",
                    "metadata": opted_in(),
                    "daemon": True,
                    "memoize": memo("SHAPE-served", max_age="24h"),
                    "container": shell("sleep 600"),
                },
            ),
            runs=frozenset({"served"}),
            apart=r"\[0\]\.a$",  # how it ends is a race of Argo's own
        ),
    ),
    "a sidecar and an init container": (
        steps(call("with"), call("look", x="{{steps.a.outputs.parameters.out}}")),
        row(
            templates=(
                container(
                    initContainers=[{"name": "prepare"} | shell("true")],
                    sidecars=[{"name": "db"} | shell("sleep 600")],
                )
                | _key("with"),
            )
        ),
    ),
    # what templates say besides
    "metrics": (
        steps(call("metered"), call("look", x="{{steps.a.outputs.parameters.out}}")),
        row(
            templates=(
                container(
                    metrics={
                        "prometheus": [
                            {
                                "name": "stepmemo_e2e_runs",
                                "help": "runs",
                                "counter": {"value": "1"},
                                "labels": [{"key": "out", "value": "{{outputs.parameters.out}}"}],
                            },
                            {
                                "name": "stepmemo_e2e_seconds",
                                "help": "seconds",
                                "gauge": {"value": "{{duration}}", "realtime": False},
                                "when": "{{status}} == Succeeded",
                            },
                            {
                                "name": "stepmemo_e2e_code",
                                "help": "code",
                                "gauge": {"value": "{{exitCode}}", "realtime": False},
                            },
                        ]
                    }
                )
                | _key("metered"),
            )
        ),
    ),
    "logs that are archived": (
        steps(call("logged"), call("look", x="{{steps.a.outputs.parameters.out}}")),
        row(templates=(container(archiveLocation={"archiveLogs": True}) | _key("logged"),)),
    ),
    "logs that the workflow archives": (steps(*STEP[0]), row(spec={"archiveLogs": True})),
    "a default for a file that is missing": (
        steps(call("default"), call("look", x="{{steps.a.outputs.parameters.out}}")),
        row(
            templates=(
                container(
                    "true",
                    outputs={
                        "parameters": [
                            {"name": "out", "valueFrom": {"path": "/tmp/none", "default": "nothing"}}
                        ]
                    },
                )
                | _key("default"),
            )
        ),
    ),
    "an empty output": (
        steps(call("empty"), call("look", x="<{{steps.a.outputs.parameters.out}}>")),
        row(templates=(container("touch /tmp/out") | _key("empty"),)),
    ),
    "lines, quotes and letters": (
        steps(call("odd"), call("look", x="{{steps.a.outputs.parameters.out}}")),
        row(
            templates=(
                container("""printf 'l\\303\\244sst "du"\\n\\tden \\\\ <Rest> & $HOME?' > /tmp/out""")
                | _key("odd"),
            )
        ),
    ),
    "a result of several lines": (
        steps(call("long"), call("look", x="{{steps.a.outputs.result}}")),
        row(templates=(script(f"{RANDOM}\n{RANDOM}\necho") | _key("long"),)),
    ),
    "many outputs": (
        steps(
            call("many"),
            call("look", x="{{steps.a.outputs.parameters.p9}} {{steps.a.outputs.parameters.p0}}"),
        ),
        row(
            templates=(
                container(
                    "for n in 0 1 2 3 4 5 6 7 8 9; do cat /proc/sys/kernel/random/uuid > /tmp/$n; done",
                    outputs={
                        "parameters": [
                            parameter(f"p{n}", f"/tmp/{n}") | {"description": f"number {n}"}
                            for n in range(10)
                        ]
                    },
                )
                | _key("many"),
            )
        ),
    ),
    "an output of 100 KB": (
        steps(call("large"), call("look", x="{{steps.a.status}}")),
        row(templates=(container("head -c 75000 /dev/urandom | base64 -w 0 > /tmp/out") | _key("large"),)),
    ),
    "a long key": (
        steps(call("keyed", x="k" * 400 + " / %"), call("look", x="{{steps.a.outputs.parameters.out}}")),
        row(templates=(container() | _key_of_x("keyed"),)),
    ),
    "inputs with defaults": (
        steps(
            call("default"),
            call("default", x="other"),
            call("look", x="{{steps.a.outputs.parameters.out}} {{steps.b.outputs.parameters.out}}"),
        ),
        row(templates=(container() | _key_of_x("default") | _x(default="given"),)),
    ),
    "arguments of the workflow": (
        steps(call("each", x="{{workflow.parameters.p}}")),
        row(spec={"arguments": {"parameters": [{"name": "p", "value": "of the workflow"}]}}),
    ),
    "volumes, variables and a patched pod": (
        steps(call("dressed"), call("look", x="{{steps.a.outputs.parameters.out}}")),
        row(
            templates=(
                container(
                    container=shell(
                        f"{RANDOM} > /tmp/out; test -d /v; test $E = e",
                        env=[{"name": "E", "value": "e"}],
                        volumeMounts=[{"name": "v", "mountPath": "/v"}],
                    ),
                    volumes=[{"name": "v", "emptyDir": {}}],
                    podSpecPatch=json.dumps({"terminationGracePeriodSeconds": 3}),
                    nodeSelector={"kubernetes.io/os": "linux"},
                )
                | _key("dressed"),
            )
        ),
    ),
    # who holds the template
    "a template of another object": (
        steps(
            {"templateRef": {"name": "SHAPE", "template": "make"}},
            call("look", x="{{steps.a.outputs.parameters.out}}"),
        ),
        row(objects=(_library("WorkflowTemplate"),)),
    ),
    "a template of another object, in a dag": (
        dag(
            {"templateRef": {"name": "SHAPE", "template": "make"}},
            call("look", x="{{tasks.a.outputs.parameters.out}}"),
        ),
        row(objects=(_library("WorkflowTemplate"),)),
    ),
    "a workflow of another object": (
        None,
        row(objects=(_library("WorkflowTemplate"),), spec={"workflowTemplateRef": {"name": "SHAPE"}}),
    ),
    "defaults for all templates": (
        steps(*STEP[0]),
        row(spec={"templateDefaults": {"activeDeadlineSeconds": 300, "metadata": {"labels": {"of": "all"}}}}),
    ),
    "a default block, converted": (
        steps(call("bare"), call("look", x="{{steps.a.outputs.parameters.out}}")),
        row(
            templates=({"name": "bare", "container": shell(f"{RANDOM} > /tmp/out")} | _output(),),
            spec={"templateDefaults": {"memoize": memo("SHAPE-default", max_age="24h")}},
            metadata=opted_in(),
        ),
    ),
}
"""Shapes that are made one way."""


def shapes() -> dict[str, Shape]:
    """All of them, by name."""
    found: dict[str, Shape] = {}
    rows = {
        f"refers to {reference}": row(*calls, _refers(reference))
        for reference, (_, calls) in REFERENCES.items()
    }
    for name, (calls, templates, more) in (rows | BOTH).items():
        for make, of, said in ((steps, "steps", "steps"), (dag, "tasks", "dag")):
            title = name.replace("OF", of) if "OF" in name else f"{said}: {name}"
            title = title if title not in found else f"{said}: {name}"
            found[title] = _shape(title, of, make(*_copies(calls)), templates, dict(more))
    for name, (main, (_, templates, more)) in ONE.items():
        found[name] = _shape(name, "steps", main, templates, dict(more))
    return found


def _copies(calls: tuple[Call, ...]) -> list[Call]:
    return [dict(one) for one in calls]


def _shape(
    name: str, of: str, main: Template | None, templates: tuple[Template, ...], more: dict[str, Any]
) -> Shape:
    own = [*([main] if main else []), *templates]
    spec = more.pop("spec", {})
    said = json.dumps([own, spec])
    used = [one for one in STOCK if f'"{one["name"]}"' in said and "workflowTemplateRef" not in spec]
    whole = ({"entrypoint": "main", "templates": [*own, *used]} if own else {}) | spec
    word = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")

    def filled(value: Any) -> Any:
        return json.loads(re.sub(r"\bOF\b", of, json.dumps(value)).replace("SHAPE", word))

    objects = tuple(filled(one) for one in more.pop("objects", ()))
    return Shape(filled(whole), objects, **more)


SHAPES = shapes()
