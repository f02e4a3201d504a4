"""Reports how a run of the sidecar ended: one log line, and the container's termination message."""

import json
import os
import sys

from memoize.outcome import Outcome
from memoize.reasons import Reason
from sidecar.kube import RequestResult
from sidecar.settings import Settings

_SHOWN = 12
"""Digits of the key's digest in a log line: enough to find it again."""


def failure(reply: RequestResult) -> Outcome:
    """Turn a reply that was not a success into an outcome.

    The server's own words stay out: a validation error repeats the value it does not like.
    """
    if reply.status in (401, 403):
        return Outcome(Reason.FORBIDDEN, f"the step's service account may not {reply}")
    return Outcome(Reason.API_UNAVAILABLE, f"could not {reply}")


def report(outcome: Outcome, settings: Settings | None, seconds: float) -> None:
    """Write the log line and the termination message; a place that cannot be written to is passed over."""
    milliseconds = round(seconds * 1000)
    fields = [f"stepmemo: reason={outcome.reason}"]
    if settings is not None:
        step = settings.step
        fields += [
            f"namespace={settings.namespace}",
            f"workflow={step.workflow}",
            f"node={step.node_id}",
            f"cache={step.cache}",
            f"key-hash={step.key_hash[:_SHOWN]}",
        ]
    fields.append(f"ms={milliseconds}")
    if outcome.detail:
        fields.append(f"detail={json.dumps(outcome.detail)}")
    print(*fields, file=sys.stderr, flush=True)
    if settings is not None:
        message = {"reason": outcome.reason, "detail": outcome.detail, "ms": milliseconds}
        _write_termination_message(settings, message)


def _write_termination_message(settings: Settings, message: dict[str, object]) -> None:
    """Write the termination message; the kubelet has made the file, and where it has not, nobody reads it."""
    try:
        descriptor = os.open(settings.termination_log, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "w") as file:
            json.dump(message, file, separators=(",", ":"))
    except OSError:
        return
