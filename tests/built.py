"""Runs a program of tools/ that is built from its Go module, or skips the test where it is not built."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

_TOOLS = Path(__file__).parents[1] / "tools"


def run(tool: str, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """What it says, and its exit code; `given` is its standard input.

    Skips the test where nothing has been built, and fails it instead where STEPMEMO_REQUIRE_… is 1.
    """
    if not _is_built(tool):
        missing = f"no {tool}: tools/{tool} build"
        if os.environ.get(f"STEPMEMO_REQUIRE_{tool.upper()}") == "1":
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    command = [sys.executable, _TOOLS / tool, "run", *arguments]
    return subprocess.run(command, input=given, capture_output=True, text=True, check=False)


@cache
def _is_built(tool: str) -> bool:
    return subprocess.run([sys.executable, _TOOLS / tool, "built"], check=False).returncode == 0
