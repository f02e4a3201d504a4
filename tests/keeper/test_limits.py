"""What Namespaces' annotations say, and when it is heard of, by a clock that counts work."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import pytest

from devcluster.api.kinds import Object
from keeper import limits
from keeper.limits import FORGOTTEN, PACE, PERIOD, Limits, NamespaceLimits
from tests.beside import beside
from tests.virtual import Server, run

SERVICE = 0.01
"""Seconds for a request."""
FLAGS = Limits(single_flight_waiters=20, max_bytes=64 << 10)
DOMAIN = "stepmemo.dev"


@pytest.mark.parametrize(
    ("name", "text", "limit"),
    [
        ("weight", "10", {"weight": 10}),
        ("weight", "1000", {"weight": 1000}),
        ("single-flight-waiters", "0", {"single_flight_waiters": 0}),
        ("single-flight-waiters", "100000", {"single_flight_waiters": 100_000}),
        ("max-bytes", "256Ki", {"max_bytes": 256 << 10}),
        ("max-bytes", "1Mi", {"max_bytes": 1 << 20}),
        ("max-total-bytes", "1Mi", {"max_total_bytes": 1 << 20}),
        ("max-total-bytes", "10Gi", {"max_total_bytes": 10 << 30}),
    ],
)
def test_what_an_annotation_says_and_nothing_else_is_a_limit(
    name: str, text: str, limit: dict[str, int]
) -> None:
    said = limits.read({f"{DOMAIN}/{name}": text, "other.test/weight": "5", f"{DOMAIN}/memoize": "true"})
    assert said == (limit, {name: text}, ())


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("weight", "9", '"9" must be a number between 10 and 1000'),
        ("weight", "1001", '"1001" must be a number between 10 and 1000'),
        ("weight", "", '"" must be a number between 10 and 1000'),
        ("weight", "9" * 5000, f'"{"9" * 40}…" must be a number between 10 and 1000'),
        ("weight", "0" * 38 + "1000", f'"{"0" * 38}10…" must be a number between 10 and 1000'),
        ("single-flight-waiters", "-1", '"-1" must be a number between 0 and 100000'),
        ("max-bytes", "2Mi", '"2Mi" must be at most "1Mi", which is what a ConfigMap can hold'),
        ("max-bytes", "1Ki", '"1Ki" must be at least "4Ki"'),
        ("max-total-bytes", "1Ki", '"1Ki" must be between "1Mi" and "1Ei", such as "512Mi" or "10Gi"'),
        ("max-total-bytes", "much", '"much" must be between "1Mi" and "1Ei", such as "512Mi" or "10Gi"'),
    ],
)
def test_what_is_none_is_ignored_and_its_cure_told_and_the_others_hold(
    name: str, value: str, problem: str
) -> None:
    said = limits.read({f"{DOMAIN}/max-bytes": "8Ki", f"{DOMAIN}/weight": "50", f"{DOMAIN}/{name}": value})
    assert len(said.problems) == 1
    assert said.problems[0].startswith(f"annotation {DOMAIN}/{name}: {problem}")
    assert said.problems[0].endswith("; it is ignored")
    assert said.texts == {one: text for one, text in (("max-bytes", "8Ki"), ("weight", "50")) if one != name}


class World:
    """Namespaces, and their limits as a keeper knows them."""

    def __init__(self) -> None:
        self.server = Flaky(SERVICE)
        self.clock = asyncio.get_running_loop().time
        self.failed: list[str] = []
        self.limits = NamespaceLimits(self.server.api, FLAGS, self.failed.append, clock=self.clock)

    def annotate(self, namespace: str, **annotations: str | None) -> None:
        self.server.cluster.create({"kind": "Namespace", "metadata": {"name": namespace}})
        change = {f"{DOMAIN}/{name.replace('_', '-')}": text for name, text in annotations.items()}
        status, _ = self.server.cluster.patch(
            "Namespace", "", namespace, {"metadata": {"annotations": change}}
        )
        assert status == 200

    async def after(self, seconds: float, namespace: str = "work") -> Limits:
        """What is known of it when somebody has asked for it all the time."""
        until = self.clock() + seconds
        while self.clock() < until:
            self.limits.of(namespace)
            await asyncio.sleep(min(1.0, until - self.clock()))
        return self.limits.of(namespace)


class Flaky(Server):
    """Answers with `status` while there is one."""

    status = 0

    async def answer(
        self, method: str, path: str, query: Mapping[str, str], content_type: str, body: bytes
    ) -> tuple[int, Object]:
        if self.status:
            return self.status, {"kind": "Status", "message": "a fault"}
        return await super().answer(method, path, query, content_type, body)


def played(play: Callable[[World], Coroutine[Any, Any, None]]) -> World:
    """A world in which this was played while limits were read."""

    async def whole() -> World:
        world = World()
        async with beside(world.limits.run()):
            await play(world)
        return world

    return run(whole(), 0.00001)


def test_a_namespaces_limits_are_known_within_a_moment_and_its_changes_within_a_period() -> None:
    async def play(world: World) -> None:
        world.annotate("work", weight="200")
        assert world.limits.of("work") == FLAGS, "nobody waits for them"
        assert await world.after(2) == FLAGS._replace(weight=200)
        world.annotate("work", weight=None, single_flight_waiters="5", max_bytes="1Mi")
        assert await world.after(PERIOD) == FLAGS._replace(single_flight_waiters=5, max_bytes=1 << 20)
        assert await world.after(10, "other") == FLAGS, "which is not there"
        assert await world.after(10, "../pods") == FLAGS

    world = played(play)
    assert world.failed == []
    assert ("GET", "/api/v1/namespaces/..%2Fpods") in world.server.calls


def test_limits_stay_as_they_are_while_the_namespace_cannot_be_read() -> None:
    async def play(world: World) -> None:
        world.annotate("work", weight="50")
        await world.after(2)
        for world.server.status in (403, 500):
            assert (await world.after(PERIOD)).weight == 50
            assert await world.after(2, "new") == FLAGS
        world.server.status = 0
        world.annotate("work", weight="60")
        assert (await world.after(PERIOD + 1)).weight == 60

    assert set(played(play).failed) == {"namespaces"}


def test_a_namespace_that_is_gone_has_no_limits() -> None:
    async def play(world: World) -> None:
        world.annotate("work", weight="50")
        await world.after(2)
        world.server.cluster.delete("Namespace", "", "work")
        assert await world.after(PERIOD + 1) == FLAGS

    assert played(play).failed == []


def test_each_problem_is_told_once_while_it_is_there(caplog: pytest.LogCaptureFixture) -> None:
    async def play(world: World) -> None:
        world.annotate("work", weight="5", single_flight_waiters="7")
        assert await world.after(3 * PERIOD) == FLAGS._replace(single_flight_waiters=7)
        world.annotate("work", weight="many")
        await world.after(2 * PERIOD)

    caplog.set_level(logging.WARNING)
    played(play)
    told = [(record.fields["reason"], record.fields["detail"]) for record in caplog.records]
    assert told == [
        (
            "InvalidLimit",
            f'annotation {DOMAIN}/weight: "{text}" must be a number between 10 and 1000; it is ignored',
        )
        for text in ("5", "many")
    ]


def test_nobody_is_asked_about_who_is_of_no_use_any_more() -> None:
    async def play(world: World) -> None:
        await world.after(FORGOTTEN)
        world.server.calls.clear()
        await asyncio.sleep(FORGOTTEN + PERIOD)
        assert len(world.server.calls) <= FORGOTTEN / PERIOD
        world.server.calls.clear()
        await asyncio.sleep(10 * PERIOD)
        assert world.server.calls == []
        await world.after(2)
        assert len(world.server.calls) == 1

    played(play)


@pytest.mark.slow
def test_however_many_there_are_so_many_are_read_in_a_second_and_the_new_ones_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "MOST_NAMESPACES", 3001)

    async def play(world: World) -> None:
        begun = world.clock()
        for _ in range(6):
            for number in range(3000):
                world.limits.of(f"ns-{number}")
            await asyncio.sleep(30)
        assert len(world.server.calls) <= (world.clock() - begun) / PACE
        assert {path for _, path in world.server.calls} == {f"/api/v1/namespaces/ns-{n}" for n in range(3000)}
        world.annotate("work", weight="200")
        assert (await world.after(2)).weight == 200
        world.annotate("beyond", weight="200")
        assert await world.after(PERIOD, "beyond") == FLAGS

    played(play)
