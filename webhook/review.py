"""AdmissionReview, admission.k8s.io/v1: what the API server asks, and what it is answered.

Two channels of error, never mixed: a body that is no review is a MalformedReviewError (HTTP 400, the caller's
mistake); an object that cannot work is a denial inside a good answer (HTTP 200).
"""

import base64
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from argo.fields import FieldError, cut
from kube import fastjson
from kube.jsonpatch import Op
from memoize.reasons import Reason

API_VERSION = "admission.k8s.io/v1"
_OPERATIONS = ("CREATE", "UPDATE", "DELETE", "CONNECT")
ANSWER = 64 * 1024
"""Bytes of an answer at most, the patch left out: who writes an object decides how much is wrong with it."""
_UID = 128
"""Characters of a review's uid; the API server's have 36."""
_SHOWN = 253
"""Characters of a name that is repeated, as long as Kubernetes lets one be."""
_LENGTHS = (512, 128, 16)
"""Characters of an error's place, and of its message: as many as there is room for."""


class MalformedReviewError(ValueError):
    """The body is no AdmissionReview v1; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class AdmissionRequest:
    """The question. `object` and `old_object` are as the API server sent them, None where it sent none.

    `name` is empty where the API server will make one from `generateName`.
    """

    uid: str
    group: str
    kind: str
    subresource: str
    operation: str
    namespace: str
    name: str
    object: Mapping[str, Any] | None
    old_object: Mapping[str, Any] | None
    dry_run: bool
    size: int = sys.maxsize
    """Bytes of the whole question: the object comes to no more."""

    @property
    def shown_name(self) -> str:
        """The name, or the prefix that it will begin with; the beginning of one that is too long."""
        return cut(self.name or str(_metadata(self.object).get("generateName") or ""), _SHOWN)


def parse(body: bytes) -> AdmissionRequest:
    """The question in a request's body; MalformedReviewError for anything else."""
    try:
        document = fastjson.loads(body)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise MalformedReviewError(f"the body is not JSON: {error}") from None
    review = _Reader(document, "the body")
    version, kind = review.text("apiVersion"), review.text("kind")
    if (version, kind) != (API_VERSION, "AdmissionReview"):
        got = f"{kind or 'no kind'} of {version or 'no apiVersion'}"
        raise MalformedReviewError(f"expected an AdmissionReview of {API_VERSION}, got {got}")
    request = review.reader("request")
    kind_of_object = request.reader("kind")
    operation = request.text("operation")
    if operation not in _OPERATIONS:
        raise MalformedReviewError(f"request.operation must be one of {', '.join(_OPERATIONS)}")
    uid = request.text("uid")
    if not uid:
        raise MalformedReviewError("request.uid is missing")
    if len(uid) > _UID:
        raise MalformedReviewError("request.uid is too long")
    parsed = AdmissionRequest(
        uid=uid,
        group=kind_of_object.text("group"),
        kind=kind_of_object.text("kind"),
        subresource=request.text("subResource"),
        operation=operation,
        namespace=request.text("namespace"),
        name=request.text("name"),
        object=request.mapping("object"),
        old_object=request.mapping("oldObject"),
        dry_run=request.flag("dryRun"),
        size=len(body),
    )
    if parsed.object is None and operation in ("CREATE", "UPDATE"):
        raise MalformedReviewError(f"request.object is missing from a {operation}")
    if parsed.old_object is None and operation == "UPDATE":
        raise MalformedReviewError("request.oldObject is missing from an UPDATE")
    return parsed


def allowed(
    request: AdmissionRequest, reason: Reason, warnings: Sequence[str] = (), ops: Sequence[Op] = ()
) -> dict[str, Any]:
    """Let the object through, changed by `ops` where there are any."""
    response: dict[str, Any] = {"allowed": True}
    if ops:
        patch = json.dumps(list(ops), separators=(",", ":")).encode()
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(patch).decode()}
    return _review(request, reason, warnings, response)


def denied(
    request: AdmissionRequest,
    reason: Reason,
    errors: Sequence[FieldError],
    warnings: Sequence[str] = (),
    more: int = 0,
) -> dict[str, Any]:
    """Refuse the object as the API server itself refuses an invalid one (apimachinery, errors.NewInvalid).

    kubectl lists the causes; argo's command line shows the message alone, so all errors are there as well,
    and that there are so many `more`. What does not fit into ANSWER is cut.
    """
    group, kind = cut(request.group, _SHOWN), cut(request.kind, _SHOWN)
    told = [(error.kind.value, error.message, error.field) for error in errors]
    answer: dict[str, Any] = {}
    for most in _LENGTHS:
        causes = [
            {"reason": code, "message": cut(message, most), "field": cut(field, most)}
            for code, message, field in told
        ]
        said = [f"{cause['field']}: {cause['message']}" for cause in causes]
        said += [f"and {more} more"] if more else []
        listed = said[0] if len(said) == 1 else f"[{', '.join(said)}]"
        status = {
            "status": "Failure",
            "code": 422,
            "reason": "Invalid",
            "message": f'{kind}.{group} "{request.shown_name}" is invalid: {listed}',
            "details": {"name": request.shown_name, "group": group, "kind": kind, "causes": causes},
        }
        answer = _review(request, reason, warnings, {"allowed": False, "status": status})
        if len(json.dumps(answer)) <= ANSWER:
            break
    return answer


def _review(
    request: AdmissionRequest, reason: Reason, warnings: Sequence[str], response: Mapping[str, Any]
) -> dict[str, Any]:
    said: dict[str, Any] = {"warnings": list(warnings)} if warnings else {}
    # The API server puts the webhook's name before the key: pods.stepmemo.dev/reason.
    annotations = {"auditAnnotations": {"reason": reason.value}}
    return {
        "apiVersion": API_VERSION,
        "kind": "AdmissionReview",
        "response": {"uid": request.uid, **response, **said, **annotations},
    }


def _metadata(document: Mapping[str, Any] | None) -> Mapping[str, Any]:
    metadata = (document or {}).get("metadata")
    return metadata if isinstance(metadata, dict) else {}


class _Reader:
    """An object of the review; every mistake names the path it is at."""

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, dict):
            raise MalformedReviewError(f"{path} must be an object")
        self._value, self._path = value, "" if path == "the body" else f"{path}."

    def text(self, name: str) -> str:
        return str(self._typed(name, str, "a string") or "")

    def flag(self, name: str) -> bool:
        return bool(self._typed(name, bool, "true or false"))

    def mapping(self, name: str) -> Mapping[str, Any] | None:
        found: Mapping[str, Any] | None = self._typed(name, dict, "an object")
        return found

    def reader(self, name: str) -> "_Reader":
        return _Reader(self._value.get(name), f"{self._path}{name}")

    def _typed(self, name: str, type_: type, called: str) -> Any:
        value = self._value.get(name)
        if value is not None and not isinstance(value, type_):
            raise MalformedReviewError(f"{self._path}{name} must be {called}")
        return value
