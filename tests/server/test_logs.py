import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from server import logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:], root.level = before[0], before[1]


LOG = logging.getLogger("webhook.test")


def test_a_text_line_is_a_time_a_level_a_message_and_fields(stream: io.StringIO) -> None:
    logs.setup("text", stream)
    LOG.info(
        "decided", extra=logs.fields(reason="Hit", node="a b", detail='"q"', none=None, empty="", port=8443)
    )
    time, _, rest = stream.getvalue().partition(" ")
    assert rest == 'INFO decided reason=Hit node="a b" detail="\\"q\\"" port=8443\n'
    assert time.endswith("Z")
    assert len(time) == len("2026-03-01T12:00:00.000Z")


def test_a_json_line_is_one_object(stream: io.StringIO) -> None:
    logs.setup("json", stream)
    LOG.warning("decided\nwith a break", extra=logs.fields(reason="Hit"))
    (line,) = stream.getvalue().splitlines()
    record = json.loads(line)
    del record["time"]
    assert record == {"level": "WARNING", "message": "decided\nwith a break", "reason": "Hit"}


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_traceback_is_kept(style: str, stream: io.StringIO) -> None:
    logs.setup(style, stream)
    try:
        {}["lost"]
    except KeyError:
        LOG.exception("a bug")
    assert "KeyError: 'lost'" in stream.getvalue()
    assert "test_logs.py" in stream.getvalue()


@pytest.mark.parametrize("style", ["text", "json"])
def test_no_text_breaks_the_stream_or_forges_a_line(style: str, stream: io.StringIO) -> None:
    logs.setup(style, stream)
    LOG.info("decided", extra=logs.fields(workflow="a\n2026 INFO decided reason=Hit", node="\ud800"))
    stream.getvalue().encode()
    assert len(stream.getvalue().splitlines()) == 1


def test_what_is_less_than_info_is_not_said(stream: io.StringIO) -> None:
    logs.setup("text", stream)
    LOG.debug("nothing")
    assert stream.getvalue() == ""


def test_debug_is_ours_alone(stream: io.StringIO) -> None:
    """Of a library it might be what it received, a Secret among it."""
    logs.setup("text", stream, level="debug")
    LOG.debug("ours")
    logging.getLogger("kubernetes_asyncio.client.rest").debug("theirs")
    assert stream.getvalue().endswith(" DEBUG ours\n")
    assert "theirs" not in stream.getvalue()
    logs.setup("text", stream)
    LOG.debug("no more")
    assert "no more" not in stream.getvalue()


# --- Floods ------------------------------------------------------------------------------------------


class Flood:
    """Many lines of one module, on a clock of their own."""

    def __init__(self) -> None:
        self.now, self.lines = 0.0, list[dict[str, object]]()
        self._sparing = logs.Sparing(lambda: self.now)

    def say(self, namespace: str, level: int = logging.INFO, module: str = "webhook.hooks") -> None:
        told = logs.fields(namespace=namespace)
        record = LOG.makeRecord(module, level, __file__, 1, "decided", (), None, extra=told)
        if self._sparing.passes(record):
            self.lines.append(record.fields)  # type: ignore[attr-defined]


def test_a_flood_is_a_few_lines_a_second_and_the_others_are_counted() -> None:
    """Fifty steps a second of two hundred Namespaces, none of which goes as it should."""
    flood, seconds, said = Flood(), 60, 50 * 60
    for number in range(said):
        flood.now = number * seconds / said
        flood.say(f"n-{number % 200}")
    assert len(flood.lines) <= 2 * logs.BURST + logs.RATE * seconds
    flood.now += 10
    flood.say("n-0")
    others = [line["others"] for line in flood.lines if "others" in line]
    assert len(flood.lines) + sum(map(int, map(str, others))) == said + 1


@pytest.mark.parametrize(
    "other",
    [{"namespace": "quiet"}, {"level": logging.ERROR}, {"module": "keeper.controller"}],
    ids=["Namespace", "level", "module"],
)
def test_a_flood_takes_no_line_from_another(other: dict[str, Any]) -> None:
    flood = Flood()
    for _ in range(1_000):
        flood.say("loud")
    before = len(flood.lines)
    flood.say(**{"namespace": "loud", **other})
    assert before < logs.BURST
    assert len(flood.lines) == before + 1


@pytest.mark.parametrize(
    "asked_for",
    [{"level": logging.DEBUG}, {"module": "keeper.api.people"}],
    ids=["debug", "who removed what"],
)
def test_what_is_wanted_in_full_is_said_in_full(asked_for: dict[str, Any]) -> None:
    flood = Flood()
    for _ in range(1_000):
        flood.say("work", **asked_for)
    assert len(flood.lines) == 1_000


def test_a_program_says_no_more_than_that(stream: io.StringIO) -> None:
    logs.setup("text", stream)
    for _ in range(1_000):
        LOG.info("decided")
    assert len(stream.getvalue().splitlines()) <= logs.BURST
