"""Who is calling: the API server says it of a token (TokenReview, authentication.k8s.io/v1).

Only tokens for our own audience are taken, so that one which reached us by mistake is worth nothing here, and
ours nothing at the API server. Those of steps the kubelet binds to their Pod: the API server takes none of a
Pod that is gone, and names the Pod (KEP-2799; `extra` has it since Kubernetes 1.20). One that is bound to no
Pod somebody asked for (TokenRequest), who therefore may do all that a step of this account may.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, Generic, NamedTuple, TypeVar

from kubernetes_asyncio.client import ApiClient

from keeper.api.errors import ErrorAnswer, unavailable
from kube import client
from kube.caching import CachedReads
from kube.errors import ApiError
from memoize import names

PATH = "/apis/authentication.k8s.io/v1/tokenreviews"
TIMEOUT = 2.0
"""Seconds for a review, its wait for others included."""
FRESH = 60.0
"""Seconds that a good answer serves …"""
FRESH_REFUSAL = 5.0
"""… and a bad one: a token may be too new for the server that was asked."""
MOST = 10_000
"""Answers kept."""
MOST_AT_ONCE = 32
"""Reviews under way; anybody who reaches our port can ask for one …"""
MOST_WAITING = 1_000
"""… and those that wait for them."""
MOST_AT_ONCE_FOR_PEOPLE, MOST_WAITING_FOR_PEOPLE = 4, 32
"""The same of people's tokens, which take nothing from the steps'."""
LONGEST = 16 << 10
"""Characters of a token; the API server's own are about a kilobyte."""

_POD_NAME = "authentication.kubernetes.io/pod-name"
_POD_UID = "authentication.kubernetes.io/pod-uid"
_SERVICE_ACCOUNT = ("system", "serviceaccount")

T = TypeVar("T")


class Caller(NamedTuple):
    """The Pod that a token was made for."""

    namespace: str
    service_account: str
    pod: str
    uid: str


class Person(NamedTuple):
    """Somebody who has a token of this account that no Pod was given."""

    namespace: str
    service_account: str

    @property
    def told(self) -> Mapping[str, str]:
        """Fields of a log line that say who asked."""
        return {"namespace": self.namespace, "account": self.service_account}


_BUSY = unavailable("too many tokens are being reviewed")


class _Reviews(Generic[T]):
    """Reviews tokens, each one once in a while; keeps digests, never a token. `clock` counts seconds."""

    def __init__(
        self,
        api: ApiClient,
        read: Callable[[Mapping[str, Any]], T | None],
        refused: str,
        at_once: int,
        waiting: int,
        clock: Callable[[], float],
    ) -> None:
        """`read` says whose token it is by a TokenReview's status, None for one that is refused."""
        self._api, self._read = api, read
        self._refused = ErrorAnswer(HTTPStatus.UNAUTHORIZED, refused)
        self._answers: CachedReads[bytes, T | ErrorAnswer] = CachedReads(_serves, most=MOST, clock=clock)
        self._at_once, self._most = asyncio.Semaphore(at_once), at_once + waiting

    def known(self, token: str) -> T | ErrorAnswer | None:
        """The answer, where it is there and fresh."""
        known = self._answers.known(_digest(token))
        return known[0] if known else None

    async def caller(self, token: str) -> T | ErrorAnswer:
        """Whose token it is; a 401 for one that is not taken, a 503 where the API server does not say."""
        if not 0 < len(token) <= LONGEST or not token.isascii() or not token.isprintable():
            return self._refused
        digest = _digest(token)
        if self._answers.under_way >= self._most and not self._answers.is_near(digest):
            return _BUSY
        return await self._answers.get(digest, partial(self._review, token))

    async def _review(self, token: str) -> T | ErrorAnswer:
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [names.TOKEN_AUDIENCE]},
        }
        try:
            async with asyncio.timeout(TIMEOUT), self._at_once:
                answer = await client.request(self._api, "POST", PATH, seconds=TIMEOUT, body=body)
        except (ApiError, TimeoutError) as error:
            return unavailable(
                f"the API server did not review the token: {str(error) or 'no answer in time'}"
            )
        status = answer.get("status")
        if not isinstance(status, Mapping):
            return unavailable("the API server did not review the token: no status")
        return self._read(status) or self._refused


class Tokens(_Reviews[Caller]):
    """Those of step Pods."""

    def __init__(self, api: ApiClient, *, clock: Callable[[], float] = time.monotonic) -> None:
        refused = f"not a token of a Pod for the audience {names.TOKEN_AUDIENCE}"
        super().__init__(api, _caller, refused, MOST_AT_ONCE, MOST_WAITING, clock)


class PeoplesTokens(_Reviews[Person]):
    """Those that people asked for, which are bound to no Pod: a step's own token is none of them."""

    def __init__(self, api: ApiClient, *, clock: Callable[[], float] = time.monotonic) -> None:
        refused = (
            f"not a token of a ServiceAccount for the audience {names.TOKEN_AUDIENCE}, or one of a Pod's"
        )
        super().__init__(api, _person, refused, MOST_AT_ONCE_FOR_PEOPLE, MOST_WAITING_FOR_PEOPLE, clock)


def _serves(answer: object) -> float:
    """The seconds that an answer serves; none for what the API server did not say."""
    if not isinstance(answer, ErrorAnswer):
        return FRESH
    return FRESH_REFUSAL if answer.code == HTTPStatus.UNAUTHORIZED else 0


def _caller(status: Mapping[str, Any]) -> Caller | None:
    """The Pod in a TokenReview's status."""
    account, extra = _account(status)
    pod, uid = _only(extra.get(_POD_NAME)), _only(extra.get(_POD_UID))
    return Caller(*account, pod, uid) if account and pod and uid else None


def _person(status: Mapping[str, Any]) -> Person | None:
    """The account in a TokenReview's status, where nothing is said of a Pod."""
    account, extra = _account(status)
    return Person(*account) if account and _POD_NAME not in extra and _POD_UID not in extra else None


def _account(status: Mapping[str, Any]) -> tuple[tuple[str, str] | None, Mapping[str, Any]]:
    """The account in a TokenReview's status, its Namespace first, and what else is said of the token.

    An authenticator that knows no audiences names none, and has taken the token for any: `audiences` decides.
    """
    if status.get("authenticated") is not True or names.TOKEN_AUDIENCE not in (status.get("audiences") or ()):
        return None, {}
    user = status.get("user") or {}
    *kind, namespace, service_account = [*_parts(user.get("username")), "", ""][:4]
    if tuple(kind) != _SERVICE_ACCOUNT or not (namespace and service_account):
        return None, {}
    return (namespace, service_account), user.get("extra") or {}


def _parts(username: object) -> list[str]:
    parts = username.split(":") if isinstance(username, str) else []
    return parts if len(parts) == 4 else []


def _only(values: object) -> str:
    return values[0] if isinstance(values, list) and len(values) == 1 and isinstance(values[0], str) else ""


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
