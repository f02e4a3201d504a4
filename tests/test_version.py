"""One version, memoize.__version__. What the sidecar and the binary say has tests of its own."""

import importlib.metadata
import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import keeper.settings
import webhook.settings
from cli.__main__ import main
from memoize import __version__
from server.metrics import Metrics
from server.program import announce, user_agent

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "program",
    [
        lambda: webhook.settings.parse(["--version"], {}),
        lambda: keeper.settings.parse(["--version"], {}),
        lambda: main(["--version"]),
    ],
    ids=["webhook", "keeper", "stepmemo"],
)
def test_each_program_says_it(program: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        program()
    assert (ended.value.code, capsys.readouterr().out) == (0, f"stepmemo {__version__}\n")


def test_the_package_the_image_and_charts_have_it() -> None:
    assert importlib.metadata.version("stepmemo") == __version__, "make: what is installed is of before"
    labels = re.findall(r"image\.version=(\S+)", (ROOT / "Containerfile").read_text())
    charts = [yaml.safe_load(chart.read_text()) for chart in ROOT.glob("manifests/**/Chart.yaml")]
    assert {*labels, *(str(chart["appVersion"]) for chart in charts)} == {__version__}


def test_log_metrics_and_user_agent_have_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    announce("keeper")
    (line,) = caplog.records
    assert line.fields["version"] == __version__  # type: ignore[attr-defined]
    shown = Metrics().render().decode()
    assert re.search(rf'^stepmemo_build_info{{.*version="{__version__}"}} 1.0$', shown, re.MULTILINE)
    assert user_agent("keeper") == f"stepmemo-keeper/{__version__}"
