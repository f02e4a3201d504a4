"""The answers for callers of the service that get nothing, in the form of the Kubernetes API's errors."""

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from argo.fields import FieldError
from memoize.outcome import Outcome
from memoize.reasons import Reason

_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    408: "Timeout",
    413: "RequestEntityTooLarge",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}
"""metav1.StatusReason by status code, of those that the service uses."""
_OUTCOMES = {
    401: Reason.FORBIDDEN,
    403: Reason.FORBIDDEN,
    413: Reason.CACHE_FULL,
    429: Reason.RATE_LIMITED,
    500: Reason.INTERNAL_ERROR,
    503: Reason.API_UNAVAILABLE,
}


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """No, and why. `retry_after` is in seconds, 0 where asking again is of no use."""

    code: int
    message: str
    errors: Sequence[FieldError] = ()
    retry_after: int = 0
    reason: Reason | None = None
    """For the log, where the code alone does not say it."""

    @property
    def outcome(self) -> Outcome:
        """For the log: the field errors stay out, since they may repeat values."""
        return Outcome(self.reason or _OUTCOMES.get(self.code, Reason.BROKEN_ENTRY), self.message)

    @property
    def headers(self) -> dict[str, str]:
        """What the answer says besides its body."""
        headers = {"Retry-After": str(self.retry_after)} if self.retry_after else {}
        if self.code == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
        return headers

    @property
    def status(self) -> dict[str, Any]:
        """The body: a metav1.Status."""
        details: dict[str, Any] = {}
        if self.errors:
            details["causes"] = [
                {"reason": error.kind.value, "message": error.message, "field": error.field}
                for error in self.errors
            ]
        if self.retry_after:
            details["retryAfterSeconds"] = self.retry_after
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": "; ".join([self.message, *map(str, self.errors)]),
            "reason": _REASONS[self.code],
            **({"details": details} if details else {}),
            "code": self.code,
        }


def unavailable(message: str, reason: Reason = Reason.API_UNAVAILABLE) -> ErrorAnswer:
    """The refusal where something could not be asked: not the caller's fault, and worth another try."""
    return ErrorAnswer(HTTPStatus.SERVICE_UNAVAILABLE, message, retry_after=1, reason=reason)
