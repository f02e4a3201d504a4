"""A connection to the database that fails at once while it is known to be away, and comes back by itself.

One task holds the connections, and asks once a second whether they work. What meets a broken connection, or
no answer in time, ends all of them: until that task has new ones everybody is refused without a wait. So an
outage costs a time-out once, and not once for each Pod.

Nothing that PgBouncer's transaction mode could not carry is used: no named statement, no LISTEN, no state of
a session but time-outs, which the keeper enforces itself as well.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg

from keeper.postgresql import sql
from kube.backoff import Backoff
from memoize.outcome import Outcome
from memoize.reasons import Reason
from server.logs import fields

_log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
"""For one connection, authentication included."""
MIGRATE_SECONDS = 600.0
"""For a migration, which may have a table of millions to go through, or wait for another keeper's."""
STATEMENT_SECONDS = 3.0
"""For a statement, by the server's own clock …"""
ANSWER_SECONDS = 4.0
"""… and until its answer must be here: a server that did not even cancel it is taken to be away."""
LOCK_SECONDS = 1.0
IDLE_TICK = 1.0
"""Seconds from one question whether the database is well to the next."""
GRACE = 2.0
"""Seconds after a break in which a statement waits for new connections instead of being refused: a restart,
or a connection that somebody ended, is over by then."""
STABLE = 30.0
"""Seconds after which a database that was away before is taken to stay."""
REOPEN = 30.0
"""Seconds between two looks for a server that can be written to, where the present one cannot."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 15.0
_SESSION = f"""
SET statement_timeout = '{STATEMENT_SECONDS}s'; SET lock_timeout = '{LOCK_SECONDS}s';
SET idle_in_transaction_session_timeout = '60s'; SET jit = off;
"""
"""PgBouncer may give it to a connection of the server's that others of this user have next: it suits them
too."""


class _NoConnectionError(Exception):
    """The server refuses another connection, for the reason that it was raised from."""


_BROKEN = (
    _NoConnectionError,
    OSError,  # TimeoutError and ssl.SSLError too
    EOFError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InvalidSchemaNameError,
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
)
"""After these nothing works until there are new connections, and the schema has been looked at."""
_LOST = (
    ConnectionError,
    asyncpg.ConnectionDoesNotExistError,
    asyncpg.InternalClientError,
    asyncpg.AdminShutdownError,
)
"""Of these, that of a connection that was ended, as the server does where it restarts: another one may
work."""
_BUSY = (
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    asyncpg.TransactionRollbackError,
    asyncpg.TooManyConnectionsError,
)
"""The server is well, and the same statement may work in a moment."""


class DatabaseError(Exception):
    """A statement that did not work; `str` of it is for people, and repeats no entry and no DSN."""

    def __init__(self, text: str, *, passes: bool = False) -> None:
        super().__init__(text)
        self.passes = passes
        """Whether the same statement may work in a moment."""

    @property
    def outcome(self) -> Outcome:
        """What it is to a step."""
        return Outcome(Reason.STORE_UNAVAILABLE, str(self))


class _SchemaError(Exception):
    pass


class Database:
    """The database that the DSN in `dsn_file` names. The file is read whenever connections are made anew.

    `clock` counts seconds. `migrations` takes the schema from each version to the next.
    """

    def __init__(
        self,
        dsn_file: Path,
        connections: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        migrations: tuple[sql.Migration, ...] = sql.MIGRATIONS,
    ) -> None:
        self._dsn_file, self._connections, self._clock = dsn_file, connections, clock
        self._migrations = migrations
        self._pool: asyncpg.Pool | None = None
        self._well = asyncio.Event()
        self._aside = asyncio.Lock()
        self._broken_since = -math.inf
        """The last time that connections were lost; at the start nobody waits for them."""
        self._broken = asyncio.Event()
        self._problem = "not connected yet"
        self._said = ""
        self._read_only = False
        self._last_contact = -math.inf
        self.on_well: Callable[[], None] = lambda: None
        """Called each time that there are new connections: changes may have been missed."""
        self.on_down: Callable[[], None] = lambda: None
        """Called when a break has lasted for GRACE: from then on everybody is refused at once."""

    @property
    def is_well(self) -> bool:
        """Whether statements are sent at all."""
        return self._pool is not None

    @property
    def last_contact(self) -> float:
        """When it was last known to be well, by the clock; minus infinity while it is away."""
        return self._last_contact if self.is_well else -math.inf

    async def fetch(self, statement: str, *arguments: object) -> list[Any]:
        """Give the rows of the statement; a DatabaseError. It may have taken effect all the same."""
        for left in reversed(range(self._connections + 1)):
            pool = await self._connected()
            try:
                return await self._send(pool, statement, *arguments)
            except _LOST as error:
                # All of them may have been ended while they were idle.
                if not left or isinstance(error, ConnectionRefusedError):
                    raise self._on_error(pool, error) from None
            except (asyncpg.PostgresError, *_BROKEN) as error:
                raise self._on_error(pool, error) from None
            except Exception:
                if pool is self._pool:
                    raise
                # asyncpg, of a connection that was ended between two of its steps: AttributeError, and others
                raise DatabaseError(self._problem, passes=True) from None
        raise AssertionError

    async def fetch_aside(self, statement: str, *arguments: object) -> list[Any]:
        """Do the same for those whom nobody waits for: one at a time, so that they need one connection."""
        async with self._aside:
            return await self.fetch(statement, *arguments)

    async def run(self) -> None:
        """Connect, and stay so, for ever."""
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            begun = self._clock()
            try:
                pool = await self._open()
            except (asyncpg.PostgresError, _SchemaError, *_BROKEN) as error:
                self._say(self._cause(error), error)
            else:
                self._on_open(pool)
                try:
                    await self._stay(pool)
                finally:
                    self._drop()
                if self._clock() - begun > STABLE:
                    backoff.reset()
            await asyncio.sleep(backoff.next())

    # --- Connections ----------------------------------------------------------------------------------

    async def _connected(self) -> asyncpg.Pool:
        """The connections; those that were lost a moment ago are waited for."""
        if self._pool is None:
            left = self._broken_since + GRACE - self._clock()
            if left > 0:
                try:
                    async with asyncio.timeout(left):
                        await self._well.wait()
                except TimeoutError:
                    pass
        if self._pool is None:
            raise DatabaseError(self._problem)
        return self._pool

    async def _send(self, pool: asyncpg.Pool, statement: str, *arguments: object) -> list[Any]:
        try:
            connection = await pool.acquire(timeout=ANSWER_SECONDS)
        except (*_LOST, *_BUSY):
            raise
        except asyncpg.PostgresError as error:
            raise _NoConnectionError from error
        try:
            rows: list[Any] = await connection.fetch(statement, *arguments, timeout=ANSWER_SECONDS)
            return rows
        except asyncpg.InternalClientError:
            # The server's last words, to a connection that asked nothing then: it is not closed by them.
            connection.terminate()
            raise
        finally:
            # Where that fails the connection is ended. It does where a task is cancelled and others end the
            # pool at the same time: an error in place of the cancellation would keep that task from ending.
            with suppress(Exception):
                await pool.release(connection, timeout=ANSWER_SECONDS)

    async def _open(self) -> asyncpg.Pool:
        """New connections to a database whose schema is ours."""
        try:
            dsn = (await asyncio.to_thread(self._dsn_file.read_text, "utf-8")).strip()
        except (OSError, UnicodeDecodeError) as error:
            raise _SchemaError(f"the file of --dsn-file cannot be read: {type(error).__name__}") from None
        pool = asyncpg.create_pool(
            dsn,
            min_size=0,
            max_size=self._connections,
            timeout=CONNECT_SECONDS,
            command_timeout=ANSWER_SECONDS,
            statement_cache_size=0,
            server_settings={"application_name": "stepmemo-keeper"},
            init=_begin_session,
            reset=_keep_session,
        )
        try:
            await pool
            try:
                connection = await pool.acquire(timeout=CONNECT_SECONDS)
            except OSError:  # ssl.SSLCertVerificationError too, which is a ValueError as well
                raise
            except ValueError:  # asyncpg.ClientConfigurationError too
                # Without its own words, which may repeat a password.
                raise _SchemaError(
                    "the file of --dsn-file holds no DSN: postgresql://USER:PASSWORD@HOST:5432/DATABASE"
                ) from None
            async with asyncio.timeout(MIGRATE_SECONDS):
                await _migrate(connection, self._migrations)
            await pool.release(connection, timeout=ANSWER_SECONDS)
        except BaseException:
            pool.terminate()
            raise
        return pool

    def _on_open(self, pool: asyncpg.Pool) -> None:
        self._pool, self._last_contact, self._read_only = pool, self._clock(), False
        self._broken.clear()
        self._well.set()
        if self._said:
            _log.warning("the database is well again")
            self._said = ""
        self.on_well()

    def _drop(self) -> None:
        """End the connections; whoever waits for an answer gets an error."""
        self._well.clear()
        pool, self._pool = self._pool, None
        if pool is not None:
            self._broken_since = self._clock()
            pool.terminate()
            asyncio.get_running_loop().call_later(GRACE, self._tell_down)

    def _tell_down(self) -> None:
        if self._pool is None:
            self.on_down()

    async def _stay(self, pool: asyncpg.Pool) -> None:
        """Return once the connections are broken, or better ones may be had."""
        opened, failed = self._clock(), 0
        while True:
            try:
                async with asyncio.timeout(IDLE_TICK):
                    await self._broken.wait()
                return
            except TimeoutError:
                pass
            try:
                ((_, compatible),) = await self._send(pool, sql.VERSION)
            except (asyncpg.PostgresError, *_BROKEN) as error:
                # One connection may have been ended, or be slow.
                failed += 1
                if failed > 1 or not isinstance(error, (*_LOST, *_BUSY)):
                    self._break(pool, error)
                continue
            failed = 0
            if compatible > len(self._migrations):
                return  # and `_open` says so
            self._last_contact = self._clock()
            if self._read_only and self._last_contact - opened > REOPEN:
                return

    def _on_error(self, pool: asyncpg.Pool, error: Exception) -> DatabaseError:
        """What a failed statement means for itself, and for all others."""
        cause = self._cause(error)
        if isinstance(error, ValueError | asyncpg.DataError):  # of ours, or of asyncpg's on its behalf
            _log.error("%s", cause, extra=fields(reason=Reason.INTERNAL_ERROR.value))
            return DatabaseError(cause)
        if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
            # A primary that has become a standby, perhaps: the DSN may lead to another one by now.
            self._read_only = True
        elif isinstance(error, _BROKEN):
            self._break(pool, error)
        return DatabaseError(cause, passes=isinstance(error, (*_BUSY, *_BROKEN)))

    def _break(self, pool: asyncpg.Pool, error: Exception) -> None:
        """Take all connections for broken, unless there are others by now."""
        if pool is self._pool:
            self._say(self._cause(error), error)
            self._drop()
            self._broken.set()

    def _cause(self, error: Exception) -> str:
        """What is wrong, without the server's own words: they may repeat what was sent."""
        if isinstance(error, _SchemaError):
            return str(error)
        if isinstance(error, TimeoutError):
            return "the database does not answer"
        if isinstance(error, OSError | EOFError | asyncpg.PostgresConnectionError):
            return f"the database cannot be reached: {type(error).__name__}"
        return f"the database refuses: {type(error.__cause__ or error).__name__}"

    def _say(self, cause: str, error: Exception) -> None:
        self._problem = cause
        if cause != self._said:
            # Of a connection, never of a statement, so it repeats no entry.
            detail = "" if isinstance(error, _SchemaError) else str(error)[:200]
            extra = fields(reason=Reason.STORE_UNAVAILABLE.value, detail=detail)
            _log.warning("%s; steps run, and their entries are lost", cause, extra=extra)
            self._said = cause


async def _begin_session(connection: Any) -> None:
    await connection.execute(_SESSION)


async def _keep_session(connection: Any) -> None:
    """Nothing changes a session, so there is nothing to take back, which would take a request."""


async def _migrate(connection: Any, migrations: tuple[sql.Migration, ...]) -> None:
    """Take the schema to the version that this program knows.

    `_SchemaError` where it is a later one that asks for more than this program knows.

    Of several keepers one migrates, and the others find it done. Killed anywhere, nothing of it is there.
    """
    try:
        version, compatible = await connection.fetchrow(sql.VERSION)
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        version, compatible = 0, 0
    if version < len(migrations):
        async with connection.transaction():
            await connection.execute(
                f"SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '{MIGRATE_SECONDS}s'",
            )
            await connection.execute(f"SELECT pg_advisory_xact_lock({sql.LOCK})", timeout=MIGRATE_SECONDS)
            await connection.execute(sql.CREATE)
            version, compatible = await connection.fetchrow(sql.VERSION)
            for number, migration in enumerate(migrations[version:], version + 1):
                await connection.execute(migration.statements, timeout=MIGRATE_SECONDS)
                await connection.execute(sql.MIGRATED, number, migration.compatible)
            if version < len(migrations):
                _log.info("the schema of the database was migrated", extra=fields(version=len(migrations)))
    if compatible > len(migrations):
        raise _SchemaError(f"the database's schema is of version {version}: this keeper is too old for it")
    await connection.execute(sql.CHECK)
