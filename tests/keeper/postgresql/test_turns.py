"""Who is looked at next, and what choosing costs."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping

import pytest

from keeper.postgresql.rows import EntryRef
from keeper.postgresql.turns import EntryTurns
from keeper.store import Cache


class Keys(Collection[str]):
    """Data keys, which counts how many of them were handed out."""

    def __init__(self, number: int) -> None:
        self._number, self.given = number, 0

    def __contains__(self, key: object) -> bool:
        return str(key) in map(str, range(self._number))

    def __iter__(self) -> Iterator[str]:
        for number in range(self._number):
            self.given += 1
            yield str(number)

    def __len__(self) -> int:
        return self._number


class Some:
    """Those that somebody waits for: in each Namespace so many in each of so many caches."""

    def __init__(self, **namespaces: tuple[int, int]) -> None:
        self.keys = {
            name: {f"c-{number}": Keys(each) for number in range(caches)}
            for name, (caches, each) in namespaces.items()
        }

    @property
    def caches(self) -> Collection[Cache]:
        raise AssertionError("all of them are more than anybody should go through")

    @property
    def caches_of(self) -> Mapping[str, Collection[str]]:
        return self.keys

    def data_keys(self, namespace: str, cache: str) -> Collection[str]:
        return self.keys.get(namespace, {}).get(cache, ())

    @property
    def given(self) -> int:
        return sum(keys.given for caches in self.keys.values() for keys in caches.values())


def by_namespace(chosen: Collection[EntryRef]) -> Counter[str]:
    return Counter(place.namespace for place in chosen)


def test_where_there_are_few_all_are_chosen_each_time() -> None:
    turns, some = EntryTurns(), Some(a=(2, 3), b=(1, 1))
    for _ in range(3):
        chosen, begun = turns.next(some, 100)
        assert by_namespace(chosen) == {"a": 6, "b": 1}
        assert begun == {"a", "b"}


@pytest.mark.parametrize("most", [20, 100])
def test_of_many_each_namespace_has_its_share_and_what_one_does_not_need_is_the_others(most: int) -> None:
    turns, some = EntryTurns(), Some(large=(3, 1000), other=(1, 1000), small=(1, 4))
    chosen, _ = turns.next(some, most)
    counts = by_namespace(chosen)
    assert counts.total() == most
    assert counts["small"] == 4
    assert abs(counts["large"] - counts["other"]) <= 1


def test_every_entry_has_its_turn() -> None:
    turns, some = EntryTurns(), Some(a=(4, 25), b=(1, 1))
    seen = Counter[EntryRef]()
    for _ in range(12):
        seen.update(turns.next(some, 20)[0])
    assert len(seen) == 101
    assert min(count for place, count in seen.items() if place.namespace == "a") >= 2


def test_of_more_namespaces_than_entries_that_may_be_chosen_each_has_its_turn() -> None:
    turns, some = EntryTurns(), Some(**{f"n-{number}": (1, 2) for number in range(30)})
    seen = Counter[str]()
    for _ in range(60):
        chosen, _ = turns.next(some, 10)
        assert len(chosen) == 10
        seen.update(by_namespace(chosen))
    assert len(seen) == 30


def test_what_is_not_chosen_costs_nothing() -> None:
    """Ten times as many entries that wait are no more to go through in a turn."""
    given = list[int]()
    for number in (10, 100):
        turns, some = EntryTurns(), Some(**{f"n-{one}": (number, 50) for one in range(20)})
        for _ in range(10):
            turns.next(some, 200)
        given.append(some.given)
    assert given[1] <= given[0] <= 10 * 200 + 20 * 50 * 2


def test_what_is_followed_no_longer_is_forgotten() -> None:
    turns, some = EntryTurns(), Some(a=(1, 100), b=(1, 100))
    turns.next(some, 20)
    del some.keys["a"]
    assert by_namespace(turns.next(some, 20)[0]) == {"b": 20}
    some.keys.clear()
    assert turns.next(some, 20) == ([], set())
    assert turns._walks == {}
