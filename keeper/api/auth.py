"""Who is calling: the API server says it of a token (TokenReview, authentication.k8s.io/v1).

Only tokens for our own audience are taken, so that one which reached us by mistake is worth nothing here, and
ours nothing at the API server. The kubelet binds them to their Pod: the API server takes none of a Pod that
is gone, and names the Pod (KEP-2799; `extra` has it since Kubernetes 1.20).
"""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

from kubernetes_asyncio.client import ApiClient

from keeper.api.errors import Refusal, unavailable
from kube import client
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
LONGEST = 16 << 10
"""Characters of a token; the API server's own are about a kilobyte."""

_POD_NAME = "authentication.kubernetes.io/pod-name"
_POD_UID = "authentication.kubernetes.io/pod-uid"
_SERVICE_ACCOUNT = ("system", "serviceaccount")


class Caller(NamedTuple):
    """The Pod that a token was made for."""

    namespace: str
    service_account: str
    pod: str
    uid: str


_REFUSED = Refusal(HTTPStatus.UNAUTHORIZED, f"not a token of a Pod for the audience {names.TOKEN_AUDIENCE}")
_BUSY = unavailable("too many tokens are being reviewed")


class Tokens:
    """Reviews tokens, each one once in a while; keeps digests, never a token. `clock` counts seconds."""

    def __init__(self, api: ApiClient, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._api, self._clock = api, clock
        self._answers: OrderedDict[bytes, tuple[float, Caller | Refusal]] = OrderedDict()
        self._reviewing: dict[bytes, asyncio.Task[Caller | Refusal]] = {}
        self._at_once = asyncio.Semaphore(MOST_AT_ONCE)

    def known(self, token: str) -> Caller | Refusal | None:
        """The answer, where it is there and fresh."""
        answer = self._answers.get(_digest(token))
        return answer[1] if answer is not None and self._clock() < answer[0] else None

    async def caller(self, token: str) -> Caller | Refusal:
        """Whose token it is; a 401 for one that is not taken, a 503 where the API server does not say."""
        if not 0 < len(token) <= LONGEST or not token.isascii() or not token.isprintable():
            return _REFUSED
        if (known := self.known(token)) is not None:
            return known
        digest = _digest(token)
        reviewing = self._reviewing.get(digest)
        if reviewing is None:
            if len(self._reviewing) >= MOST_AT_ONCE + MOST_WAITING:
                return _BUSY
            reviewing = self._reviewing[digest] = asyncio.ensure_future(self._answer(digest, token))
        # One caller that hangs up must not end the review that others wait for.
        return await asyncio.shield(reviewing)

    async def _answer(self, digest: bytes, token: str) -> Caller | Refusal:
        try:
            answer = await self._review(token)
        finally:
            del self._reviewing[digest]
        if isinstance(answer, Caller) or answer is _REFUSED:
            fresh = FRESH if isinstance(answer, Caller) else FRESH_REFUSAL
            self._answers[digest] = (self._clock() + fresh, answer)
            self._answers.move_to_end(digest)
            while len(self._answers) > MOST:
                self._answers.popitem(last=False)
        return answer

    async def _review(self, token: str) -> Caller | Refusal:
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
        return _caller(status) or _REFUSED


def _caller(status: Mapping[str, Any]) -> Caller | None:
    """The caller in a TokenReview's status.

    An authenticator that knows no audiences names none, and has taken the token for any: `audiences` decides.
    """
    if status.get("authenticated") is not True or names.TOKEN_AUDIENCE not in (status.get("audiences") or ()):
        return None
    user = status.get("user") or {}
    *kind, namespace, service_account = [*_parts(user.get("username")), "", ""][:4]
    extra = user.get("extra") or {}
    pod, uid = _only(extra.get(_POD_NAME)), _only(extra.get(_POD_UID))
    if tuple(kind) != _SERVICE_ACCOUNT or not (namespace and service_account and pod and uid):
        return None
    return Caller(namespace, service_account, pod, uid)


def _parts(username: object) -> list[str]:
    parts = username.split(":") if isinstance(username, str) else []
    return parts if len(parts) == 4 else []


def _only(values: object) -> str:
    return values[0] if isinstance(values, list) and len(values) == 1 and isinstance(values[0], str) else ""


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
