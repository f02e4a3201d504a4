"""What is ordinary, and so is told by a log at DEBUG alone."""

from memoize.event import EVENT_AT_ADMISSION
from memoize.reasons import Reason
from server.outcomes import ORDINARY


def test_nothing_is_ordinary_that_keeps_an_opted_in_step_from_being_memoized() -> None:
    assert not ORDINARY & EVENT_AT_ADMISSION
    assert not ORDINARY & {
        Reason.UNDECIDED,
        Reason.BEYOND_BUDGET,
        Reason.OVERLOADED,
        Reason.FORBIDDEN,
        Reason.RATE_LIMITED,
        Reason.API_UNAVAILABLE,
        Reason.STORE_UNAVAILABLE,
        Reason.INTERNAL_ERROR,
    }
