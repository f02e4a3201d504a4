"""The sidecar killed between any two of its writes, to the API server or to a file: the step does not notice.

Killed is Python; its entrypoint lives, and sees to what is left. What becomes of an entrypoint that is killed
is told in tests/sidecar/entrypoint.
"""

import os
import select
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from memoize import names
from memoize.entry import Entry
from sidecar.entrypoint.build import path_for_host
from tests.sidecar import faults
from tests.sidecar.faults import CONFIGMAPS, RESULTS, Api, Fault
from tests.sidecar.steppod import ENOUGH_MS, OUTPUTS, POD_UID, have_entry
from tests.sidecar.wholestep import (
    GIVE_UP,
    SIDECAR,
    WholeStep,
    answered_before,
    cache,
    first_post,
    full_cache,
)

pytestmark = pytest.mark.slow

AT_ONCE = 4

# Python tells of each of its accesses before it makes it; this counts those that change a file, and ends the
# process in the place of one of them.
ENDS_ITSELF = """
import os, runpy, signal, sys

verb, at, count = os.environ["END_IN"], int(os.environ["END_AT"]), os.environ["END_COUNT"]
counted = os.open(count, os.O_WRONLY | os.O_APPEND | os.O_CREAT) if sys.argv[1] == verb else -1
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

def told(event, arguments):
    writes = event in ("os.chmod", "os.link", "os.remove", "os.rename", "os.mkdir", "os.symlink")
    if writes or event == "open" and arguments[2] & WRITES:
        os.write(counted, b".")
        if os.fstat(counted).st_size == at:
            os.kill(os.getpid(), signal.SIGKILL)

if counted >= 0:
    sys.addaudithook(told)
runpy.run_module("sidecar", run_name="__main__", alter_sys=True)
"""


SCENES: dict[str, Callable[[Api], object]] = {
    "hit": have_entry,
    "hit-at-the-second-attempt": first_post(Fault(500, applied=True)),
    "answer-taken-back": answered_before,
    "answer-kept-out": first_post(Fault(409)),
    "miss-and-store": cache(other="x"),
    "store-into-a-full-cache": full_cache,
    "create-the-cache": lambda api: None,
    "hit-through-the-service": have_entry,
    "store-through-the-service": cache(other="x"),
}


class Run:
    """One whole step, in which `interrupt` may arrange for what it likes before it starts."""

    def __init__(
        self, scene: str, directory: Path, credentials: Path, interrupt: Callable[["Run"], object]
    ) -> None:
        directory.mkdir()
        self.api = Api()
        SCENES[scene](self.api)
        with faults.serving(self.api, credentials) as server:
            self.step = WholeStep(directory, self.api, server, credentials)
            self.step.timeout_ms = ENOUGH_MS
            self.step.through_service = scene.endswith("through-the-service")
            interrupt(self)
            self.seen = self.step.run()
        self._is_whole()

    def _is_whole(self) -> None:
        """One word; the step ran or was answered, never both; the cache holds whole entries."""
        step = self.step
        assert self.seen.exit_codes == (0, 0)
        assert self.seen.outputs == OUTPUTS["parameters"]
        assert step.endings == {"check": 0, "capture": 0}
        assert step.decision in (names.DECISION_HIT, names.DECISION_RUN)
        assert step.runs == (0 if step.decision == names.DECISION_HIT else 1)
        assert self.api.unknown == []
        data = dict(self.api.objects[CONFIGMAPS].get("my-cache", {}).get("data", {}))
        if own := data.pop("hello-1", None):
            outputs = Entry.parse(own).outputs
            assert outputs is not None
            assert outputs["parameters"] == OUTPUTS["parameters"]
        assert data.get("other", "x") == "x"

    def left_no_answer_beside_it(self) -> None:
        """Nothing that was posted for this Pod is there where the step ran."""
        if self.step.decision == names.DECISION_RUN:
            annotations = self.api.objects[RESULTS]["wf-123"]["metadata"].get("annotations", {})
            assert annotations.get(names.POSTED_FOR) != POD_UID, self.step.log

    def kill(self) -> None:
        """Kill the Python that the entrypoint runs now, and wait for its end: it must not see a reply."""
        assert self.step.of_ours is not None
        entrypoint = self.step.of_ours.pid
        for pid in Path(f"/proc/{entrypoint}/task/{entrypoint}/children").read_text().split():
            killed = os.pidfd_open(int(pid))
            signal.pidfd_send_signal(killed, signal.SIGKILL)
            select.select([killed], [], [], GIVE_UP)
            os.close(killed)


def together(run: Callable[[int], object], number: int) -> None:
    """Run with 1 to `number`, several at a time."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(run, range(1, number + 1)))


@pytest.mark.parametrize(
    ("scene", "verb"),
    [
        ("hit", "check"),
        ("answer-taken-back", "check"),
        ("answer-kept-out", "check"),
        ("miss-and-store", "check"),
        ("miss-and-store", "capture"),
    ],
)
def test_killed_in_the_place_of_any_change_to_a_file(
    scene: str, verb: str, tmp_path: Path, credentials: Path
):
    def run(at: int) -> int:
        """End at that change; return how many there were."""
        count = tmp_path / f"count-{at}"
        count.touch()

        def interrupt(run: Run) -> None:
            run.step.sidecar = (*SIDECAR[:-2], "-c", ENDS_ITSELF)
            run.step.more = {"END_IN": verb, "END_AT": str(at), "END_COUNT": str(count)}

        Run(scene, tmp_path / str(at), credentials, interrupt).left_no_answer_beside_it()
        changes = len(count.read_bytes())
        assert at in (0, changes)
        return changes

    path_for_host()
    together(run, run(0))


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("scene", SCENES)
def test_killed_before_and_after_any_request_takes_effect(
    scene: str, moment: str, tmp_path: Path, credentials: Path
):
    def run(at: int) -> int:
        """Kill at that request; return how many there were."""

        def interrupt(run: Run) -> None:
            def kill(number: int) -> None:
                if number == at:
                    run.kill()
                    if moment == "before":
                        raise ConnectionError

            setattr(run.api, moment, kill)

        run = Run(scene, tmp_path / str(at), credentials, interrupt)
        run.left_no_answer_beside_it()
        return len(run.api.requests)

    path_for_host()
    together(run, run(0))


@pytest.mark.parametrize("scene", ["hit", "answer-taken-back", "miss-and-store"])
def test_killed_at_every_request_from_any_one_on(scene: str, tmp_path: Path, credentials: Path):
    """The entrypoint runs each verb once, and retracts once, however often Python dies."""

    def run(since: int) -> None:
        def interrupt(run: Run) -> None:
            run.api.after = lambda number: run.kill() if number >= since else None

        Run(scene, tmp_path / str(since), credentials, interrupt)

    path_for_host()
    together(run, 5)
