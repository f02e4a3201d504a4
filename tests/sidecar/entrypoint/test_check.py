"""`entrypoint check`: the init container, with scripts in Python's place."""

import os
import signal
import stat
import sys
from pathlib import Path

import pytest

CHECKER = """
case $1 in
check)
    {before_claim}
    (set -C; : > claim) 2>/dev/null || exit 0
    {before_post}
    touch posted
    {before_decision}
    printf hit > .decision
    {before_link}
    ln .decision decision || {{ rm -f posted; exit 1; }}
    {after_decision};;
retract)
    {in_retract}
    rm -f posted
    touch retracted;;
esac
"""
POINTS = ["before_claim", "before_post", "before_decision", "before_link", "after_decision"]
DEATHS = {"killed": "kill -9 $$", "segfault": "kill -SEGV $$", "error": "exit 1", "hang": "exec sleep 600"}
LIMITS = dict.fromkeys(DEATHS, 60_000) | {"hang": 2_000}
"""How long a check may take, in milliseconds: what does not hang is over before, however busy the machine."""


def checker(pod, **points: str) -> tuple[str, ...]:
    return pod.script(CHECKER.format(**{name: points.get(name, ":") for name in [*POINTS, "in_retract"]}))


def test_the_checkers_word_stands(pod) -> None:
    done = pod.run("check", "--", *checker(pod))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert pod.word == "hit"


def test_without_a_command_the_word_is_run(pod) -> None:
    done = pod.run("check")
    assert (done.returncode, done.stderr, pod.word) == (0, "", "run")
    assert (pod.shared / "claim").exists()
    assert pod.leftovers() == []


@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize("point", POINTS)
def test_a_checker_that_dies_at_any_point_leaves_one_word_and_no_false_result(
    pod, point: str, death: str
) -> None:
    done = pod.run("check", "-t", LIMITS[death], "--", *checker(pod, **{point: DEATHS[death]}))
    assert done.returncode == 0
    posted = (pod.shared / "posted").exists()
    assert (pod.word, posted) == (("hit", True) if point == "after_decision" else ("run", False))
    claimed = point not in ("before_claim", "after_decision")
    assert (pod.shared / "retracted").exists() == claimed
    assert ("reason=Undecided" in done.stderr) == (point != "after_decision")


@pytest.mark.parametrize("death", DEATHS)
def test_a_retraction_that_dies_does_not_keep_the_step_from_running(pod, death: str) -> None:
    script = checker(pod, before_decision="kill -9 $$", in_retract=DEATHS[death])
    done = pod.run("check", "-t", LIMITS[death], "--", *script)
    assert (done.returncode, pod.word) == (0, "run")
    assert done.stderr.count("reason=Undecided") == 2


def test_a_second_run_changes_nothing(pod) -> None:
    script = checker(pod)
    for _ in range(2):
        assert pod.run("check", "--", *script).returncode == 0
        assert pod.word == "hit"
    assert not (pod.shared / "retracted").exists()


def test_a_second_run_after_a_kill_between_claim_and_decision_retracts(pod) -> None:
    (pod.shared / "claim").touch()
    (pod.shared / "posted").touch()
    pod.run("check", "--", *checker(pod))
    assert pod.word == "run"
    assert not (pod.shared / "posted").exists()


# --- Python, as it can go wrong ------------------------------------------------------------------------


def python(pod, text: str) -> tuple[str, ...]:
    path = pod.root / "work.py"
    path.write_text(text)
    return (sys.executable, "-S", "-E", "-B", str(path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raise SystemExit(3)", "ended with exit code 3"),
        ("import os; os.kill(os.getpid(), 11)", "ended with exit code 139"),
        ("1 / 0", "ended with exit code 1"),
        ("import signal\nwhile True: signal.pause()", "took too long and was killed"),
        ("import os, signal; signal.signal(15, signal.SIG_IGN); os.kill(os.getpid(), 19)", "took too long"),
    ],
)
def test_the_step_runs_whatever_python_does(pod, text: str, said: str) -> None:
    limit = 500 if "too long" in said else 20_000
    done = pod.run("check", "-t", limit, "--", *python(pod, text))
    assert (done.returncode, pod.word) == (0, "run")
    assert f"stepmemo: reason=Undecided the check {said}" in done.stderr


def test_too_much_memory_is_an_error_in_python_and_not_a_kill(pod) -> None:
    hog = (
        "kept = []\ntry:\n while True: kept.append(bytearray(1 << 20))\nexcept MemoryError: print(len(kept))"
    )
    done = pod.run("check", "-t", 10_000, "-m", 40, "--", *python(pod, hog))
    assert done.returncode == 0
    assert 10 < int(done.stdout) <= 40


def test_python_that_is_not_there_is_said(pod) -> None:
    done = pod.run("check", "--", "/no/such/python3")
    assert (done.returncode, pod.word) == (0, "run")
    assert "cannot run /no/such/python3" in done.stderr


def test_python_gets_the_verb_and_its_time_and_everything_else_as_it_was(pod) -> None:
    tell = "import sys; print(sys.argv[1:], open('/proc/self/environ').read())"
    env = {"STEPMEMO_TIMEOUT_MS": "7", "STEPMEMO_TIMEOUT_MS_X": "kept"}
    verbs, _, variables = pod.run(
        "check", "-t", 1234, "--", *python(pod, tell), "-x", env=env
    ).stdout.partition("] ")
    assert verbs == "['-x', 'check'"
    expected = {**pod.environment(env), "STEPMEMO_TIMEOUT_MS": "1234"}
    assert sorted(variables.strip("\0\n").split("\0")) == sorted(f"{k}={v}" for k, v in expected.items())


def test_what_python_leaves_behind_dies_with_it_when_it_takes_too_long(pod) -> None:
    script = pod.script("sh -c 'echo $$ > orphan; exec sleep 600' & exec sleep 600")
    assert pod.run("check", "-t", 2_000, "--", *script).returncode == 0
    orphan = int((pod.shared / "orphan").read_text())
    pod.until(
        lambda: not Path(f"/proc/{orphan}").exists() or pod.status(orphan, "State")[0] == "Z", "the orphan"
    )


# --- Told to stop ------------------------------------------------------------------------------------


@pytest.mark.parametrize("claimed", [False, True])
def test_told_to_stop_it_kills_the_check_and_still_leaves_a_word(pod, claimed: bool) -> None:
    point = "before_decision" if claimed else "before_claim"
    script = checker(pod, **{point: "touch here; exec sleep 600"})
    process = pod.start("check", "-t", 60_000, "--", *script)
    pod.wait_for("here")
    process.terminate()
    done = pod.end(process)
    assert (done.returncode, pod.word) == (0, "run")
    assert "the check was killed: this Pod is being stopped" in done.stderr
    assert (pod.shared / "retracted").exists() == claimed
    assert not (pod.shared / "posted").exists()


def test_as_pid_1_it_does_the_same(pod, own_namespace) -> None:
    process = pod.start(
        "check",
        "-t",
        60_000,
        "--",
        *checker(pod, before_post="touch here; exec sleep 600"),
        prefix=own_namespace,
    )
    pod.wait_for("here")
    os.kill(pod.inner(process), signal.SIGTERM)
    assert pod.end(process).returncode == 0
    assert pod.word == "run"
    assert (pod.shared / "retracted").exists()


def test_the_check_dies_with_an_entrypoint_that_is_killed(pod) -> None:
    process = pod.start(
        "check", "-t", 60_000, "--", *pod.script("echo $$ > .pid; mv .pid pid; exec sleep 600")
    )
    child = int(pod.wait_for("pid").read_text())
    process.kill()
    pod.until(
        lambda: not Path(f"/proc/{child}").exists() or pod.status(child, "State")[0] == "Z", "the check's end"
    )
    assert pod.word is None


# --- The entrypoint in its place ------------------------------------------------------------------------


def test_the_entrypoint_is_there_for_all_users_whatever_the_umask(pod) -> None:
    pod.run("check", umask=0o077)
    installed = pod.bin / "entrypoint"
    assert installed.read_bytes() == pod.entrypoint.read_bytes()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in pod.shared.iterdir()}
    assert modes == {"decision": 0o644, "claim": 0o600}
    assert stat.S_IMODE(installed.stat().st_mode) == 0o755


def test_the_installed_entrypoint_works(pod) -> None:
    pod.run("check")
    pod.entrypoint = pod.bin / "entrypoint"
    assert pod.run("--", "echo", "ran").stdout == "ran\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_the_installed_entrypoint_works_for_other_users(pod) -> None:
    pod.run("check", umask=0o077, user=65532, group=65532)
    pod.entrypoint = pod.bin / "entrypoint"
    assert pod.run("--", "echo", "ran", user=1000, group=1000).stdout == "ran\n"


def test_the_entrypoint_replaces_itself_while_it_runs(pod) -> None:
    pod.run("check")
    pod.entrypoint = pod.bin / "entrypoint"
    assert pod.run("check").returncode == 0
    assert pod.entrypoint.read_bytes() == (pod.root / "image-entrypoint").read_bytes()


def test_the_entrypoint_finds_itself_without_proc(pod, own_mounts) -> None:
    done = pod.run("check", prefix=own_mounts("umount -l /proc"))
    assert (done.returncode, done.stderr) == (0, "")
    assert (pod.bin / "entrypoint").read_bytes() == pod.entrypoint.read_bytes()


@pytest.mark.parametrize("arguments", [["-x", "1"], ["-t"], ["-t", "soon"], ["-t", "1e3", "--", "true"]])
def test_a_wrong_command_line_still_lets_the_step_run(pod, arguments) -> None:
    done = pod.run("check", *arguments)
    assert (done.returncode, pod.word) == (0, "run")
    assert "reason=InternalError cannot understand" in done.stderr
    assert (pod.bin / "entrypoint").exists()


def test_no_directory_for_the_entrypoint_is_said_and_exits_0(pod) -> None:
    pod.bin.rmdir()
    done = pod.run("check", "--", "true")
    assert done.returncode == 0
    assert "reason=InternalError cannot put the entrypoint into" in done.stderr


@pytest.mark.parametrize(
    ("options", "cause"), [("size=4k", "No space left on device"), ("ro", "Read-only file system")]
)
def test_a_full_or_read_only_disk_is_said_and_exits_0(pod, own_mounts, options: str, cause: str) -> None:
    done = pod.run("check", prefix=own_mounts(f"mount -t tmpfs -o {options} none {pod.bin}"))
    assert done.returncode == 0
    assert f"reason=InternalError cannot put the entrypoint into {pod.bin}: {cause}" in done.stderr
