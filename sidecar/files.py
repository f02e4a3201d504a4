"""The files that the containers of one Pod share: who decides, what was decided, and what Argo left there.

Every file of ours appears whole or not at all, and is readable by any user, whatever the umask.
"""

import json
import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from memoize import names
from memoize.outputs import Declared, declared


class NoTemplateError(Exception):
    """The step's template is not where Argo puts it."""


def claim(shared: Path) -> bool:
    """Take the right to decide; False when somebody else has it. Raises OSError.

    Whoever holds the claim alone may post a result or write the decision.
    """
    try:
        _write_new(shared / names.CLAIM_FILE, "")
    except FileExistsError:
        return False
    return True


def decided(shared: Path) -> bool:
    """Whether the decision is there."""
    return (shared / names.DECISION_FILE).exists()


def decide(shared: Path, word: str) -> None:
    """Write the decision, `names.HIT` or `names.RUN`, once; the first word stands. Raises OSError.

    It is written aside and linked: a gate that sees the file sees all of it.
    """
    aside = shared / f".{names.DECISION_FILE}.{os.getpid()}"
    aside.unlink(missing_ok=True)
    _write_new(aside, word)
    try:
        os.link(aside, shared / names.DECISION_FILE)
    except FileExistsError:
        return
    finally:
        aside.unlink(missing_ok=True)


def offloaded_template(path: Path, include_result: bool) -> Declared:
    """Read what a template declares from the file that Argo put it into; NoTemplateError.

    A template above 128 KiB is not in the Pod's environment but in a ConfigMap, mounted with ARGO_TEMPLATE as
    the file's name (workflow/common/common.go, ResolveTemplateEnvValue); `init` or `supervisor` then writes
    it to `template` beside the exit codes.
    """
    try:
        template: Any = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise NoTemplateError(f"no template in {path.name}: {type(error).__name__}") from None
    if not isinstance(template, Mapping):
        raise NoTemplateError(f"no template in {path.name}: not an object")
    return declared(template, include_result)


def failed_mains(argo_dir: Path, mains: Iterable[str]) -> list[str]:
    """Return the main containers that did not end with 0, as far as Argo's executor recorded it.

    The file is made first and written later: an empty one, like an absent one, means not ended.
    """
    return [main for main in mains if _exit_code(argo_dir / "ctr" / main / "exitcode") != "0"]


def ended_by(argo_dir: Path, mains: Iterable[str], moment: datetime) -> bool:
    """Say whether all main containers had ended before `moment` (aware), by the time of what they left."""
    return all((argo_dir / "ctr" / main / "exitcode").stat().st_mtime < moment.timestamp() for main in mains)


def _exit_code(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""


def _write_new(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o644)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, 0o644)
        file.write(text)
