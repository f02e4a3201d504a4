"""Lists a collection of the API in pages that fit into memory, whatever their objects weigh.

The API limits a page by a number of objects alone, and whoever makes those objects chooses what each weighs.
"""

import logging
from collections.abc import AsyncIterator, Sequence

from kubernetes_asyncio.client import ApiClient

from kube import client
from kube.client import Json
from kube.errors import TooLarge

_log = logging.getLogger(__name__)

LIST_SECONDS = 30.0
"""For one page, where nothing else is said."""
PAGE_BYTES = 1 << 20
"""Of a page: so much is parsed in one go. The next one's number of objects is guessed by the last one's bytes
…"""
MOST_PAGE_BYTES = 4 << 20
"""… and where the guess was wrong, no more than this is received, and half as many objects are asked for; of
a page of one, client.MOST_BYTES. So much is in memory at once, however many objects there are."""
_FIRST_PAGE = 2
"""Objects; each page asks for twice as many as the one before, at most."""


async def pages(
    api: ApiClient,
    path: str,
    query: Sequence[tuple[str, str]] = (),
    *,
    name: str,
    most: int,
    metadata_only: bool = False,
    seconds: float = LIST_SECONDS,
) -> AsyncIterator[Json]:
    """The pages of a list, each of `most` objects at most; an ApiError where one cannot be had in `seconds`.

    An object of more than client.MOST_BYTES comes as its metadata alone, whatever was asked for; `name` says
    in the log what it is an object of.
    """
    limit, going_on = _FIRST_PAGE, list[tuple[str, str]]()
    wanted = client.METADATA_LIST if metadata_only else client.JSON
    accept = wanted
    while True:
        limit = min(limit, most)
        try:
            text = await client.read(
                api,
                path,
                seconds=seconds,
                query=[*query, ("limit", str(limit)), *going_on],
                accept=accept,
                most_bytes=client.MOST_BYTES if limit == 1 else MOST_PAGE_BYTES,
            )
        except TooLarge:
            if limit == 1 and accept == client.METADATA_LIST:
                raise
            if limit == 1:  # not left out: only its page tells how to get beyond it
                _log.warning("an object of %s is too large, and known by its metadata alone", name)
                accept = client.METADATA_LIST
            limit = max(1, limit // 2)
            continue
        page, accept = client.parsed(text), wanted
        limit = max(1, min(2 * limit, PAGE_BYTES * len(page.get("items") or []) // len(text)))
        yield page
        if not (token := page["metadata"].get("continue")):
            return
        going_on = [("continue", token)]
