"""The caches of a database as the clean-up of keeper.gc sees them: what was not used for long goes.

No index is on the times of use, so a pass walks through rows: through a small cache as a whole, through a
part of a large one from anywhere on, which is a fair sample of it. What has expired, and what is too much, is
taken away by the upkeep.
"""

import logging
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import datetime
from typing import Any
from urllib.parse import quote

from kubernetes_asyncio.client import ApiClient

from keeper.postgresql import sql
from keeper.postgresql.database import Database, DatabaseError
from keeper.postgresql.removal import ROWS
from keeper.postgresql.upkeep import Upkeep
from keeper.store import Cache
from kube import client
from kube.errors import TEMPORARY, ApiError, NotFound
from memoize.eviction import MOST_SHARE, Cause, is_collected
from server.logs import fields

_log = logging.getLogger(__name__)

SECONDS = 5.0
"""For one cache; the next pass goes on from anywhere else."""
LOOKED_AT = 2_000
"""Rows of a cache that a pass looks at; of a large one as many as may go."""
_METADATA_SECONDS = 5.0
_PAGE = 500
_LAST = "f" * 64


class UnusedRows:
    """Removes rows that were neither written nor hit for `unused_for` seconds of the database's clock.

    Of the caches of `namespaces`, of all where none is named. `anywhere` gives a digest to begin at.
    """

    def __init__(
        self,
        api: ApiClient,
        database: Database,
        upkeep: Upkeep,
        namespaces: Sequence[str],
        unused_for: float,
        *,
        anywhere: Callable[[], str] = lambda: secrets.token_hex(32),
    ) -> None:
        self._api, self._database, self._upkeep = api, database, upkeep
        self._namespaces, self._unused_for = namespaces, unused_for
        self._anywhere = anywhere

    async def find(self) -> AsyncIterator[Cache]:
        """Give the caches that hold entries; where they cannot be listed, those that could be."""
        for namespace in self._namespaces or ("",):
            last = "", ""
            try:
                while rows := await self._database.fetch_aside(sql.CACHES, namespace, *last, _PAGE, None):
                    for row in rows:
                        yield row["namespace"], row["cache"]
                    last = rows[-1]["namespace"], rows[-1]["cache"]
            except DatabaseError as error:
                told = fields(namespace=namespace, error=str(error))
                _log.warning("cannot list the caches to clean up", extra=told)

    def turn(self, namespace: str) -> AbstractAsyncContextManager[None]:
        """Nobody who writes has to wait."""
        return nullcontext()

    async def collect(self, namespace: str, cache: str, labels: Mapping[str, str], now: datetime) -> bool:
        """Clean a cache up, unless its ConfigMap says no; False where a server is in trouble."""
        try:
            if is_collected(await self._config_map(namespace, cache), labels):
                await self._collect(namespace, cache)
        except (ApiError, DatabaseError) as error:
            told = fields(namespace=namespace, cache=cache, error=str(error))
            _log.warning("cannot clean a cache up", extra=told)
            return self._database.is_well and not isinstance(error, TEMPORARY)
        return True

    async def _config_map(self, namespace: str, cache: str) -> Mapping[str, Any]:
        """The metadata of the ConfigMap of this name, if there is one."""
        path = f"/api/v1/namespaces/{quote(namespace, safe='')}/configmaps/{quote(cache, safe='')}"
        try:
            return await client.request(
                self._api, "GET", path, seconds=_METADATA_SECONDS, accept=client.METADATA_ONLY
            )
        except NotFound:
            return {}

    async def _collect(self, namespace: str, cache: str) -> None:
        turn = self._upkeep.turn(namespace, SECONDS)
        ((entries,),) = await self._database.fetch_aside(sql.ENTRIES_OF, namespace, cache)
        # A wrong clock, or a wrong setting, is found out before all are gone.
        may_go = max(1, entries // MOST_SHARE)
        left, start = max(LOOKED_AT, may_go), self._anywhere()
        for behind, last in ((start, _LAST), ("", start)):
            at_end = False
            while not at_end and may_go > 0 and left > 0 and turn.seconds > 0:
                most = min(ROWS, left)
                rows = await self._database.fetch_aside(
                    sql.UNUSED, namespace, cache, behind, last, most, self._unused_for
                )
                unused = [row for row in rows if row["unused"]]
                removed = await self._upkeep.remove(turn, unused, Cause.UNUSED, may_go)
                if removed.left is not None:  # and so it would be with all of them
                    return
                may_go -= removed.entries
                left -= rows[0]["looked_at"]
                at_end, behind = rows[0]["looked_at"] < most, rows[0]["last"]
