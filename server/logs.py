"""Log lines: `time level message key=value …` for people, or one JSON object per line for machines.

What a step computes with is none of our business: no line holds a parameter's value, a key or an output.
What comes with each step or review is said at DEBUG as long as all is well, since labels, Events and metrics
tell it; what is not well is said at the level that it has, and no more of it than a person reads.
"""

import json
import logging
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TextIO

from server.rate_limit import FairLimit

LONGEST = 2_000
"""Characters of one field."""
RATE, BURST = 5.0, 50
"""Lines of one module in a second, and at once."""
_OURS = ("certs", "keeper", "kube", "server", "webhook")
"""Whose level is a setting: others would tell at DEBUG what they received, Secrets among it."""
_EACH = frozenset({"keeper.api.people"})
"""Whose lines are said each, since they tell who looked at what, and removed it; it has bounds of its own."""
_BARE = re.compile(r"[\w./:@%+,\-\[\]]+", re.ASCII)
"""A value that logfmt needs no quotes for."""


def setup(style: str, stream: TextIO | None = None, *, level: str = "info") -> None:
    """Send what is at INFO or above to `stream` (stderr) as `text` or `json`; of ours from `level` on."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    handler.addFilter(Sparing().passes)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for ours in _OURS:
        logging.getLogger(ours).setLevel(logging.DEBUG if level == "debug" else logging.NOTSET)


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


class Sparing:
    """Lets a few lines a second of each module pass, by turns of levels and Namespaces; of DEBUG, all.

    The next one that passes says how many did not (`others`). A Namespace that a caller made up takes lines
    from others, and no counts. `clock` counts seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = defaultdict[str, FairLimit](lambda: FairLimit(RATE, BURST, clock=clock))
        self._unsaid = Counter[str]()

    def passes(self, record: logging.LogRecord) -> bool:
        """Whether the line is to be said: a filter of a handler."""
        module = record.name
        if record.levelno <= logging.DEBUG or module in _EACH:
            return True
        told = _fields(record)
        if not self._limits[module].take(f"{record.levelname} {told.get('namespace', '')}"):
            self._unsaid[module] += 1
            return False
        if others := self._unsaid.pop(module, 0):
            record.fields = {**told, "others": others}
        return True


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
