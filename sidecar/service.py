"""`--access service`: the cache is reached through our own service, with a token that only that takes.

The token names this Pod, and the service reads cache and key from it, so no request says them again. The
step's service account needs no right to any ConfigMap.
"""

from collections.abc import Mapping
from contextlib import closing
from datetime import datetime

from memoize import configmap
from memoize.entry import Entry
from memoize.outcome import Outcome
from memoize.reasons import Reason
from sidecar.deadline import Deadline
from sidecar.kube import Client, RequestResult
from sidecar.settings import Server

_REFUSED = (401, 403)
_TOO_LARGE = 413
_TOO_MANY = 429
_DOING = "ask the cache service"
_LONGEST_DETAIL = 500


class ServiceCache:
    """The one entry that this Pod may see and write."""

    def __init__(self, server: Server, data_key: str) -> None:
        self._server = server
        self._data_key = data_key

    def load(self, until: Deadline) -> Mapping[str, str] | Outcome:
        """Look the Pod's key up; see Cache. Raises NoCredentialsError."""
        reply = self._ask("/v1/lookup", {}, until)
        if not reply.ok:
            return _failure(reply)
        match reply.body:
            case {"entry": None, "reason": _}:
                return _outcome(reply)
            case {"entry": None}:
                return {}
            case {"entry": str(text)}:
                return {self._data_key: text}
        return _unintelligible(reply)

    def store(self, data_key: str, entry: Entry, now: datetime, until: Deadline) -> Outcome:
        """Have the service keep the entry; see Cache. Raises NoCredentialsError.

        To ask again, where a reply was lost, does no harm: the same entry takes the place of itself.
        """
        text = entry.dump()
        if refused := configmap.too_large_for(text):
            return refused
        reply = self._ask("/v1/entries", {"entry": text}, until)
        if reply.status == _TOO_LARGE:
            return configmap.full(text)
        return _outcome(reply) if reply.ok else _failure(reply)

    def _ask(self, path: str, body: object, until: Deadline) -> RequestResult:
        """Make the one request that a run of the sidecar has for the service."""
        with closing(Client(self._server)) as client:
            return client.insist("POST", path, body, until=until, needs_body=True, doing=_DOING)


def _outcome(reply: RequestResult) -> Outcome:
    """Return what the service itself came to."""
    try:
        return Outcome(Reason(reply.body["reason"]), str(reply.body["detail"])[:_LONGEST_DETAIL])
    except (KeyError, ValueError):
        return _unintelligible(reply)


def _failure(reply: RequestResult) -> Outcome:
    """Turn a reply that was not a success into an outcome, without the server's own words."""
    if reply.status in _REFUSED:
        return Outcome(Reason.FORBIDDEN, f"the cache service refuses this Pod: status {reply.status}")
    if reply.status == _TOO_MANY:
        return Outcome(Reason.RATE_LIMITED, "the cache service takes no more from this Namespace for now")
    return Outcome(Reason.API_UNAVAILABLE, f"could not {reply}")


def _unintelligible(reply: RequestResult) -> Outcome:
    return Outcome(Reason.API_UNAVAILABLE, f"could not {reply}, without what it should say")
