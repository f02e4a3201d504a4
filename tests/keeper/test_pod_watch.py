import asyncio
from typing import Any

import pytest

from keeper import pod_watch, steppods
from keeper.pod_watch import Pods, Search
from keeper.state import Records, as_shown
from memoize import names
from tests.cluster import Cluster
from tests.keeper.proxy import Proxy, refusing
from tests.keeper.site import Site
from tests.keeper.troubled import answering, broken
from tests.webhook.serving import api_client

Json = dict[str, Any]


class Told:
    """What the keeper was told."""

    def __init__(self) -> None:
        self.here: set[str] = set()
        self.gone: list[str] = []
        self.pods = Pods(self.see, self.leave)

    def see(self, pod: Json, *, new: bool) -> str:
        uid: str = pod["metadata"]["uid"]
        self.here.add(uid)
        return uid

    def leave(self, uid: str) -> None:
        self.here.discard(uid)
        self.gone.append(uid)


def pod(uid: str) -> Json:
    return {"metadata": {"uid": uid}}


def test_what_a_list_does_not_name_any_more_has_gone() -> None:
    told = Told()
    for uids in (("a", "b"), ("b", "c")):
        told.pods.begin()
        for uid in uids:
            told.pods.listed(pod(uid))
        told.pods.end()
    assert told.gone == ["a"]
    assert told.here == {"b", "c"}


def test_what_only_a_list_that_broke_off_named_goes_with_the_next_one() -> None:
    told = Told()
    told.pods.begin()
    told.pods.listed(pod("a"))
    told.pods.begin()
    told.pods.listed(pod("b"))
    told.pods.end()
    assert told.gone == ["a"]


def test_events_count_as_well() -> None:
    told = Told()
    told.pods.begin()
    told.pods.end()
    told.pods.changed("ADDED", pod("a"))
    told.pods.changed("MODIFIED", pod("b"))
    told.pods.changed("DELETED", pod("a"))
    assert told.here == {"b"}
    told.pods.begin()
    told.pods.end()
    assert told.gone == ["a", "b"]


# --- Pods of which no event came ----------------------------------------------------------------------


class Searched:
    """A search of one site's Pods: `found` are the names of the Pods that it told of, `gone` uids."""

    def __init__(self, site: Site, *, acts: bool = True) -> None:
        self.site, self.acts = site, acts
        self.namespaces = [site.namespace]
        self.records = Records()
        self.gone: list[str] = []
        self.found: list[str] = []
        self.slept: list[float] = []
        self.meanwhile = lambda: None

    async def __call__(self, url: str | None = None) -> None:
        async with api_client(self.site.cluster, url=url) as api:
            search = Search(
                api,
                self.namespaces,
                self.records,
                self.on_pod,
                self.gone.append,
                lambda: self.acts,
                sleep=self.sleep,
            )
            await search.search()

    def on_pod(self, pod: Json, *, new: bool) -> str:
        assert not new
        assert pod["spec"], "the whole Pod is told"
        self.found.append(pod["metadata"]["name"])
        return str(pod["metadata"]["uid"])

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.meanwhile()
        await asyncio.sleep(0)

    def know(self, *pods: str) -> None:
        """An event comes of these Pods as they are now."""
        for name in pods:
            pod = self.site.get(name)
            seen = steppods.read(pod)
            assert seen is not None
            self.records.put(seen, as_shown(seen, pod), 0.0, result_may_exist=False)

    def uid(self, name: str) -> str:
        return str(self.site.get(name)["metadata"]["uid"])

    def relabel(self, name: str, label: str | None) -> None:
        patch = {"metadata": {"labels": {names.RESULT: label}}}
        assert self.site.cluster.patch("Pod", self.site.namespace, name, patch)[0] == 200


@pytest.fixture
def searched(cluster: Cluster) -> Searched:
    return Searched(Site.new(cluster))


@pytest.mark.contract
async def test_a_search_tells_of_pods_that_nobody_knows_and_of_no_others(searched: Searched) -> None:
    known, gated, running, over = (
        searched.site.pod(0),
        searched.site.pod(1),
        searched.site.pod(2, held=False),
        searched.site.pod(3),
    )
    searched.know(known)
    searched.site.delete(over)
    await searched()
    assert sorted(searched.found) == sorted([gated, running])
    assert searched.slept == [pod_watch.SEARCH_GRACE]


@pytest.mark.contract
async def test_a_pod_that_an_event_tells_of_late_is_left_to_it(searched: Searched) -> None:
    late, lost = searched.site.pod(0), searched.site.pod(1)
    searched.meanwhile = lambda: searched.know(late)
    await searched()
    assert searched.found == [lost]


async def test_where_all_are_known_a_search_does_not_wait(searched: Searched) -> None:
    searched.know(searched.site.pod())
    await searched()
    assert searched.slept == []


@pytest.mark.contract
@pytest.mark.parametrize("label", [None, names.RESULT_STORED, "nonsense"])
async def test_a_gated_pod_that_lost_its_label_gets_it_back(searched: Searched, label: str | None) -> None:
    name = searched.site.pod()
    searched.relabel(name, label)
    searched.acts = False
    await searched()
    assert searched.site.get(name)["metadata"]["labels"].get(names.RESULT) == label, "the other replica acts"
    searched.acts = True
    await searched()
    assert searched.site.label(name) == names.RESULT_GATED
    assert searched.found == []


@pytest.mark.contract
async def test_pods_that_are_none_of_ours_stay_as_they_are(searched: Searched) -> None:
    name = searched.site.pod(held=False)
    searched.relabel(name, None)
    before = searched.site.get(name)["metadata"]["resourceVersion"]
    await searched()
    assert searched.found == []
    assert searched.site.get(name)["metadata"]["resourceVersion"] == before


async def test_a_pod_that_goes_or_comes_anew_meanwhile_is_not_told_of(searched: Searched) -> None:
    gone, again = searched.site.pod(0), searched.site.pod(1)

    def meanwhile() -> None:
        searched.site.delete(gone)
        searched.site.delete(again)
        searched.site.pod(1)

    searched.meanwhile = meanwhile
    await searched()
    assert searched.found == []


async def test_the_pods_of_one_namespace_that_a_search_deals_with_are_bounded(
    searched: Searched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_watch, "MOST_FOUND", 2)
    for number in range(4):
        searched.site.pod(number)
    await searched()
    assert len(searched.found) == 2
    searched.know(*searched.found)
    await searched()
    assert len(set(searched.found)) == 4


async def test_a_search_of_many_namespaces_waits_once_and_they_take_turns(
    searched: Searched, cluster: Cluster
) -> None:
    many, one = [searched.site.pod(number) for number in range(3)], Site.new(cluster)
    searched.namespaces.append(one.namespace)
    alone = one.pod(5)
    await searched()
    assert searched.slept == [pod_watch.SEARCH_GRACE]
    assert sorted(searched.found) == sorted([*many, alone])
    assert searched.found.index(alone) == 1


async def test_a_namespace_that_cannot_be_listed_does_not_keep_another_from_being_searched(
    searched: Searched, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    other, proxy = Site.new(cluster), Proxy(cluster)
    searched.namespaces.append(other.namespace)
    searched.site.pod(0)
    found = other.pod(1)
    proxy.fault_all = refusing(403, "GET pods", times=1)
    async with proxy.serving() as url:
        await searched(url)
    assert searched.found == [found]
    assert caplog.text.count("cannot search for Pods") == 1


# --- Pods that are known, and changed without an event


@pytest.mark.contract
async def test_pods_that_went_or_ended_without_an_event_are_told_of(searched: Searched) -> None:
    gone, again, over, same = (searched.site.pod(number, held=False) for number in range(4))
    searched.know(gone, again, over, same)
    uids = [searched.uid(name) for name in (gone, again)]
    searched.site.delete(gone)
    searched.site.delete(again)
    assert searched.site.pod(1, held=False) == again
    searched.site.end(over)
    await searched()
    assert sorted(searched.gone) == sorted(uids)
    assert sorted(searched.found) == sorted([again, over])
    assert searched.slept == [pod_watch.SEARCH_GRACE]


async def test_a_change_that_an_event_tells_of_late_is_left_to_it(searched: Searched) -> None:
    gone, over = (searched.site.pod(number, held=False) for number in range(2))
    searched.know(gone, over)
    uid = searched.uid(gone)
    searched.site.delete(gone)
    searched.site.end(over)

    def meanwhile() -> None:
        searched.records.drop(uid)
        searched.know(over)

    searched.meanwhile = meanwhile
    await searched()
    assert (searched.gone, searched.found) == ([], [])


async def test_an_event_that_comes_while_a_pod_is_read_is_the_newer_one(
    searched: Searched, cluster: Cluster
) -> None:
    name = searched.site.pod(held=False)
    searched.know(name)
    searched.site.end(name)

    def told(method: str, path: str) -> None:
        if path == f"pods/{name}":
            searched.know(name)

    proxy = Proxy(cluster)
    proxy.fault = told
    async with proxy.serving() as url:
        await searched(url)
    assert [call.says for call in proxy.calls] == [f"GET pods/{name}"]
    assert searched.found == []


@pytest.mark.parametrize(("path", "times"), [("GET pods", 1), ("GET pods/", 9)])
async def test_no_pod_is_taken_for_gone_because_of_an_error(
    searched: Searched, cluster: Cluster, path: str, times: int
) -> None:
    name, proxy = searched.site.pod(), Proxy(cluster)
    searched.know(name)
    uid = searched.uid(name)
    searched.site.delete(name)
    proxy.fault_all = refusing(403, path, times=times)
    async with proxy.serving() as url:
        await searched(url)
    assert searched.gone == []
    await searched()
    assert searched.gone == [uid]


async def test_the_known_pods_of_one_namespace_that_a_search_reads_anew_are_bounded(
    searched: Searched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_watch, "MOST_FOUND", 2)
    for number in range(4):
        name = searched.site.pod(number)
        searched.know(name)
        searched.site.delete(name)
    await searched()
    assert len(searched.gone) == 2
    for uid in searched.gone:
        searched.records.drop(uid)
    await searched()
    assert len(set(searched.gone)) == 4


async def test_a_known_pod_that_lost_its_label_without_an_event_gets_it_back(searched: Searched) -> None:
    name = searched.site.pod()
    searched.know(name)
    searched.relabel(name, None)
    await searched()
    assert searched.found == [name]
    assert searched.site.label(name) == names.RESULT_GATED


async def test_a_search_goes_on_after_the_api_server_was_away(
    searched: Searched, caplog: pytest.LogCaptureFixture
) -> None:
    rounds: list[float] = []

    async def sleep(seconds: float) -> None:
        rounds.append(seconds)
        if len(rounds) == 3:
            raise asyncio.CancelledError

    async with answering(broken) as url, api_client(searched.site.cluster, url=url) as api:
        search = Search(api, [], Records(), searched.on_pod, searched.gone.append, lambda: True, sleep=sleep)
        with pytest.raises(asyncio.CancelledError):
            await search.run()
    assert rounds == [pod_watch.SEARCH_SECONDS] * 3
    assert caplog.text.count("cannot search for Pods") == 2
