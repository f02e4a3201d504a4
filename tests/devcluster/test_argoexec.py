"""The stand-in executor: the files it leaves for its siblings, and what it makes of a container's end."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from devcluster import argoexec
from tests.waiting import PATIENCE

PROGRAM = Path(argoexec.__file__)


class Pod:
    """The directories of a Pod, below one root, and its containers run one at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for directory in ("var/run/argo", "argo/staging", "argo/inputs/artifacts", "image"):
            (root / directory).mkdir(parents=True)
        shutil.copy(PROGRAM, root / "image/argoexec.py")
        (root / "image/argoexec").write_text("launcher")

    @property
    def argo(self) -> Path:
        return self.root / "var/run/argo"

    def start(self, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
        environment = {"PATH": os.defpath, "DEVCLUSTER_ROOT": str(self.root)} | variables
        command = [sys.executable, "-S", "-E", "-B", str(self.root / "image/argoexec.py"), *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, env=environment, text=True, **pipes)  # type: ignore[call-overload, no-any-return]

    def run(self, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        process = self.start(*arguments, **variables)
        stdout, stderr = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)

    def init(self, **template: Any) -> "subprocess.CompletedProcess[str]":
        return self.run("init", ARGO_TEMPLATE=json.dumps({"name": "t"} | template))

    def emissary(self, script: str, name: str = "main") -> "subprocess.CompletedProcess[str]":
        return self.run("emissary", "--", "sh", "-c", script, ARGO_CONTAINER_NAME=name)

    def read(self, path: str) -> str:
        return (self.argo / path).read_text()


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(tmp_path / "root")


def test_init_leaves_the_executor_the_template_the_script_and_the_inputs(pod: Pod) -> None:
    raw = {"name": "in", "path": "/in", "raw": {"data": "text"}}
    assert pod.init(script={"source": "echo 1"}, inputs={"artifacts": [raw]}).returncode == 0

    assert (pod.read("argoexec"), pod.read("argoexec.py")) == ("launcher", PROGRAM.read_text())
    assert json.loads(pod.read("template"))["name"] == "t"
    assert (pod.root / "argo/staging/script").read_text() == "echo 1"
    assert (pod.root / "argo/inputs/artifacts/in").read_text() == "text"


def test_init_fails_where_an_input_is_nowhere(pod: Pod) -> None:
    init = pod.init(inputs={"artifacts": [{"name": "in", "path": "/in"}]})

    assert init.returncode == argoexec.EXECUTOR_ERROR
    assert "in has no source" in init.stderr


@pytest.mark.parametrize(
    ("script", "code"), [("true", 0), ("exit 3", 3), ("kill -9 $$", 137), ("kill $$", 143)]
)
def test_the_emissary_ends_as_its_command_does_and_says_so_in_a_file(
    pod: Pod, script: str, code: int
) -> None:
    pod.init()

    assert pod.emissary(script).returncode == code

    assert pod.read("ctr/main/exitcode") == str(code)


def test_a_command_that_is_not_there_ends_with_the_executors_own_code(pod: Pod) -> None:
    pod.init()
    run = pod.run("emissary", "--", "/no/such/program", ARGO_CONTAINER_NAME="main")

    assert (run.returncode, pod.read("ctr/main/exitcode")) == (64, "64")
    assert "No such file" in run.stderr


def test_standard_output_is_printed_and_kept(pod: Pod) -> None:
    pod.init()
    run = pod.emissary("echo out; echo err >&2")

    assert (run.stdout, run.stderr, pod.read("ctr/main/stdout")) == ("out\n", "err\n", "out\n")


def test_main_leaves_its_outputs_for_wait_before_its_exit_code(pod: Pod, tmp_path: Path) -> None:
    file, directory = tmp_path / "file", tmp_path / "directory"
    outputs = {
        "parameters": [
            {"name": "p", "valueFrom": {"path": str(file)}},
            {"name": "none", "valueFrom": {"path": "/none"}},
        ],
        "artifacts": [{"name": "a", "path": str(directory)}],
    }
    pod.init(outputs=outputs)
    pod.emissary(f"echo value > {file}; mkdir {directory}; echo deep > {directory}/x")

    assert pod.read("outputs/parameters/p") == "value\n"
    assert pod.read("outputs/artifacts/a/x") == "deep\n"
    assert not (pod.argo / "outputs/parameters/none").exists()


def test_another_container_leaves_no_outputs(pod: Pod, tmp_path: Path) -> None:
    pod.init(outputs={"parameters": [{"name": "p", "valueFrom": {"path": str(tmp_path / "file")}}]})
    pod.emissary(f"echo x > {tmp_path}/file", name="sidecar")

    assert pod.read("ctr/sidecar/exitcode") == "0"
    assert list((pod.argo / "outputs").iterdir()) == []


def test_a_signal_reaches_everything_that_the_command_started(pod: Pod) -> None:
    pod.init()
    script = "sh -c 'trap \"echo child; exit\" TERM; echo up; while :; do sleep 0.01; done'; exit 5"
    process = pod.start("emissary", "--", "sh", "-c", f"trap : TERM; {script}", ARGO_CONTAINER_NAME="main")
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"

    process.terminate()

    assert process.communicate(timeout=PATIENCE)[0] == "child\n"
    assert (process.returncode, pod.read("ctr/main/exitcode")) == (5, "5")


def test_it_says_how_it_is_used(pod: Pod) -> None:
    assert "usage" in pod.run("nonsense").stderr
