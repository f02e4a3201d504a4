"""AdmissionReview: the question put to a webhook, and what its answer means."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from devcluster.api import errors, naming, patches
from devcluster.api.errors import ApiError
from devcluster.api.kinds import Kind, Object
from devcluster.api.tokens import User


class WebhookError(Exception):
    """A webhook that could not be asked or did not answer as it must; failurePolicy decides what follows."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """One write on its way into the store."""

    kind: Kind
    namespace: str
    name: str
    subresource: str
    operation: Literal["CREATE", "UPDATE", "DELETE"]
    user: User
    dry_run: bool


def question(attributes: Attributes, new: Object | None, old: Object | None) -> Object:
    """The `request` of an AdmissionReview (admission.k8s.io/v1)."""
    kind = attributes.kind
    group_kind = {"group": kind.group, "version": kind.version, "kind": kind.name}
    group_resource = {"group": kind.group, "version": kind.version, "resource": kind.plural}
    user = attributes.user
    options_kind = attributes.operation.capitalize() + "Options"
    options: Object = {"kind": options_kind, "apiVersion": "meta.k8s.io/v1"}
    if attributes.dry_run:
        options["dryRun"] = ["All"]
    request: Object = {
        "uid": naming.uid(),
        "kind": group_kind,
        "resource": group_resource,
        "requestKind": group_kind,
        "requestResource": group_resource,
        "operation": attributes.operation,
        "userInfo": user.info(),
        "object": new,
        "oldObject": old,
        "dryRun": attributes.dry_run,
        "options": options,
    }
    for field in ("name", "namespace"):
        if value := getattr(attributes, field):
            request[field] = value
    if attributes.subresource:
        request["subResource"] = request["requestSubResource"] = attributes.subresource
    return request


def read(text: str, uid: str) -> Object:
    """The `response` in a webhook's answer to the request of this UID; WebhookError if it is none."""
    invalid = "received invalid webhook response:"
    try:
        response = json.loads(text)["response"]
        if response["uid"] != uid:
            raise WebhookError(f'{invalid} expected response.uid="{uid}", got "{response["uid"]}"')
        patch, patch_type = response.get("patch"), response.get("patchType")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise WebhookError(f"failed to call webhook: couldn't get version/kind; {error}") from error
    if patch and not patch_type:
        raise WebhookError(f"{invalid} webhook returned response.patch but not response.patchType")
    if patch_type and patch_type != "JSONPatch":
        raise WebhookError(f'{invalid} webhook returned response.patchType "{patch_type}"')
    found: Object = response
    return found


def denial(name: str, status: Mapping[str, Any]) -> ApiError:
    """What the client gets when the webhook of this name does not allow the request."""
    why = status.get("message") or status.get("reason")
    message = f'admission webhook "{name}" denied the request'
    message += f": {why}" if why else " without explanation"
    code = max(int(status.get("code") or 0), 400)
    return ApiError(code, status.get("reason", ""), message, status.get("details"))


def patched(obj: Object, encoded: str) -> Object:
    """The object with a response's patch applied; ApiError 500 if that is not possible."""
    try:
        return patches.apply_operations(json.loads(base64.b64decode(encoded)), obj)
    except (patches.PatchError, ValueError, TypeError) as error:
        raise errors.internal(str(error)) from error
