"""The demo: it shows what it promises, says so when it does not, and leaves nothing behind."""

import asyncio
import io
import os
import re
import signal
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from argo import names as argo
from devcluster import demo
from devcluster.demo import BrokenPromiseError, Pace, kubectl_error
from devcluster.terminal import Terminal
from memoize import names
from memoize.reasons import Reason
from tests.devcluster.node import processes_with
from tests.waiting import PATIENCE

ROOT = Path(__file__).parents[2]
QUICK = Pace(step=0.5, max_age=6)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory for temporary files; the demo has to leave it empty."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


async def test_the_demo_shows_a_denial_and_four_runs_and_leaves_nothing(temporary: Path) -> None:
    shown = io.StringIO()

    await demo.run(Terminal(shown), QUICK)

    text = shown.getvalue()
    assert 'The Workflow "broken-" is invalid:\n     * spec.templates[0].memoize' in text
    assert text.count("     * spec.templates[0].memoize") == 4
    table = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()[-4:]]
    assert [row[:3] for row in table] == [
        ["first run", "1", "0"],
        ["same input again", "0", "1"],
        ["five at once", "1", "4"],
        ["after maxAge", "1", "0"],
    ]
    pods = [row for line in text.splitlines() if (row := line.split())[-1:] in (["hit"], ["stored"])]
    assert [row[2:] for row in pods if row[3] == "hit"] == [["<none>", "hit"]] * 5
    assert [row[2:] for row in pods if row[3] == "stored"] == [["devcluster", "stored"]] * 3
    assert len(re.findall(r"MemoizationHit  Hit: step .* was served from the cache", text)) == 5
    assert argo.CONFIGMAP_TYPE in text
    assert "\033" not in text
    assert left_in(temporary) == []


async def test_the_demo_fails_when_a_step_is_not_decided_as_promised(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opted_in = f'{names.MEMOIZE}: "true"'
    never = demo.example("greet.yaml", QUICK).replace(opted_in, f"{opted_in}\n    {names.MODE}: readonly")
    monkeypatch.setattr(demo, "example", lambda file, pace: never)

    with pytest.raises(BrokenPromiseError, match=r"with the results \['skipped'\]"):
        await demo.run(Terminal(io.StringIO()), QUICK)

    assert left_in(temporary) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_the_demo_in_good_order(tmp_path: Path, number: signal.Signals) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "devcluster", "demo"),
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        async for line in process.stdout:
            if b"argo submit" in line:
                break

    process.send_signal(number)
    await process.stdout.read()

    assert await process.wait() == 128 + number
    assert left_in(tmp_path) == []
    assert processes_with(str(tmp_path)) == []


def left_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def test_the_example_is_the_workflow_of_the_docs() -> None:
    page = (ROOT / "docs" / "how-it-works.md").read_text()
    block = page.partition("```yaml\n")[2].partition("```")[0]

    assert yaml.safe_load((demo.EXAMPLES / "greet.yaml").read_text()) == yaml.safe_load(block)


@pytest.mark.parametrize("file", ["greet.yaml", "fan-out.yaml"])
def test_the_pace_changes_two_numbers_of_an_example_and_nothing_else(file: str) -> None:
    example = (demo.EXAMPLES / file).read_text()

    quick = demo.example(file, Pace(step=0.25, max_age=7))

    assert quick != example
    assert quick.replace("sleep 0.25", "sleep 5").replace("maxAge: 7s", "maxAge: 24h") == example


def test_a_denial_is_worded_as_kubectl_words_it() -> None:
    cause = {"field": "spec.x", "message": "Required value: say x"}
    status = {"details": {"kind": "Workflow", "name": "w", "causes": [cause]}}

    assert kubectl_error(status) == 'The Workflow "w" is invalid: spec.x: Required value: say x'
    status["details"]["causes"] = [cause, cause | {"field": "spec.y"}]
    assert kubectl_error(status).splitlines()[1:] == [
        "* spec.x: Required value: say x",
        "* spec.y: Required value: say x",
    ]


@pytest.mark.parametrize(
    ("stream", "variables", "coloured"),
    [
        (Screen, {}, True),
        (Screen, {"NO_COLOR": "1"}, False),
        (Screen, {"NO_COLOR": ""}, True),
        (Screen, {"TERM": "dumb"}, False),
        (io.StringIO, {}, False),
    ],
)
def test_colour_is_for_terminals_that_want_it(
    stream: type[io.StringIO], variables: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ({"NO_COLOR": "", "TERM": "xterm"} | variables).items():
        monkeypatch.setenv(name, value)
    shown = stream()

    Terminal(shown).good(Reason.HIT)

    assert ("\033[" in shown.getvalue()) == coloured
