import asyncio
from contextlib import AsyncExitStack, ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keeper.api import in_flight
from keeper.api.in_flight import Bytes, TooMuchError, Turns


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 60)), max_size=30))
def test_nobody_is_let_over_a_limit_and_nothing_is_left_over(wanted: list[tuple[str, int]]) -> None:
    held = Bytes(100, 50)
    taken: dict[str, int] = {}
    with ExitStack() as stack:
        for namespace, size in wanted:
            before = held.held
            with ExitStack() as own:
                more = own.enter_context(held.of(namespace))
                mine = taken.get(namespace, 0) + size
                if mine > 50 or before + size > 100:
                    with pytest.raises(TooMuchError) as caught:
                        more(size)
                    assert caught.value.own == (mine > 50)
                else:
                    more(size)
                    taken[namespace] = mine
                    stack.push(own.pop_all())
            assert held.held == sum(taken.values()) <= 100
    assert held.held == 0
    assert not held._of_one


async def test_each_namespace_has_its_turns_whatever_the_others_wait_for() -> None:
    turns = Turns(3, 2)
    entered: list[str] = []
    end = asyncio.Event()

    async def ask(namespace: str) -> None:
        async with turns.of(namespace):
            entered.append(namespace)
            await end.wait()

    flood = [asyncio.create_task(ask("a")) for _ in range(50)]
    await asyncio.sleep(0)
    other = asyncio.create_task(ask("b"))
    await asyncio.sleep(0)
    assert entered == ["a", "a", "b"]
    end.set()
    await asyncio.gather(*flood, other)
    assert len(entered) == 51
    assert not turns._semaphores
    assert not turns._users


async def test_a_line_has_an_end_and_who_is_cancelled_leaves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight, "MOST_WAITING", 1)
    turns = Turns(1, 1)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(turns.of("a"))
        waiting = asyncio.create_task(stack.enter_async_context(turns.of("a")))
        await asyncio.sleep(0)
        with pytest.raises(TooMuchError):
            await stack.enter_async_context(turns.of("a"))
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    async with turns.of("a"):
        pass
