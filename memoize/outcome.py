"""How a piece of work ended: the value that log lines, Events and answers are made of."""

from typing import NamedTuple

from memoize.reasons import Reason


class Outcome(NamedTuple):
    """A reason code, and what a person should know besides; never a key, a parameter or an output."""

    reason: Reason
    detail: str = ""
