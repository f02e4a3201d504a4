"""Cleaning caches up, beside others that write to them, Argo's own clean-up among them."""

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kubernetes_asyncio.client import ApiClient

from argo import names as argo
from argo.steppod import Owner
from keeper import gc
from keeper.cache.writer import REQUESTS_OF_ONE, Writer
from keeper.gc import CacheGC, ConfigMaps
from memoize import names
from memoize.eviction import Eviction, is_collected
from tests.beside import beside
from tests.cluster import Cluster
from tests.keeper.api.asked import Asked, recorded
from tests.waiting import until
from tests.webhook.serving import api_client

NOW = datetime(2026, 7, 31, 12, tzinfo=UTC)
UNUSED_FOR = 3600.0


def entry(minutes: float, max_age: str = "") -> str:
    """An entry that was used so many minutes ago."""
    used = (NOW - timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
    fields = {"nodeID": "n", "outputs": {"result": ""}, "creationTimestamp": used, "lastHitTimestamp": used}
    return json.dumps({**fields, "stepmemo": {"maxAge": max_age, "pod": "p"}})


NEW = {"new": entry(0), "also-new": entry(1), "third": entry(2), "fourth": entry(3)}
"""As many that stay as let one go."""


class Setting:
    """A clean-up of one namespace, or of some, that lasts no time."""

    def __init__(self, cluster: Cluster, api: ApiClient, asked: Asked, *namespaces: str) -> None:
        self.cluster, self.asked, self.namespaces = cluster, asked, namespaces
        self.namespace, self.acts, self.slept = namespaces[0], True, list[float]()
        self.clock: Callable[[], float] = time.monotonic
        self.removed: dict[str, set[str]] = {}
        self.writer = Writer(api, on_cache=self)
        self.gc = CacheGC(
            api,
            ConfigMaps(api, namespaces, self.writer, UNUSED_FOR),
            lambda: self.acts,
            now=lambda: NOW,
            clock=lambda: self.clock(),
            sleep=self._sleep,
        )

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def on_evicted(self, cache: Owner, evicted: Sequence[Eviction]) -> None:
        raise AssertionError("nothing is written")

    def on_collected(self, cache: Owner, removed: Sequence[Eviction]) -> None:
        assert cache.uid
        self.removed.setdefault(f"{cache.namespace}/{cache.name}", set()).update(
            one.data_key for one in removed
        )

    def on_problem(self, cache: Owner, problem: str) -> None:
        self.removed[problem] = set()

    def make(
        self, data: dict[str, str], name: str = "my-cache", namespace: str = "", **metadata: Any
    ) -> dict[str, Any]:
        metadata = {"labels": {argo.CONFIGMAP_TYPE: argo.CONFIGMAP_TYPE_CACHE}, **metadata}
        metadata |= {"name": name, "namespace": namespace or self.namespace}
        status, body = self.cluster.create({"kind": "ConfigMap", "metadata": metadata, "data": data})
        assert status == 201, body
        made: dict[str, Any] = body
        return made

    def data(self, name: str = "my-cache", namespace: str = "") -> dict[str, str] | None:
        status, body = self.cluster.get("ConfigMap", namespace or self.namespace, name)
        return body.get("data") or {} if status == 200 else None


class _Made:
    def __init__(self, cluster: Cluster, *namespaces: str) -> None:
        self._cluster, self._namespaces = cluster, namespaces

    async def __aenter__(self) -> Setting:
        self._api = api_client(self._cluster)
        api = await self._api.__aenter__()
        self._recorded = recorded(api)
        self._setting = Setting(self._cluster, api, self._recorded.__enter__(), *self._namespaces)
        return self._setting

    async def __aexit__(self, *error: Any) -> None:
        await self._setting.writer.close()
        self._recorded.__exit__(*error)
        await self._api.__aexit__(*error)


@pytest.fixture
async def setting(cluster: Cluster) -> AsyncIterator[Setting]:
    async with _Made(cluster, cluster.namespace()) as made:
        yield made


CASES: dict[str, tuple[dict[str, str], set[str]]] = {
    "what nobody used for long": ({**NEW, "old": entry(61)}, {"old"}),
    "what has expired": ({**NEW, "old": entry(20, "10m")}, {"old"}),
    "not what was used": ({**NEW, "old": entry(59)}, set()),
    "not what is no entry": ({**NEW, "old": entry(61), "x": "{", "y": "[" * 5000}, {"old"}),
    "no more than a share": ({**NEW, "old": entry(61), "older": entry(62)}, {"older"}),
    "never the last one": ({"old": entry(61)}, set()),
    "nothing of an empty one": ({}, set()),
}


@pytest.mark.contract
@pytest.mark.parametrize(("data", "gone"), CASES.values(), ids=CASES)
async def test_a_pass_removes(setting: Setting, data: dict[str, str], gone: set[str]) -> None:
    setting.make(data)
    await setting.gc.collect()
    left = setting.data()
    assert left is not None
    assert data.keys() - left.keys() == gone
    assert setting.removed == ({f"{setting.namespace}/my-cache": gone} if gone else {})


@pytest.mark.contract
async def test_what_is_no_cache_is_not_touched(setting: Setting) -> None:
    data = {**NEW, "old": entry(61)}
    setting.make(data, labels={argo.CONFIGMAP_TYPE: "Parameter"})
    setting.make(data, "plain", labels={})
    await setting.gc.collect()
    assert setting.data() == setting.data("plain") == data


@pytest.mark.contract
@pytest.mark.parametrize(
    ("label", "annotation", "cleaned"),
    [
        (None, None, True),
        ("true", None, True),
        ("false", None, False),
        ("off", None, False),
        ("false", "true", True),
        ("true", "false", False),
        (None, "no", False),
    ],
)
async def test_it_is_on_or_off_by_namespace_and_by_cache(
    cluster: Cluster, label: str | None, annotation: str | None, cleaned: bool
) -> None:
    namespace = cluster.namespace({names.GC: label} if label else {})
    async with _Made(cluster, namespace) as setting:
        annotations = {names.GC: annotation} if annotation else {}
        made = setting.make({**NEW, "old": entry(61)}, annotations=annotations)
        await setting.gc.collect()
        assert setting.data() == (NEW if cleaned else {**NEW, "old": entry(61)})
        assert is_collected(made, {names.GC: label} if label else {}) is cleaned


@pytest.mark.contract
async def test_a_namespace_whose_label_cannot_be_read_is_left_alone(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "patch"]}]
    token = cluster.service_account(namespace, "keeper", rules)
    async with _Made(cluster, namespace) as setting, api_client(cluster, token=token) as api:
        setting.make({**NEW, "old": entry(61)})
        restricted = Setting(cluster, api, setting.asked, namespace)
        await restricted.gc.collect()
        await restricted.writer.close()
        assert setting.data() == {**NEW, "old": entry(61)}


@pytest.mark.contract
async def test_a_cache_that_cannot_be_read_stops_no_other(setting: Setting) -> None:
    for name in ("a", "b", "c"):
        setting.make({**NEW, "old": entry(61)}, name)
    # Gone once it was listed.
    setting.asked.after("GET", lambda: setting.cluster.delete("ConfigMap", setting.namespace, "a"))
    await setting.gc.collect()
    assert setting.data("a") is None
    assert setting.data("b") == setting.data("c") == NEW


@pytest.mark.contract
async def test_caches_of_all_namespaces_have_their_turn(cluster: Cluster) -> None:
    namespaces = [cluster.namespace() for _ in range(2)]
    async with _Made(cluster, *namespaces) as setting:
        for number in range(5):
            setting.make({**NEW, "old": entry(61)}, f"c{number}", namespaces[0])
        setting.make({**NEW, "old": entry(61)}, "c", namespaces[1])
        await setting.gc.collect()
        paths = [path for method, path in setting.asked if method == "PATCH"]
        assert len(paths) == 6
        assert namespaces[1] in paths[0] or namespaces[1] in paths[1]


@pytest.mark.contract
async def test_a_pass_looks_at_some_caches_of_a_namespace_and_the_next_at_those_behind(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gc, "CACHES_OF_ONE", 2)
    for number in range(5):
        setting.make({**NEW, "old": entry(61)}, f"c{number}")
    for cleaned in ({"c0", "c1"}, {"c0", "c1", "c2", "c3"}, {f"c{number}" for number in range(5)}):
        await setting.gc.collect()
        assert {name.partition("/")[2] for name in setting.removed} == cleaned


@pytest.mark.contract
async def test_it_works_a_small_part_of_the_time_and_ends_with_the_lease(setting: Setting) -> None:
    for number in range(3):
        setting.make({**NEW, "old": entry(61)}, f"c{number}")
    setting.acts = False
    await setting.gc.collect()
    assert setting.removed == {}
    setting.acts = True
    await setting.gc.collect()
    assert len(setting.slept) == len(setting.removed) == 3
    assert all(seconds > 0 for seconds in setting.slept)


@pytest.mark.contract
async def test_a_cache_that_takes_long_does_not_put_off_the_others_for_as_long_as_that(
    setting: Setting,
) -> None:
    setting.make({**NEW, "old": entry(61)})
    setting.clock = itertools.count(step=3_600.0).__next__
    await setting.gc.collect()
    assert setting.slept == [gc.LONGEST_PAUSE]


@pytest.mark.contract
async def test_the_wait_for_those_who_write_is_no_work(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gc, "TURN_TIMEOUT", 300.0)
    setting.make({**NEW, "old": entry(61)})
    seconds = [0.0]
    setting.clock = lambda: seconds[0]
    async with contextlib.AsyncExitStack() as writes:
        for _ in range(REQUESTS_OF_ONE):
            await writes.enter_async_context(setting.writer.turn(setting.namespace))
        collecting = asyncio.create_task(setting.gc.collect())
        await until(lambda: setting.writer._requests.users(setting.namespace) > REQUESTS_OF_ONE)
        seconds[0] += 1_000.0
    await collecting
    assert setting.slept == [0.0]
    assert setting.data() == NEW


@pytest.mark.contract
async def test_a_namespace_that_is_written_to_all_the_time_is_left_to_the_next_pass(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gc, "TURN_TIMEOUT", 0.05)
    busy, quiet = namespaces = [cluster.namespace() for _ in range(2)]
    async with _Made(cluster, *namespaces) as setting:
        for namespace, name in itertools.product(namespaces, "ab"):
            setting.make({**NEW, "old": entry(61)}, name, namespace)
        async with contextlib.AsyncExitStack() as writes:
            for _ in range(REQUESTS_OF_ONE):
                await writes.enter_async_context(setting.writer.turn(busy))
            await setting.gc.collect()
        assert setting.removed.keys() == {f"{quiet}/a", f"{quiet}/b"}
        assert setting.asked.count(("GET", f"/api/v1/namespaces/{busy}")) == 1
        await setting.gc.collect()
        assert len(setting.removed) == 4


@pytest.mark.contract
async def test_a_namespace_that_may_not_be_read_is_no_trouble_of_the_api_servers(cluster: Cluster) -> None:
    *others, own = namespaces = [cluster.namespace() for _ in range(gc._MOST_FAILURES + 1)]
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "patch"]}]
    group = "rbac.authorization.k8s.io"
    for namespace in others:
        metadata = {"name": "keeper", "namespace": namespace}
        role = {"apiGroup": group, "kind": "Role", "name": "keeper"}
        subjects = [{"kind": "ServiceAccount", "name": "keeper", "namespace": own}]
        cluster.create({"kind": "Role", "metadata": metadata, "rules": rules})
        cluster.create({"kind": "RoleBinding", "metadata": metadata, "roleRef": role, "subjects": subjects})
    token = cluster.service_account(own, "keeper", rules)
    async with _Made(cluster, *namespaces) as setting, api_client(cluster, token=token) as api:
        for namespace in namespaces:
            setting.make({**NEW, "old": entry(61)}, namespace=namespace)
        restricted = Setting(cluster, api, setting.asked, *namespaces)
        await restricted.gc.collect()
        await restricted.writer.close()
        assert len(restricted.slept) == len(namespaces)


@pytest.mark.contract
async def test_another_namespace_begins_each_time(cluster: Cluster) -> None:
    namespaces = [cluster.namespace() for _ in range(2)]
    async with _Made(cluster, *namespaces) as setting:
        for namespace in namespaces:
            setting.make({**NEW, "old": entry(61)}, namespace=namespace)
        first = set[str]()
        for _ in range(64):
            setting.asked.clear()
            await setting.gc.collect()
            first.add(next(path for _, path in setting.asked if not path.endswith("/configmaps")))
            if len(first) == 2:
                break
        assert len(first) == 2


async def test_it_comes_again_and_again_whatever_happens(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    passes = list[int]()
    collect = setting.gc.collect

    async def fails_once() -> None:
        passes.append(len(passes))
        if len(passes) == 1:
            raise KeyError("a bug")
        await collect()

    monkeypatch.setattr(setting.gc, "collect", fails_once)
    setting.make({**NEW, "old": entry(61)})
    async with beside(setting.gc.run()):
        await until(lambda: len(passes) > 2)
    assert setting.data() == NEW
    assert setting.slept[0] == gc.FIRST_AFTER
    assert gc.EVERY <= setting.slept[1] <= 1.1 * gc.EVERY
    assert "made again later" in caplog.text


@pytest.mark.contract
async def test_nothing_that_a_step_waits_for_goes(setting: Setting) -> None:
    setting.make({**NEW, "old": entry(61)})
    setting.writer.spare(lambda namespace, cache: {"old"})
    await setting.gc.collect()
    assert setting.removed == {}


@pytest.mark.contract
async def test_a_lower_limit_and_a_bad_one(setting: Setting) -> None:
    data = {f"k{number}": entry(number) + " " * 1000 for number in range(20)}
    setting.make(data, annotations={names.MAX_BYTES: "20k"})
    setting.make(data, "other", annotations={names.MAX_BYTES: "much"})
    await setting.gc.collect()
    left = setting.data()
    assert left is not None
    assert sum(map(len, left.values())) <= 20_000
    assert "k19" not in left
    assert setting.data("other") == data
    assert any("stepmemo.dev/max-bytes" in problem for problem in setting.removed)


# --- Beside others -----------------------------------------------------------------------------------


def argo_cleans_up(cluster: Cluster, seen: dict[str, Any], seconds: float = 30) -> int:
    """What Argo's controller does with a cache as its informer has it (cleanupUnusedCache in cache_gc.go)."""
    data = {
        data_key: text
        for data_key, text in seen["data"].items()
        if (NOW - datetime.fromisoformat(json.loads(text)["lastHitTimestamp"])).total_seconds() <= seconds
    }
    if not data:
        return cluster.delete("ConfigMap", seen["metadata"]["namespace"], seen["metadata"]["name"])[0]
    return cluster.update({**seen, "kind": "ConfigMap", "data": data})[0]


DATA = {"new": entry(0), "hit-lately": entry(5), "third": entry(6), "old": entry(61), "older": entry(90)}


def after_our_look(setting: Setting, do: Callable[[], None]) -> None:
    """Do something once a cache was read, after the list of caches and the labels of the namespace."""
    gets = iter(range(10))

    def interfere() -> None:
        if next(gets) < 2:
            setting.asked.after("GET", interfere)
        else:
            do()

    setting.asked.after("GET", interfere)


@pytest.mark.contract
async def test_what_is_used_between_our_look_and_our_write_stays(setting: Setting) -> None:
    setting.make(DATA)

    def use() -> None:
        used = {"data": {"older": entry(0)}}
        assert setting.cluster.patch("ConfigMap", setting.namespace, "my-cache", used)[0] == 200

    after_our_look(setting, use)
    await setting.gc.collect()
    assert setting.removed == {f"{setting.namespace}/my-cache": {"old"}}
    assert (setting.data() or {})["older"] == entry(0)


@pytest.mark.contract
async def test_argo_cleans_up_between_our_look_and_our_write(setting: Setting) -> None:
    seen = setting.make(DATA)
    statuses = list[int]()
    after_our_look(setting, lambda: statuses.append(argo_cleans_up(setting.cluster, seen)))
    await setting.gc.collect()
    assert statuses == [200]
    # Argo's has removed more than ours would; nothing comes back, and ours finds nothing left to do.
    assert setting.data() == {"new": DATA["new"]}
    assert setting.removed == {}


@pytest.mark.contract
async def test_argo_that_saw_the_cache_before_ours_removes_nothing_by_it(setting: Setting) -> None:
    seen = setting.make(DATA)
    await setting.gc.collect()
    assert "older" not in (setting.data() or {})
    assert argo_cleans_up(setting.cluster, seen) == 409
    # The next time it has seen it.
    assert (
        argo_cleans_up(setting.cluster, setting.cluster.get("ConfigMap", setting.namespace, "my-cache")[1])
        == 200
    )
    assert setting.data() == {"new": DATA["new"]}


@pytest.mark.contract
async def test_a_cache_that_argo_deletes_is_not_made_again(setting: Setting) -> None:
    seen = setting.make({"old": entry(61), "older": entry(90)})
    statuses = list[int]()
    after_our_look(setting, lambda: statuses.append(argo_cleans_up(setting.cluster, seen)))
    await setting.gc.collect()
    assert statuses == [200]
    assert setting.data() is None


@pytest.mark.contract
async def test_two_that_clean_up_at_once_remove_what_one_would(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    async with _Made(cluster, namespace) as one, _Made(cluster, namespace) as other:
        data = {f"k{number}": entry(number) for number in range(100)}
        one.make(data)
        await asyncio.gather(one.gc.collect(), other.gc.collect())
        left = one.data()
        assert left is not None
        assert {f"k{number}" for number in range(60)} <= left.keys()
        assert len(left) >= 100 - 25 - 25
