"""`python3 -S -E -B -m sidecar check|retract|capture`: one verb of the sidecar, run by the entrypoint.

The entrypoint ignores the exit code: 0 when the run came to an outcome, 1 when it did not,
2 for a wrong verb. The decision is a file; a log line on stderr and the termination message say the outcome.
"""

import os
import sys
import time
from contextlib import closing

from memoize import __version__
from memoize.outcome import Outcome
from memoize.reasons import Reason
from sidecar.cache import Cache
from sidecar.deadline import Deadline, process_age
from sidecar.kube import Client, NoCredentialsError
from sidecar.report import report
from sidecar.result import TaskResult
from sidecar.settings import Settings, SettingsError

_VERBS = ("check", "retract", "capture")
_EVENT_SECONDS = 0.3
"""Longest time for the Event, of what is left: the Pod waits for this process."""


def main(arguments: list[str], age: float = 0) -> int:
    """Run the verb and report how it ended; `age` is how many seconds of its time are gone already.

    Raises nothing: whatever goes wrong is an outcome of its own.
    """
    if arguments == ["--version"]:
        print(f"stepmemo {__version__}", flush=True)
        return 0
    if len(arguments) != 1 or arguments[0] not in _VERBS:
        print(f"usage: python3 -m sidecar {'|'.join(_VERBS)}", file=sys.stderr)
        return 2
    settings = None
    start = time.monotonic() - age
    try:
        settings = Settings.from_environment()
        # Older than it may get: the clock it was read from is not ours (a sandbox, a time namespace).
        until = Deadline(settings.budget, start if age < settings.budget else None)
        with closing(Client(settings.server)) as client:
            outcome = run(arguments[0], settings, client, until)
            report(outcome, settings, time.monotonic() - start)
            if settings.service is None:  # else the keeper posts the Event, from our termination message
                _post_event(outcome, settings, client, until)
        return 0
    except (SettingsError, NoCredentialsError) as error:
        outcome = Outcome(Reason.INTERNAL_ERROR, str(error))
    except Exception as error:  # whatever it is, the step must not notice
        outcome = Outcome(Reason.INTERNAL_ERROR, _where(error))
    report(outcome, settings, time.monotonic() - start)
    return 1


def run(verb: str, settings: Settings, client: Client, until: Deadline) -> Outcome:
    """Carry out one verb; each imports no more than it needs, since the step waits."""
    result = TaskResult(client, settings)
    if verb == "retract":
        from sidecar.check import retract

        return retract(settings, result, until)
    cache = _cache(settings, client)
    if verb == "check":
        from sidecar.check import check

        return check(settings, cache, result, until)
    from sidecar.capture import capture

    return capture(settings, cache, result, until)


def _cache(settings: Settings, client: Client) -> Cache:
    if settings.service is not None:
        from sidecar.service import ServiceCache

        return ServiceCache(settings.service, settings.step.data_key)
    from sidecar.direct import ConfigMapCache

    return ConfigMapCache(client, settings.namespace, settings.step.cache, settings.cache_max_bytes)


def _post_event(outcome: Outcome, settings: Settings, client: Client, until: Deadline) -> None:
    from sidecar.events import post_event

    post_event(outcome, settings, client, Deadline(min(_EVENT_SECONDS, until.remaining)))


def _where(error: Exception) -> str:
    """Name an error of ours by type and place; its text could hold a value."""
    place, trace = "", error.__traceback__
    while trace is not None:
        place = f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__} at {place}"


if __name__ == "__main__":
    # Everything is written and flushed; to take the interpreter apart would only make the step wait.
    os._exit(main(sys.argv[1:], process_age()))
