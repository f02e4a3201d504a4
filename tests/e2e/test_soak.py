"""Mixed load for a long time: what our programs hold stays as it was, and when it is over nothing is left."""

import os
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e import samples, server
from tests.e2e.cluster import Namespace, fresh_namespace
from tests.e2e.kube import wait_for
from tests.e2e.mixed import ANSWERED, FAILED, RAN, Load, Mix
from tests.e2e.samples import Sample

SOAK = "STEPMEMO_E2E_SOAK"
"""Minutes of load."""
MINUTES = float(os.environ.get(SOAK, "0"))
_MIXED = Mix(hits=15, misses=6, equal=4, failures=5, parallelism=8)
_FLOOD = Mix(hits=150, misses=0, equal=10, parallelism=200)
_FLOOD_PAUSE = 60.0
"""Seconds after a flood."""
_EVERY = 15.0
_GROWTH, _GROWTH_MIB = 1.05, 3.0
"""What the last third may have above the second: some of a hundred, or of megabytes."""
_QUIET_SECONDS = 300.0
"""Until what is idle is closed: an API server keeps a connection for 90 s, we one for 120 s."""
_OURS = 4
"""Files and connections more or less: the kubelet's probes, a sample's own question."""
_KEPT_ALIVE = 16
"""Connections to the API server that stay: aiohttp takes them in turn, so that the one request a second that
renews the Lease keeps so many from being idle for its 15 s."""

pytestmark = pytest.mark.skipif(not MINUTES, reason=f"{SOAK} is not set")


@pytest.fixture(autouse=True)
def _service() -> None:
    server.needs(server.SERVICE)


@pytest.mark.timeout(60 * MINUTES + 2400)
def test_what_our_programs_hold_is_flat_under_load_and_nothing_is_left_over(ns: Namespace) -> None:
    before, restarts = samples.take(), samples.restarts()
    assert before, "no replica can be asked"
    taken: list[dict[str, Sample]] = []
    over = threading.Event()
    with fresh_namespace() as crowded, ThreadPoolExecutor(3) as pool:
        mixed, flood = Load(ns, _MIXED), Load(crowded, _FLOOD)
        lanes = [
            pool.submit(mixed.run_until, over),
            pool.submit(mixed.run_until, over),
            pool.submit(_floods, flood.run, over),
        ]
        try:
            until = time.monotonic() + 60 * MINUTES
            while time.monotonic() < until and not any(lane.done() for lane in lanes):
                taken.append(samples.take())
                over.wait(min(_EVERY, max(0.0, until - time.monotonic())))
        finally:
            over.set()
        total = sum((lane.result()[0] for lane in lanes), Counter[str]())
    print(f"steps: {dict(total)}; {len(taken)} samples")
    assert all(total[what] for what in (ANSWERED, RAN, FAILED)), total

    # 1. Nobody died, and memory is flat.
    assert samples.restarts() == restarts
    grown = [line for name in sorted(before) for line in _growth(name, taken)]
    assert not grown, "\n".join(grown)
    # 2. Nothing is left over.
    left: list[str] = []

    def idle() -> bool | None:
        left[:] = _left_over(before, samples.take())
        return not left or None

    try:
        wait_for("end of what was under way", idle, _QUIET_SECONDS)
    except AssertionError as error:
        raise AssertionError(f"{error}\n" + "\n".join(left)) from None


def _floods(run: Callable[[], Counter[str]], over: threading.Event) -> tuple[Counter[str], int]:
    total, floods = run(), 1
    while not over.wait(_FLOOD_PAUSE):
        total, floods = total + run(), floods + 1
    return total, floods


def _growth(name: str, taken: Sequence[dict[str, Sample]]) -> list[str]:
    """What a replica grew by from the second third of the time to the last, where that is too much."""
    series = [one[name] for one in taken if name in one]
    third = len(series) // 3
    if not third:
        return [f"{name}: {len(series)} samples are too few"]
    found = []
    for what, slack in (("rss", _GROWTH_MIB), ("threads", 1), ("fds", 2 * _OURS)):
        values = [float(getattr(one, what)) for one in series]
        second, last = (statistics.median(part) for part in (values[third:-third], values[-third:]))
        line = (
            f"{name}: {what} {second:.1f} in the second third, {last:.1f} in the last; most {max(values):.1f}"
        )
        print(line)
        if last > max(_GROWTH * second, second + slack):
            found.append(line)
    return found


def _left_over(before: dict[str, Sample], now: dict[str, Sample]) -> list[str]:
    """What each replica has that it had not while it was idle; a line each."""
    found = [f"{name} is gone" for name in before if name not in now]
    for name in before.keys() & now.keys():
        for what in ("stepmemo_gated_pods", "stepmemo_queue_depth", "stepmemo_body_bytes"):
            if now[name].gauges.get(what, 0):
                found.append(f"{name}: {what} is {now[name].gauges[what]:g}")
        for what in ("fds", "connections"):
            was, held = (_held(one, what) for one in (before[name], now[name]))
            if held > was + _OURS + (_KEPT_ALIVE if what == "fds" else 0):
                found.append(f"{name}: {held:g} {what}, {was:g} before")
    print("\n".join(f"{name}: {one}" for name, one in sorted(now.items())))
    return found


def _held(sample: Sample, what: str) -> float:
    return sample.fds if what == "fds" else sample.gauges.get("stepmemo_connections", 0)
