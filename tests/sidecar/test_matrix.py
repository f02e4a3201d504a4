"""Every request that the sidecar makes × everything that can become of it: the step does not notice.

Each cell is a whole step in which one kind of request meets one fault, each time that it is made; and it is
held against the same step without us.
"""

import ast
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

import sidecar
from memoize import names
from memoize.entry import Entry
from memoize.reasons import Reason
from sidecar.entrypoint.build import path_for_host
from tests.sidecar import faults
from tests.sidecar.faults import CONFIGMAPS, Api, Call, Fault
from tests.sidecar.steppod import ENOUGH_MS, have_entry
from tests.sidecar.wholestep import (
    TIMEOUT_MS,
    Seen,
    WholeStep,
    answered_before,
    cache,
    first_post,
    full_cache,
)

pytestmark = pytest.mark.slow

AT_ONCE = 5
"""Cells that run side by side: most of their time they wait."""
AGAIN = 3
"""How often a cell that was late is run once more."""
OVERHEAD = 2.0
"""Seconds that a step waits for us at most, before it starts and after it has ended."""
RETRACTION = 2.0
"""Seconds more where an answer may be out and the API server does not let the check take it back, whenever it
asks: the step must not start beside it before the entrypoint has tried once more."""

REQUESTS = {
    "direct._get": {Call.READ_CACHE},
    "direct._patch": {Call.ADD_ENTRY, Call.MERGE_ENTRY},
    "direct._create": {Call.CREATE_CACHE},
    "result._create": {Call.POST_RESULT, Call.KEEP_OUT},
    "result.read": {Call.READ_RESULT},
    "result.take_back": {Call.TAKE_BACK},
    "events.post_event": {Call.TELL},
    "service._ask": {Call.ASK_SERVICE, Call.TELL_SERVICE},
}
"""Every function of the sidecar that makes a request, and what for."""
TRANSPORT = ("kube", "http1")
"""Modules that carry any request."""

HIT = (Call.READ_CACHE, Call.POST_RESULT, Call.TELL)
CONFLICT = (Call.READ_CACHE, Call.POST_RESULT, Call.READ_RESULT, Call.READ_RESULT)
STORE = (Call.READ_RESULT, Call.ADD_ENTRY, Call.TELL)
LOOK_AND_STORE = (Call.READ_RESULT, Call.ADD_ENTRY, Call.READ_CACHE, Call.MERGE_ENTRY, Call.TELL)


@dataclass(frozen=True)
class Scene:
    """How a step comes to make a certain request: `calls` is all that it asks where nothing fails."""

    call: Call
    calls: tuple[Call, ...]
    prepare: Callable[[Api], object]
    exit_code: int = 0

    @property
    def looks_up(self) -> bool:
        return self.calls[0] in (Call.READ_CACHE, Call.ASK_SERVICE)

    @property
    def through_service(self) -> bool:
        return bool({Call.ASK_SERVICE, Call.TELL_SERVICE} & {*self.calls})


SCENES = {
    "look-up": Scene(Call.READ_CACHE, HIT, have_entry),
    "post": Scene(Call.POST_RESULT, HIT, have_entry),
    "read-after-a-conflict": Scene(
        Call.READ_RESULT,
        (Call.READ_CACHE, Call.POST_RESULT, Call.POST_RESULT, Call.READ_RESULT, Call.TELL),
        first_post(Fault(500, applied=True)),
    ),
    "take-back": Scene(Call.TAKE_BACK, (*CONFLICT, Call.TAKE_BACK, *STORE), answered_before),
    "keep-out": Scene(Call.KEEP_OUT, (*CONFLICT, Call.KEEP_OUT, *STORE), first_post(Fault(409))),
    "read-what-was-reported": Scene(Call.READ_RESULT, STORE, cache(other="x")),
    "add-an-entry": Scene(Call.ADD_ENTRY, STORE, cache(other="x")),
    "look-again": Scene(Call.READ_CACHE, LOOK_AND_STORE, cache()),
    "merge-an-entry": Scene(Call.MERGE_ENTRY, LOOK_AND_STORE, cache()),
    "create-the-cache": Scene(
        Call.CREATE_CACHE,
        (Call.READ_RESULT, Call.ADD_ENTRY, Call.CREATE_CACHE, Call.TELL),
        lambda api: None,
    ),
    "tell": Scene(Call.TELL, STORE, cache(other="x")),
    "look-up-at-the-service": Scene(Call.ASK_SERVICE, (Call.ASK_SERVICE, Call.POST_RESULT), have_entry),
    "store-at-the-service": Scene(Call.TELL_SERVICE, (Call.READ_RESULT, Call.TELL_SERVICE), cache(other="x")),
}
"""Every request of check and capture, met on its own."""
MORE_SCENES = {
    "look-up-and-miss": Scene(Call.READ_CACHE, (Call.READ_CACHE, *LOOK_AND_STORE), cache()),
    "look-up-of-a-step-that-fails": Scene(Call.READ_CACHE, (Call.READ_CACHE,), cache(other="x"), exit_code=3),
    "make-room": Scene(Call.MERGE_ENTRY, LOOK_AND_STORE, full_cache),
    "miss-and-store-at-the-service": Scene(
        Call.ASK_SERVICE,
        (Call.ASK_SERVICE, Call.READ_RESULT, Call.TELL_SERVICE),
        lambda api: None,
    ),
    "tell-a-hit": Scene(Call.TELL, HIT, have_entry),
}
"""The same requests in another place: they meet a few faults only."""

NETWORK = [Fault("reset"), Fault("refused"), Fault("hang"), Fault("garbage"), Fault("slow")]
LOST_REPLY = [Fault(seen, applied=True) for seen in ("reset", "hang", 500)]
BODIES = [Fault(seen, applied=True) for seen in ("cut", "other")]
BODIES_READ = [Fault(seen, applied=True) for seen in ("text", "deep", "huge")]
STATUSES = [Fault(status) for status in (200, 401, 403, 404, 409, 410, 413, 422, 429, 500)]
LATER = [Fault(429, headers=(("Retry-After", seconds),)) for seconds in ("1", "86400")]
FEW = [Fault("hang"), Fault(500), Fault("cut", applied=True)]
PASSING = [Fault("reset"), Fault("hang"), Fault("cut", applied=True), Fault(500), LATER[0]]
READS = (Call.READ_CACHE, Call.READ_RESULT, Call.ASK_SERVICE)
"""Whether one of these takes effect makes no difference. Of the replies to others the status alone counts."""


def named(fault: Fault) -> str:
    after = "".join(f"-after-{value}" for _, value in fault.headers)
    return f"{fault.seen}{after}{'-applied' * fault.applied}"


def matrix() -> Iterator[tuple[str, Fault, bool]]:
    """Every scene, with every fault that lasts and those that can pass."""
    for name, scene in SCENES.items():
        for fault in NETWORK + BODIES + STATUSES + LATER:
            yield name, fault, True
        for fault in BODIES_READ if scene.call in READS else LOST_REPLY:
            yield name, fault, True
        for fault in PASSING:
            yield name, fault, False
    for name in MORE_SCENES:
        for fault in FEW:
            yield name, fault, True


CELLS = {
    f"{name}-{named(fault)}{'' if lasts else '-once'}": (name, fault, lasts)
    for name, fault, lasts in matrix()
}


class Cell:
    """One step, run to its end."""

    def __init__(
        self,
        scene: Scene,
        directory: Path,
        credentials: Path,
        fault: Fault = faults.OK,
        lasts: bool = False,
        timeout_ms: int = TIMEOUT_MS,
    ) -> None:
        self.scene, self.api, self.lasts = scene, Api(), lasts
        scene.prepare(self.api)
        self.data_before = self.data
        if lasts:
            self.api.on(scene.call, fault)
        else:
            self.api.on_next(scene.call, fault)
        with faults.serving(self.api, credentials) as server:
            self.step = WholeStep(directory, self.api, server, credentials, scene.exit_code)
            self.step.looks_up, self.step.timeout_ms = scene.looks_up, timeout_ms
            self.step.through_service = scene.through_service
            self.seen = self.step.run()

    @property
    def data(self) -> dict[str, str]:
        """The entries of the cache."""
        return dict(self.api.objects[CONFIGMAPS].get("my-cache", {}).get("data", {}))


@pytest.fixture(scope="module")
def entrypoint() -> Path:
    """Built, if need be, before anybody takes the time."""
    return path_for_host()


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory, credentials: Path) -> dict[int, Seen]:
    """The step without us, by what main ends with."""

    def run(exit_code: int) -> Seen:
        directory = tmp_path_factory.mktemp("control")
        return WholeStep(directory, Api(), ("", 0), credentials, exit_code).run_without_us()

    return {exit_code: run(exit_code) for exit_code in (0, 3)}


@pytest.fixture(scope="module")
def run_cell(
    tmp_path_factory: pytest.TempPathFactory, credentials: Path, entrypoint: Path
) -> Callable[[str], Cell]:
    """Runs the cell of this name."""

    def run(name: str) -> Cell:
        scene, fault, lasts = CELLS[name]
        directory = tmp_path_factory.mktemp("step")
        return Cell({**SCENES, **MORE_SCENES}[scene], directory, credentials, fault, lasts)

    return run


@pytest.fixture(scope="module")
def first_run(
    request: pytest.FixtureRequest, run_cell: Callable[[str], Cell]
) -> Iterator[Callable[[str], Cell]]:
    """A cell's first run. All that this session asks for are started together.

    Where workers share the tests, each knows all of them and not which are its own.
    """
    if hasattr(request.config, "workerinput"):
        yield run_cell
        return
    here = [item for item in request.session.items if item.path == request.path]
    asked = [item.callspec.params.get("cell") for item in here if hasattr(item, "callspec")]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        started = {cell: pool.submit(run_cell, cell) for cell in asked if cell}
        yield lambda cell: started[cell].result()


def busy() -> float:
    """Seconds that the machine may add: starting two programs takes the longer the more there is to do."""
    return 0.5 + 0.5 * os.getloadavg()[0] / (os.cpu_count() or 1)


def does_not_notice(cell: Cell, control: dict[int, Seen]) -> None:
    """The step did what it does without us, or was answered; and nothing but its own entry was touched."""
    step, expected = cell.step, control[cell.scene.exit_code]
    assert cell.api.unknown == []
    assert cell.seen.exit_codes == expected.exit_codes
    assert cell.seen.outputs == expected.outputs
    assert step.runs == (0 if step.decision == names.DECISION_HIT else 1)
    assert step.endings == {"check": 0, "capture": 0}
    assert Reason.INTERNAL_ERROR not in step.log
    assert all(line.startswith("stepmemo: reason=") for line in step.log.splitlines()), step.log
    after = cell.data
    if own := after.pop("hello-1", None):
        assert Entry.parse(own).outputs["parameters"] == expected.outputs
    untouched = {name: text for name, text in cell.data_before.items() if name not in ("hello-1", "old")}
    assert {name: text for name, text in after.items() if name != "old"} == untouched


def late(cell: Cell, control: dict[int, Seen]) -> str:
    """Where the step waited longer for us than it may; empty if nowhere."""
    step, seconds = cell.step, dict(cell.step.seconds)
    retracted = "; could not" in step.log or "the check took too long" in step.log
    most = {"check": OVERHEAD + RETRACTION * (retracted and cell.lasts), "capture": OVERHEAD}
    if not cell.lasts:
        seconds["both"], most["both"] = cell.seen.seconds - control[cell.scene.exit_code].seconds, OVERHEAD
    over = [verb for verb, limit in most.items() if seconds[verb] >= limit + busy()]
    return f"{over} of {seconds}: {step.log}" if over else ""


@pytest.mark.parametrize("cell", CELLS)
def test_the_step_does_not_notice(
    first_run: Callable[[str], Cell], run_cell: Callable[[str], Cell], control: dict[int, Seen], cell: str
):
    """A machine that was busy just then is not our lateness: what is late each time is."""
    done = first_run(cell)
    does_not_notice(done, control)
    for _ in range(AGAIN):
        if not late(done, control):
            break
        done = run_cell(cell)
        does_not_notice(done, control)
    assert not late(done, control)


@pytest.mark.parametrize("scene", {**SCENES, **MORE_SCENES})
def test_where_nothing_fails_the_requests_are_those_of_the_matrix(
    tmp_path: Path, credentials: Path, control: dict[int, Seen], scene: str
):
    cell = Cell({**SCENES, **MORE_SCENES}[scene], tmp_path, credentials, timeout_ms=ENOUGH_MS)
    does_not_notice(cell, control)
    assert tuple(cell.api.calls) == cell.scene.calls


def test_a_server_that_nobody_listens_for_is_not_noticed(
    tmp_path: Path, credentials: Path, control: dict[int, Seen]
):
    overhead = math.inf
    for number in range(1 + AGAIN):
        (directory := tmp_path / str(number)).mkdir()
        step = WholeStep(directory, Api(), ("127.0.0.1", 1), credentials)
        seen = step.run()
        assert (seen.exit_codes, seen.outputs, step.runs) == (control[0].exit_codes, control[0].outputs, 1)
        overhead = seen.seconds - control[0].seconds
        if overhead < OVERHEAD + busy():
            return
    pytest.fail(f"the step waited {overhead} s for us")


def test_the_matrix_has_a_row_for_every_request_in_the_code():
    made = set()
    for path in Path(sidecar.__file__).parent.glob("*.py"):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef) and path.stem not in TRANSPORT:
                called = {n.attr for n in ast.walk(function) if isinstance(n, ast.Attribute)}
                made |= {f"{path.stem}.{function.name}"} if called & {"insist", "call", "request"} else set()
    assert made == REQUESTS.keys()
    assert {scene.call for scene in SCENES.values()} == set(Call) == set().union(*REQUESTS.values())
