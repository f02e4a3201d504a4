"""The keeper's way to the API server: each request with a time-out, and so many a second."""

from typing import Any

from kubernetes_asyncio.client import ApiClient

from kube import client
from kube.errors import NotFound
from kube.rate_limiter import RateLimiter

TIMEOUT = 5.0
"""Seconds for one request."""

Json = dict[str, Any]


class NothingLeftError(Exception):
    """The request would keep others waiting, and was not sent."""


class Requests:
    """Requests, as many a second as `limiter` lets through; what fails is a kube.ApiError."""

    def __init__(self, api: ApiClient, limiter: RateLimiter) -> None:
        self._api, self._limiter = api, limiter

    async def send(
        self,
        method: str,
        path: str,
        body: object = None,
        content_type: str = client.JSON,
        accept: str = client.METADATA_ONLY,
    ) -> Json:
        """Send one request; the object that it is answered with."""
        await self._take()
        return await client.request(
            self._api, method, path, seconds=TIMEOUT, body=body, accept=accept, content_type=content_type
        )

    async def get(self, path: str) -> Json | None:
        """The whole object; None where there is none."""
        try:
            return await self.send("GET", path, accept=client.JSON)
        except NotFound:
            return None

    async def read(self, path: str, most_bytes: int = client.MOST_BYTES) -> bytes | None:
        """Its text, as it was received; None where there is none, TooLarge for more bytes."""
        await self._take()
        try:
            return await client.read(self._api, path, seconds=TIMEOUT, most_bytes=most_bytes)
        except NotFound:
            return None

    async def _take(self) -> None:
        await self._limiter.take()


class SpareRequests(Requests):
    """Those of the same bucket that may be sent at once; NothingLeftError is raised for the others."""

    @property
    def has_left(self) -> bool:
        """Whether one more may be sent now."""
        return self._limiter.has_left

    async def _take(self) -> None:
        if not self._limiter.take_if_left():
            raise NothingLeftError
