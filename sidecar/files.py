"""The files that the containers of one Pod share: who decides, what was decided, and what Argo left there.

Every file of ours appears whole or not at all, and is readable by any user, whatever the umask.
"""

import json
import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from memoize import names
from memoize.outcome import Outcome
from memoize.outputs import BrokenOutputsError, Declared, declared

_LONGEST = 4 << 20
"""Characters of a file that are read; a template is the longest, and a ConfigMap holds 1 MiB."""


class NoTemplateError(Exception):
    """The step's template is not where Argo puts it."""


def claim(shared: str) -> bool:
    """Take the right to decide; False when somebody else has it. Raises OSError.

    Whoever holds the claim alone may post a result or write the decision.
    """
    try:
        _write_new(f"{shared}/{names.CLAIM_FILE}", "")
    except FileExistsError:
        return False
    return True


def decided(shared: str) -> bool:
    """Whether the decision is there. Raises OSError where that cannot be told."""
    try:
        os.stat(f"{shared}/{names.DECISION_FILE}")
    except FileNotFoundError:
        return False
    return True


def decide(shared: str, word: str) -> bool:
    """Write the decision, `names.DECISION_HIT` or `DECISION_RUN`; say whether it stands. Raises OSError.

    The first word stands: an entrypoint that waited for the owner of the claim in vain writes one too. It is
    written aside and linked: an entrypoint that sees the file sees all of it.
    """
    decision = f"{shared}/{names.DECISION_FILE}"
    aside = f"{shared}/.{names.DECISION_FILE}.{os.getpid()}"
    _remove(aside)
    _write_new(aside, word)
    try:
        os.link(aside, decision)
    except FileExistsError:
        return _read(decision) == word
    finally:
        _remove(aside)
    return True


def offloaded_template(include_result: bool, workflow_uid: str, *paths: str) -> Declared | Outcome:
    """Read what a template declares from the first of the files that holds one; NoTemplateError.

    An Outcome says why a step of that template is not memoized.

    A template above 128 KiB is not in the Pod's environment but in a ConfigMap, mounted with ARGO_TEMPLATE as
    the file's name (workflow/common/common.go, ResolveTemplateEnvValue); Argo's `init`, where there is one,
    then writes it to `template` beside the exit codes.
    """
    from memoize.eligibility import blocker

    wrong = []
    for path in paths:
        try:
            template: Any = json.loads(_read(path))
        except (OSError, ValueError, RecursionError) as error:
            wrong.append(f"{os.path.basename(path)}: {type(error).__name__}")
            continue
        if not isinstance(template, Mapping):
            wrong.append(f"{os.path.basename(path)}: not an object")
            continue
        if outcome := blocker(template, workflow_uid):
            return outcome
        try:
            return declared(template, include_result)
        except BrokenOutputsError as error:
            wrong.append(f"{os.path.basename(path)}: {error}")
    raise NoTemplateError(f"no template in {', '.join(wrong)}")


def failed_mains(argo_dir: str, mains: Iterable[str]) -> list[str]:
    """Return the main containers that did not end with 0, as far as Argo's executor recorded it.

    The file is made first and written later: an empty one, like an absent one, means not ended.
    """
    return [main for main in mains if _exit_code(_exit_file(argo_dir, main)) != "0"]


def ended_by(argo_dir: str, mains: Iterable[str], moment: datetime) -> bool:
    """Say whether all main containers had ended before `moment` (aware), by the time of what they left."""
    return all(os.stat(_exit_file(argo_dir, main)).st_mtime < moment.timestamp() for main in mains)


def took(shared: str, argo_dir: str, mains: Iterable[str]) -> float:
    """Return how many seconds the main containers took, from the first one's start to the last one's end.

    An entrypoint makes its lock file when it starts the container's own command; Argo's executor leaves the
    exit code when that has ended. 0 where a file is not there, less where the clock was set back in between.
    """
    try:
        began = min(os.stat(f"{shared}/{names.LOCK_FILE_PREFIX}{main}").st_mtime for main in mains)
        ended = max(os.stat(_exit_file(argo_dir, main)).st_mtime for main in mains)
    except (OSError, ValueError):
        return 0
    return ended - began


def _exit_file(argo_dir: str, main: str) -> str:
    return f"{argo_dir}/ctr/{main}/exitcode"


def _exit_code(path: str) -> str:
    try:
        return _read(path).strip()
    except (OSError, ValueError):
        return ""


def _read(path: str) -> str:
    """A step may have put a FIFO there, on which an open would wait, or a file without an end."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK)) as file:
        return file.read(_LONGEST)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def _write_new(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o644)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, 0o644)
        file.write(text)
