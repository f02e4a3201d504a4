"""Step Pods at a rate, as dry runs: which of them stepmemo looked at."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from bench.argo import step_pod
from bench.measure import percentile
from bench.pace import at_rate
from kube import client
from kube.errors import ApiError
from memoize import names
from tests.e2e.cluster import Namespace
from tests.e2e.kube import argo, wait_for

RATE = float(os.environ.get("STEPMEMO_E2E_ADMISSIONS", "50"))
"""Pods a second."""
SECONDS = 60
_LOST_SECONDS = 20.0
"""For one Pod: the webhook's time-out is 5 s, and the machine may be busy."""


@dataclass
class Admitted:
    """What became of the Pods, by the label of their result; `wrong`: those without one, and when."""

    became: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        p50, p99 = (percentile(self.seconds or [0.0], percent) for percent in (50, 99))
        return f"{dict(self.became)}, p50 {p50:.3f} s, p99 {p99:.3f} s; without a result: {self.wrong}"


@contextmanager
def admitted(ns: Namespace, rate: float = RATE, seconds: float = SECONDS) -> Iterator[Callable[[], Admitted]]:
    """Admissions of the Namespace, from before the block on; what it yields waits for their end."""
    template = {"name": "a", "container": {"image": "x", "command": ["x"]}}
    made = ns.create(
        argo(
            "Workflow",
            {"generateName": "e2e-"},
            {"suspend": True, "entrypoint": "a", "templates": [template]},
        )
    )
    workflow = made["metadata"]["name"], made["metadata"]["uid"]

    def is_gated() -> bool | None:
        told = asyncio.run(_admit(ns.name, *workflow, 1, 1))
        return told.became == {names.RESULT_GATED: 1} or None

    wait_for("Pod that is gated", is_gated)
    with ThreadPoolExecutor(1) as pool:
        admitting = pool.submit(asyncio.run, _admit(ns.name, *workflow, rate, seconds))
        yield admitting.result


async def _admit(namespace: str, workflow: str, uid: str, rate: float, seconds: float) -> Admitted:
    told = Admitted()
    async with await client.connect("stepmemo-e2e") as api:

        async def one(number: int) -> None:
            pod = step_pod(namespace, workflow, uid, number, key=f"k{number}", cache="memo")
            pod["spec"]["serviceAccountName"] = "default"
            path, query = f"/api/v1/namespaces/{namespace}/pods", [("dryRun", "All")]
            began = time.monotonic()
            try:
                made = await client.request(api, "POST", path, seconds=_LOST_SECONDS, body=pod, query=query)
            except ApiError as error:
                told.wrong.append(f"{time.strftime('%H:%M:%S')} {error}")
                return
            told.seconds.append(time.monotonic() - began)
            became = made["metadata"].get("labels", {}).get(names.RESULT, "")
            told.became[became] += 1
            if not became:
                told.wrong.append(time.strftime("%H:%M:%S"))

        await at_rate(rate, int(rate * seconds), one)
    return told
