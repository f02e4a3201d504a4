"""The file of `--verify-artifacts` and those that it names: read whenever they change."""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Generic, TypeVar

from keeper.artifacts import repositories
from keeper.artifacts.probes import Web, probe
from keeper.artifacts.repositories import ConfigError, Repository
from keeper.artifacts.verifier import Probe

T = TypeVar("T")

_log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""A mounted Secret changes by a swap of symbolic links, which file events miss: contents are compared."""
MOST_FILE_BYTES = 64 << 10
"""Of a credential, or of CAs."""


class Source:
    """Has `use` know the repositories of the file; on any flaw the last good ones stay."""

    def __init__(self, path: Path, use: Callable[[Mapping[Repository, Probe]], None]) -> None:
        self._path, self._use, self._web = path, use, Web()
        self._found = _Last[tuple[Repository, ...]]()
        self._probes = _Last[Mapping[Repository, Probe]]()
        self._used: Mapping[Repository, Probe] | None = None
        self.notice = ""
        """Why not what the files hold now is used, for /readyz; empty where it is."""

    async def run(self) -> None:
        """Reload for ever, whenever the files have changed."""
        try:
            while True:
                # In a thread: a megabyte of YAML takes seconds, what asks a hundred repositories half of one.
                self._take(await asyncio.to_thread(self._look))
                await asyncio.sleep(POLL_SECONDS)
        finally:
            await self._web.close()

    def reload(self) -> None:
        """Use what the files hold now. What does not match, since they are being replaced, is read again."""
        self._take(self._look())

    def _take(self, looked: "Mapping[Repository, Probe] | ConfigError") -> None:
        if isinstance(looked, ConfigError):
            notice = f"artifacts are not looked for as {self._path} says: {looked}"
            if notice != self.notice:
                _log.warning("artifacts are not looked for as %s says: %s", self._path, looked)
            self.notice = notice
            return
        self.notice = ""
        if looked is not self._used:
            self._used = looked
            self._use(looked)
            _log.info("artifacts are looked for in %d repositories of %s", len(looked), self._path)

    def _look(self) -> "Mapping[Repository, Probe] | ConfigError":
        """What the files hold; the very same while they do not change."""
        try:
            text = self._read(self._path.name, repositories.MOST_BYTES)
            found = self._found.of(text, lambda: repositories.parse(text))
            files = {file: self._read(file, MOST_FILE_BYTES) for one in found for file in one.files}
            all_of_it = repr((text, sorted(files.items()))).encode()
            return self._probes.of(all_of_it, lambda: {one: self._probe(one, files) for one in found})
        except ConfigError as error:
            return error

    def _probe(self, one: Repository, files: Mapping[str, bytes]) -> Probe:
        def read(file: str) -> str:
            try:
                return files[file].decode().strip()
            except ValueError:
                raise ConfigError(f"the file {file} is no text") from None

        try:
            return probe(one.kind, read, self._web)
        except ConfigError as error:
            raise ConfigError(f"repository {one.name}: {error}") from None

    def _read(self, file: str, most: int) -> bytes:
        """A file of `most` bytes at most, beside the first one if it does not say where."""
        try:
            with (self._path.parent / file).open("rb") as opened:
                content = opened.read(most + 1)
        except OSError as error:
            raise ConfigError(f"cannot read {file}: {error.strerror}") from None
        except ValueError:
            raise ConfigError(f"cannot read {file!a}: no file can have this name") from None
        if len(content) > most:
            raise ConfigError(f"{file} has more than {most} bytes")
        return content


class _Last(Generic[T]):
    """What was last made of some bytes, or why nothing could be: made anew only of others."""

    def __init__(self) -> None:
        self._seen = b""
        self._made: tuple[T] | str = ""

    def of(self, content: bytes, make: Callable[[], T]) -> T:
        """What is made of it; ConfigError, each time."""
        seen = hashlib.sha256(content).digest()
        if seen != self._seen:
            try:
                self._made = (make(),)
            except ConfigError as error:
                self._made = str(error)
            self._seen = seen
        if isinstance(self._made, str):
            raise ConfigError(self._made)
        return self._made[0]
