import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.beside import beside


async def for_ever(told: list[str] | None = None) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        (told if told is not None else []).append("ended")


async def fails() -> None:
    raise KeyError("a bug")


async def returns() -> None:
    return


async def cancels_itself() -> None:
    raise asyncio.CancelledError


async def test_what_runs_beside_a_block_is_ended_with_it_whatever_comes_of_it() -> None:
    told: list[str] = []
    async with beside(for_ever(told), for_ever(told)):
        await asyncio.sleep(0)
        assert told == []
    assert told == ["ended"] * 2

    async def block() -> None:
        async with beside(for_ever(told)):
            await asyncio.sleep(0)
            raise ValueError("of the block")

    with pytest.raises(ValueError, match="of the block"):
        await block()
    assert told == ["ended"] * 3


async def test_a_part_that_failed_fails_the_test() -> None:
    with pytest.raises(KeyError, match="a bug"):
        async with beside(for_ever(), fails()):
            await asyncio.sleep(0)


@pytest.mark.parametrize("part", [returns, cancels_itself])
async def test_so_does_one_that_ended_by_itself(part: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with pytest.raises(AssertionError, match="ended by itself"):
        async with beside(for_ever(), part()):
            await asyncio.sleep(0)
