import argparse
import json
from datetime import timedelta
from typing import Any

import pytest
import yaml

from cli import browse, installation
from memoize import configmap
from memoize.key import data_key
from tests.cli.caches import argos, data, entry, make
from tests.cli.conftest import NOW, Stepmemo
from tests.cluster import Cluster

NOT_JSON = "not an entry: not JSON at character 0: Expecting value"
LONG_KEY = "a key that Argo does not take: with spaces, and öther letters"


@pytest.fixture
def namespace(cluster: Cluster) -> str:
    found = cluster.namespace()
    cache = {
        "greet-world": entry().dump(),
        data_key(LONG_KEY): entry(key=LONG_KEY, max_age="", took=0, last_hit=NOW - timedelta(days=2)).dump(),
        "old": argos(),
        "notes": "what a person wrote",
    }
    make(cluster, found, "greetings", cache)
    make(cluster, found, "empty", {})
    make(cluster, found, "settings", {"a": "b"}, labelled=False)
    return found


@pytest.mark.contract
def test_caches_are_the_configmaps_with_argos_label(namespace: str, stepmemo: Stepmemo) -> None:
    code, out, err = stepmemo("caches", "-n", namespace, "-o", "json")
    assert (code, err) == (0, "")
    empty, greetings = sorted(json.loads(out)["items"], key=lambda item: item["cache"])
    assert (empty["cache"], empty["entries"], empty["lastHit"], empty["oldest"]) == ("empty", 0, None, None)
    assert greetings == {
        "namespace": namespace,
        "cache": "greetings",
        "store": "ConfigMap",
        "entries": 3,
        "notEntries": 1,
        "bytes": greetings["bytes"],
        "limitBytes": configmap.MOST_BYTES,
        "lastHit": "2026-03-01T11:00:00Z",
        "oldest": "2026-02-28T12:00:00Z",
    }


def test_a_table_of_caches(namespace: str, stepmemo: Stepmemo) -> None:
    code, out, err = stepmemo("caches", "-n", namespace)
    assert (code, err) == (0, "")
    gap = " " * (len(namespace) - len("NAMESPACE"))
    assert out.splitlines() == [
        f"NAMESPACE{gap}  CACHE      STORE      ENTRIES  SIZE  SHARE  LAST HIT  OLDEST",
        f"{namespace}  empty      ConfigMap        0     0     0%",
        f"{namespace}  greetings  ConfigMap        3   781     0%        1h      1d",
    ]


def test_caches_of_all_namespaces(cluster: Cluster, namespace: str, stepmemo: Stepmemo) -> None:
    other = cluster.namespace()
    make(cluster, other, "greetings", {})
    items = json.loads(stepmemo("caches", "-A", "-o", "json")[1])["items"]
    assert {namespace, other} <= {item["namespace"] for item in items}


def test_no_cache_is_told(cluster: Cluster, stepmemo: Stepmemo) -> None:
    name = cluster.namespace()
    assert stepmemo("caches", "-n", name) == (0, "", f"stepmemo caches: no cache in the Namespace {name}\n")
    assert json.loads(stepmemo("caches", "-n", name, "-o", "json")[1]) == {"items": []}


def test_more_caches_than_a_page(
    cluster: Cluster, stepmemo: Stepmemo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browse, "PAGE", 3)
    name = cluster.namespace()
    for number in range(8):
        make(cluster, name, f"cache-{number}", {"old": argos()})
    items = json.loads(stepmemo("caches", "-n", name, "-o", "json")[1])["items"]
    assert [item["cache"] for item in items] == [f"cache-{number}" for number in range(8)]


@pytest.mark.contract
def test_entries_the_one_used_last_first(namespace: str, stepmemo: Stepmemo) -> None:
    code, out, err = stepmemo("entries", "greetings", "-n", namespace)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"{'KEY':61}  AGE  LAST HIT  EXPIRES   TOOK  SIZE  TEMPLATE  FROM",
        f"{'greet-world':61}   3h        1h      21h  5m12s   311  say       greet-x2k9f",
        f"{LONG_KEY:61}   3h        2d                   331  say       greet-x2k9f",
        f"{'old':61}   1d{'':29}120",
        f"{'notes':61}{'':35}19{'':12}{NOT_JSON}",
    ]


def test_entries_for_programs(namespace: str, stepmemo: Stepmemo) -> None:
    code, out, _ = stepmemo("entries", "greetings", "-n", namespace, "-o", "yaml")
    assert code == 0
    items = {item["key"]: item for item in yaml.safe_load(out)["items"]}
    assert items["greet-world"]["expires"] == "2026-03-02T09:00:00Z"
    assert items["old"]["workflow"] is None
    assert items[LONG_KEY]["dataKey"] == data_key(LONG_KEY)
    assert "notAnEntry" in items["notes"]


@pytest.mark.contract
def test_an_entry_is_shown_with_its_outputs_and_what_is_not_recorded(
    namespace: str, stepmemo: Stepmemo
) -> None:
    code, out, err = stepmemo("show", "greetings", "greet-world", "-n", namespace)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "Key:            greet-world",
        "Data key:       greet-world",
        "Size:           311 bytes",
        "Made:           2026-03-01T09:00:00Z (3h ago)",
        "Expires:        2026-03-02T09:00:00Z (in 21h; maxAge 24h)",
        "Last hit:       2026-03-01T11:00:00Z (1h ago)",
        "From workflow:  greet-x2k9f",
        "From Pod:       greet-x2k9f-say-2718281828",
        "From template:  say (by the Pod's name)",
        "From node:      greet-x2k9f-2718281828",
        "Took:           5m12s",
        "Saved:          5m12s at each hit; how many hits there were is not recorded",
        "",
        "KIND       NAME      VALUE",
        "parameter  greeting  hello",
    ]


def test_of_a_computed_key_the_parts_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    text = entry(parts={"image": "1" * 8, "args": "2" * 8}).dump()
    for form in ("table", "json"):
        assert browse.print_entry(argparse.Namespace(output=form), "k", text) == 0
    table, document = capsys.readouterr().out.split("\n{", 1)
    assert "KEY PART  DIGEST\nargs      22222222\nimage     11111111\n" in table
    assert json.loads("{" + document)["parts"] == {"image": "1" * 8, "args": "2" * 8}


def test_argos_own_entry_says_what_it_does_not_record(namespace: str, stepmemo: Stepmemo) -> None:
    _, out, _ = stepmemo("show", "greetings", "old", "-n", namespace)
    assert "From workflow:  not recorded (Argo's own entries do not say)" in out
    assert "Saved:          not known: the entry does not record how long the step took" in out


@pytest.mark.parametrize("key", [LONG_KEY, data_key(LONG_KEY)])
def test_a_long_key_is_found_by_itself_and_by_its_digest(
    key: str, namespace: str, stepmemo: Stepmemo
) -> None:
    code, out, _ = stepmemo("show", "greetings", key, "-n", namespace, "-o", "json")
    found = json.loads(out)
    assert (code, found["key"]) == (0, LONG_KEY)
    assert found["outputs"] == {"parameters": [{"name": "greeting", "value": "hello"}]}


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["entries", "none"], "no ConfigMap none in the Namespace {}"),
        (
            ["entries", "settings"],
            "settings in the Namespace {} is not a cache: the ConfigMap lacks the label "
            "workflows.argoproj.io/configmap-type: Cache",
        ),
        (["show", "greetings", "x"], "the cache greetings has no entry of the key 'x'"),
        (
            ["show", "greetings", "notes"],
            "notes is not an entry, and answers no step: not JSON at character 0: Expecting value",
        ),
        (["rm", "none", "x"], "no ConfigMap none in the Namespace {}"),
        (["rm", "greetings", "x"], "x: no such entry"),
    ],
)
def test_what_is_not_there_is_told_in_a_line(
    args: list[str], said: str, namespace: str, stepmemo: Stepmemo
) -> None:
    code, out, err = stepmemo(*args, "-n", namespace)
    assert (code, out) == (1, "")
    assert err == f"stepmemo {args[0]}: {said.format(namespace)}\n"


@pytest.mark.contract
def test_entries_are_removed_and_the_others_stay(
    cluster: Cluster, namespace: str, stepmemo: Stepmemo
) -> None:
    code, out, err = stepmemo("rm", "greetings", "-n", namespace, "greet-world", LONG_KEY, "gone", "notes")
    assert out == f"greet-world: removed\n{LONG_KEY}: removed\n"
    left = "stepmemo rm: notes: not an entry, so it was left\n"
    assert (code, err) == (1, f"stepmemo rm: gone: no such entry\n{left}")
    assert data(cluster, namespace, "greetings").keys() == {"old", "notes"}
    assert stepmemo("rm", "greetings", "-n", namespace, "greet-world")[0] == 1


@pytest.mark.contract
def test_a_key_and_its_digest_are_one_entry(cluster: Cluster, namespace: str, stepmemo: Stepmemo) -> None:
    code, out, err = stepmemo("rm", "greetings", "-n", namespace, LONG_KEY, data_key(LONG_KEY))
    assert (code, err) == (0, "")
    assert out == f"{LONG_KEY}: removed\n{data_key(LONG_KEY)}: removed\n"
    assert data_key(LONG_KEY) not in data(cluster, namespace, "greetings")


@pytest.mark.contract
def test_of_an_immutable_cache_nothing_is_removed_and_that_is_why(
    cluster: Cluster, namespace: str, stepmemo: Stepmemo
) -> None:
    cluster.patch("ConfigMap", namespace, "greetings", {"immutable": True})
    code, out, err = stepmemo("rm", "greetings", "-n", namespace, "old")
    assert (code, out) == (1, "")
    assert err == "stepmemo rm: greetings: the ConfigMap is immutable; nothing was removed\n"


def test_the_share_is_that_of_the_keepers_own_limit(
    cluster: Cluster, stepmemo: Stepmemo, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def found(*_: Any) -> Any:
        container = {"args": ["--cache-max-bytes=8Ki"]}
        return {"spec": {"template": {"spec": {"containers": [container]}}}}

    monkeypatch.setattr(installation, "deployment", found)
    name = cluster.namespace()
    make(cluster, name, "half", {"a": "x" * 4096})
    _, out, err = stepmemo("caches", "-n", name, "-o", "wide")
    assert err == ""
    assert out.splitlines()[1].split()[-4:] == ["4.0Ki", "50%", "1", "8.0Ki"]


@pytest.mark.contract
def test_an_entry_that_goes_at_the_same_moment_keeps_no_other(
    cluster: Cluster, namespace: str, stepmemo: Stepmemo, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = browse.read

    async def raced(*args: Any) -> Any:
        found = await read(*args)
        cluster.patch("ConfigMap", namespace, "greetings", {"data": {"old": None}})
        return found

    monkeypatch.setattr(browse, "read", raced)
    code, out, err = stepmemo("rm", "greetings", "-n", namespace, "old", "greet-world")
    assert (code, out, err) == (1, "greet-world: removed\n", "stepmemo rm: old: no such entry\n")


@pytest.mark.contract
@pytest.mark.parametrize(
    ("command", "right"),
    [
        (["caches"], 'cannot list resource "configmaps" in API group "" in the namespace'),
        (["entries", "greetings"], 'cannot get resource "configmaps" in API group "" in the namespace'),
        (["rm", "greetings", "old"], 'cannot patch resource "configmaps" in API group "" in the namespace'),
    ],
)
def test_a_right_that_is_missing_is_named(
    command: list[str],
    right: str,
    cluster: Cluster,
    namespace: str,
    stepmemo: Stepmemo,
    kubeconfig_of: Any,
) -> None:
    verbs = ["get"] if command[0] == "rm" else ["create"]
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": verbs}]
    token = cluster.service_account(namespace, f"person-{command[0]}", rules)
    code, out, err = stepmemo(*command, "-n", namespace, "--kubeconfig", kubeconfig_of(token))
    assert (code, out) == (1, "")
    assert right in err
    assert len(err.splitlines()) == 1


def test_what_tenants_wrote_does_not_reach_the_terminal(
    cluster: Cluster, namespace: str, stepmemo: Stepmemo
) -> None:
    evil = "\x1b[2J\x9b1m\u202e"
    outputs = {"parameters": [{"name": evil, "value": evil}]}
    make(cluster, namespace, "evil", {"k": entry(key=f"{evil}", workflow=evil, outputs=outputs).dump()})
    for args in (["entries", "evil"], ["show", "evil", "k"]):
        for form in ("table", "wide", "json", "yaml"):
            out = stepmemo(*args, "-n", namespace, "-o", form)[1]
            assert not set(evil[:1] + "\x9b\u202e") & set(out), (args, form)
            if form == "json":
                json.loads(out)
