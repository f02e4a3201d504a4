"""Refusals in the words of a real API server (1.35, compared by tests/contract)."""

import json
from dataclasses import dataclass
from typing import Any

from devcluster.api.kinds import Kind, Object


class ApiError(Exception):
    """A request refused.

    `status` is the Status object that goes into the response, `warnings` what webhooks had to say before.
    """

    def __init__(self, code: int, reason: str, message: str, details: Object | None = None):
        super().__init__(message)
        self.code = code
        self.warnings: list[str] = []
        self.status: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "code": code,
        }
        if reason:
            self.status["reason"] = reason
        if details is not None:
            self.status["details"] = details


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing wrong with an object: where, of what sort (`FieldValueInvalid` …) and in words."""

    field: str
    reason: str
    message: str


def invalid_value(field: str, value: Any, why: str) -> Cause:
    """A value that is of the right type and still cannot be."""
    shown = json.dumps(value, ensure_ascii=False)
    return Cause(field, "FieldValueInvalid", f"Invalid value: {shown}: {why}")


def required(field: str, why: str = "") -> Cause:
    """A value that is missing."""
    return Cause(field, "FieldValueRequired", f"Required value: {why}" if why else "Required value")


def too_long(field: str, limit: int) -> Cause:
    """A value of too many bytes."""
    return Cause(field, "FieldValueTooLong", f"Too long: may not be more than {limit} bytes")


def forbidden_value(field: str, why: str) -> Cause:
    """A value that may not stand there, or may not be changed."""
    return Cause(field, "FieldValueForbidden", f"Forbidden: {why}")


def duplicate(field: str, value: str) -> Cause:
    """A value that is there already."""
    return Cause(field, "FieldValueDuplicate", f"Duplicate value: {json.dumps(value)}")


def _details(kind: Kind, name: str, kind_name: str, **more: Any) -> Object:
    details: Object = {"kind": kind_name, **more}
    if name:
        details["name"] = name
    if kind.group:
        details["group"] = kind.group
    return details


def unauthorized() -> ApiError:
    """A token that nobody issued, or whose account is gone."""
    return ApiError(401, "Unauthorized", "Unauthorized")


def forbidden(kind: Kind, name: str, why: str) -> ApiError:
    """A right that is missing, or an admission plugin's refusal."""
    subject = f'{kind.resource} "{name}"' if name else kind.resource
    return ApiError(403, "Forbidden", f"{subject} is forbidden: {why}", _details(kind, name, kind.plural))


def forbidden_path(why: str) -> ApiError:
    """A right to a path that is no resource's."""
    return ApiError(403, "Forbidden", f"forbidden: {why}", {})


def bad_request(message: str) -> ApiError:
    """A request that is not understood."""
    return ApiError(400, "BadRequest", message)


def other_on_url(field: str, found: str, on_url: str) -> ApiError:
    """An object that is not the one of its request's path."""
    return bad_request(
        f"the {field} of the object ({found}) does not match the {field} on the URL ({on_url})"
    )


def no_such_resource() -> ApiError:
    """A path under which nothing is served."""
    return ApiError(404, "NotFound", "the server could not find the requested resource", {})


def not_found(kind: Kind, name: str) -> ApiError:
    """An object that is not there."""
    message = f'{kind.resource} "{name}" not found'
    return ApiError(404, "NotFound", message, _details(kind, name, kind.plural))


def already_exists(kind: Kind, name: str) -> ApiError:
    """A create of an object that is there."""
    message = f'{kind.resource} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, _details(kind, name, kind.plural))


def conflict(kind: Kind, name: str) -> ApiError:
    """A write on the base of a resourceVersion that is no longer the newest."""
    why = "the object has been modified; please apply your changes to the latest version and try again"
    return cannot_be_fulfilled(kind.resource, name, why, _details(kind, name, kind.plural))


def cannot_be_fulfilled(resource: str, name: str, why: str, details: Object | None = None) -> ApiError:
    """A request that does not go with the state of what it is about."""
    message = f'Operation cannot be fulfilled on {resource} "{name}": {why}'
    return ApiError(409, "Conflict", message, details or {"name": name, "kind": resource})


def precondition_failed(kind: Kind, name: str, field: str, wanted: str, found: str) -> ApiError:
    """A delete whose precondition (`UID` or `ResourceVersion`) does not hold."""
    message = (
        f'Operation cannot be fulfilled on {kind.qualified} "{name}": the {field} in the precondition '
        f"({wanted}) does not match the {field} in record ({found}). "
        "The object might have been deleted and then recreated"
    )
    return ApiError(409, "Conflict", message, _details(kind, name, kind.name))


def method_not_allowed() -> ApiError:
    """A verb that the resource does not have."""
    message = "the server does not allow this method on the requested resource"
    return ApiError(405, "MethodNotAllowed", message, {})


def expired(revision: int, oldest: int) -> ApiError:
    """A watch from a revision that is no longer remembered."""
    return ApiError(410, "Expired", f"too old resource version: {revision} ({oldest})")


def continue_expired(token: str) -> ApiError:
    """A page of a list whose first page is no longer remembered; `token` leads on without consistency."""
    message = (
        "The provided continue parameter is too old to display a consistent list result. You can start a new "
        "list without the continue parameter, or use the continue token in this response to retrieve the "
        "remainder of the results. Continuing with the provided token results in an inconsistent list - "
        "objects that were created, modified, or deleted between the time the first chunk was returned and "
        "now may show up in the list."
    )
    error = ApiError(410, "Expired", message)
    error.status["metadata"] = {"continue": token}
    return error


def too_large(limit: int) -> ApiError:
    """A body of more bytes than the server reads."""
    return ApiError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit}")


def unsupported_patch(accepted: tuple[str, ...]) -> ApiError:
    """A patch in a format that the resource does not take."""
    message = "the body of the request was in an unknown format - accepted media types include: "
    return ApiError(415, "UnsupportedMediaType", message + ", ".join(accepted))


def not_implemented(what: str) -> ApiError:
    """What a real API server does and the devcluster does not: said, rather than done in another way."""
    return ApiError(501, "NotImplemented", f"the devcluster does not know {what}")


def patch_failed() -> ApiError:
    """A JSON Patch that does not apply, a failed `test` included: the server does not say which."""
    message = "the server rejected our request due to an error in our request"
    return ApiError(422, "Invalid", message, {})


def invalid(kind: Kind, name: str, causes: list[Cause], kind_name: str = "") -> ApiError:
    """An object that cannot be, with everything that is wrong with it."""
    lines = [f"{cause.field}: {cause.message}" for cause in causes]
    what = lines[0] if len(lines) == 1 else f"[{', '.join(lines)}]"
    shown = kind_name or kind.name
    qualified = f"{shown}.{kind.group}" if kind.group else shown
    entries = [{"reason": c.reason, "message": c.message, "field": c.field} for c in causes]
    details = _details(kind, name, shown, causes=entries)
    return ApiError(422, "Invalid", f'{qualified} "{name}" is invalid: {what}', details)


def internal(message: str) -> ApiError:
    """A failure of the server or of a webhook that it asked."""
    text = f"Internal error occurred: {message}"
    return ApiError(500, "InternalError", text, {"causes": [{"message": message}]})
