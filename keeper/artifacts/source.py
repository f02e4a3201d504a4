"""The file of `--verify-artifacts` and those that it names: read whenever they change."""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from keeper.artifacts import repositories
from keeper.artifacts.probes import Web, probe
from keeper.artifacts.repositories import ConfigError, Repository
from keeper.artifacts.verifier import Probe

_log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""A mounted Secret changes by a swap of symbolic links, which file events miss: contents are compared."""
MOST_FILE_BYTES = 64 << 10
"""Of a credential, or of CAs."""


class Source:
    """Has `use` know the repositories of the file; on any flaw the last good ones stay."""

    def __init__(self, path: Path, use: Callable[[Mapping[Repository, Probe]], None]) -> None:
        self._path, self._use, self._web = path, use, Web()
        self._seen = b""
        self.notice = ""
        """Why not what the files hold now is used, for /readyz; empty where it is."""

    async def run(self) -> None:
        """Reload for ever, whenever the files have changed."""
        try:
            while True:
                self.reload()
                await asyncio.sleep(POLL_SECONDS)
        finally:
            await self._web.close()

    def reload(self) -> None:
        """Use what the files hold now. What does not match, since they are being replaced, is read again."""
        try:
            text = self._read(self._path.name, repositories.MOST_BYTES)
            found = repositories.parse(text)
            files = {file: self._read(file, MOST_FILE_BYTES) for one in found for file in one.files}
            seen = hashlib.sha256(repr((text, sorted(files.items()))).encode()).digest()
            if seen != self._seen:
                self._use({one: self._probe(one, files) for one in found})
                self._seen = seen
                _log.info("artifacts are looked for in %d repositories of %s", len(found), self._path)
        except ConfigError as error:
            notice = f"artifacts are not looked for as {self._path} says: {error}"
            if notice != self.notice:
                _log.warning("artifacts are not looked for as %s says: %s", self._path, error)
            self.notice = notice
        else:
            self.notice = ""

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
        if len(content) > most:
            raise ConfigError(f"{file} has more than {most} bytes")
        return content
