from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli import copying
from cli.copying import to_copy
from cli.inventory import read
from memoize import configmap
from memoize.entry import Entry
from tests.cli.caches import HOUR, argos, data, entry, make
from tests.cli.conftest import NOW, Stepmemo
from tests.cluster import Cluster

NEW, OLD = entry(created=NOW).dump(), entry(created=NOW - HOUR).dump()
TIMELESS = entry(created=None).dump()


@pytest.mark.parametrize(
    ("source", "target", "copied"),
    [
        ({"k": OLD}, {}, ({"k": OLD}, 0, 0, 0)),
        ({"k": OLD}, {"k": NEW}, ({}, 1, 0, 0)),
        ({"k": NEW}, {"k": OLD}, ({"k": NEW}, 0, 0, 0)),
        ({"k": NEW}, {"k": NEW}, ({}, 1, 0, 0)),
        ({"k": NEW}, {"k": TIMELESS}, ({"k": NEW}, 0, 0, 0)),
        ({"k": TIMELESS}, {"k": OLD}, ({}, 1, 0, 0)),
        ({"k": argos()}, {}, ({"k": argos()}, 0, 0, 0)),
        ({"k": "no entry"}, {}, ({}, 0, 1, 0)),
        ({"k": NEW}, {"k": "no entry"}, ({}, 0, 1, 0)),
        ({"k": NEW}, {"other": "x" * (configmap.MOST_BYTES - 10)}, ({}, 0, 0, 1)),
        ({}, {}, ({}, 0, 0, 0)),
    ],
)
def test_of_two_entries_the_newer_one_stays(source: Any, target: Any, copied: Any) -> None:
    assert to_copy(source, target) == copied


CACHE = st.dictionaries(
    st.sampled_from("abcd"), st.sampled_from([NEW, OLD, TIMELESS, argos(), "no entry", "x" * 500_000])
)


@given(CACHE, CACHE)
def test_a_second_import_copies_nothing_more_and_nothing_is_lost(
    source: dict[str, str], target: dict[str, str]
) -> None:
    first = to_copy(source, target)
    after = {**target, **first.entries}
    second = to_copy(source, after)
    assert second.entries == {}
    assert second.no_room == first.no_room
    assert after.keys() >= target.keys()
    assert sum(map(configmap.size, after.values())) <= max(
        configmap.MOST_BYTES, sum(map(configmap.size, target.values()))
    )
    assert all(isinstance(read(text), Entry) for text in first.entries.values())
    assert len(first.entries) + first.kept + first.refused + first.no_room == len(source)


@pytest.fixture
def namespaces(cluster: Cluster) -> tuple[str, str]:
    """The controller's, with two caches, and one for workflows."""
    controllers, workflows = cluster.namespace(), cluster.namespace()
    make(cluster, controllers, "greetings", {"k": OLD, "old": argos()})
    make(cluster, controllers, "others", {"k": NEW})
    make(cluster, controllers, "workflow-controller-configmap", {"a": "b"}, labelled=False)
    return controllers, workflows


@pytest.mark.contract
def test_all_caches_are_copied_and_may_be_again(
    cluster: Cluster, namespaces: tuple[str, str], stepmemo: Stepmemo
) -> None:
    controllers, workflows = namespaces
    make(cluster, workflows, "others", {"k": OLD, "mine": NEW})
    args = ["import", "--from", controllers, "-n", workflows]
    assert stepmemo(*args) == (0, "greetings: 2 copied\nothers: 1 copied\n", "")
    assert data(cluster, workflows, "greetings") == {"k": OLD, "old": argos()}
    assert data(cluster, workflows, "others") == {"k": NEW, "mine": NEW}
    assert data(cluster, controllers, "greetings") == {"k": OLD, "old": argos()}
    assert cluster.get("ConfigMap", workflows, "workflow-controller-configmap")[0] == 404
    assert configmap.not_a_cache(cluster.get("ConfigMap", workflows, "greetings")[1]) is None
    assert stepmemo(*args) == (
        0,
        "greetings: 0 copied, 2 there already\nothers: 0 copied, 1 there already\n",
        "",
    )


@pytest.mark.contract
def test_what_is_not_a_cache_is_left_alone_and_the_others_are_copied(
    cluster: Cluster, namespaces: tuple[str, str], stepmemo: Stepmemo
) -> None:
    controllers, workflows = namespaces
    make(cluster, workflows, "greetings", {"k": "mine"}, labelled=False)
    code, out, err = stepmemo("import", "--from", controllers, "-n", workflows)
    assert (code, out) == (1, "others: 1 copied\n")
    assert err == (
        f"stepmemo import: greetings: in {workflows}: the ConfigMap lacks the label "
        "workflows.argoproj.io/configmap-type: Cache; nothing was copied\n"
    )
    assert data(cluster, workflows, "greetings") == {"k": "mine"}


def test_only_the_named_caches(cluster: Cluster, namespaces: tuple[str, str], stepmemo: Stepmemo) -> None:
    controllers, workflows = namespaces
    args = ["import", "--from", controllers, "-n", workflows]
    assert stepmemo(*args, "others")[:2] == (0, "others: 1 copied\n")
    assert cluster.get("ConfigMap", workflows, "greetings")[0] == 404
    assert (
        stepmemo(*args, "none")[2] == f"stepmemo import: no ConfigMap none in the Namespace {controllers}\n"
    )


def test_a_name_that_is_missing_keeps_no_other_from_being_copied(
    cluster: Cluster, namespaces: tuple[str, str], stepmemo: Stepmemo
) -> None:
    controllers, workflows = namespaces
    args = ["import", "--from", controllers, "-n", workflows, "greetings", "none", "others", "others"]
    code, out, err = stepmemo(*args)
    assert (code, out) == (1, "greetings: 2 copied\nothers: 1 copied\n")
    assert err == f"stepmemo import: no ConfigMap none in the Namespace {controllers}\n"


def test_a_cache_without_entries_makes_none(
    cluster: Cluster, namespaces: tuple[str, str], stepmemo: Stepmemo
) -> None:
    controllers, workflows = namespaces
    make(cluster, controllers, "empty", {})
    make(cluster, controllers, "notes", {"a": "no entry"})
    code, out, _ = stepmemo("import", "--from", controllers, "-n", workflows, "empty", "notes")
    assert (code, out) == (1, "empty: 0 copied\nnotes: 0 copied\n")
    assert [cluster.get("ConfigMap", workflows, name)[0] for name in ("empty", "notes")] == [404, 404]


def test_where_not_all_find_room_those_do_that_were_used_last() -> None:
    def of(age: int, size: int) -> str:
        outputs = {"parameters": [{"name": "x", "value": "x" * size}]}
        return entry(created=NOW - 9 * HOUR, last_hit=NOW - age * HOUR, outputs=outputs).dump()

    source = {"old": of(3, 100_000), "new": of(1, 300_000), "middle": of(2, 300_000), "small": of(4, 1_000)}
    limit = 650_000
    assert to_copy(source, {}, limit).entries.keys() == {"new", "middle", "small"}
    assert to_copy(source, {"there": "x" * 300_000}, limit).entries.keys() == {"new", "small"}


@pytest.mark.contract
def test_an_entry_that_is_written_in_between_is_compared_anew(
    cluster: Cluster, namespaces: tuple[str, str], stepmemo: Stepmemo, monkeypatch: pytest.MonkeyPatch
) -> None:
    controllers, workflows = namespaces
    races = iter([lambda: make(cluster, workflows, "greetings", {"k": NEW})])

    def raced(*args: Any) -> Any:
        copied = to_copy(*args)
        next(races, lambda: None)()
        return copied

    monkeypatch.setattr(copying, "to_copy", raced)
    assert stepmemo("import", "--from", controllers, "-n", workflows, "greetings")[0] == 0
    assert data(cluster, workflows, "greetings") == {"k": NEW, "old": argos()}


def test_a_namespace_is_not_imported_into_itself(stepmemo: Stepmemo) -> None:
    code, out, err = stepmemo("import", "--from", "work", "-n", "work")
    assert (code, out) == (2, "")
    assert err == "stepmemo import: --from: work is where they would be copied to: say -n\n"
