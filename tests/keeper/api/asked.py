"""What a client asked of the API server."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kubernetes_asyncio.client import ApiClient


class Asked(list[tuple[str, str]]):
    """Method and path of every request, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.interventions: dict[str, Callable[[], None]] = {}

    def methods(self) -> list[str]:
        return [method for method, _ in self]

    def after(self, method: str, do: Callable[[], None]) -> None:
        """Do something, once, before the answer to the next request of this method is handed on."""
        self.interventions[method] = do


@contextmanager
def recorded(api: ApiClient) -> Iterator[Asked]:
    """Record the requests of a client until the block ends."""
    asked, send = Asked(), api.rest_client.request

    async def request(method: str, url: str, **kwargs: Any) -> Any:
        asked.append((method, url.removeprefix(api.configuration.host)))
        answer = await send(method, url, **kwargs)
        if do := asked.interventions.pop(method, None):
            await asyncio.to_thread(do)
        return answer

    api.rest_client.request = request
    try:
        yield asked
    finally:
        api.rest_client.request = send
