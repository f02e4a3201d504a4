import asyncio

from keeper.slots import Slots


async def test_work_is_bounded_in_all_and_for_one_namespace() -> None:
    slots, over = Slots(4, 2), asyncio.Event()
    under_way: list[str] = []

    async def work(namespace: str) -> None:
        async with slots.take(namespace):
            under_way.append(namespace)
            await over.wait()

    tasks = [asyncio.create_task(work(namespace)) for namespace in ("a", "a", "a", "a", "b", "c", "d", "e")]
    for _ in range(20):
        await asyncio.sleep(0)
    assert under_way == ["a", "a", "b", "c"]
    over.set()
    await asyncio.gather(*tasks)
    assert sorted(under_way) == ["a", "a", "a", "a", "b", "c", "d", "e"]


async def test_who_stops_waiting_takes_no_slot_and_nothing_is_kept_of_namespaces_that_rest() -> None:
    slots = Slots(2, 1)
    async with slots.take("a"):
        waiting = asyncio.create_task(slots.take("a").__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
    for _ in range(3):
        async with slots.take("a"), slots.take("b"):
            pass
    assert not slots._semaphores
    assert not slots._users
