"""One ConfigMap on the API server: the few requests of the writer, and what keeps one from working."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from kubernetes_asyncio.client import ApiClient

from kube import client
from kube.errors import TEMPORARY, ApiError, Conflict, Forbidden, NotFound, Unreadable
from memoize import configmap
from memoize.outcome import Outcome
from memoize.reasons import Reason

TIMEOUT = 5.0
"""Seconds for one request: an API server that takes longer is in trouble, and the writer asks again."""

_QUERY = (("fieldManager", configmap.FIELD_MANAGER),)


class CacheError(Exception):
    """A request about a cache that did not work: what was to be done, and the error of the API server's."""

    def __init__(self, doing: str, error: ApiError) -> None:
        super().__init__(f"{doing}: {error}")
        self.error = error

    @property
    def too_large(self) -> bool:
        """Whether the ConfigMap would have become too large."""
        return configmap.too_large(self.error.status, self.error.causes, self.error.message)

    @property
    def object_too_large(self) -> bool:
        """Whether it would have by more than its values: see memoize.configmap."""
        return configmap.object_too_large(self.error.status, self.error.message)

    @property
    def passes(self) -> bool:
        """Whether the same request may work in a moment.

        So it may after a 401, while credentials are being renewed, and after a 404, for a ConfigMap that was
        deleted after it had been read.
        """
        temporary = isinstance(self.error, (*TEMPORARY, Conflict, NotFound))
        return temporary or self.error.status == HTTPStatus.UNAUTHORIZED

    @property
    def outcome(self) -> Outcome:
        """What becomes of an entry; the server's own words stay out: they may repeat values."""
        if isinstance(self.error, Forbidden):
            return Outcome(Reason.FORBIDDEN, f"stepmemo's service account may not {self}")
        if isinstance(self.error, Conflict):
            return Outcome(Reason.CONFLICT, "the ConfigMap kept changing")
        return Outcome(Reason.API_UNAVAILABLE, f"could not {self}")


class ConfigMap:
    """A ConfigMap by namespace and name, be it there or not; every method raises CacheError."""

    def __init__(self, api: ApiClient, namespace: str, name: str) -> None:
        self._api, self._name = api, name
        self._list = f"/api/v1/namespaces/{quote(namespace, safe='')}/configmaps"
        self._self = f"{self._list}/{quote(name, safe='')}"

    async def get(self) -> Mapping[str, Any]:
        """The whole object."""
        return await self._ask("get", "GET", self._self, accept=client.JSON)

    async def patch(self, patch: object) -> Mapping[str, Any]:
        """Apply a JSON patch (a list) or a merge-patch (an object); the metadata that the cache has then."""
        content_type = client.JSON_PATCH if isinstance(patch, list) else client.MERGE_PATCH
        return await self._ask("patch", "PATCH", self._self, patch, content_type=content_type, query=_QUERY)

    async def create(self, entries: Mapping[str, str]) -> None:
        """Make it a cache of these entries."""
        await self._ask("create", "POST", self._list, configmap.new(self._name, entries), query=_QUERY)

    async def _ask(
        self,
        verb: str,
        method: str,
        path: str,
        body: object = None,
        *,
        accept: str = client.METADATA_ONLY,
        content_type: str = client.JSON,
        query: tuple[tuple[str, str], ...] = (),
    ) -> Mapping[str, Any]:
        doing = f"{verb} configmaps"
        try:
            answer = await client.request(
                self._api,
                method,
                path,
                seconds=TIMEOUT,
                body=body,
                accept=accept,
                content_type=content_type,
                query=query,
            )
        except ApiError as error:
            raise CacheError(doing, error) from None
        if not isinstance(answer.get("metadata"), dict):
            raise CacheError(doing, Unreadable("the answer holds no metadata"))
        return answer
