"""The machine that a figure comes from."""

import os
import platform
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Machine:
    """What one must know to read a figure; `load` is the load average of the last minute when it began."""

    cpu: str
    cores: int
    memory_gib: float
    kernel: str
    python: str
    load: float
    date: str


def describe() -> Machine:
    """The machine that we run on, now."""
    return Machine(
        cpu=_first(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo")) or platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        kernel=f"{platform.system()} {platform.release()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        load=round(os.getloadavg()[0], 2),
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _first(pattern: str, path: Path) -> str:
    found = re.search(pattern, path.read_text()) if path.exists() else None
    return found[1].strip() if found else ""
