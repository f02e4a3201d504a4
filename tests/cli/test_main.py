import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.__main__ import main

ROOT = Path(__file__).parents[2]
EIGHT_MISTAKES = "tests/data/eight-mistakes.yaml"


def test_without_a_subcommand_the_usage_is_told(capsys):
    with pytest.raises(SystemExit) as exited:
        main([])
    assert exited.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["lint", "inject", "restore", "release"])
def test_every_subcommand_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as exited:
        main([command, "--help"])
    assert exited.value.code == 0
    assert f"usage: stepmemo {command}" in capsys.readouterr().out


def test_the_exit_code_is_the_subcommands():
    run = subprocess.run([sys.executable, "-m", "cli", "lint", EIGHT_MISTAKES], cwd=ROOT, capture_output=True)
    assert run.returncode == 1
    assert len(run.stdout.splitlines()) == 8


def test_a_reader_that_has_seen_enough_is_no_traceback():
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command = [sys.executable, "-m", "cli", "restore", EIGHT_MISTAKES]
        run = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writer)
    assert (run.returncode, run.stderr) == (1, b"")
