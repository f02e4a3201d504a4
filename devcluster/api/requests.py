"""What a request asks for, read from its method, path and query: Kubernetes' own words for it."""

from collections.abc import Mapping
from dataclasses import dataclass

from devcluster.api import errors, kinds
from devcluster.api.kinds import Kind

_TRUE = ("1", "true", "True", "t", "T")


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """`verb` is the one of RBAC; `name` and `subresource` are empty where the request has none.

    A list or watch of one object by its name (`fieldSelector=metadata.name=…`) has that name: RBAC counts it.
    """

    verb: str
    kind: Kind
    namespace: str
    name: str
    subresource: str
    dry_run: bool


def parse(method: str, path: str, query: Mapping[str, str]) -> RequestInfo:
    """The request's meaning; ApiError 404 or 405 where nothing is served, 422 for another `dryRun`."""
    group, version, rest = _split_group(path)
    namespace = ""
    if len(rest) >= 3 and rest[0] == "namespaces":
        namespace, rest = rest[1], rest[2:]
    kind = kinds.by_resource(group, version, rest[0]) if rest else None
    if kind is None or (namespace and not kind.namespaced):
        raise errors.no_such_resource()
    name, subresource = (*rest[1:], "", "")[:2]
    if len(rest) > 3 or subresource not in _subresources(kind):
        raise errors.no_such_resource()
    if name and not kind.stored:
        raise errors.no_such_resource()
    verb = _verb(kind, method, name, subresource, query)
    if kind.namespaced and not namespace and (name or verb not in ("list", "watch")):
        raise errors.method_not_allowed()
    if verb in ("list", "watch", "deletecollection"):
        name = _selected_name(query)
    return RequestInfo(verb, kind, namespace, name, subresource, _dry_run(method, query))


def _split_group(path: str) -> tuple[str, str, list[str]]:
    match path.strip("/").split("/"):
        case ["api", version, *rest]:
            return "", version, rest
        case ["apis", group, version, *rest]:
            return group, version, rest
    raise errors.no_such_resource()


def _subresources(kind: Kind) -> tuple[str, ...]:
    if kind is kinds.SERVICE_ACCOUNT:
        return ("", "token")
    if kind is kinds.POD:
        return ("", "status", "binding")
    return ("", "status") if kind.status_subresource else ("",)


def _verb(kind: Kind, method: str, name: str, subresource: str, query: Mapping[str, str]) -> str:
    if subresource in ("token", "binding") or not kind.stored:
        verb = {"POST": "create"}.get(method)
    elif name:
        verb = {"GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}.get(method)
        if subresource == "status" and verb == "delete":
            verb = None
    elif method == "GET" and query.get("watch") in _TRUE:
        verb = "watch"
    else:
        verb = {"GET": "list", "POST": "create", "DELETE": "deletecollection"}.get(method)
    if verb is None:
        raise errors.method_not_allowed()
    return verb


def _selected_name(query: Mapping[str, str]) -> str:
    """The name that a field selector asks for: `resourceNames` count for it (apiserver, requestinfo.go)."""
    for term in query.get("fieldSelector", "").split(","):
        field, _, value = term.replace("==", "=").partition("=")
        if field == "metadata.name":
            return value
    return ""


def _dry_run(method: str, query: Mapping[str, str]) -> bool:
    wanted = query.get("dryRun", "")
    if wanted in ("", "All"):
        return wanted == "All"
    options = {"POST": "CreateOptions", "PATCH": "PatchOptions", "DELETE": "DeleteOptions"}
    name = options.get(method, "UpdateOptions")
    cause = errors.Cause(
        "dryRun", "FieldValueNotSupported", f'Unsupported value: ["{wanted}"]: supported values: "All"'
    )
    raise errors.invalid(Kind("meta.k8s.io", "v1", name, ""), "", [cause])
