"""Runs Prometheus' promtool (tools/promtool), or skips the test where it is not built."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "promtool"


def run(*arguments: str, given: str = "") -> None:
    """Fail with its words where it does; `given` is its standard input.

    Skips the test where nothing has been built, and fails it instead where STEPMEMO_REQUIRE_PROMTOOL is 1.
    """
    if subprocess.run([sys.executable, TOOL, "built"], check=False).returncode != 0:
        missing = "no promtool: tools/promtool build"
        if os.environ.get("STEPMEMO_REQUIRE_PROMTOOL") == "1":
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    done = subprocess.run(
        [sys.executable, TOOL, "run", *arguments], input=given, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
