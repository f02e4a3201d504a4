"""`python -m keeper.leave`: what comes before stepmemo is deleted from a cluster, so that no Pod stays gated.

Nothing in Kubernetes lets a gate run out: a Pod that is gated when the last keeper goes waits for ever. So,
while both programs run still:

1. The webhook configuration goes. From then on nothing is validated, gated or injected.
2. Gated Pods are let run, until there is none, and none can come: a review that began before 1 may gate one.

Whoever installed the rest then deletes it. Entries stay. Who is killed at any line begins anew. `stepmemo
leave` does the same for a person, and the Helm chart runs this before it deletes anything.
"""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kubernetes_asyncio.client import ApiClient

from keeper import gated
from kube import client
from kube.errors import ApiError, Forbidden, NotFound
from server import values
from server.program import ProgramError, run_once
from server.settings import setting

CONFIGURATION = "stepmemo"
"""The MutatingWebhookConfiguration of manifests/base."""
SETTLE_SECONDS = 10.0
"""After the configuration is gone: every API server has heard of it, and a review that was under way has been
answered (within its timeoutSeconds, 5) and its Pod written."""
TIMEOUT_SECONDS = 180.0
_REQUEST_SECONDS = 10.0
_PAUSE = 1.0
"""Between two looks."""
_SHOWN = 20
"""Of what is in the way; the rest is counted."""
_CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"

Tell = Callable[[str], object]


class LeaveError(ProgramError):
    """Why it is not done, as one line: Pods may be gated still, and both programs are needed."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What this program is told. Times are in seconds."""

    namespaces: tuple[str, ...] = setting(
        "namespaces", values.LABELS, "", "the Namespaces in which Pods may be gated; empty: all of them"
    )
    timeout: float = setting(
        "timeout",
        values.seconds("1s", "1h"),
        "3m",
        "how long to go on where something fails, or is made anew by others",
    )
    webhook_configuration: str = setting(
        "webhook-configuration",
        values.SUBDOMAIN,
        CONFIGURATION,
        "the MutatingWebhookConfiguration to delete",
    )


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """The exit code: 0 when no Pod is gated and none will be, 1 if that is not so, 2 for wrong settings."""

    async def work(api: ApiClient, chosen: Settings) -> None:
        await leave(
            api,
            lambda line: print(line, flush=True),
            configuration=chosen.webhook_configuration,
            namespaces=chosen.namespaces,
            timeout=chosen.timeout,
        )

    return run_once(
        Settings,
        work,
        argv,
        environ,
        name="leave",
        program="python -m keeper.leave",
        description="Deletes the webhook configuration of stepmemo and lets gated Pods run.",
    )


async def leave(
    api: ApiClient,
    tell: Tell,
    *,
    configuration: str = CONFIGURATION,
    namespaces: Sequence[str] = (),
    timeout: float = TIMEOUT_SECONDS,  # noqa: ASYNC109
) -> None:
    """Return once no Pod is gated in these Namespaces, in all where none is named, and none can be any more.

    LeaveError says what is in the way: a permission that is missing at once, anything else after `timeout`
    seconds, in which it is tried again. `tell` gets a line for each thing that is done.
    """
    leaving = _Leaving(api, tell, configuration, namespaces or ("",))
    try:
        async with asyncio.timeout(timeout):
            while not await leaving.is_done():  # noqa: ASYNC110
                await asyncio.sleep(_PAUSE)
    except TimeoutError:
        shown, hidden = leaving.problems[:_SHOWN], len(leaving.problems[_SHOWN:])
        said = "; ".join([*shown, *([f"and {hidden} more"] if hidden else [])])
        raise LeaveError(f"not done after {timeout:g} s: {said}") from None
    tell("no Pod is gated, and none will be")


class _Leaving:
    def __init__(self, api: ApiClient, tell: Tell, configuration: str, namespaces: Sequence[str]) -> None:
        self._api, self._tell, self._configuration, self._namespaces = api, tell, configuration, namespaces
        self._gone_at: float | None = None
        """When the configuration was last seen to be gone, or was deleted."""
        self.problems = ["it has not begun"]
        """What was in the way at the last look."""

    async def is_done(self) -> bool:
        """Do what there is to do now; whether there was nothing, and there will be nothing."""
        problems: list[str] = []
        doing = f"delete MutatingWebhookConfiguration {self._configuration}"
        try:
            # 1. Each time anew: a tool that keeps a cluster as it is written somewhere makes it again.
            if await self._deleted() or self._gone_at is None:
                self._gone_at = time.monotonic()
            has_settled = time.monotonic() >= self._gone_at + SETTLE_SECONDS
            if not has_settled:
                problems.append("a Pod that is being admitted may be gated yet")
            # 2. The list is made after the look at the clock: it holds all that was gated until then.
            doing = "list Pods"
            pods = [pod for namespace in self._namespaces for pod in await gated.find(self._api, namespace)]
            async for result in gated.release(self._api, pods):
                if result.ending is gated.Ending.RELEASED:
                    self._tell(f"{result.pod}: {result.ending.value}")
                elif result.ending is gated.Ending.FAILED:
                    problems.append(f"{result.pod}: {result.ending.value}: {result.why}")
            self.problems = problems or ["Pods were gated still"]
            return has_settled and not pods
        except Forbidden as error:
            raise LeaveError(f"cannot {doing}: {error}: {error.message}") from None
        except ApiError as error:
            self.problems = [f"cannot {doing}: {error}"]
            return False

    async def _deleted(self) -> bool:
        """Delete the configuration; False where there was none."""
        try:
            await client.request(
                self._api, "DELETE", f"{_CONFIGURATIONS}/{self._configuration}", seconds=_REQUEST_SECONDS
            )
        except NotFound:
            return False
        self._tell(f"MutatingWebhookConfiguration {self._configuration}: deleted")
        return True


if __name__ == "__main__":
    sys.exit(main())
