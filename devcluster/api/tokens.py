"""Who asks: bearer tokens, opaque and kept in memory."""

import secrets
from dataclasses import dataclass

from devcluster.api import errors, kinds
from devcluster.api.store import Store

MASTERS = "system:masters"


@dataclass(frozen=True, slots=True)
class User:
    """A request's user as RBAC and webhooks see it."""

    name: str
    groups: tuple[str, ...]
    uid: str = ""


ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))
ADMIN = User("admin", (MASTERS, "system:authenticated"))


class Tokens:
    """The tokens issued: one for the admin, and any number per service account."""

    def __init__(self, store: Store):
        self._store = store
        self.admin = secrets.token_urlsafe(24)
        self._accounts: dict[str, tuple[str, str, str]] = {}

    def issue(self, namespace: str, name: str) -> str:
        """A token of a service account; it dies with the account. ApiError 404 without the account."""
        account = self._store.get(kinds.SERVICE_ACCOUNT, namespace, name)
        if account is None:
            raise errors.not_found(kinds.SERVICE_ACCOUNT, name)
        token = secrets.token_urlsafe(24)
        self._accounts[token] = (namespace, name, account["metadata"]["uid"])
        return token

    def user(self, authorization: str) -> User:
        """The user behind an Authorization header, the anonymous one without a header; ApiError 401."""
        if not authorization:
            return ANONYMOUS
        token = authorization.removeprefix("Bearer ")
        if secrets.compare_digest(token.encode(), self.admin.encode()):
            return ADMIN
        namespace, name, uid = self._accounts.get(token, ("", "", ""))
        account = self._store.get(kinds.SERVICE_ACCOUNT, namespace, name)
        if account is None or account["metadata"]["uid"] != uid:
            raise errors.unauthorized()
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
        return User(f"system:serviceaccount:{namespace}:{name}", groups, uid)
