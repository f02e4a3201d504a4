"""One ConfigMap on the API server: the few requests of the writer, and what keeps one from working."""

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from kubernetes_asyncio.client import ApiClient
from kubernetes_asyncio.client.exceptions import ApiException

from kube import client
from memoize import configmap
from memoize.outcome import Outcome
from memoize.reasons import Reason

TIMEOUT = 5.0
"""Seconds for one request: an API server that takes longer is in trouble, and the writer asks again."""

_QUERY = (("fieldManager", configmap.FIELD_MANAGER),)
_FOR_A_WHILE = (0, 401, 404, 408, 409, 429)
"""Statuses besides 5xx after which the next attempt may work: 401 while credentials are being renewed, 404
for a ConfigMap that was deleted after it had been read."""


class TroubleError(Exception):
    """A request that did not work. `status` is 0 where no answer came; it may then have taken effect.

    `too_large`: the ConfigMap would have become too large. `retry_after`: seconds that it asks for.
    """

    def __init__(
        self,
        doing: str,
        status: int,
        *,
        too_large: bool = False,
        retry_after: float = 0,
        cause: str = "",
    ) -> None:
        super().__init__(f"{doing}: {f'status {status}' if status else cause}")
        self.status, self.too_large, self.retry_after = status, too_large, retry_after

    @property
    def passes(self) -> bool:
        """The same request may work in a moment."""
        return self.status in _FOR_A_WHILE or self.status >= 500

    @property
    def outcome(self) -> Outcome:
        """What becomes of an entry; the server's own words stay out: they may repeat values."""
        if self.status in (401, 403):
            return Outcome(Reason.FORBIDDEN, f"stepmemo's service account may not {self}")
        if self.status == 409:
            return Outcome(Reason.CONFLICT, "the ConfigMap kept changing")
        return Outcome(Reason.API_UNAVAILABLE, f"could not {self}")


class ConfigMap:
    """A ConfigMap by namespace and name, be it there or not; every method raises TroubleError."""

    def __init__(self, api: ApiClient, namespace: str, name: str) -> None:
        self._api, self._name = api, name
        self._list = f"/api/v1/namespaces/{quote(namespace, safe='')}/configmaps"
        self._self = f"{self._list}/{quote(name, safe='')}"

    async def get(self) -> Mapping[str, Any]:
        """The whole object."""
        return await self._ask("get", "GET", self._self, accept=client.JSON)

    async def patch(self, patch: object) -> None:
        """Apply a JSON patch (a list) or a merge-patch (an object)."""
        content_type = client.JSON_PATCH if isinstance(patch, list) else client.MERGE_PATCH
        await self._ask("patch", "PATCH", self._self, patch, content_type=content_type, query=_QUERY)

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
        except ApiException as error:
            raise _trouble(doing, error) from None
        except client.FAILURES as error:
            raise TroubleError(doing, 0, cause=type(error).__name__) from None
        if isinstance(answer, dict) and isinstance(answer.get("metadata"), dict):
            return answer
        raise TroubleError(doing, 0, cause="the answer holds no metadata")


def _trouble(doing: str, error: ApiException) -> TroubleError:
    """Read a refusal: its metav1.Status, and its Retry-After."""
    status, causes, message = error.status or 0, set(), ""
    with suppress(ValueError, AttributeError, KeyError, TypeError):
        said = json.loads(error.body or "")
        message = str(said.get("message"))
        causes = {str(cause["reason"]) for cause in said["details"]["causes"]}
    return TroubleError(
        doing,
        status,
        too_large=configmap.too_large(status, causes, message),
        retry_after=client.retry_after(error, math.inf),
    )
