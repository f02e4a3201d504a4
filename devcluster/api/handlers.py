"""The verbs: what each does to the store, between authorization before it and the HTTP response after it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from devcluster.api import authentication, deletion, errors, kinds, objects, paging, patches, pods, validation
from devcluster.api.admission import Webhooks
from devcluster.api.kinds import Kind, Object
from devcluster.api.requests import RequestInfo
from devcluster.api.review import Attributes
from devcluster.api.selectors import Predicate, by_fields, by_labels
from devcluster.api.store import Store
from devcluster.api.tokens import Tokens, User

_PATCH_RETRIES = 5
_BINDING = Kind("", "v1", "Binding", "")
_DELETE_OPTIONS = Kind("meta.k8s.io", "v1", "DeleteOptions", "")


@dataclass(frozen=True, slots=True)
class Answer:
    """A response to be: its status code, its body and the webhooks' warnings."""

    code: int
    body: Object
    warnings: list[str]


class Handlers:
    """One method per verb; each takes a parsed, authorized request."""

    def __init__(self, store: Store, tokens: Tokens, webhooks: Webhooks, ca_pem: str):
        self._store = store
        self._tokens = tokens
        self._webhooks = webhooks
        self._ca_pem = ca_pem

    def get(self, info: RequestInfo) -> Answer:
        """One object."""
        return Answer(200, self._existing(info), [])

    def list_all(self, info: RequestInfo, query: Mapping[str, str]) -> Answer:
        """The objects of a kind that the selectors take, or a page of them."""
        selected = selection(info.kind, query)
        found, metadata = paging.page(self._store, info.kind, info.namespace, selected, query)
        return Answer(200, _list_of(info.kind, found, metadata), [])

    async def create(self, info: RequestInfo, user: User, body: bytes) -> Answer:
        """A new object, a service account's token, what a token is, or a Pod's node."""
        if info.subresource == "token":
            issued = authentication.request(self._store, self._tokens, info.namespace, info.name, body)
            return Answer(201, issued, [])
        if info.subresource == "binding":
            return self._bind(info, body)
        if info.kind is kinds.TOKEN_REVIEW:
            return Answer(201, authentication.review(self._tokens, body), [])
        obj = objects.decode(info, body)
        metadata = obj["metadata"]
        if metadata.get("resourceVersion"):
            raise errors.ApiError(500, "", "resourceVersion should not be set on objects to be created")
        if info.kind.namespaced and self._store.get(kinds.NAMESPACE, "", info.namespace) is None:
            raise errors.not_found(kinds.NAMESPACE, info.namespace)
        obj = self._prepare(info, obj)
        attributes = self._attributes(info, user, "CREATE", metadata.get("name", ""))
        admitted = await self._webhooks.admit(attributes, obj, None, lambda new: self._prepare(info, new))
        new = objects.identified(info.kind, admitted.object or obj)
        validation.check(info.kind, new)
        name = new["metadata"]["name"]
        if self._store.get(info.kind, info.namespace, name) is not None:
            raise errors.already_exists(info.kind, name)
        if not info.dry_run:
            new = self._store.put(info.kind, new)
            if info.kind is kinds.NAMESPACE:
                self._furnish(name)
        return Answer(201, new, admitted.warnings)

    async def update(self, info: RequestInfo, user: User, body: bytes) -> Answer:
        """The object as the client has it, if it starts from the newest one."""
        wanted = objects.decode(info, body)

        def replace(old: Object) -> Object:
            if not wanted["metadata"].get("resourceVersion") and not info.kind.unconditional:
                cause = errors.invalid_value("metadata.resourceVersion", 0, "must be specified for an update")
                raise errors.invalid(info.kind, info.name, [cause], info.kind.plural)
            return wanted

        return await self._change(info, user, replace)

    async def patch(self, info: RequestInfo, user: User, content_type: str, body: bytes) -> Answer:
        """The object with the patch applied to its newest state."""
        patch = patches.decode(content_type, body, info.kind)
        return await self._change(info, user, lambda old: patches.apply(content_type, patch, old))

    async def delete(self, info: RequestInfo, user: User, body: bytes) -> Answer:
        """The end of an object, and of what it owns."""
        options = objects.parse(_DELETE_OPTIONS, body) if body else {}
        obj = self._existing(info)
        deletion.check_preconditions(info.kind, obj, options.get("preconditions") or {})
        await self._webhooks.admit(self._attributes(info, user, "DELETE", info.name), None, obj, dict)
        if not info.dry_run:
            deletion.delete(self._store, info.kind, info.namespace, info.name)
        if info.kind is kinds.POD:
            return Answer(200, obj, [])
        details = {"name": info.name, "kind": info.kind.plural, "uid": obj["metadata"]["uid"]}
        if info.kind.group:
            details["group"] = info.kind.group
        status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": details,
        }
        return Answer(200, status, [])

    def delete_collection(self, info: RequestInfo, query: Mapping[str, str]) -> Answer:
        """The end of all objects that the selectors take; webhooks are not asked."""
        selected = selection(info.kind, query)
        found = [obj for obj in self._store.objects(info.kind, info.namespace) if selected(obj)]
        for obj in found if not info.dry_run else ():
            deletion.delete(self._store, info.kind, info.namespace, obj["metadata"]["name"])
        return Answer(200, _list_of(info.kind, found, {"resourceVersion": str(self._store.revision)}), [])

    async def _change(self, info: RequestInfo, user: User, change: Callable[[Object], Object]) -> Answer:
        for _ in range(_PATCH_RETRIES):
            old = self._existing(info)
            new = objects.with_system_fields(info, change(old), old)
            new = validation.normalize(info.kind, new)
            attributes = self._attributes(info, user, "UPDATE", info.name)
            admitted = await self._webhooks.admit(attributes, new, old, lambda obj: obj)
            new = validation.normalize(info.kind, admitted.object or new)
            validation.check(info.kind, new, old)
            if self._store.get(info.kind, info.namespace, info.name) is not old:
                continue  # somebody wrote while webhooks were asked: start from what is there now
            if new != old and not info.dry_run:
                new = self._store.put(info.kind, objects.with_generation(info.kind, new, old))
                deletion.finish(self._store, info.kind, new)
            return Answer(200, new, admitted.warnings)
        raise errors.conflict(info.kind, info.name)

    def _existing(self, info: RequestInfo) -> Object:
        found = self._store.get(info.kind, info.namespace, info.name)
        if found is None:
            raise errors.not_found(info.kind, info.name)
        return found

    def _prepare(self, info: RequestInfo, obj: Object) -> Object:
        """What the server itself does to a new object before and between webhooks."""
        prepared = validation.normalize(info.kind, obj)
        if info.kind is kinds.POD:
            return pods.admit(
                prepared, lambda name: self._store.get(kinds.SERVICE_ACCOUNT, info.namespace, name)
            )
        return prepared

    def _furnish(self, namespace: str) -> None:
        """What a real cluster's controllers put into a new namespace."""
        account = {"metadata": {"name": "default", "namespace": namespace}}
        root_ca = {
            "metadata": {"name": pods.ROOT_CA, "namespace": namespace},
            "data": {"ca.crt": self._ca_pem},
        }
        for kind, obj in ((kinds.SERVICE_ACCOUNT, account), (kinds.CONFIG_MAP, root_ca)):
            self._store.put(kind, objects.identified(kind, validation.normalize(kind, obj)))

    def _bind(self, info: RequestInfo, body: bytes) -> Answer:
        """A scheduler's word on where a Pod is to run; webhooks are not asked."""
        target = objects.parse(_BINDING, body).get("target") or {}
        pod = pods.bound(self._existing(info), target.get("name", ""))
        if not info.dry_run:
            self._store.put(info.kind, pod)
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
        return Answer(201, status, [])

    def _attributes(
        self, info: RequestInfo, user: User, operation: Literal["CREATE", "UPDATE", "DELETE"], name: str
    ) -> Attributes:
        return Attributes(info.kind, info.namespace, name, info.subresource, operation, user, info.dry_run)


def _list_of(kind: Kind, found: list[Object], metadata: Object) -> Object:
    return {
        "kind": f"{kind.name}List",
        "apiVersion": kind.api_version,
        "metadata": metadata,
        "items": found,
    }


def selection(kind: Kind, query: Mapping[str, str]) -> Predicate:
    """The objects that a query's labelSelector and fieldSelector take."""
    labels = by_labels(query.get("labelSelector", ""))
    fields = by_fields(kind, query.get("fieldSelector", ""))
    return lambda obj: labels(obj) and fields(obj)
