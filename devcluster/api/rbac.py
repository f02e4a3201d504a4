"""Whether a user may: role-based access control from the Role and binding objects in the store.

Left out: aggregated ClusterRoles, rules for paths that are no resource's, the check that nobody grants more
than he has.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from devcluster.api import errors, kinds
from devcluster.api.kinds import Object
from devcluster.api.requests import RequestInfo
from devcluster.api.store import Store
from devcluster.api.tokens import MASTERS, User

Rule = Mapping[str, Any]


def authorize(store: Store, user: User, info: RequestInfo) -> None:
    """ApiError 403, in the server's words, unless a rule bound to the user allows the request."""
    if MASTERS in user.groups:
        return
    namespace = info.name if info.kind is kinds.NAMESPACE else info.namespace
    if any(_allows(rule, info) for rule in _rules(store, user, namespace)):
        return
    resource = f"{info.kind.plural}/{info.subresource}" if info.subresource else info.kind.plural
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    why = (
        f'User "{user.name}" cannot {info.verb} resource "{resource}" '
        f'in API group "{info.kind.group}" {where}'
    )
    raise errors.forbidden(info.kind, info.name, why)


def authorize_path(user: User, verb: str, path: str) -> None:
    """ApiError 403, in the server's words, unless the user may do this at a path that is no resource's."""
    if MASTERS not in user.groups:
        raise errors.forbidden_path(f'User "{user.name}" cannot {verb} path "{path}"')


def _allows(rule: Rule, info: RequestInfo) -> bool:
    resource = info.kind.plural
    names = rule.get("resourceNames") or []
    if info.subresource:
        wanted = {f"{resource}/{info.subresource}", f"*/{info.subresource}", "*"}
    else:
        wanted = {resource, "*"}
    return (
        not {info.verb, "*"}.isdisjoint(rule.get("verbs") or [])
        and not {info.kind.group, "*"}.isdisjoint(rule.get("apiGroups") or [])
        and not wanted.isdisjoint(rule.get("resources") or [])
        and (not names or info.name in names)
    )


def _rules(store: Store, user: User, namespace: str) -> Iterable[Rule]:
    for binding in store.objects(kinds.CLUSTER_ROLE_BINDING):
        if _binds(binding, user):
            yield from _role_rules(store, binding, "")
    if namespace:
        for binding in store.objects(kinds.ROLE_BINDING, namespace):
            if _binds(binding, user):
                yield from _role_rules(store, binding, namespace)


def _binds(binding: Object, user: User) -> bool:
    for subject in binding.get("subjects") or []:
        match subject["kind"]:
            case "ServiceAccount":
                namespace = subject.get("namespace") or binding["metadata"].get("namespace")
                if user.name == f"system:serviceaccount:{namespace}:{subject['name']}":
                    return True
            case "Group":
                if subject["name"] in user.groups:
                    return True
            case "User":
                if subject["name"] == user.name:
                    return True
    return False


def _role_rules(store: Store, binding: Object, namespace: str) -> Iterable[Rule]:
    reference = binding["roleRef"]
    kind = kinds.CLUSTER_ROLE if reference["kind"] == "ClusterRole" else kinds.ROLE
    role = store.get(kind, namespace if kind is kinds.ROLE else "", reference["name"])
    return (role or {}).get("rules") or []
