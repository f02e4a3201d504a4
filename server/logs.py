"""Log lines: `time level message key=value …` for people, or one JSON object per line for machines.

What a step computes with is none of our business: no line holds a parameter's value, a key or an output.
"""

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import TextIO

LONGEST = 2_000
"""Characters of one field."""
_BARE = re.compile(r"[\w./:@%+,\-\[\]]+", re.ASCII)
"""A value that logfmt needs no quotes for."""


def setup(style: str, stream: TextIO | None = None) -> None:
    """Send everything from level INFO on to `stream` (stderr) as `text` or `json`."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)


def fields(**values: object) -> dict[str, object]:
    """The `extra` of a log call: what the line says besides its message; None and "" are left out.

    Of a text no more than `LONGEST` characters: it may be a caller's.
    """
    return {
        "fields": {
            name: f"{value[:LONGEST]}…" if isinstance(value, str) and len(value) > LONGEST else value
            for name, value in values.items()
            if value not in (None, "")
        }
    }


class TextFormatter(logging.Formatter):
    """logfmt after a time stamp, a level and a message."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and a traceback below it where there is one."""
        pairs = "".join(f" {name}={_logfmt(value)}" for name, value in _fields(record).items())
        line = f"{_time(record)} {record.levelname} {record.getMessage()}{pairs}"
        return _printable(f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line)


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, message, the fields, and `error` with a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the message holds."""
        line = {"time": _time(record), "level": record.levelname, "message": record.getMessage()}
        error = {"error": self.formatException(record.exc_info)} if record.exc_info else {}
        return json.dumps({**line, **_fields(record), **error}, default=str)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return getattr(record, "fields", {})


def _time(record: logging.LogRecord) -> str:
    return (
        datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


def _logfmt(value: object) -> str:
    text = str(value)
    return text if _BARE.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _printable(text: str) -> str:
    """The text without lone surrogates: JSON can name them, no encoding can write them."""
    return text.encode("utf-8", "backslashreplace").decode()
