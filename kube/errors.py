"""What a request to the API server fails with: one small tree, made by kube.client alone.

A bug of ours is none of these: whoever catches an ApiError knows that the API server, or the way to it, is
to blame.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any


class ApiError(Exception):
    """A request that did not work; of no class below where the status is another one, such as 400 or 413.

    `str` of it is a few words for a log line, without the API server's own sentence.
    """

    def __init__(
        self, text: str = "", *, status: int = 0, answer: object = None, retry_after: float = 0
    ) -> None:
        super().__init__(text)
        said = _mapping(answer)
        causes = _mapping(said.get("details")).get("causes")
        self.status = status
        """The HTTP status; 0 where no answer came, and the request may have taken effect all the same."""
        self.message = str(said.get("message") or "")
        """The API server's own sentence (metav1.Status), "" for none. It may repeat values of tenants."""
        self.causes = [
            str(_mapping(cause).get("reason")) for cause in (causes if isinstance(causes, list) else ())
        ]
        """The `reason` of each of the Status' causes."""
        self.retry_after = retry_after
        """Seconds that the API server asks to be left alone for; 0 where it names none, or a date."""


class Forbidden(ApiError):
    """401 or 403: who we are, or what we may do, does not allow it."""


class NotFound(ApiError):
    """404."""


class Conflict(ApiError):
    """409: it is there already, or not as it was seen (resourceVersion, uid)."""


class Invalid(ApiError):
    """422: what the request would make is not valid, or the test of a JSON patch failed."""


class TooManyRequests(ApiError):
    """429."""


class Unavailable(ApiError):
    """No answer (time-out, broken connection, no credentials), or that of a server in trouble: 408, 5xx."""


class Unreadable(ApiError):
    """An answer that is no JSON object, or one that is nested too deep to be read."""


class TooLarge(Unreadable):
    """An answer, or an event of a watch, of more bytes than are read."""


TEMPORARY = (TooManyRequests, Unavailable, Unreadable)
"""After these the same request may be taken later, without that anything else changes."""

_CLASSES: Mapping[int, type[ApiError]] = {
    HTTPStatus.UNAUTHORIZED: Forbidden,
    HTTPStatus.FORBIDDEN: Forbidden,
    HTTPStatus.NOT_FOUND: NotFound,
    HTTPStatus.REQUEST_TIMEOUT: Unavailable,
    HTTPStatus.CONFLICT: Conflict,
    HTTPStatus.UNPROCESSABLE_ENTITY: Invalid,
    HTTPStatus.TOO_MANY_REQUESTS: TooManyRequests,
}


def refused(status: int, reason: str, answer: object = None, retry_after: str = "") -> ApiError:
    """The error for an answer that is not 2xx.

    `reason` is the status in words, `answer` the decoded body (a metav1.Status, or anything), `retry_after`
    the header of that name.
    """
    class_ = _CLASSES.get(status, Unavailable if status >= HTTPStatus.INTERNAL_SERVER_ERROR else ApiError)
    seconds = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0
    return class_(f"{status} {reason}".rstrip(), status=status, answer=answer, retry_after=seconds)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
