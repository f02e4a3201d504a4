"""`entrypoint -- COMMAND…`: what stands in front of every command that Argo manages."""

import json
import os
import signal
import subprocess
import sys

import pytest


def test_a_hit_exits_0_without_the_command(pod) -> None:
    pod.decide("hit")
    done = pod.run("--", "sh", "-c", "echo ran")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "stepmemo: reason=Hit the step was answered from the cache; sh does not run\n"


@pytest.mark.parametrize("word", ["run", "run\n", "something else"])
def test_any_other_decision_runs_the_command(pod, word: str) -> None:
    pod.decide(word)
    done = pod.run("--", "sh", "-c", "echo ran; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "ran\n", "")


def test_an_entrypoint_that_is_first_decides_run(pod) -> None:
    done = pod.run("--", "sh", "-c", "echo ran")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ran\n", "")
    assert pod.word == "run"
    assert (pod.shared / "claim").exists()
    assert pod.leftovers() == []


def test_the_command_takes_the_process_over(pod) -> None:
    process = pod.start("--", "sh", "-c", "echo $$")
    assert pod.end(process).stdout == f"{process.pid}\n"


def test_the_command_gets_its_arguments_environment_and_files_as_they_were(pod) -> None:
    tell = (
        "import json, os, sys;"
        "mask = [l for l in open('/proc/self/status') if l.startswith(('SigBlk', 'SigIgn', 'Umask'))];"
        "print(json.dumps([sys.argv[1:], dict(os.environ), sorted(os.listdir('/proc/self/fd')), mask]))"
    )
    command = [sys.executable, "-S", "-c", tell, "", "a b", "--", "-r", "\n$x"]
    env = {"MINE": "1", "STEPMEMO_TIMEOUT_MS": "as it was", "EMPTY": ""}
    through = pod.run("--", *command, env=env, umask=0o027)
    plain = subprocess.run(
        command,
        env=pod.environment(env),
        umask=0o027,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(through.stdout) == json.loads(plain.stdout)


def test_a_name_without_a_slash_is_looked_up_in_the_containers_path(pod) -> None:
    for number, mode in enumerate([0o644, 0o755]):
        directory = pod.root / f"bin{number}"
        directory.mkdir()
        (directory / "tool").write_text(f"#!/bin/sh\necho {number} $0\n")
        (directory / "tool").chmod(mode)
    done = pod.run("--", "tool", env={"PATH": f"/nowhere:{pod.root}/bin0:{pod.root}/bin1"})
    assert done.stdout == f"1 {pod.root}/bin1/tool\n"


@pytest.mark.parametrize(
    ("content", "code", "cause"),
    [
        (None, 127, "No such file or directory"),
        (b"echo no interpreter\n", 126, "Exec format error"),
        (b"#!/no/such/interpreter\n", 127, "No such file or directory"),
    ],
)
def test_a_command_that_cannot_be_run_ends_like_in_a_shell(pod, content, code: int, cause: str) -> None:
    command = pod.root / "command"
    if content is not None:
        command.write_bytes(content)
        command.chmod(0o755)
    done = pod.run("--", command)
    assert (done.returncode, done.stderr) == (code, f"stepmemo: cannot run {command}: {cause}\n")


def test_a_command_without_the_right_to_run_is_126(pod) -> None:
    (pod.root / "command").write_text("")
    assert pod.run("--", pod.root / "command").returncode == 126


@pytest.mark.parametrize(
    "arguments", [[], ["--"], ["-r"], ["-r", "wait"], ["-x", "1", "--", "true"], ["true"]]
)
def test_a_wrong_command_line_is_a_usage_error(pod, arguments) -> None:
    assert pod.run(*arguments).returncode == 2


# --- When stepmemo's own files are of no use, the step runs ------------------------------------------


def test_the_command_runs_without_a_shared_directory(pod) -> None:
    pod.shared.rmdir()
    done = pod.run("--", "echo", "ran")
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert "reason=InternalError" in done.stderr


def test_the_command_runs_with_a_shared_directory_of_an_absurd_name(pod) -> None:
    done = pod.run("--", "echo", "ran", env={"STEPMEMO_SHARED_DIR": "/x" * 3000})
    assert (done.returncode, done.stdout) == (0, "ran\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_the_command_runs_where_the_user_may_not_write(pod) -> None:
    pod.shared.chmod(0o755)
    done = pod.run("--", "echo", "ran", user=65534)
    assert (done.returncode, done.stdout) == (0, "ran\n")


def test_a_decision_that_is_no_file_runs_the_command(pod) -> None:
    os.mkfifo(pod.shared / "decision")
    assert pod.run("--", "echo", "ran").stdout == "ran\n"


# --- Waiting for the owner of the claim --------------------------------------------------------------


@pytest.mark.parametrize(("word", "out"), [("hit", ""), ("run", "ran\n")])
def test_an_entrypoint_waits_for_the_word_of_whoever_has_the_claim(pod, word: str, out: str) -> None:
    (pod.shared / "claim").touch()
    process = pod.waiting(pod.start("--", "echo", "ran"))
    (pod.shared / ".aside").write_text(word)
    os.link(pod.shared / ".aside", pod.shared / "decision")
    assert pod.end(process).stdout == out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP])
def test_an_entrypoint_that_waits_can_be_stopped(pod, number: signal.Signals) -> None:
    (pod.shared / "claim").touch()
    process = pod.waiting(pod.start("--", "echo", "ran"))
    process.send_signal(number)
    done = pod.end(process)
    assert (done.returncode, done.stdout) == (128 + number, "")
    assert "reason=Stopped" in done.stderr


def test_an_entrypoint_that_waits_as_pid_1_can_be_stopped(pod, own_namespace) -> None:
    (pod.shared / "claim").touch()
    process = pod.start("--", "echo", "ran", prefix=own_namespace)
    pid = pod.inner(process)
    pod.until(lambda: pod.holds_signals(pid), "the entrypoint to wait")
    os.kill(pid, signal.SIGTERM)
    assert pod.end(process).returncode == 128 + signal.SIGTERM


def test_the_command_gets_its_signals_back_after_the_wait(pod) -> None:
    (pod.shared / "claim").touch()
    process = pod.waiting(pod.start("--", "grep", "-E", "Sig(Blk|Ign|Pnd)", "/proc/self/status"))
    process.send_signal(signal.SIGUSR1)  # PID 1 would have dropped it
    process.send_signal(signal.SIGWINCH)
    (pod.shared / ".aside").write_text("run")
    os.link(pod.shared / ".aside", pod.shared / "decision")
    plain = pod.run("--", "grep", "-E", "Sig(Blk|Ign|Pnd)", "/proc/self/status")
    assert pod.end(process).stdout == plain.stdout
