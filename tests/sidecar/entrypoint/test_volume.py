"""The image volume's way: entrypoints that wait for the decision, and a sidecar that looks up beside them."""

import os
import signal
import sys
import time

import pytest

from memoize import names
from tests.sidecar.entrypoint.test_check import DEATHS, LIMITS

PATIENT = ("-t", 60_000)
SIDECAR = ("-M", "main", "-w", "wait")
NEVER = "exec sleep 600"
CHECKER = """
case $1 in
check) {before_claim}; (set -C; : > claim) 2>/dev/null || exit 0
       {claimed}; touch posted; {posted}; printf {word} > .decision; ln .decision decision;;
retract) {retracting}; rm -f posted; touch retracted;;
capture) echo stored >> stored;;
esac
"""
POINTS = ("before_claim", "claimed", "posted")


def checker(pod, word: str = "hit", **points: str) -> tuple[str, ...]:
    """What stands in for Python: posts (a file), and answers with `word`, unless it is stopped at a point."""
    shell = dict.fromkeys((*POINTS, "retracting"), ":") | points
    return pod.script(CHECKER.format(word=word, **shell))


def capture(pod, command, *more, check_ms: int = 60_000, **options):
    return pod.start("capture", "-c", check_ms, *more, "--", *command, **options)


def write(pod, word: str) -> None:
    (pod.shared / ".word").write_text(word)
    os.link(pod.shared / ".word", pod.shared / "decision")


def stored(pod) -> bool:
    return (pod.shared / "stored").exists()


def start_of(pod) -> list[str]:
    return sorted(path.name for path in pod.shared.glob(f"{names.START_FILE_PREFIX}*"))


# --- The entrypoint in front of a command --------------------------------------------------------------


@pytest.mark.parametrize(("word", "out"), [("hit", ""), ("run", "ran\n")])
def test_a_patient_entrypoint_waits_for_the_word_and_claims_nothing(pod, word: str, out: str) -> None:
    process = pod.waiting(pod.start(*PATIENT, "--", "echo", "ran"))
    assert not (pod.shared / "claim").exists()
    write(pod, word)
    done = pod.end(process)
    assert (done.returncode, done.stdout) == (0, out)
    assert not (pod.shared / "claim").exists()


def test_an_entrypoint_without_a_word_decides_run_when_its_time_is_over(pod) -> None:
    start = time.monotonic()
    done = pod.run("-t", 300, "-r", "main", "--", "sh", "-c", "echo ran; exit 3")
    assert 0.3 <= time.monotonic() - start < 3
    assert (done.returncode, done.stdout, done.stderr, pod.word) == (3, "ran\n", "", "run")
    assert (pod.shared / "exit-main").read_text() == "3"


@pytest.mark.parametrize(("word", "out"), [("hit", ""), ("run", "ran\n")])
def test_an_entrypoint_whose_time_is_over_waits_on_for_the_owner_of_the_claim(
    pod, word: str, out: str
) -> None:
    (pod.shared / "claim").touch()
    start = time.monotonic()
    process = pod.start("-t", 1, "--", "echo", "ran")
    pod.until(lambda: time.monotonic() > start + 0.05, "its time to be over")
    pod.waiting(process)
    write(pod, word)
    assert pod.end(process).stdout == out


def test_an_entrypoint_waits_where_nothing_can_be_watched(pod, own_inotify_limit) -> None:
    process = pod.start(*PATIENT, "--", "echo", "ran", prefix=own_inotify_limit)
    pod.until(lambda: pod.holds_signals(process.pid), "the entrypoint to wait")
    write(pod, "run")
    assert pod.end(process).stdout == "ran\n"


@pytest.mark.parametrize("record", [(), ("-r", "main")])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_patient_entrypoint_can_be_stopped_and_says_so_to_the_sidecar(pod, number, record) -> None:
    process = pod.waiting(pod.start(*PATIENT, *record, "--", "echo", "ran"))
    process.send_signal(number)
    done = pod.end(process)
    assert (done.returncode, done.stdout) == (128 + number, "")
    assert "reason=Stopped" in done.stderr
    if record:
        assert (pod.shared / "exit-main").read_text() == f"{128 + number} stopped"


def test_a_patient_entrypoint_as_pid_1_can_be_stopped(pod, own_namespace) -> None:
    process = pod.start(*PATIENT, "--", "echo", "ran", prefix=own_namespace)
    pid = pod.inner(process)
    pod.until(lambda: pod.holds_signals(pid), "the entrypoint to wait")
    os.kill(pid, signal.SIGTERM)
    assert pod.end(process).returncode == 128 + signal.SIGTERM


def test_a_container_that_ran_before_does_not_run_again(pod) -> None:
    """A node that lost the sandbox starts every container of the Pod anew."""
    write(pod, "run")
    first = pod.run(*PATIENT, "-r", "main", "--", "echo", "ran")
    again = pod.run(*PATIENT, "-r", "main", "--", "echo", "ran")
    assert (first.returncode, first.stdout) == (0, "ran\n")
    assert (again.returncode, again.stdout) == (128 + signal.SIGKILL, "")
    assert "reason=StepFailed main ran in this Pod before" in again.stderr


def test_a_patient_entrypoint_that_cannot_write_waits_for_the_word_of_who_can(pod, own_mounts) -> None:
    read_only = own_mounts(f"mount --bind {pod.shared} {pod.shared} && mount -o remount,bind,ro {pod.shared}")
    process = pod.start("-t", 1, "--", "echo", "ran", prefix=read_only)
    pod.until(lambda: "cannot claim" in process.stderr.readline(), "the claim to fail")
    write(pod, "hit")
    done = pod.end(process)
    assert (done.returncode, done.stdout) == (0, "")


def test_a_patient_entrypoint_runs_without_a_shared_directory(pod) -> None:
    pod.shared.rmdir()
    done = pod.run("-t", 100, "--", "echo", "ran")
    assert (done.returncode, done.stdout) == (0, "ran\n")


# --- The sidecar that looks up first -------------------------------------------------------------------


def test_on_a_hit_it_leaves_at_once_and_so_do_the_entrypoints(pod) -> None:
    entrypoints = [pod.start(*PATIENT, "-r", name, "--", "echo", "ran") for name in ("main", "wait")]
    done = pod.end(capture(pod, checker(pod), *SIDECAR))
    assert (done.returncode, done.stderr) == (0, "")
    assert [pod.end(entrypoint).stdout for entrypoint in entrypoints] == ["", ""]
    assert (pod.word, stored(pod)) == ("hit", False)


def test_on_a_miss_the_step_runs_and_is_stored(pod) -> None:
    entrypoints = [pod.start(*PATIENT, "-r", name, "--", "echo", "ran") for name in ("main", "wait")]
    done = pod.end(capture(pod, checker(pod, "run"), *SIDECAR))
    assert (done.returncode, done.stderr) == (0, "")
    assert [pod.end(entrypoint).stdout for entrypoint in entrypoints] == ["ran\n", "ran\n"]
    assert stored(pod)


@pytest.mark.parametrize("word", ["hit", "run"])
def test_without_a_main_container_it_only_looks_up(pod, word: str) -> None:
    done = pod.end(capture(pod, checker(pod, word)))
    assert (done.returncode, done.stderr, pod.word, stored(pod)) == (0, "", word, False)


def test_entrypoints_that_were_first_run_and_the_step_is_stored(pod) -> None:
    entrypoints = [pod.start("-t", 1, "-r", name, "--", "echo", "ran") for name in ("main", "wait")]
    assert [pod.end(entrypoint).stdout for entrypoint in entrypoints] == ["ran\n", "ran\n"]
    assert pod.end(capture(pod, checker(pod), *SIDECAR)).returncode == 0
    assert (pod.word, (pod.shared / "posted").exists(), stored(pod)) == ("run", False, True)


@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize("point", POINTS)
def test_a_check_that_dies_leaves_one_word_and_the_step_runs_and_is_stored(pod, point, death) -> None:
    entrypoints = [pod.start(*PATIENT, "-r", name, "--", "echo", "ran") for name in ("main", "wait")]
    sidecar = capture(pod, checker(pod, **{point: DEATHS[death]}), *SIDECAR, check_ms=LIMITS[death])
    assert pod.end(sidecar).returncode == 0
    assert [pod.end(entrypoint).stdout for entrypoint in entrypoints] == ["ran\n", "ran\n"]
    assert (pod.word, (pod.shared / "posted").exists(), stored(pod)) == ("run", False, True)
    assert (pod.shared / "retracted").exists() == (point != "before_claim")


def test_a_shared_directory_that_is_not_there_exits_0(pod) -> None:
    pod.shared.rmdir()
    process = capture(pod, ("false",))
    assert pod.end(process).returncode == 0


@pytest.mark.parametrize("arguments", [["-c"], ["-c", "soon", "--", "true"], ["-c", "1"]])
def test_a_wrong_command_line_exits_0(pod, arguments) -> None:
    assert pod.run("capture", *arguments).returncode == 0


# --- Killed whole, and started again -------------------------------------------------------------------


def kill_whole(pod, point: str, own_namespace, *more):
    """The container is killed with everything in it while the check is at a point."""
    command = checker(pod, **{point: f"touch here; {NEVER}"})
    process = capture(pod, command, *SIDECAR, prefix=own_namespace)
    pod.wait_for("here").unlink()
    os.kill(pod.inner(process), signal.SIGKILL)
    pod.end(process)


@pytest.mark.parametrize("point", POINTS)
def test_started_again_it_retracts_and_decides_and_leaves(pod, own_namespace, point: str) -> None:
    entrypoint = pod.waiting(pod.start(*PATIENT, "--", "echo", "ran"))
    kill_whole(pod, point, own_namespace)
    assert pod.word is None
    done = pod.end(capture(pod, checker(pod), *SIDECAR))
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1
    assert "reason=Undecided this container was killed and started again" in done.stderr
    assert pod.end(entrypoint).stdout == "ran\n"
    assert (pod.word, (pod.shared / "posted").exists(), stored(pod)) == ("run", False, False)
    assert (pod.shared / "retracted").exists() == (point != "before_claim")


@pytest.mark.parametrize("word", ["hit", "run"])
def test_started_again_after_the_word_it_changes_nothing(pod, word: str) -> None:
    (pod.shared / "started-1").touch()
    pod.decide(word)
    done = pod.end(capture(pod, checker(pod), *SIDECAR))
    assert (done.returncode, pod.word, stored(pod)) == (0, word, False)
    assert "reason=InternalError this container was killed and started again" in done.stderr
    assert not (pod.shared / "retracted").exists()


def test_a_third_start_leaves_at_once_without_a_word(pod, own_namespace) -> None:
    kill_whole(pod, "claimed", own_namespace)
    process = capture(pod, checker(pod, retracting=f"touch here; {NEVER}"), prefix=own_namespace)
    pod.wait_for("here")
    os.kill(pod.inner(process), signal.SIGKILL)
    pod.end(process)
    done = pod.end(capture(pod, checker(pod), *SIDECAR))
    assert (done.returncode, done.stderr, pod.word) == (0, "", None)
    assert start_of(pod) == ["started-1", "started-2"]


# --- Told to stop ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", POINTS)
def test_stopped_by_the_runtime_during_the_check_it_retracts_and_leaves(pod, own_namespace, point) -> None:
    command = checker(pod, **{point: f"touch here; {NEVER}"})
    process = capture(pod, command, *SIDECAR, prefix=own_namespace)
    pod.wait_for("here")
    os.kill(pod.inner(process), signal.SIGTERM)
    done = pod.end(process)
    assert done.returncode == 0
    assert "reason=Stopped this Pod is being stopped" in done.stderr
    assert (pod.word, (pod.shared / "posted").exists(), stored(pod)) == ("run", False, False)


@pytest.mark.parametrize("point", POINTS)
def test_stopped_by_argo_before_main_started_it_leaves(pod, point: str) -> None:
    process = capture(pod, checker(pod, **{point: f"touch here; {NEVER}"}), *SIDECAR)
    pod.wait_for("here")
    process.terminate()
    done = pod.end(process)
    assert done.returncode == 0
    assert "reason=StepFailed" in done.stderr
    assert (pod.word, (pod.shared / "posted").exists(), stored(pod)) == ("run", False, False)


def test_signalled_by_argo_after_main_ended_it_gives_up_the_check_and_stores(pod) -> None:
    """Entrypoints that waited too long ran the step while the check was hanging."""
    process = capture(pod, checker(pod, before_claim=f"touch here; {NEVER}"), *SIDECAR)
    pod.wait_for("here")
    for name in ("main", "wait"):
        assert pod.run("-t", 1, "-r", name, "--", "true").returncode == 0
    process.terminate()
    assert pod.end(process).returncode == 0
    assert (pod.word, stored(pod)) == ("run", True)


def test_no_signal_cuts_a_retraction_short(pod) -> None:
    command = checker(pod, posted="kill -9 $$", retracting="touch here; while test ! -e go; do :; done")
    process = capture(pod, command, *SIDECAR)
    pod.wait_for("here")
    for _ in range(3):  # Argo asks with every reconcile
        process.terminate()
        pod.waiting(process)
    assert pod.word is None
    (pod.shared / "go").touch()
    assert pod.end(process).returncode == 0
    assert (pod.word, (pod.shared / "posted").exists()) == ("run", False)


def test_the_runtime_ends_the_wait_after_the_check(pod, own_namespace, waiting_entrypoint) -> None:
    write(pod, "run")
    waiting_entrypoint("main")
    process = capture(pod, checker(pod, "run"), *SIDECAR, prefix=own_namespace)
    entrypoint = pod.inner(process)
    pod.until(lambda: pod.holds_signals(entrypoint) and not pod.children(entrypoint), "the check to end")
    os.kill(entrypoint, signal.SIGTERM)
    assert "reason=Stopped" in pod.end(process).stderr


@pytest.mark.parametrize("word", ["hit", "run"])
@pytest.mark.parametrize("sender", ["argo", "runtime"])
def test_signals_at_any_moment_leave_one_word_and_no_false_result(pod, own_namespace, sender, word) -> None:
    """Again and again from a moment on that is another one each time; what is there before may be dropped."""
    for turn in range(12):
        prefix = own_namespace if sender == "runtime" else ()
        command = checker(pod, word, before_claim="while test ! -e go; do :; done")
        process = capture(pod, command, *SIDECAR, prefix=prefix)
        entrypoint = pod.inner(process) if prefix else process.pid
        pod.until(lambda entrypoint=entrypoint: pod.blocks_signals(entrypoint), "signals to be held")
        (pod.shared / "go").touch()
        start = time.monotonic()
        pod.until(lambda s=start, t=turn: time.monotonic() >= s + t / 2000, "its moment")
        while process.poll() is None:
            try:
                os.kill(entrypoint, signal.SIGTERM)
            except ProcessLookupError:
                break
        assert pod.end(process).returncode == 0
        assert pod.word in {word, "run"}
        assert word == "run" or (pod.shared / "posted").exists() == (pod.word == "hit")
        assert not stored(pod)
        assert pod.leftovers() == []
        for path in pod.shared.iterdir():
            path.unlink()


# --- Python, as it can go wrong -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "import os; os.kill(os.getpid(), 11)",
        "import os; os.kill(os.getpid(), 9)",
        "kept = []\nwhile True: kept.append(bytearray(1 << 20))",
        "while True: pass",
        "import signal\nsignal.signal(15, signal.SIG_IGN)\nwhile True: signal.pause()",
    ],
    ids=["segfault", "oom-kill", "memory-error", "busy", "deaf"],
)
def test_whatever_python_does_the_step_runs_unharmed_and_the_sidecar_exits_0(pod, text: str) -> None:
    (pod.root / "work.py").write_text(text)
    entrypoints = [pod.start(*PATIENT, "-r", name, "--", "echo", "ran") for name in ("main", "wait")]
    python = (sys.executable, "-S", "-E", "-B", str(pod.root / "work.py"))
    sidecar = capture(pod, python, "-t", 300, "-m", 64, *SIDECAR, check_ms=300)
    assert [pod.end(entrypoint).stdout for entrypoint in entrypoints] == ["ran\n", "ran\n"]
    done = pod.end(sidecar)
    assert done.returncode == 0
    assert done.stderr.count("reason=Undecided the check") == 1
