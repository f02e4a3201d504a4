"""Outcomes as both programs see them: which are ordinary, and which an error of the API server's is."""

from kube.errors import ApiError, Forbidden
from memoize.outcome import Outcome
from memoize.reasons import Reason

ORDINARY = frozenset(
    {
        Reason.ACCEPTED,
        Reason.NOT_MEMOIZED,
        Reason.UNCHANGED,
        Reason.INJECTED,
        Reason.INJECTED_CAPTURE,
        Reason.INJECTED_CHECK,
        Reason.GATED,
        Reason.NOT_GATED,
        Reason.NOT_A_STEP,
        Reason.NO_KEY,
        Reason.OPTED_OUT,
        Reason.MODE_OFF,
        Reason.ALREADY_INJECTED,
        Reason.HIT,
        Reason.MISS,
        Reason.EXPIRED,
        Reason.SHARED_RUN_FAILED,
        Reason.SHARED_RUN_TIMEOUT,
        Reason.STORED,
        Reason.STEP_FAILED,
    }
)
"""Of what goes as it should, with each step: labels, Events and metrics tell it, a log at DEBUG."""


def outcome_of(error: ApiError) -> Outcome:
    """The outcome of what could not be done for want of the API server."""
    forbidden = isinstance(error, Forbidden)
    return Outcome(Reason.FORBIDDEN if forbidden else Reason.API_UNAVAILABLE, str(error))
