"""`entrypoint -r NAME -- COMMAND…`: staying the parent of a container's command."""

import fcntl
import os
import resource
import signal
import stat
import subprocess
import termios
from pathlib import Path

import pytest

TRAP = "trap 'echo caught; exit 9' {}; touch {}/ready; while :; do :; done"


def lock_is_free(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 64", 64), ("exit 255", 255), ("kill -9 $$", 137), ("kill -SEGV $$", 139)],
)
def test_the_exit_code_is_recorded_and_passed_on(pod, script: str, code: int) -> None:
    done = pod.run("-r", "wait", "--", "sh", "-c", f"echo ran; {script}", umask=0o077)
    assert (done.returncode, done.stdout, done.stderr) == (code, "ran\n", "")
    record = pod.shared / "exit-wait"
    assert record.read_text() == str(code)
    assert stat.S_IMODE(record.stat().st_mode) == 0o644
    assert stat.S_IMODE((pod.shared / "lock-wait").stat().st_mode) == 0o644
    assert pod.leftovers() == []


def test_a_hit_exits_0_and_records_nothing(pod) -> None:
    pod.decide("hit")
    assert pod.run("-r", "wait", "--", "false").returncode == 0
    assert sorted(path.name for path in pod.shared.iterdir()) == [".decision", "claim", "decision"]


def test_the_lock_is_held_as_long_as_the_entrypoint_lives(pod) -> None:
    process = pod.start("-r", "wait", "--", "sh", "-c", f"touch {pod.shared}/ready; exec sleep 600")
    pod.wait_for("ready")
    lock = pod.shared / "lock-wait"
    assert not lock_is_free(lock)
    assert not (pod.shared / "exit-wait").exists()
    process.kill()
    pod.until(lambda: lock_is_free(lock), "the lock to be free")
    assert not (pod.shared / "exit-wait").exists()


def test_the_command_dies_with_an_entrypoint_that_is_killed(pod) -> None:
    script = f"echo $$ > {pod.shared}/.pid; mv {pod.shared}/.pid {pod.shared}/pid; exec sleep 600"
    process = pod.start("-r", "wait", "--", "sh", "-c", script)
    child = int(pod.wait_for("pid").read_text())
    process.kill()
    pod.until(
        lambda: not Path(f"/proc/{child}").exists() or pod.status(child, "State")[0] == "Z",
        "the command's end",
    )


@pytest.mark.parametrize(
    "name", ["HUP", "INT", "QUIT", "USR1", "USR2", "ALRM", "TERM", "WINCH", "CONT", "ABRT", "PIPE"]
)
def test_signals_are_passed_on(pod, name: str) -> None:
    process = pod.start("-r", "wait", "--", "sh", "-c", TRAP.format(name, pod.shared))
    pod.wait_for("ready")
    process.send_signal(signal.Signals[f"SIG{name}"])
    done = pod.end(process)
    assert (done.returncode, done.stdout) == (9, "caught\n")
    stopped = " stopped" * (name in ("HUP", "INT", "QUIT", "TERM"))
    assert (pod.shared / "exit-wait").read_text() == f"9{stopped}"


def test_a_command_that_a_signal_ends_is_recorded_as_128_and_the_signal(pod) -> None:
    process = pod.start("-r", "wait", "--", "sh", "-c", f"touch {pod.shared}/ready; exec sleep 600")
    pod.wait_for("ready")
    process.terminate()
    assert pod.end(process).returncode == 143
    assert (pod.shared / "exit-wait").read_text() == "143 stopped"


def test_a_command_that_stops_and_goes_on_has_not_ended(pod) -> None:
    script = f"touch {pod.shared}/ready; kill -STOP $$; exit 4"
    process = pod.start("-r", "wait", "--", "sh", "-c", f"echo $$ > {pod.shared}/pid; {script}")
    pod.wait_for("ready")
    child = int((pod.shared / "pid").read_text())
    pod.until(lambda: pod.status(child, "State")[0] == "T", "the command to stop")
    assert process.poll() is None
    os.kill(child, signal.SIGCONT)
    assert pod.end(process).returncode == 4


def test_the_command_gets_its_signals_as_they_were(pod) -> None:
    show = ["grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"]
    assert pod.run("-r", "wait", "--", *show).stdout == pod.run("--", *show).stdout


def test_a_command_that_is_not_there_is_127(pod) -> None:
    done = pod.run("-r", "wait", "--", "/no/such/argoexec", "wait")
    assert (done.returncode, (pod.shared / "exit-wait").read_text()) == (127, "127")
    assert done.stderr.startswith("stepmemo: cannot run /no/such/argoexec: ")


# --- At a terminal ---------------------------------------------------------------------------------------


def at_a_terminal(pod, *command: str) -> tuple[int, subprocess.Popen[str]]:
    """A container with `tty: true`: the entrypoint leads the session; its command may use the terminal."""
    ours, theirs = os.openpty()
    options = {"start_new_session": True, "preexec_fn": lambda: fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)}
    process = subprocess.Popen(
        [pod.entrypoint, "-r", "main", "--", *command],
        env=pod.environment({}),
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    os.close(theirs)
    pod.processes.append(process)
    return ours, process


def test_the_command_may_set_and_read_the_terminal(pod) -> None:
    ours, process = at_a_terminal(pod, "sh", "-c", 'stty -echo; read line; echo "got $line"; exit 3')
    os.write(ours, b"hello\n")
    done = pod.end(process)
    os.close(ours)
    assert (done.returncode, done.stdout) == (3, "got hello\n")


def test_a_signal_of_the_terminal_reaches_the_command_once(pod) -> None:
    count = (
        "trap 'echo caught; n=x$n' INT; touch ready;"
        " while test -z $n || test ! -e go; do sleep 0.01; done; exit 0"
    )
    ours, process = at_a_terminal(pod, "sh", "-c", f"cd {pod.shared}; {count}")
    pod.wait_for("ready")
    os.write(ours, b"\x03")
    assert process.stdout.readline() == "caught\n"
    pod.waiting(process)
    (pod.shared / "go").touch()
    done = pod.end(process)
    os.close(ours)
    assert (done.returncode, done.stdout) == (0, "")


# --- As PID 1 ---------------------------------------------------------------------------------------------


def test_the_runtime_can_stop_the_command(pod, own_namespace) -> None:
    process = pod.start("-r", "wait", "--", "sh", "-c", TRAP.format("TERM", pod.shared), prefix=own_namespace)
    pod.wait_for("ready")
    os.kill(pod.inner(process), signal.SIGTERM)
    assert pod.end(process).returncode == 9


def test_a_signal_that_pid_1_would_not_have_noticed_does_not_end_the_command(pod, own_namespace) -> None:
    """The kernel drops what PID 1 has no handler for: without us, a SIGTERM too early does no harm."""
    script = f"touch {pod.shared}/ready; while test ! -e {pod.shared}/go; do :; done; exit 5"
    process = pod.start("-r", "wait", "--", "sh", "-c", script, prefix=own_namespace)
    pod.wait_for("ready")
    entrypoint = pod.inner(process)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        os.kill(entrypoint, number)
    pod.until(lambda: pod.holds_signals(entrypoint), "the signals to be taken")
    (pod.shared / "go").touch()
    assert pod.end(process).returncode == 5


def test_orphans_are_reaped(pod, own_namespace) -> None:
    script = "orphan=$(sh -c 'sh -c : > /dev/null & echo $!'); while kill -0 $orphan; do :; done; exit 6"
    assert pod.run("-r", "wait", "--", "sh", "-c", script, prefix=own_namespace).returncode == 6


# --- When it cannot be recorded --------------------------------------------------------------------------


def test_the_command_runs_unrecorded_without_a_shared_directory(pod) -> None:
    pod.shared.rmdir()
    done = pod.run("-r", "wait", "--", "sh", "-c", "exit 3")
    assert done.returncode == 3
    assert "reason=OutputsFailed cannot lock the end of wait" in done.stderr
    assert "reason=OutputsFailed cannot record the end of wait" in done.stderr


def test_the_command_runs_unrecorded_where_no_process_can_be_started(pod) -> None:
    user = {"user": 65533, "group": 65533} if os.geteuid() == 0 else {}
    done = pod.run(
        *("-r", "wait", "--", "echo", "ran"),
        **user,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NPROC, (0, 0)),
    )
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert "reason=OutputsFailed cannot record the end of wait" in done.stderr
    assert lock_is_free(pod.shared / "lock-wait")
    assert not (pod.shared / "exit-wait").exists()
