"""Objects that are known by their names, followed by watches; and what is done at each change of one."""

import asyncio
import logging
from abc import ABC, abstractmethod
from contextlib import suppress

from kubernetes_asyncio.client import ApiClient

from kube.backoff import Backoff
from kube.client import Json
from kube.errors import ApiError, Conflict
from kube.reflector import Reflector

_log = logging.getLogger(__name__)

LOOK_SECONDS = 300.0
"""So often everything is compared without a change: a certificate comes near its end in silence."""
_LONGEST_PAUSE = 32
"""The most that the pause between attempts grows to, in multiples of the first."""


class Watched:
    """One object: `object` as it was last seen, None where it is not there. `known`: it was looked for."""

    def __init__(self, news: asyncio.Event) -> None:
        self.object: Json | None = None
        self.known = False
        self._news = news
        self._listed: Json | None = None

    def begin(self) -> None:
        """Learn that it is looked for anew."""
        self._listed = None

    def listed(self, obj: Json) -> None:
        """Learn that it is there."""
        self._listed = obj

    def end(self) -> None:
        """Learn that there is no other."""
        self.object, self.known = self._listed, True
        self._news.set()

    def changed(self, type_: str, obj: Json) -> None:
        """Learn that it has changed."""
        self.object = None if type_ == "DELETED" else obj
        self._news.set()


class Follower(ABC):
    """Has `_sync` bring everything in step at each change of what it watches.

    Every error is said in the log, and in `problem` while there is one, and tried again.
    """

    def __init__(self, api: ApiClient, retry_seconds: float) -> None:
        self._api = api
        self._retry_seconds = retry_seconds
        self._backoff = Backoff(retry_seconds, retry_seconds * _LONGEST_PAUSE)
        self._news = asyncio.Event()
        self._reflectors: list[Reflector] = []
        self._lacking = "nothing has been read yet"
        """What keeps others from relying on us; empty when nothing does."""
        self._trouble = ""

    @abstractmethod
    async def _sync(self) -> float:
        """Bring everything in step; the seconds after which to do so again without a change."""

    @property
    def problem(self) -> str:
        """What is in the way, for /readyz; empty when nothing is."""
        if not self._lacking:
            return ""
        refused = [each.trouble for each in self._reflectors if each.trouble]
        trouble = explained(refused[0]) if refused else self._trouble
        return f"{self._lacking}: {trouble}" if trouble else self._lacking

    async def run(self) -> None:
        """Follow for ever."""
        async with asyncio.TaskGroup() as group:
            for reflector in self._reflectors:
                group.create_task(reflector.run())
            while True:
                self._news.clear()
                pause = await self._tried()
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._news.wait()

    def _watch(self, path: str, name: str) -> Watched:
        """Have the object of this name, of the collection at this path, followed."""
        watched = Watched(self._news)
        only = f"metadata.name={name}"
        self._reflectors.append(
            Reflector(self._api, path, watched, name=name, fields=only, page=1, pause=self._retry_seconds)
        )
        return watched

    async def _tried(self) -> float:
        """Seconds until the next attempt, if nothing changes."""
        try:
            pause = await self._sync()
        except Conflict as error:
            _log.info("certificates: somebody else was quicker: %s", error.message)
            return self._backoff.next()  # the watch shows what they wrote
        except ApiError as error:
            self._failed(explained(error))
        except Exception as error:
            _log.exception("certificates: an answer that makes no sense, or a bug of ours")
            self._failed(f"{type(error).__name__}: {error}".rstrip(": "))
        else:
            self._backoff.reset()
            self._trouble = ""
            return pause
        return self._backoff.next()

    def _failed(self, trouble: str) -> None:
        self._trouble = trouble
        _log.warning("certificates: %s", trouble)


def explained(error: ApiError) -> str:
    """One line for the log and /readyz: the API server's own sentence where there is one."""
    if not error.status:
        return str(error)
    return f"the API server answered {error}" + (f": {error.message}" if error.message else "")
