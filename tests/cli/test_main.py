import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.__main__ import main, make_parser

ROOT = Path(__file__).parents[2]
EIGHT_MISTAKES = "tests/data/eight-mistakes.yaml"


def test_without_a_subcommand_the_usage_is_told(capsys):
    with pytest.raises(SystemExit) as exited:
        main([])
    assert exited.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


COMMANDS = sorted(
    command
    for action in make_parser()._actions
    if isinstance(action, argparse._SubParsersAction)
    for command in action.choices
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_subcommand_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as exited:
        main([command, "--help"])
    assert exited.value.code == 0
    assert f"usage: stepmemo {command}" in capsys.readouterr().out


@pytest.mark.slow
def test_the_exit_code_is_the_subcommands():
    run = subprocess.run([sys.executable, "-m", "cli", "lint", EIGHT_MISTAKES], cwd=ROOT, capture_output=True)
    assert run.returncode == 1
    assert len(run.stdout.splitlines()) == 8


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_is_no_traceback():
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command = [sys.executable, "-m", "cli", "restore", EIGHT_MISTAKES]
        run = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writer)
    assert (run.returncode, run.stderr) == (1, b"")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["ca"], ["caches"]),
        (["caches", "-o", "j"], ["json"]),
        (["caches", "--all-n"], ["--all-namespaces"]),
        (["show", "a cache's", "x", "--o"], ["--output"]),
        (["entries", "--kubeconfig", "/no/such", "x"], []),
    ],
)
def test_kubectl_gets_completions_as_from_a_cobra_program(words, completed):
    program = "import sys; from cli.completion import kubectl; sys.exit(kubectl())"
    run = subprocess.run([sys.executable, "-c", program, *words], cwd=ROOT, capture_output=True, text=True)
    assert [word.strip() for word in run.stdout.splitlines()] == [*completed, ":4"]
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_script(shell, capsys):
    assert main(["completion", shell]) == 0
    assert "stepmemo" in capsys.readouterr().out


def test_without_the_extra_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "argcomplete.shell_integration", None)
    assert main(["completion", "bash"]) == 2
    assert capsys.readouterr().err == "stepmemo: argcomplete is missing: pip install 'stepmemo[cli]'\n"


def test_as_a_plugin_it_names_itself_as_it_was_called(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/kubectl-stepmemo"])
    with pytest.raises(SystemExit):
        main(["caches", "--help"])
    assert "usage: kubectl stepmemo caches" in capsys.readouterr().out
