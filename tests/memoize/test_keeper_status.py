"""The keeper's status, and its first version as it was frozen (see test_plan.py)."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoize.keeper_status import (
    EVERY,
    LONGEST,
    MOST_NAMES,
    MOST_STEPS,
    NONE,
    KeeperStatus,
    Namespaces,
    digest,
)
from tests.recordedpods import PODS

FROZEN = (PODS.parent / "skew" / "keeper-status-v1.json").read_text(encoding="utf-8")
STATUS = KeeperStatus(
    ready=True,
    keeps=EVERY,
    wait_seconds=600,
    plans=frozenset({1}),
    backlogged=Namespaces.of({"busy"}),
    stopped=Namespaces.of({"no-pull-secret"}),
    troubled=("9f86d081884c7d65",),
)
namespaces = st.sets(st.text("abcdef-0123456789", min_size=1, max_size=63), max_size=2 * MOST_NAMES).map(
    Namespaces.of
)
statuses = st.builds(
    KeeperStatus,
    ready=st.booleans(),
    keeps=namespaces,
    wait_seconds=st.integers(0, 86_400),
    plans=st.frozensets(st.integers(0, 9)),
    backlogged=namespaces,
    stopped=namespaces,
    trial=namespaces,
    troubled=st.lists(st.text("0123456789abcdef", min_size=16, max_size=16), max_size=50).map(tuple),
)


def test_the_first_version_is_read_and_written_as_it_was_frozen() -> None:
    assert KeeperStatus.from_json(FROZEN) == STATUS
    assert STATUS.to_json() == FROZEN.strip()


def test_a_field_of_a_later_release_is_ignored() -> None:
    assert KeeperStatus.from_json(json.dumps({**json.loads(FROZEN), "shards": 3})) == STATUS


def test_without_its_fields_a_keeper_is_not_ready_and_keeps_nothing() -> None:
    assert KeeperStatus.from_json('{"version":1}') == KeeperStatus()
    assert "default" not in KeeperStatus().keeps


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "[" * 100_000, "{}", '{"version":2}', '{"version":"1"}']
)
def test_what_is_no_status_of_a_known_version_is_none(text: str) -> None:
    assert KeeperStatus.from_json(text) is None


@pytest.mark.parametrize(
    ("changes", "read"),
    [
        ({"ready": "true"}, {"ready": False}),
        ({"keeps": "default"}, {"keeps": NONE}),
        ({"keeps": ["a", 1]}, {"keeps": Namespaces.of({"a"})}),
        ({"waitSeconds": -5}, {"wait_seconds": 0}),
        ({"waitSeconds": "5"}, {"wait_seconds": 0}),
        ({"plans": ["1", 2]}, {"plans": frozenset({2})}),
        ({"stopped": "*"}, {"stopped": EVERY}),
        ({"troubled": {}}, {"troubled": ()}),
    ],
)
def test_a_field_of_another_kind_counts_as_absent(changes: dict[str, Any], read: dict[str, Any]) -> None:
    assert KeeperStatus.from_json(json.dumps({**json.loads(FROZEN), **changes})) == replace(STATUS, **read)


def test_too_many_namespaces_are_told_as_all() -> None:
    assert Namespaces.of([str(one) for one in range(MOST_NAMES)]) != EVERY
    assert Namespaces.of([str(one) for one in range(MOST_NAMES + 1)]) == EVERY
    assert "default" in EVERY


@given(statuses)
def test_a_status_is_never_long_and_never_promises_more_than_was_meant(status: KeeperStatus) -> None:
    text = status.to_json()
    assert len(text.encode()) <= LONGEST
    read = KeeperStatus.from_json(text)
    assert read is not None
    assert read.plans == status.plans
    assert not read.ready or status.ready
    assert read.keeps in (status.keeps, NONE)
    for name in ("backlogged", "stopped", "trial"):
        told, meant = getattr(read, name), getattr(status, name)
        assert told in (meant, EVERY) or read.keeps == NONE
    assert read.troubled == status.troubled[: len(read.troubled)]


TROUBLED = tuple(digest("work", str(number)) for number in range(MOST_STEPS))


def long_names(prefix: str, count: int) -> frozenset[str]:
    return frozenset(f"{prefix}-{number:0{62 - len(prefix)}}" for number in range(count))


def read_again(**fields: Any) -> KeeperStatus:
    found = KeeperStatus.from_json(KeeperStatus(ready=True, **fields).to_json())
    assert found is not None
    return found


def test_troubled_steps_give_way_to_the_namespaces_that_are_kept_and_to_short_lists() -> None:
    keeps, stopped = Namespaces(long_names("kept", 240)), Namespaces.of({"one"})
    read = read_again(keeps=keeps, stopped=stopped, troubled=TROUBLED)
    assert read.ready
    assert (read.keeps, read.stopped) == (keeps, stopped)
    assert 0 < len(read.troubled) < len(TROUBLED)
    assert read.troubled == TROUBLED[: len(read.troubled)], "the first are a share for each Namespace"


def test_a_list_that_is_longer_than_that_of_troubled_steps_gives_way_before_it() -> None:
    keeps, stopped = Namespaces(long_names("kept", 150)), Namespaces(long_names("stopped", 100))
    read = read_again(keeps=keeps, stopped=stopped, troubled=TROUBLED)
    assert (read.keeps, read.stopped, read.troubled) == (keeps, EVERY, TROUBLED)


def test_a_digest_tells_steps_and_namespaces_apart() -> None:
    assert len({digest("a", "b"), digest("b", "a"), digest("a", "c")}) == 3
    assert digest("a", "b") == digest("a", "b")
