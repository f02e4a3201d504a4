"""Runs Prometheus' promtool (tools/promtool), or skips the test where it is not built."""

from tests import built


def run(*arguments: str, given: str = "") -> None:
    """Fail with its words where it does; `given` is its standard input."""
    done = built.run("promtool", *arguments, given=given)
    assert done.returncode == 0, done.stdout + done.stderr
