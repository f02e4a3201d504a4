import io
import json
from datetime import timedelta
from typing import Any

import pytest

from cli import browse, collect, installation
from memoize import names
from tests.cli.caches import argos, data, entry, make
from tests.cli.conftest import NOW, Stepmemo
from tests.cluster import Cluster

DAY = timedelta(days=1)
EIGHT = {
    "expired": entry(key="expired", created=NOW - 2 * DAY, last_hit=NOW - 2 * DAY),
    "unused": entry(key="unused", created=NOW - 40 * DAY, last_hit=NOW - 35 * DAY, max_age=""),
    **{f"kept-{number}": entry(key=f"kept-{number}") for number in range(6)},
}


@pytest.fixture
def namespace(cluster: Cluster) -> str:
    found = cluster.namespace()
    make(cluster, found, "greetings", {**{k: one.dump() for k, one in EIGHT.items()}, "notes": "no entry"})
    make(cluster, found, "settings", {"a": "b"}, labelled=False)
    return found


@pytest.mark.contract
def test_a_dry_run_shows_what_goes_and_removes_nothing(
    cluster: Cluster, namespace: str, stepmemo: Stepmemo
) -> None:
    before = data(cluster, namespace, "greetings")
    code, out, err = stepmemo("gc", "--dry-run", "-n", namespace, "--unused-for", "720h")
    gap = " " * (len(namespace) - len("NAMESPACE"))
    assert code == 0
    assert out.splitlines() == [
        f"NAMESPACE{gap}  CACHE      KEY      CAUSE    AGE  LAST HIT  SIZE",
        f"{namespace}  greetings  expired  expired   2d        2d   307",
        f"{namespace}  greetings  unused   unused   40d       35d   291",
    ]
    assert err == "stepmemo gc: would remove 2 entries (598) of 1 cache\n"
    assert data(cluster, namespace, "greetings") == before


def test_no_outputs_are_kept_of_what_is_shown(
    cluster: Cluster, namespace: str, stepmemo: Stepmemo, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = list[collect.Going]()
    item = collect._item

    def seen(going: collect.Going) -> dict[str, Any]:
        kept.append(going)
        return item(going)

    monkeypatch.setattr(collect, "_item", seen)
    stepmemo("gc", "--dry-run", "-n", namespace, "--unused-for", "720h", "-o", "json")
    assert [(one.item.key, getattr(one.item.entry, "outputs", "")) for one in kept] == [
        ("expired", None),
        ("unused", None),
    ]


@pytest.mark.contract
def test_what_was_shown_is_removed_and_nothing_else(
    cluster: Cluster, namespace: str, stepmemo: Stepmemo
) -> None:
    code, out, err = stepmemo("gc", "--yes", "-n", namespace, "-o", "json")
    assert [(item["key"], item["cause"]) for item in json.loads(out)["items"]] == [("expired", "expired")]
    assert (code, err) == (0, f"{namespace}/greetings: 1 removed\n")
    left = data(cluster, namespace, "greetings")
    assert left.keys() == (EIGHT.keys() - {"expired"}) | {"notes"}
    assert stepmemo("gc", "--yes", "-n", namespace) == (0, "", "stepmemo gc: there is nothing to remove\n")


def test_a_cache_beyond_its_own_limit_gives_up_what_was_used_the_longest_ago(
    cluster: Cluster, namespace: str, stepmemo: Stepmemo
) -> None:
    big = {"parameters": [{"name": "x", "value": "x" * 3000}]}
    entries = {
        f"e{number}": entry(
            key=f"e{number}", max_age="", outputs=big, created=NOW - number * DAY, last_hit=None
        )
        for number in range(4)
    }
    make(cluster, namespace, "small", {key: one.dump() for key, one in entries.items()})

    def annotate(kind: str, name: str, limit: str | None) -> None:
        change = {"metadata": {"annotations": {names.MAX_BYTES: limit}}}
        assert cluster.patch(kind, namespace if kind == "ConfigMap" else "", name, change)[0] == 200

    annotate("ConfigMap", "small", "10Ki")
    items = json.loads(stepmemo("gc", "small", "--dry-run", "-n", namespace, "-o", "json")[1])["items"]
    assert [item["key"] for item in items] == ["e3"]
    caches = json.loads(stepmemo("caches", "-n", namespace, "-o", "json")[1])["items"]
    assert {item["cache"]: item["limitBytes"] for item in caches}["small"] == 10 << 10
    annotate("ConfigMap", "small", None)
    annotate("Namespace", namespace, "7Ki")
    items = json.loads(stepmemo("gc", "small", "--dry-run", "-n", namespace, "-o", "json")[1])["items"]
    assert [item["key"] for item in items] == ["e3"], "a quarter at most"
    caches = json.loads(stepmemo("caches", "-n", namespace, "-o", "json")[1])["items"]
    assert {item["limitBytes"] for item in caches} == {7 << 10}
    assert stepmemo("gc", "small", "--yes", "-n", namespace)[0] == 0
    assert data(cluster, namespace, "small").keys() == {"e0", "e1", "e2"}


@pytest.mark.contract
def test_what_the_keeper_leaves_alone_goes_only_if_it_is_named(cluster: Cluster, stepmemo: Stepmemo) -> None:
    name = cluster.namespace({names.GC: "false"})
    entries = {key: one.dump() for key, one in EIGHT.items()}
    make(cluster, name, "one", entries)
    make(cluster, name, "two", entries)
    assert (
        cluster.patch("ConfigMap", name, "two", {"metadata": {"annotations": {names.GC: "true"}}})[0] == 200
    )
    items = json.loads(stepmemo("gc", "--dry-run", "-n", name, "-o", "json")[1])["items"]
    assert [item["cache"] for item in items] == ["two"]
    items = json.loads(stepmemo("gc", "one", "--dry-run", "-n", name, "-o", "json")[1])["items"]
    assert [item["cache"] for item in items] == ["one"]


@pytest.mark.contract
def test_caches_of_a_namespace_that_may_not_be_read_go_only_if_they_are_named_or_say_so(
    cluster: Cluster, stepmemo: Stepmemo, kubeconfig_of: Any
) -> None:
    name = cluster.namespace({names.GC: "false"})
    entries = {key: one.dump() for key, one in EIGHT.items()}
    make(cluster, name, "one", entries)
    make(cluster, name, "two", entries)
    annotated = {"metadata": {"annotations": {names.GC: "true"}}}
    assert cluster.patch("ConfigMap", name, "two", annotated)[0] == 200
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}]
    mine = ["--kubeconfig", kubeconfig_of(cluster.service_account(name, "person", rules))]
    _, out, err = stepmemo("gc", "--dry-run", "-n", name, "-o", "json", *mine)
    assert [item["cache"] for item in json.loads(out)["items"]] == ["two"]
    assert 'cannot get resource "namespaces"' in err
    assert 'left alone are its caches that are neither named nor say stepmemo.dev/gc: "true"' in err
    _, out, _ = stepmemo("gc", "one", "--dry-run", "-n", name, "-o", "json", *mine)
    assert [item["cache"] for item in json.loads(out)["items"]] == ["one"]


def test_the_keepers_own_settings_count_unless_others_are_said(
    stepmemo: Stepmemo, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = {"args": ["--gc-unused-for=720h"], "env": [{"name": "STEPMEMO_HIT_INTERVAL", "value": "1h"}]}

    async def deployed(*_: Any) -> Any:
        return {"spec": {"template": {"spec": {"containers": [container]}}}}

    monkeypatch.setattr(installation, "deployment", deployed)
    items = json.loads(stepmemo("gc", "--dry-run", "-n", namespace, "-o", "json")[1])["items"]
    assert [item["key"] for item in items] == ["expired", "unused"]
    args = ["gc", "--dry-run", "-n", namespace, "-o", "json", "--unused-for", "8000h"]
    assert [item["key"] for item in json.loads(stepmemo(*args)[1])["items"]] == ["expired"]


@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, 8), ("n\n", 1, 9), ("", 1, 9)])
def test_it_asks_before_it_removes_anything(
    answer: str,
    code: int,
    left: int,
    cluster: Cluster,
    namespace: str,
    stepmemo: Stepmemo,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    person = io.StringIO(answer)
    monkeypatch.setattr(person, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", person)
    found, _, err = stepmemo("gc", "-n", namespace)
    assert (found, len(data(cluster, namespace, "greetings"))) == (code, left)
    assert err.startswith("Remove 1 entry (307) of 1 cache? [y/N] ")


def test_where_nobody_can_be_asked_nothing_is_removed(
    cluster: Cluster, namespace: str, stepmemo: Stepmemo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    code, _, err = stepmemo("gc", "-n", namespace)
    assert (code, err) == (2, "stepmemo gc: nobody is there to be asked: say --yes, or --dry-run\n")
    assert len(data(cluster, namespace, "greetings")) == 9


@pytest.mark.contract
def test_an_entry_that_is_used_in_between_stays(
    cluster: Cluster, namespace: str, stepmemo: Stepmemo, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = browse.write

    async def raced(*args: Any) -> bool:
        cluster.patch("ConfigMap", namespace, "greetings", {"data": {"expired": entry(key="expired").dump()}})
        return await write(*args)

    monkeypatch.setattr(browse, "write", raced)
    code, _, err = stepmemo("gc", "--yes", "-n", namespace)
    assert (code, err) == (0, f"{namespace}/greetings: 0 removed\n")
    assert len(data(cluster, namespace, "greetings")) == 9


def test_a_cache_that_keeps_changing_is_told_and_the_others_are_done(
    cluster: Cluster, namespace: str, stepmemo: Stepmemo, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(cluster, namespace, "other", {key: one.dump() for key, one in EIGHT.items()})
    write = browse.write

    async def raced(connected: Any, where: str, seen: Any, *args: Any) -> bool:
        return seen["metadata"]["name"] == "other" and await write(connected, where, seen, *args)

    monkeypatch.setattr(browse, "write", raced)
    code, _, err = stepmemo("gc", "--yes", "-n", namespace)
    assert code == 1
    assert err.splitlines() == [
        f"stepmemo gc: {namespace}/greetings kept changing: nothing was removed from it, try again",
        f"{namespace}/other: 1 removed",
    ]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--unused-for", "30d"], "--unused-for: '30d' has the unknown unit 'd'"),
        (["--unused-for", "0s"], "--unused-for: '0s' is not longer than 0s"),
    ],
)
def test_wrong_usage_is_told(args: list[str], said: str, stepmemo: Stepmemo, capsys: Any) -> None:
    with pytest.raises(SystemExit) as exited:
        stepmemo("gc", *args)
    assert exited.value.code == 2
    assert said in capsys.readouterr().err


def test_names_do_not_go_with_all_namespaces(stepmemo: Stepmemo) -> None:
    assert stepmemo("gc", "greetings", "-A", "--dry-run")[0] == 2


def test_argos_entries_without_a_hit_are_not_unused_for_that_alone(
    cluster: Cluster, stepmemo: Stepmemo
) -> None:
    name = cluster.namespace()
    make(cluster, name, "argos", {"one": argos(), "two": argos()})
    assert stepmemo("gc", "--dry-run", "-n", name)[2] == "stepmemo gc: there is nothing to remove\n"
