"""How the keepers before this one ended, in a file that outlives them: an emptyDir survives its containers.

A keeper that is killed at every start, by memory or by a probe, would leave its gated Pods waiting for ever.
The next one has to know that before it does again what killed the last.
"""

import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from server.logs import fields

_log = logging.getLogger(__name__)

FILE = "starts.json"
RECENT = 600.0
"""Seconds for which an end counts."""
TOO_MANY = 2
"""Unclean ends within that time after which the next start releases first."""


class Starts:
    """The starts of one container of one Pod. `now` is in seconds, and goes on while nobody runs.

    A file that cannot be read or written counts as a first start, and is said in the log: a keeper that
    cannot remember is better than none.
    """

    def __init__(self, directory: Path, *, now: Callable[[], float] = time.time) -> None:
        self._file, self._now = directory / FILE, now
        self._unclean: list[float] = []

    def begin(self) -> bool:
        """Take note of a start: whether the last ones ended too often without `end`."""
        now = self._now()
        runs, before = self._read()
        self._unclean = [at for at in [*before, *([now] if runs else [])] if now - RECENT < at <= now]
        self._write(runs=True)
        return len(self._unclean) >= TOO_MANY

    def end(self) -> None:
        """Take note of an end as it should be."""
        self._write(runs=False)

    def _read(self) -> tuple[bool, list[float]]:
        """Whether one runs, or was killed; and when others were."""
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
            return bool(found["runs"]), [float(at) for at in found["unclean"][-TOO_MANY:]]
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, KeyError) as error:
            _log.warning("cannot read how the last start ended", extra=fields(error=str(error)))
        return False, []

    def _write(self, *, runs: bool) -> None:
        aside = self._file.with_name(f".{FILE}.{os.getpid()}")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            aside.write_text(json.dumps({"runs": runs, "unclean": self._unclean}), encoding="utf-8")
            aside.replace(self._file)  # whole or not at all: we may be killed here
        except OSError as error:
            _log.warning("cannot write down this start", extra=fields(error=str(error)))
