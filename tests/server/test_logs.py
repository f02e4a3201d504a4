import io
import json
import logging
from collections.abc import Iterator

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
