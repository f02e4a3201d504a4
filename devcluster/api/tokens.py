"""Who asks: bearer tokens, opaque and kept in memory. Left out: that a token ends with its time."""

import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from devcluster.api import errors, kinds
from devcluster.api.errors import ApiError
from devcluster.api.kinds import Object
from devcluster.api.store import Store

MASTERS = "system:masters"
API_AUDIENCE = "https://kubernetes.default.svc"
"""Of a token that names no other; no other token is taken by the API itself."""

_EXTRA = "authentication.kubernetes.io"


@dataclass(frozen=True, slots=True)
class User:
    """A request's user as RBAC and webhooks see it."""

    name: str
    groups: tuple[str, ...]
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def info(self) -> Object:
        """As authentication.k8s.io/v1 UserInfo."""
        fields = {
            "username": self.name,
            "uid": self.uid,
            "groups": list(self.groups),
            "extra": {key: list(values) for key, values in self.extra.items()},
        }
        return {key: value for key, value in fields.items() if value}


ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))
ADMIN = User("admin", (MASTERS, "system:authenticated"))


class InvalidTokenError(Exception):
    """A token that is not taken; the text is what a TokenReview says."""


@dataclass(frozen=True, slots=True)
class Issued:
    """What a service account's token stands for; `pod` (name, UID) where it ends with a Pod."""

    namespace: str
    name: str
    uid: str
    audiences: tuple[str, ...]
    pod: tuple[str, str] | None
    id: str


class Tokens:
    """The tokens issued: one for the admin, and any number per service account."""

    def __init__(self, store: Store):
        self._store = store
        self.admin = secrets.token_urlsafe(24)
        self._issued: dict[str, Issued] = {}

    def issue(
        self,
        namespace: str,
        name: str,
        audiences: Sequence[str] = (API_AUDIENCE,),
        pod: tuple[str, str] | None = None,
    ) -> str:
        """A token of a service account; it dies with the account. ApiError 404 without the account."""
        account = self.account(namespace, name)
        token = secrets.token_urlsafe(24)
        uid = account["metadata"]["uid"]
        self._issued[token] = Issued(namespace, name, uid, tuple(audiences), pod, str(uuid.uuid4()))
        return token

    def account(self, namespace: str, name: str) -> Object:
        """The ServiceAccount; ApiError 404 if there is none."""
        account = self._store.get(kinds.SERVICE_ACCOUNT, namespace, name)
        if account is None:
            raise errors.not_found(kinds.SERVICE_ACCOUNT, name)
        return account

    def user(self, authorization: str) -> User:
        """The user behind an Authorization header, the anonymous one without a header; ApiError 401."""
        if not authorization:
            return ANONYMOUS
        try:
            return self.authenticate(authorization.removeprefix("Bearer "), [API_AUDIENCE])[0]
        except InvalidTokenError as error:
            raise errors.unauthorized() from error

    def authenticate(self, token: str, audiences: Sequence[str]) -> tuple[User, list[str]]:
        """A token's user, and those of the audiences that it is for; InvalidTokenError if it is for none.

        A token that was bound to a Pod ends with it, at once (the real server may remember for 10 seconds
        that a token was good).
        """
        if secrets.compare_digest(token.encode(), self.admin.encode()) and API_AUDIENCE in audiences:
            return ADMIN, [API_AUDIENCE]
        issued = self._issued.get(token)
        if issued is None:
            raise InvalidTokenError("invalid bearer token")
        common = [audience for audience in audiences if audience in issued.audiences]
        if not common:
            told, wanted = _listed(issued.audiences), _listed(audiences)
            why = f"token audiences {told} is invalid for the target audiences {wanted}"
            raise InvalidTokenError(f"[invalid bearer token, {why}]")
        try:
            account = self.account(issued.namespace, issued.name)
        except ApiError as error:
            raise InvalidTokenError(f"[invalid bearer token, {error}]") from error
        if account["metadata"]["uid"] != issued.uid or not self._has_its_pod(issued):
            raise InvalidTokenError("[invalid bearer token, service account token has been invalidated]")
        return _user(issued), common

    def _has_its_pod(self, issued: Issued) -> bool:
        if issued.pod is None:
            return True
        pod = self._store.get(kinds.POD, issued.namespace, issued.pod[0])
        return pod is not None and pod["metadata"]["uid"] == issued.pod[1]


def _user(issued: Issued) -> User:
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{issued.namespace}", "system:authenticated")
    extra = {f"{_EXTRA}/credential-id": (f"JTI={issued.id}",)}
    if issued.pod is not None:
        extra |= {f"{_EXTRA}/pod-name": (issued.pod[0],), f"{_EXTRA}/pod-uid": (issued.pod[1],)}
    return User(f"system:serviceaccount:{issued.namespace}:{issued.name}", groups, issued.uid, extra)


def _listed(audiences: Sequence[str]) -> str:
    """As Go prints a list of quoted strings."""
    return "[" + " ".join(f'"{audience}"' for audience in audiences) + "]"
