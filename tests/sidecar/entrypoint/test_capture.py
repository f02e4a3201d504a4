"""`entrypoint capture`: the sidecar, with scripts in Python's place."""

import os
import resource
import signal
import sys
import time

import pytest

WAITED = ("-M", "main", "-w", "wait")
NEVER = "exec sleep 600"


@pytest.fixture
def stored(pod):
    """A command that leaves a trace of having run."""
    return pod.script('echo "$1" >> stored')


def start(pod, *arguments, command, **options):
    return pod.waiting(pod.start("capture", *arguments, "--", *command, **options))


def traces(pod) -> list[str]:
    path = pod.shared / "stored"
    return path.read_text().split() if path.exists() else []


def left(pod, process, reason: str) -> None:
    """The sidecar left on its own, without storing, and said why once."""
    done = pod.end(process)
    assert (done.returncode, traces(pod)) == (0, [])
    assert done.stderr.startswith(f"stepmemo: reason={reason} ")
    assert done.stderr.count("\n") == 1


# --- Storing ------------------------------------------------------------------------------------------


def test_it_stores_when_main_and_wait_have_ended_with_0(pod, stored) -> None:
    process = start(pod, *WAITED, command=stored)
    pod.end_main("0")
    pod.end_wait("0")
    done = pod.end(process)
    assert (done.returncode, done.stderr, traces(pod)) == (0, "", ["capture"])


def test_it_stores_what_had_ended_before_it_started(pod, stored) -> None:
    pod.end_wait("0")
    pod.end_main("0\n")
    assert pod.run("capture", *WAITED, "--", *stored).returncode == 0
    assert traces(pod) == ["capture"]


def test_it_does_not_store_before_wait_has_ended(pod, stored, waiting_entrypoint) -> None:
    wait = waiting_entrypoint()
    process = start(pod, *WAITED, command=stored)
    pod.end_main("0")
    pod.waiting(process)
    assert traces(pod) == []
    wait.terminate()
    left(pod, process, "OutputsFailed")


def test_without_a_wait_container_it_stores_after_main(pod, stored) -> None:
    process = start(pod, "-M", "main", command=stored)
    pod.end_main("0")
    assert pod.end(process).returncode == 0
    assert traces(pod) == ["capture"]


def test_it_waits_for_every_main_container(pod, stored) -> None:
    pod.end_wait("0")
    process = start(pod, "-M", "a", "-M", "b", "-M", "c", "-w", "wait", command=stored)
    for name in ("b", "a"):
        pod.end_main("0", name)
        pod.waiting(process)
        assert traces(pod) == []
    pod.end_main("0", "c")
    assert pod.end(process).returncode == 0
    assert traces(pod) == ["capture"]


def test_it_waits_for_every_sidecar_of_the_step(pod, stored, waiting_entrypoint) -> None:
    """They fail the node too, and are there until Argo has seen main end."""
    sidecar = waiting_entrypoint("db")
    process = start(pod, *WAITED, "-s", "db", command=stored)
    pod.end_wait("0")
    pod.end_main("0")
    pod.waiting(process)
    assert traces(pod) == []
    sidecar.terminate()
    assert pod.end(sidecar).returncode == 143
    assert pod.end(process).returncode == 0
    assert traces(pod) == ["capture"]


@pytest.mark.parametrize("name", ["main", "wait", "db"])
def test_only_main_must_not_have_been_told_to_stop(pod, stored, name: str) -> None:
    """Argo signals what still runs after main; main itself only when the workflow is stopped."""
    for other in ("main", "wait", "db"):
        pod.end_main("0 stopped" if other == name else "0", other)
    assert pod.run("capture", *WAITED, "-s", "db", "--", *stored).returncode == 0
    assert traces(pod) == ([] if name == "main" else ["capture"])


@pytest.mark.parametrize("code", ["0", "137", "143", "143 stopped"])
def test_a_sidecar_may_be_ended_by_a_signal(pod, stored, code: str) -> None:
    for name in ("main", "wait"):
        pod.end_main("0", name)
    pod.end_main(code, "db")
    assert pod.run("capture", *WAITED, "-s", "db", "--", *stored).returncode == 0
    assert traces(pod) == ["capture"]


def test_a_sidecar_may_be_killed_with_its_entrypoint(pod, stored, waiting_entrypoint) -> None:
    sidecar = waiting_entrypoint("db")
    process = start(pod, "-M", "main", "-s", "db", command=stored)
    pod.end_main("0")
    pod.waiting(process)
    sidecar.kill()
    assert pod.end(process).returncode == 0
    assert traces(pod) == ["capture"]


def test_no_exit_code_is_ever_missed(pod, stored) -> None:
    """The file appears while the sidecar is at any point of its start."""
    for turn in range(60):
        process = pod.start("capture", "-M", f"main{turn}", "--", *stored)
        moment = time.perf_counter() + turn * 50e-6
        while time.perf_counter() < moment:
            pass
        pod.end_main("0", f"main{turn}")
        assert pod.end(process).returncode == 0
        assert len(traces(pod)) == turn + 1


def test_it_stores_though_nothing_can_be_watched(pod, stored, own_inotify_limit) -> None:
    process = pod.start("capture", "-M", "main", "--", *stored, prefix=own_inotify_limit)
    pod.until(lambda: pod.holds_signals(process.pid), "the entrypoint to wait")
    pod.end_main("0")
    assert pod.end(process).returncode == 0
    assert traces(pod) == ["capture"]


# --- Leaving ------------------------------------------------------------------------------------------


def test_a_hit_is_nothing_to_store(pod, stored) -> None:
    pod.decide("hit")
    left(pod, pod.start("capture", *WAITED, "--", *stored), "Hit")


def test_a_hit_that_is_decided_while_it_waits_is_nothing_to_store(pod, stored) -> None:
    process = start(pod, *WAITED, command=stored)
    pod.decide("hit")
    left(pod, process, "Hit")


@pytest.mark.parametrize("code", ["1", "64", "137", "garbage", "0 stopped"])
def test_a_failed_main_container_ends_it_at_once(pod, stored, code: str) -> None:
    process = start(pod, "-M", "a", "-M", "b", "-w", "wait", command=stored)
    pod.end_main(code, "b")
    left(pod, process, "StepFailed")


def test_a_failed_wait_container_ends_it_at_once(pod, stored) -> None:
    pod.end_main("0")
    process = start(pod, *WAITED, command=stored)
    pod.end_wait("64")
    left(pod, process, "OutputsFailed")


@pytest.mark.parametrize("code", ["1", "2", "64", "139"])
def test_a_failed_sidecar_of_the_step_ends_it_at_once(pod, stored, code: str) -> None:
    process = start(pod, *WAITED, "-s", "db", command=stored)
    pod.end_main(code, "db")
    left(pod, process, "StepFailed")


def test_a_killed_main_container_ends_it_at_once(pod, stored, waiting_entrypoint) -> None:
    main = waiting_entrypoint("main")
    process = start(pod, *WAITED, command=stored)
    main.kill()
    left(pod, process, "StepFailed")


@pytest.mark.parametrize("ended", [False, True])
def test_a_killed_wait_container_ends_it_at_once(pod, stored, waiting_entrypoint, ended: bool) -> None:
    wait = waiting_entrypoint()
    process = start(pod, *WAITED, command=stored)
    if ended:
        pod.end_main("0")
    pod.waiting(process)
    wait.kill()
    left(pod, process, "OutputsFailed")


def test_a_wait_container_that_ends_is_never_taken_for_killed(pod, stored) -> None:
    pod.end_main("0")
    for turn in range(40):
        sidecar = pod.start("capture", *WAITED, "--", *stored)
        wait = pod.start("-r", "wait", "--", "true")
        assert pod.end(wait).returncode == 0
        assert pod.end(sidecar).stderr == ""
        assert len(traces(pod)) == turn + 1
        (pod.shared / "exit-wait").unlink()
        (pod.shared / "lock-wait").unlink()


# --- Signals --------------------------------------------------------------------------------------------


def test_argo_is_obeyed_while_main_has_no_exit_code(pod, stored, waiting_entrypoint) -> None:
    waiting_entrypoint("main")
    process = start(pod, *WAITED, command=stored)
    process.terminate()
    left(pod, process, "StepFailed")


def test_argo_is_not_obeyed_when_main_succeeded_and_wait_is_at_work(pod, stored, waiting_entrypoint) -> None:
    waiting_entrypoint()
    pod.end_main("0")
    process = start(pod, *WAITED, command=stored)
    process.terminate()
    pod.waiting(process)
    pod.end_wait("0")
    assert pod.end(process).returncode == 0
    assert traces(pod) == ["capture"]


def test_argo_does_not_end_the_storing(pod) -> None:
    command = pod.script("touch here; while test ! -e go; do :; done; echo done >> stored")
    pod.end_main("0")
    process = pod.start("capture", "-t", 60_000, "-M", "main", "--", *command)
    pod.wait_for("here")
    process.terminate()
    pod.waiting(process)
    (pod.shared / "go").touch()
    assert pod.end(process).returncode == 0
    assert traces(pod) == ["done"]


@pytest.mark.parametrize("name", ["USR1", "WINCH", "CONT", "PIPE", "ALRM", "CHLD"])
def test_other_signals_change_nothing(pod, stored, name: str) -> None:
    process = start(pod, "-M", "main", command=stored)
    process.send_signal(signal.Signals[f"SIG{name}"])
    pod.waiting(process)
    pod.end_main("0")
    assert pod.end(process).returncode == 0
    assert traces(pod) == ["capture"]


@pytest.mark.parametrize("ended", [False, True])
def test_the_runtime_is_obeyed_at_once(pod, stored, own_namespace, waiting_entrypoint, ended: bool) -> None:
    waiting_entrypoint()
    if ended:
        pod.end_main("0")
    process = pod.start("capture", *WAITED, "--", *stored, prefix=own_namespace)
    entrypoint = pod.inner(process)
    pod.until(lambda: pod.holds_signals(entrypoint), "the entrypoint to wait")
    os.kill(entrypoint, signal.SIGTERM)
    left(pod, process, "Stopped")


def test_the_runtime_ends_the_storing(pod, own_namespace) -> None:
    pod.end_main("0")
    command = pod.script(f"touch here; {NEVER}")
    process = pod.start("capture", "-t", 60_000, "-M", "main", "--", *command, prefix=own_namespace)
    pod.wait_for("here")
    os.kill(pod.inner(process), signal.SIGTERM)
    left(pod, process, "Stopped")


def test_a_signal_from_inside_the_container_is_argos(pod, stored, own_namespace, waiting_entrypoint) -> None:
    """`argoexec kill 15 1` runs in our PID namespace, entered like `kubectl exec` does; here it is `kill`."""
    waiting_entrypoint()
    pod.end_main("0")
    process = pod.start("capture", *WAITED, "--", *stored, prefix=own_namespace)
    entrypoint = pod.inner(process)
    pod.until(lambda: pod.holds_signals(entrypoint), "the entrypoint to wait")
    pod.enter(entrypoint, "kill", "-TERM", "1")
    pod.until(lambda: pod.holds_signals(entrypoint), "the signal to be taken")
    pod.enter(entrypoint, "kill", "-KILL", "1")
    pod.end_wait("0")
    assert pod.end(process).returncode == 0
    assert traces(pod) == ["capture"]


# --- Python, as it can go wrong ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise SystemExit(1)", "InternalError the capture ended with exit code 1"),
        ("import os; os.kill(os.getpid(), 11)", "InternalError the capture ended with exit code 139"),
        ("import os; os.kill(os.getpid(), 9)", "InternalError the capture ended with exit code 137"),
        ("while True: pass", "ApiUnavailable the capture took too long"),
        (
            "x = []\nwhile True: x.append(bytearray(1 << 20))",
            "InternalError the capture ended with exit code 1",
        ),
    ],
)
def test_it_exits_0_whatever_python_does(pod, text: str, reason: str) -> None:
    pod.end_main("0")
    script = pod.root / "work.py"
    script.write_text(text)
    limit = 700 if "too long" in reason else 20_000
    done = pod.run("capture", "-t", limit, "-m", 64, "-M", "main", "--", sys.executable, "-S", "-E", script)
    assert done.returncode == 0
    assert f"stepmemo: reason={reason}" in done.stderr


def test_it_exits_0_where_python_cannot_be_started(pod, stored) -> None:
    pod.end_main("0")
    user = {"user": 65533, "group": 65533} if os.geteuid() == 0 else {}
    done = pod.run(
        *("capture", "-M", "main", "--", *stored),
        **user,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NPROC, (0, 0)),
    )
    assert done.returncode == 0
    assert "reason=InternalError the capture could not be started" in done.stderr


@pytest.mark.parametrize("arguments", [[], ["-M"], ["-z", "1", "--", "true"], ["-r", "wait", "--", "true"]])
def test_a_wrong_command_line_exits_0(pod, arguments) -> None:
    assert pod.run("capture", *arguments).returncode == 0


# --- What it costs ------------------------------------------------------------------------------------


def test_a_waiting_sidecar_holds_less_than_a_mebibyte_and_wakes_up_once_in_ten_seconds(
    pod, stored, waiting_entrypoint
) -> None:
    """At any time of its wait: before main starts, beside it, after a check, and while `wait` uploads."""
    sidecars = [start(pod, *WAITED, command=stored)]
    waiting_entrypoint("main")
    waiting_entrypoint("wait")
    sidecars.append(start(pod, *WAITED, command=stored))
    checked = pod.start("capture", "-c", 60_000, *WAITED, "--", *stored)
    pod.until(lambda: pod.word, "the check to be over")
    sidecars.append(pod.waiting(checked))
    uploading = start(pod, "-M", "a", "-w", "wait", command=stored)
    pod.end_main("0", "a")
    sidecars.append(pod.waiting(uploading))

    begun = time.monotonic()
    before = [wake_ups(pod, pod.waiting(process).pid) for process in sidecars]
    time.sleep(10)  # what is measured is this time
    assert all(process.poll() is None for process in sidecars)
    woken = [wake_ups(pod, process.pid) - n for process, n in zip(sidecars, before, strict=True)]
    assert max(woken) <= 1 + (time.monotonic() - begun) // 10, woken
    for process in sidecars:
        assert int(pod.status(process.pid, "VmRSS").split()[0]) <= 1024  # kB
        assert pod.status(process.pid, "Threads") == "1"


def wake_ups(pod, pid: int) -> int:
    """How often the process went to sleep: it woke up as often."""
    return int(pod.status(pid, "voluntary_ctxt_switches"))
