from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest_asyncio

from tests.postgresql import Server


@dataclass
class Own:
    """A database of the test's own."""

    server: Server
    name: str
    dsn_file: Path

    async def run(self, statement: str, *arguments: Any) -> list[Any]:
        """What the superuser is told."""
        return await self.server.fetch(statement, *arguments, database=self.name)

    async def end_connections(self) -> None:
        """As an admin, or PgBouncer, does."""
        await self.server.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", self.name
        )


@pytest_asyncio.fixture
async def own(postgresql: Server, tmp_path: Path) -> AsyncIterator[Own]:
    name = await postgresql.create_database()
    dsn_file = tmp_path / "dsn"
    dsn_file.write_text(postgresql.dsn(name))
    yield Own(postgresql, name, dsn_file)
    await postgresql.drop_database(name)
