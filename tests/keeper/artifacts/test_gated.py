"""Gated Pods whose entries have artifacts, with a keeper that looks for them."""

import pytest
import pytest_asyncio

from keeper.artifacts.verifier import ObjectGone, There, Unknown
from memoize import names
from tests.cluster import Cluster
from tests.keeper.artifacts.test_verifier import Bucket, at, repository
from tests.keeper.keepers import decided, keeping
from tests.keeper.site import OUT, RAN, Site, outputs
from tests.waiting import until


@pytest_asyncio.fixture
async def site(cluster: Cluster) -> Site:
    return Site.new(cluster)


@pytest.mark.parametrize(
    ("answer", "label", "reason"),
    [
        (There('"1"'), names.RESULT_HIT, "Hit"),
        (There('"2"'), names.RESULT_MISS, "ArtifactChanged"),
        (ObjectGone(), names.RESULT_MISS, "ArtifactGone"),
        (Unknown("no answer", down=True), names.RESULT_HIT, "Hit"),
    ],
)
async def test_a_pod_is_answered_as_far_as_the_artifacts_let_it(
    site: Site, answer: There | ObjectGone | Unknown, label: str, reason: str
) -> None:
    site.store(outputs=outputs(OUT, at("a")), etags={"out": '"1"'})
    async with keeping(site, probes={repository(): Bucket(a=answer)}):
        pod = site.pod()
        await decided(site, pod)
        assert (site.label(pod), site.reason(pod)) == (label, reason)
        await until(lambda: (site.entry() is None) is (answer == ObjectGone()))
        if label == names.RESULT_MISS:
            await until(lambda: any(reason in event for event in site.events()))


async def test_what_is_gone_is_made_anew_once_and_found_again(site: Site) -> None:
    bucket = Bucket(old=ObjectGone())
    site.store(outputs=outputs(OUT, at("old")))
    async with keeping(site, probes={repository(): bucket}):
        pods = [site.pod(number) for number in range(4)]
        await until(lambda: site.labels(pods) == ["gated"] * 3 + ["miss"])
        runner = next(name for name in pods if site.label(name) == names.RESULT_MISS)
        site.run(runner, RAN, at("new"))
        await until(lambda: site.labels(pods) == ["hit"] * 3 + ["stored"])
        entry = site.entry()
        assert entry is not None
        assert entry.etags == {"out": '"1"'}
        again = site.pod(5)
        await decided(site, again)
        assert (site.label(again), site.value(again)) == (names.RESULT_HIT, RAN)


async def test_an_entry_that_is_another_one_by_now_is_not_dropped(site: Site) -> None:
    bucket = Bucket(old=ObjectGone())
    bucket.open.clear()
    site.store(outputs=outputs(OUT, at("old")))
    async with keeping(site, probes={repository(): bucket}):
        pod = site.pod()
        await until(lambda: bucket.asked == ["old"])
        site.store(outputs=outputs("another", at("new")))
        bucket.open.set()
        await decided(site, pod)
        assert site.entry() is not None


async def test_a_pod_waits_for_a_slow_repository_without_a_worker_and_is_answered_then(site: Site) -> None:
    bucket = Bucket()
    bucket.open.clear()
    site.store(outputs=outputs(OUT, at("slow")))
    async with keeping(site, probes={repository(): bucket}, workers=2) as running:
        slow = site.pod(0)
        await until(lambda: bucket.at_once == 1)
        other = site.pod(1, key="another")
        await decided(site, other)
        assert site.held(slow)
        bucket.open.set()
        await decided(site, slow)
        assert site.label(slow) == names.RESULT_HIT
        assert b'stepmemo_artifact_checks_total{finding="there"}' in running.metrics.render()


async def test_a_pod_is_answered_though_a_repository_never_answers(site: Site) -> None:
    bucket = Bucket()
    bucket.open.clear()
    site.store(outputs=outputs(OUT, at("slow")))
    async with keeping(site, probes={repository(): bucket}, probe_seconds=0.5):
        pod = site.pod()
        await decided(site, pod)
        assert site.label(pod) == names.RESULT_HIT
        assert bucket.at_once == 0
