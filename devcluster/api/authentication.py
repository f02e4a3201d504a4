"""The two questions about tokens, each asked by a create: TokenRequest and TokenReview."""

from datetime import UTC, datetime, timedelta
from typing import Any

from devcluster.api import errors, kinds, naming, objects
from devcluster.api.kinds import Kind, Object
from devcluster.api.store import Store
from devcluster.api.tokens import API_AUDIENCE, InvalidTokenError, Tokens

_TOKEN_REQUEST = Kind("authentication.k8s.io", "v1", "TokenRequest", "")
_EXPIRATION_SECONDS = 3600
"""Where the request does not say (pkg/apis/authentication/v1/defaults.go)."""
_LEAST_SECONDS = 600


def request(store: Store, tokens: Tokens, namespace: str, name: str, body: bytes) -> Object:
    """The TokenRequest in a body, with a service account's new token; ApiError 400, 404, 409 or 422."""
    wanted = objects.parse(_TOKEN_REQUEST, body)
    account = tokens.account(namespace, name)
    spec: dict[str, Any] = dict(wanted.get("spec") or {})
    spec["audiences"] = spec.get("audiences") or [API_AUDIENCE]
    seconds = spec.setdefault("expirationSeconds", _EXPIRATION_SECONDS)
    if seconds < _LEAST_SECONDS:
        why = "may not specify a duration less than 10 minutes"
        cause = errors.invalid_value("spec.expirationSeconds", seconds, why)
        raise errors.invalid(_TOKEN_REQUEST, "", [cause])
    reference = spec.setdefault("boundObjectRef", None)
    pod = _bound_pod(store, namespace, name, reference) if reference else None
    token = tokens.issue(namespace, name, spec["audiences"], pod)
    expires = datetime.now(UTC) + timedelta(seconds=seconds)
    return {
        **wanted,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": account["metadata"]["uid"],
            "creationTimestamp": naming.timestamp(),
        },
        "spec": spec,
        "status": {"token": token, "expirationTimestamp": expires.strftime("%Y-%m-%dT%H:%M:%SZ")},
    }


def review(tokens: Tokens, body: bytes) -> Object:
    """The TokenReview in a body, answered; ApiError 400 for one without a token."""
    asked = objects.parse(kinds.TOKEN_REVIEW, body)
    spec = asked.get("spec") or {}
    if not spec.get("token"):
        raise errors.bad_request("token is required for TokenReview in authentication")
    try:
        user, audiences = tokens.authenticate(spec["token"], spec.get("audiences") or [API_AUDIENCE])
        status: Object = {"authenticated": True, "user": user.info(), "audiences": audiences}
    except InvalidTokenError as error:
        status = {"user": {}, "error": str(error)}
    return {**asked, "metadata": asked.get("metadata") or {}, "status": status}


def _bound_pod(store: Store, namespace: str, account: str, reference: Object) -> tuple[str, str]:
    """Name and UID of the Pod that a token is to end with; Secrets and Nodes are left out."""
    version, kind = reference.get("apiVersion", ""), reference.get("kind", "")
    if (version, kind) != ("v1", "Pod"):
        group, _, version = version.rpartition("/")
        type_ = f"{group}/{version}, Kind={kind}"
        raise errors.bad_request(f"cannot bind token to object of type {type_}")
    name = reference.get("name", "")
    pod = store.get(kinds.POD, namespace, name)
    if pod is None:
        raise errors.not_found(kinds.POD, name)
    if pod["spec"]["serviceAccountName"] != account:
        why = "to pod running with different serviceaccount name."
        raise errors.bad_request(f'cannot bind token for serviceaccount "{account}" {why}')
    uid: str = pod["metadata"]["uid"]
    if reference.get("uid", uid) != uid:
        why = (
            f"the UID in the bound object reference ({reference['uid']}) does not match the UID in record. "
            "The object might have been deleted and then recreated"
        )
        raise errors.cannot_be_fulfilled(kind, name, why)
    return name, uid
