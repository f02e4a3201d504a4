"""The process: what the entrypoint runs, what it must survive, and what it must not need."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from argo import names as argo
from memoize import __version__, names
from memoize.reasons import Reason
from sidecar.__main__ import main
from tests.sidecar import faults
from tests.sidecar.faults import RESULTS, Fault
from tests.sidecar.steppod import Pod, have_entry

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, *names.SIDECAR_COMMAND[1:]]


def start(pod: Pod, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*COMMAND, *arguments], cwd=ROOT, env=pod.variables(), stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("arguments", [[], ["x"], ["check", "check"], ["--help"]])
def test_anything_but_one_verb_is_a_usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("usage: ")


def test_the_version_is_said():
    """By the process, which ends without a flush of its own."""
    ended = subprocess.run([*COMMAND, "--version"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == (f"stepmemo {__version__}\n", "")


@pytest.mark.parametrize("verb", ["check", "capture"])
def test_a_verb_is_one_process_with_one_line(pod: Pod, api: faults.Api, verb: str):
    have_entry(api)
    process = start(pod, verb)
    _, log = process.communicate()
    assert process.returncode == 0
    assert log.count("\n") == 1
    assert log.startswith("stepmemo: reason=")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (names.ENV_NAMESPACE, ""),
        (names.ENV_POD_UID, ""),
        ("KUBERNETES_SERVICE_HOST", ""),
        ("KUBERNETES_SERVICE_PORT", "https"),
    ],
)
def test_a_wrong_environment_is_named_and_nothing_is_decided(pod: Pod, name: str, value: str):
    pod.environment[name] = value
    ended = pod.run("check")
    assert ended.reason is Reason.INTERNAL_ERROR
    assert ended.code == 1
    assert name in ended.log
    assert list(pod.shared.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{}", "[]", '"x"', "{"])
def test_a_step_that_cannot_be_read_is_named_and_nothing_is_decided(
    pod: Pod, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], text: str
):
    for name, value in {**pod.variables(), names.ENV_STEP: text}.items():
        monkeypatch.setenv(name, value)
    assert main(["check"]) == 1
    assert capfd.readouterr().err.startswith("stepmemo: reason=InternalError ")
    assert list(pod.shared.iterdir()) == []


def test_shared_files_that_cannot_be_written_leave_the_word_to_the_entrypoint(pod: Pod, api: faults.Api):
    have_entry(api)
    pod.environment[names.ENV_SHARED_DIR] = str(pod.shared / "absent")
    ended = pod.run("check")
    assert ended.reason is Reason.INTERNAL_ERROR
    assert "FileNotFoundError at " in ended.log
    assert api.count("POST", RESULTS) == 0


def test_no_token_is_said_and_leaves_the_word_to_the_entrypoint(pod: Pod, tmp_path: Path):
    pod.environment[names.ENV_SERVICEACCOUNT_DIR] = str(tmp_path)
    assert "no service account credentials" in pod.run("check").log
    assert list(pod.shared.iterdir()) == []


def test_a_termination_log_that_is_not_there_is_not_made(pod: Pod):
    pod.termination_log.unlink()
    pod.run("check")
    assert not pod.termination_log.exists()


@pytest.mark.parametrize("applied", [True, False])
def test_a_checker_killed_while_it_posts_leaves_a_claim_and_the_retraction_keeps_its_result_out(
    pod: Pod, api: faults.Api, applied: bool
):
    have_entry(api)
    api.always("POST", RESULTS, Fault("hang", applied=applied))
    process = start(pod, "check")
    deadline = time.monotonic() + 20
    while not api.count("POST", RESULTS):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (pod.shared / names.CLAIM_FILE).exists()
    assert pod.decision == ""

    api.always("POST", RESULTS, faults.OK)
    assert "retracted" in pod.run("retract").log
    result = api.objects[RESULTS]["wf-123"]
    assert result["metadata"]["labels"][argo.OUTPUTS_COMPLETED] == "false"
    assert "outputs" not in result


def test_memory_that_runs_out_is_an_end_like_any_other(pod: Pod, api: faults.Api):
    have_entry(api)
    api.objects[faults.CONFIGMAPS]["my-cache"]["data"]["large"] = "\x00" * (2 << 20)
    code = (
        "import resource, sys; import sidecar.__main__ as m, sidecar.check, sidecar.events;"
        "used = int(open('/proc/self/statm').read().split()[5]) * resource.getpagesize();"
        "resource.setrlimit(resource.RLIMIT_DATA, (used + (6 << 20),) * 2);"
        "sys.exit(m.main(['check']))"
    )
    process = subprocess.run(
        [*COMMAND[:-2], "-c", code],
        cwd=ROOT,
        env=pod.variables(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.stderr.startswith("stepmemo: reason=InternalError "), process.stderr
    assert "MemoryError" in process.stderr
    assert pod.decision == ""


def test_nothing_installed_is_imported():
    code = (
        "import sys, sidecar.__main__, sidecar.check, sidecar.capture, sidecar.events;"
        "print([n for n, m in sys.modules.items() if 'site-packages' in (getattr(m, '__file__', '') or '')],"
        " sorted({'asyncio', 'logging', 'decimal', 'memoize.spec', 'subprocess'} & sys.modules.keys()))"
    )
    shown = subprocess.run([*COMMAND[:-2], "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout == "[] []\n"
