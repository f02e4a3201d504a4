"""Our programs killed again and again, at moments that nobody chose, while steps run and are answered."""

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pytest

from tests.e2e import processes, server
from tests.e2e.cluster import Namespace
from tests.e2e.kube import wait_for
from tests.e2e.mixed import ANSWERED, RAN, Load, Mix

KILLS = int(os.environ.get("STEPMEMO_E2E_KILLS", "50"))
_LANES = 2
"""Workflows at the same time."""
_MIX = Mix(hits=40, misses=14, equal=6)
"""Two thirds are hits."""
_LONGEST_PAUSE = 12.0
"""Seconds between two kills: the next keeper acts when the Lease of the last one has ended, after 6."""

pytestmark = [server.outages]


@pytest.fixture(autouse=True)
def _service() -> None:
    server.needs(server.SERVICE)


@pytest.fixture
def chance() -> random.Random:
    """Moments and victims; the seed is shown where a test fails."""
    seed = int(os.environ.get("STEPMEMO_E2E_SEED", time.time_ns()))
    print(f"STEPMEMO_E2E_SEED={seed}")
    return random.Random(seed)


@pytest.mark.timeout(7200)
def test_a_keeper_that_is_killed_again_and_again_costs_no_step(
    ns: Namespace, tmp_path: Path, chance: random.Random
) -> None:
    with processes.host_keepers(tmp_path) as keepers, steps(ns) as total:
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.1, _LONGEST_PAUSE))
            for keeper in keepers if chance.random() < 0.5 else [chance.choice(keepers)]:
                # Two thirds are new Pods; a container that is started anew in the same one releases first.
                keeper.kill(new_pod=chance.random() < 0.67)
        told = total()
    assert told[ANSWERED] > 0, told
    assert told[RAN] > 0, told


@pytest.mark.timeout(7200)
def test_a_webhook_that_is_killed_again_and_again_costs_no_step(ns: Namespace, chance: random.Random) -> None:
    if not processes.are_visible(server.WEBHOOK):
        pytest.skip("the replicas' processes are not visible from here, or not ours to kill")
    with steps(ns) as total:
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.1, _LONGEST_PAUSE))
            wait_for("webhook", lambda: processes.kill_replicas(server.WEBHOOK, chance) or None)
        told = total()
    assert told[RAN] > 0, told
    server.restart(server.WEBHOOK)


@contextmanager
def steps(ns: Namespace) -> Iterator[Callable[[], Counter[str]]]:
    """Workflows one after the other in each lane; what it yields ends them, and counts their steps.

    It raises where one was wrong, or hangs.
    """
    over, load = Event(), Load(ns, _MIX)
    with ThreadPoolExecutor(_LANES) as pool:
        lanes = [pool.submit(load.run_until, over) for _ in range(_LANES)]

        def total() -> Counter[str]:
            over.set()
            found = [lane.result() for lane in lanes]
            steps = sum((steps for steps, _ in found), Counter[str]())
            print(f"{sum(workflows for _, workflows in found)} workflows: {dict(steps)}")
            return steps

        try:
            yield total
        finally:
            over.set()
