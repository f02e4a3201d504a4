"""What an error of the API server's is to a step: an outcome with a reason code."""

from kube.errors import ApiError, Forbidden
from memoize.outcome import Outcome
from memoize.reasons import Reason


def outcome_of(error: ApiError) -> Outcome:
    """The outcome of what could not be done for want of the API server."""
    forbidden = isinstance(error, Forbidden)
    return Outcome(Reason.FORBIDDEN if forbidden else Reason.API_UNAVAILABLE, str(error))
