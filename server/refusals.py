"""What a program does not serve: counted by reason in a metric, and logged at most once a second."""

import logging
import time
from collections.abc import Callable
from enum import StrEnum

from server.logs import fields

_log = logging.getLogger(__name__)

QUIET_SECONDS = 1.0
"""From one line to the next of the same refusal: a flood must not become a flood of lines."""


class Refusal(StrEnum):
    """Why a connection or a request was not served.

    docs/reasons.md explains each; a test holds the two together.
    """

    CONNECTIONS = "Connections"
    """Too many connections of one address or in all, and none of them was idle."""
    HANDSHAKE = "Handshake"
    """The TLS handshake failed, or took too long."""
    NO_REQUEST = "NoRequest"
    """The headers of the first request did not arrive in time."""
    PIPELINED = "Pipelined"
    """A request came before the one ahead of it on the same connection was answered."""
    BODY_TOO_LARGE = "BodyTooLarge"
    """The body is larger than any review."""
    BODY_TOO_SLOW = "BodyTooSlow"
    """The body did not arrive in time."""
    BODY_BROKEN_OFF = "BodyBrokenOff"
    """The connection ended within the body."""
    BODIES = "Bodies"
    """Bodies of more bytes were held at once than the program takes."""
    MALFORMED = "Malformed"
    """The request is not HTTP, or its body no AdmissionReview."""
    REVIEWS = "Reviews"
    """Too many reviews were under way in all."""
    REVIEWS_OF_NAMESPACE = "ReviewsOfNamespace"
    """Too many reviews of this Namespace were under way."""
    REVIEWS_OF_ADDRESS = "ReviewsOfAddress"
    """Too many reviews from this address were under way."""


class RefusedError(Exception):
    """A request is not served: the answer's text, a few words, and its HTTP status.

    Never with a `Retry-After`: client-go would wait for so long and ask again, all within the time-out of the
    webhook (client-go rest/with_retry.go), while an error at once lets the object through (failurePolicy
    Ignore).
    """

    def __init__(self, refusal: Refusal, status: int, text: str) -> None:
        super().__init__(text)
        self.refusal, self.status = refusal, status


class Refusals:
    """Counts refusals with `on_refused`, and logs them. `clock` counts seconds."""

    def __init__(
        self, on_refused: Callable[[Refusal], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._on_refused, self._clock = on_refused, clock
        self._next_line: dict[Refusal, float] = {}
        self._unsaid: dict[Refusal, int] = {}

    def tell(self, refusal: Refusal, peer: str, problem: object = "") -> None:
        """Count one, of this address; the line says how many had none since the line before."""
        self._on_refused(refusal)
        now = self._clock()
        if now < self._next_line.get(refusal, now):
            self._unsaid[refusal] = self._unsaid.get(refusal, 0) + 1
            return
        self._next_line[refusal] = now + QUIET_SECONDS
        others = self._unsaid.pop(refusal, 0)
        _log.warning(
            "not served", extra=fields(reason=refusal.value, peer=peer, error=problem, others=others or None)
        )
