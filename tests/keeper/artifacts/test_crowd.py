"""Many gated Pods at once whose entries have artifacts, by a clock that counts work."""

import asyncio
import contextlib
from collections import Counter
from datetime import UTC, datetime

import pytest

from keeper.artifacts.verifier import ObjectGone, There
from memoize import names
from memoize.entry import Entry
from memoize.key import data_key
from tests.keeper.artifacts.test_verifier import at, repository
from tests.keeper.site import OUT, Site, outputs
from tests.keeper.test_neighbour import OVERLOADED, SERVICE, every, keeping, so_that
from tests.virtual import Server, run

HITS, RATE, AT_ONCE = 100, 50, 1e6
AT_MOST = 8.0
"""Seconds until all of them are answered, or let run."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rate", "answer", "takes", "label"),
    [
        (AT_ONCE, There(), 0.06, names.RESULT_HIT),
        (AT_ONCE, There(), 3600, names.RESULT_HIT),
        (RATE, ObjectGone(), 0.005, names.RESULT_MISS),
    ],
)
def test_no_pod_is_left_waiting_whatever_is_found_and_however_late(
    rate: float, answer: There | ObjectGone, takes: float, label: str
) -> None:
    """Two seconds go to a repository that never answers, the others to an event loop that is overloaded."""

    async def probe(key: str) -> There | ObjectGone:
        await asyncio.sleep(takes)
        return answer

    async def waits() -> list[float]:
        server, made = Server(SERVICE), datetime.now(UTC)
        site = Site.new(server.cluster)
        some = {
            data_key(f"key-{one}"): outputs(OUT, at(f"{one}/a", "a"), at(f"{one}/b", "b"))
            for one in range(HITS)
        }
        site.put({place: Entry("wf-0", what, made, made).dump() for place, what in some.items()})
        decided: list[asyncio.Task[float]] = []

        def begin(number: int) -> None:
            name = site.pod(number, key=f"key-{number}")
            decided.append(asyncio.create_task(so_that(lambda: site.label(name) == label)))

        async with keeping(server, {repository(): probe}):
            await every(1 / rate, HITS, begin)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(60):
                    await asyncio.wait(decided)
            return [one.result() if one.done() else 60.0 for one in decided]

    found = run(waits(), OVERLOADED)
    assert Counter(one < AT_MOST for one in found) == {True: HITS}
