"""A small asynchronous client of the Kubernetes API: what the devcluster's kubelet, runner and demo need.

It speaks HTTPS to any API server, so nothing of the devcluster knows its API from the inside.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

import aiohttp

Object = dict[str, Any]

CONFIG_MAPS = "api/v1", "configmaps"
EVENTS = "api/v1", "events"
LEASES = "apis/coordination.k8s.io/v1", "leases"
NAMESPACES = "api/v1", "namespaces"
PODS = "api/v1", "pods"
SERVICE_ACCOUNTS = "api/v1", "serviceaccounts"
ROLES = "apis/rbac.authorization.k8s.io/v1", "roles"
ROLE_BINDINGS = "apis/rbac.authorization.k8s.io/v1", "rolebindings"
CLUSTER_ROLES = "apis/rbac.authorization.k8s.io/v1", "clusterroles"
CLUSTER_ROLE_BINDINGS = "apis/rbac.authorization.k8s.io/v1", "clusterrolebindings"
WEBHOOKS = "apis/admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations"
WORKFLOWS = "apis/argoproj.io/v1alpha1", "workflows"
TASK_RESULTS = "apis/argoproj.io/v1alpha1", "workflowtaskresults"

Resource = tuple[str, str]

MERGE_PATCH = "application/merge-patch+json"
_JSON = "application/json"
_RETRY_SECONDS = 0.2
"""Pause before a broken watch is opened again."""


class ApiError(Exception):
    """The API server refused: its HTTP status and the Status object it sent."""

    def __init__(self, code: int, status: Object) -> None:
        super().__init__(status.get("message") or f"HTTP {code}")
        self.code = code
        self.status = status


class Client:
    """One connection pool to one API server, as one user; `async with` it."""

    def __init__(self, url: str, ca_file: str, token: str) -> None:
        context = ssl.create_default_context(cafile=ca_file)
        self._session = aiohttp.ClientSession(
            base_url=f"{url}/",
            connector=aiohttp.TCPConnector(ssl=context, limit=0),
            headers={"Authorization": f"Bearer {token}"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """One object."""
        return await self._call("GET", path_of(resource, namespace, name))

    async def list(self, resource: Resource, namespace: str | None = None, selector: str = "") -> Object:
        """The list object: `items`, those that a label selector takes, and `metadata.resourceVersion`."""
        query = f"?{urlencode({'labelSelector': selector})}" if selector else ""
        return await self._call("GET", path_of(resource, namespace) + query)

    async def create(self, resource: Resource, namespace: str | None, body: Mapping[str, Any]) -> Object:
        """Create `body`; the object as stored."""
        return await self._call("POST", path_of(resource, namespace), body)

    async def patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Mapping[str, Any],
        subresource: str = "",
    ) -> Object:
        """Merge-patch one object (RFC 7386) or its subresource."""
        path = path_of(resource, namespace, name) + (f"/{subresource}" if subresource else "")
        return await self._call("PATCH", path, body, MERGE_PATCH)

    async def delete(self, resource: Resource, namespace: str | None, name: str) -> None:
        """Delete one object; one that is gone already is no error."""
        try:
            await self._call("DELETE", path_of(resource, namespace, name))
        except ApiError as error:
            if error.code != 404:
                raise

    async def bind(self, namespace: str, pod: str, node: str) -> None:
        """Give a Pod its node, as a scheduler does."""
        path = path_of(PODS, namespace, pod) + "/binding"
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        await self._call("POST", path, {"metadata": {"name": pod}, "target": target})

    async def token(
        self, namespace: str, service_account: str, audience: str = "", pod: Mapping[str, Any] | None = None
    ) -> str:
        """A bearer token of a service account (TokenRequest).

        It is for the API server, unless an `audience` is named, and ends with the `pod` where there is one.
        """
        spec: Object = {"audiences": [audience] if audience else []}
        if pod is not None:
            metadata = pod["metadata"]
            of_pod = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
            spec["boundObjectRef"] = of_pod
        path = path_of(SERVICE_ACCOUNTS, namespace, service_account) + "/token"
        issued = await self._call("POST", path, {"spec": spec})
        token: str = issued["status"]["token"]
        return token

    async def follow(self, resource: Resource) -> AsyncIterator[tuple[str, Object]]:
        """Every object of every namespace and each change to it, for ever: `("ADDED", object)` and so on.

        A broken or expired watch starts over from a list; what vanished meanwhile is told as DELETED.
        """
        known: dict[str, Object] = {}
        while True:
            try:
                listed = await self.list(resource)
                now = {item["metadata"]["uid"]: item for item in listed["items"]}
                for uid in known.keys() - now.keys():
                    yield "DELETED", known[uid]
                for item in now.values():
                    yield "ADDED", item
                known = now
                async for kind, item in self._watch(resource, listed["metadata"]["resourceVersion"]):
                    if kind == "DELETED":
                        known.pop(item["metadata"]["uid"], None)
                    else:
                        known[item["metadata"]["uid"]] = item
                    yield kind, item
            except (ApiError, aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(_RETRY_SECONDS)

    async def _watch(self, resource: Resource, version: str) -> AsyncIterator[tuple[str, Object]]:
        query = {"watch": "true", "resourceVersion": version}
        async with self._session.get(path_of(resource, None), params=query) as response:
            if response.status != 200:
                raise ApiError(response.status, await _status(response))
            buffer = b""
            async for chunk in response.content.iter_any():
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise ApiError(event["object"].get("code", 500), event["object"])
                    if event["type"] != "BOOKMARK":
                        yield event["type"], event["object"]

    async def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, content_type: str = _JSON
    ) -> Object:
        data = json.dumps(body).encode() if body is not None else None
        headers = {"Content-Type": content_type} if body is not None else {}
        try:
            async with self._session.request(method, path, data=data, headers=headers) as response:
                if response.status >= 400:
                    raise ApiError(response.status, await _status(response))
                answer: Object = await response.json(content_type=None)
                return answer
        except aiohttp.ClientError as error:
            raise ApiError(503, {"message": f"no answer from the API server: {error}"}) from error


def path_of(resource: Resource, namespace: str | None, name: str = "") -> str:
    """The URL path of a collection, or of one object in it; no namespace means all of them or none."""
    group, plural = resource
    scope = f"/namespaces/{namespace}" if namespace is not None else ""
    return f"{group}{scope}/{plural}" + (f"/{name}" if name else "")


async def _status(response: aiohttp.ClientResponse) -> Object:
    text = await response.text()
    try:
        status: Object = json.loads(text)
    except ValueError:
        return {"message": text}
    return status
