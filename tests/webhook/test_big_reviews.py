"""Reviews that are decided in a child process: the same answers, and nobody waits for them."""

import asyncio
import base64
import itertools
import json
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Hashable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonpatch
import pytest

from argo import names as argo
from argo.steppod import Owner
from memoize import names
from memoize.autokey import ObjectReference, Version
from memoize.keeper_status import EVERY, KeeperStatus
from memoize.reasons import Reason
from server.child import LEAST, OF_ONE, WAITING, Child, FailedError
from tests.waiting import until
from tests.webhook.keeperstatus import READY
from tests.webhook.test_hooks import Served, ask, serving, workflow
from webhook import in_child, review
from webhook.admission import Admission
from webhook.big_reviews import BYTES, PARTS, PLACES, UNKNOWN, BigReviews, ShedError, is_big
from webhook.in_child import Given
from webhook.inject.containers import InjectSettings
from webhook.reply import ReviewAnswer, of
from webhook.submit.budget import OBJECT

Json = dict[str, Any]
pytestmark = pytest.mark.slow

SETTINGS = InjectSettings(image="stepmemo:golden")
BUSY = replace(READY, ready=False)
LONG = 60.0
"""Seconds, more than any of these reviews takes."""


class Site:
    """What admission asks for, the same for the loop and for the child; `asked` is what it was."""

    def __init__(self, status: KeeperStatus | None = BUSY, *, shares: bool = True) -> None:
        self.labels: Mapping[str, str] | None = {names.MEMOIZE: "true"}
        self.metadata: Json | None = {"labels": {argo.PHASE: "Running"}}
        self.status, self.shares = status, shares
        self.count_versions = False
        self.asked: list[str] = []
        self.events: list[tuple[str, Reason]] = []

    def has_seen(self, namespace: str) -> bool:
        return namespace == "work"

    async def namespace_labels(self, name: str) -> Mapping[str, str] | None:
        self.asked.append(f"labels of {name}")
        return self.labels

    async def of_step(self, owner: Owner) -> tuple[Json | None, Mapping[str, str] | None, bool]:
        self.asked.append(f"metadata of {owner.name}")
        return self.metadata, self.labels, False

    async def deletes_artifacts(self, owner: Owner) -> bool | None:
        self.asked.append(f"spec of {owner.name}")
        return True

    async def versions(
        self, namespace: str, references: tuple[ObjectReference, ...]
    ) -> Mapping[ObjectReference, Version]:
        self.asked.append(f"versions of {', '.join(one.name for one in references)} in {namespace}")
        return dict.fromkeys(references, ("u", "1"))

    def may_gate(self, namespace: str) -> bool:
        self.asked.append(f"gate in {namespace}")
        return self.shares

    def may_try(self, namespace: str) -> bool:
        self.asked.append(f"trial in {namespace}")
        return self.shares

    def skipped(self, owner: Owner, node: str, reason: Reason, detail: str) -> None:
        self.events.append((owner.name, reason))

    def admission(self) -> Admission:
        return Admission(
            self,
            self,
            "enforce",
            lambda: SETTINGS,
            lambda: self.status,
            self,
            count_versions=self.count_versions,
        )

    def given(self, webhook: str, facts: Mapping[Hashable, Any]) -> Given:
        return Given(webhook, "enforce", SETTINGS, (self.status,), self.count_versions, facts)


@asynccontextmanager
async def apart(
    site: Site, clock: Callable[[], float] = lambda: 0.0, **limits: Any
) -> AsyncIterator[BigReviews]:
    limits = {"anybody": UNKNOWN, **limits}
    child = Child(in_child.__name__, **({"seconds": LONG, "queue_timeout": LONG, "clock": clock} | limits))
    try:
        yield BigReviews(child, site, site, site, site.given, seconds=LONG, clock=clock)
    finally:
        await child.close()


async def in_the_loop(site: Site, webhook: str, body: bytes) -> ReviewAnswer:
    admission = site.admission()
    decide = admission.workflow if webhook == "workflows" else admission.pod
    return await of(webhook, review.parse(body), decide)


def body(obj: Json, **changes: Any) -> bytes:
    return json.dumps(ask(obj, "work", **changes)).encode()


def answer(reply: ReviewAnswer) -> Json:
    return dict(json.loads(reply.body)["response"])


# --- The same answers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "memoize", [{}, {"maxAge": "10"}, {"key": "{{input.x}}" * 40}], ids=["sound", "wrong", "very wrong"]
)
async def test_a_workflow_is_answered_as_in_the_loop(memoize: Json) -> None:
    content, site = body(workflow("work", **memoize)), Site()
    async with apart(site) as big:
        made = await big.reply("workflows", content)
    assert site.asked == ["labels of work"]
    assert made == await in_the_loop(site, "workflows", content)


@pytest.mark.parametrize(
    ("status", "shares", "reason", "asked"),
    [
        (BUSY, True, Reason.INJECTED, ["metadata"]),
        (READY, True, Reason.GATED, ["metadata", "gate"]),
        (READY, False, Reason.NOT_GATED, ["metadata", "gate"]),
        (None, True, Reason.NOT_GATED, ["metadata"]),
        (replace(BUSY, trial=EVERY), True, Reason.INJECTED, ["metadata", "trial"]),
        (replace(BUSY, trial=EVERY), False, Reason.IMAGE_BROKEN, ["metadata", "trial"]),
    ],
    ids=["busy", "ready", "above its share", "gone", "the trial", "no trial"],
)
async def test_a_pod_is_answered_as_in_the_loop(
    pod: Json, status: KeeperStatus | None, shares: bool, reason: Reason, asked: list[str]
) -> None:
    content, site = body(pod), Site(status, shares=shares)
    async with apart(site) as big:
        made = await big.reply("pods", content)
    assert made.reason is reason
    assert [what.split()[0] for what in site.asked] == asked
    assert made == await in_the_loop(site, "pods", content)
    if made.reason is not Reason.IMAGE_BROKEN:
        assert jsonpatch.apply_patch(pod, json.loads(base64.b64decode(answer(made)["patch"])))


async def test_what_is_asked_for_is_looked_up_once(load: Callable[[str], Json]) -> None:
    content, site = body(load("v4.1.2-legacy/artifacts-in-out")), Site()
    site.metadata = {"labels": {}}
    async with apart(site) as big:
        made = await big.reply("pods", content)
    assert [what.split()[0] for what in site.asked] == ["metadata", "spec"]
    assert made == await in_the_loop(site, "pods", content)


async def test_a_key_with_versions_is_the_one_of_the_loop(pod: Json) -> None:
    secret = {"name": "S", "valueFrom": {"secretKeyRef": {"name": "creds", "key": "k"}}}
    next(c for c in pod["spec"]["containers"] if c["name"] == "main")["env"].append(secret)
    pod["metadata"]["annotations"][names.KEY] = "auto"
    content, site = body(pod), Site(READY)
    site.count_versions = True
    async with apart(site) as big:
        made = await big.reply("pods", content)
    assert made.reason is Reason.GATED
    asked = ["metadata", "versions of creds in work", "gate"]
    assert [what if what.startswith("v") else what.split()[0] for what in site.asked] == asked
    assert made == await in_the_loop(site, "pods", content)


async def test_an_event_of_a_skip_is_written_once_by_the_parent(pod: Json) -> None:
    pod["metadata"]["annotations"][names.KEY] = "{{lost}}"
    site = Site()
    async with apart(site) as big:
        await big.reply("pods", body(pod))
        await big.reply("pods", body(pod, dryRun=True))
    assert [reason for _, reason in site.events] == [Reason.UNRESOLVED_TAG]


async def test_a_namespace_that_a_caller_makes_up_decides_nothing() -> None:
    content = body(workflow("work")).replace(b'"uid"', b'"namespace": "other", "uid"', 1)
    content = content.replace(b'"apiVersion"', b'"x": {"namespace": "forged"}, "apiVersion"', 1)
    site = Site()
    async with apart(site) as big:
        made = await big.reply("workflows", content)
    assert site.asked == ["labels of forged", "labels of work"]
    assert made.reason is Reason.ACCEPTED


async def test_a_body_that_is_no_review_is_told_as_one() -> None:
    async with apart(Site()) as big:
        with pytest.raises(review.MalformedReviewError, match="not JSON"):
            await big.reply("pods", b"{")


async def test_an_object_that_is_too_deep_to_be_looked_at_passes() -> None:
    obj = workflow("work") | {"kind": "WorkflowTemplate"}
    obj["spec"]["templates"][0]["volumes"] = "deep"
    # The whole is larger than an object may be, so the new one has to be measured.
    old = {"metadata": {"annotations": {"x": "x" * OBJECT}}}
    content, reasons = body(obj, operation="UPDATE", oldObject=old), set()
    for levels in range(880, 1000):
        deep = content.replace(b'"deep"', b'{"x":' * levels + b"{}" + b"}" * levels)
        with suppress(review.MalformedReviewError):  # deeper ones are not even read
            reasons.add((await in_the_loop(Site(), "workflows", deep)).reason)
    assert Reason.BEYOND_BUDGET in reasons
    assert reasons <= {Reason.BEYOND_BUDGET, Reason.ACCEPTED}


# --- What is shed -------------------------------------------------------------------------------------


async def test_what_takes_too_long_or_too_much_is_beyond_the_budget() -> None:
    padding = {"metadata": {"annotations": {"x": "x" * (64 << 20)}}}
    content = body({**workflow("work"), **padding})
    async with apart(Site(), seconds=0.0) as big:
        with pytest.raises(ShedError) as shed:
            await big.reply("workflows", body(workflow("work")))
    assert (shed.value.reason, shed.value.detail) == (Reason.BEYOND_BUDGET, "took more than 0 s")
    async with apart(Site(), memory=128 << 20) as big:
        with pytest.raises(ShedError) as shed:
            await big.reply("workflows", content)
    assert (shed.value.reason, shed.value.detail) == (Reason.BEYOND_BUDGET, "took more than 128 MiB")


async def test_the_pods_of_a_fan_out_that_come_at_once_are_decided(pod: Json) -> None:
    async with apart(Site()) as big:
        made = await asyncio.gather(*(big.reply("pods", body(pod)) for _ in range(8)))
    assert {one.reason for one in made} == {Reason.INJECTED}


async def test_pods_are_shed_before_workflows() -> None:
    async with apart(Site()) as big:
        calls = (big._child.call("none", share=f"tenant-{at}") for at in range(PLACES["pods"] + 1))
        reviews = [asyncio.create_task(call) for call in calls]
        await asyncio.sleep(0)
        with pytest.raises(ShedError) as shed:
            await big.reply("pods", b"{")
        assert shed.value.reason is Reason.OVERLOADED
        with pytest.raises(review.MalformedReviewError):
            await big.reply("workflows", b"{")
        ends = await asyncio.gather(*reviews, return_exceptions=True)
        assert all(isinstance(end, FailedError) for end in ends)


@pytest.mark.parametrize("namespace", ["made-up-{}", ""], ids=["made up", "none"])
async def test_reviews_of_namespaces_that_were_not_seen_leave_places_for_those_that_were(
    namespace: str,
) -> None:
    async with apart(Site()) as big:
        texts = [f'{{"namespace": "{namespace.format(at)}"'.encode() for at in range(2 * WAITING)]
        reviews = [asyncio.create_task(big.reply("workflows", text)) for text in texts]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        made = await big.reply("workflows", body(workflow("work")))
        ends = await asyncio.gather(*reviews, return_exceptions=True)
    assert made.reason is Reason.ACCEPTED
    assert sum(isinstance(end, ShedError) for end in ends) == 2 * WAITING - OF_ONE
    assert sum(isinstance(end, review.MalformedReviewError) for end in ends) == OF_ONE


async def test_a_review_that_was_begun_is_not_shed_for_those_that_came_while_it_looked_something_up(
    pod: Json,
) -> None:
    others: list[asyncio.Task[bytes]] = []

    class Crowded(Site):
        async def of_step(self, owner: Owner) -> tuple[Json | None, Mapping[str, str] | None, bool]:
            calls = (big._child.call("none", share=f"tenant-{at}") for at in range(WAITING + 1))
            others.extend(map(asyncio.ensure_future, calls))
            await asyncio.sleep(0)
            return await super().of_step(owner)

    async with apart(Crowded()) as big:
        made = await big.reply("pods", body(pod))
        ends = await asyncio.gather(*others, return_exceptions=True)
    assert made.reason is Reason.INJECTED
    assert all(isinstance(end, FailedError) for end in ends)


async def test_who_took_long_does_not_get_the_process_while_a_review_looks_something_up(pod: Json) -> None:
    slow: list[asyncio.Task[bytes]] = []

    class Beside(Site):
        async def of_step(self, owner: Owner) -> tuple[Json | None, Mapping[str, str] | None, bool]:
            big._child._turns.charge("slow", 1_000)
            slow.append(asyncio.create_task(big._child.call("none", share="slow")))
            await until(lambda: big._child._waiting or big._child._running or slow[0].done())
            return await super().of_step(owner)

    async with apart(Beside()) as big:
        made = await big.reply("pods", body(pod))
        assert not slow[0].done()
        slow[0].cancel()
    assert made.reason is Reason.INJECTED


class SlowSite(Site):
    """Each look-up takes so many seconds, of a clock of its own."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.now = seconds, 100.0

    async def namespace_labels(self, name: str) -> Mapping[str, str] | None:
        self.now += self.seconds
        return await super().namespace_labels(name)

    async def of_step(self, owner: Owner) -> tuple[Json | None, Mapping[str, str] | None, bool]:
        self.now += self.seconds
        return await super().of_step(owner)

    async def deletes_artifacts(self, owner: Owner) -> bool | None:
        self.now += self.seconds
        return await super().deletes_artifacts(owner)


async def test_a_review_whose_waits_add_up_is_shed_before_it_asks_for_more(
    load: Callable[[str], Json],
) -> None:
    content = body(load("v4.1.2-legacy/artifacts-in-out"))
    site = SlowSite(LONG - LEAST + 0.1)
    site.metadata = {"labels": {}}
    async with apart(site, lambda: site.now) as big:
        with pytest.raises(ShedError) as shed:
            await big.reply("pods", content)
    assert shed.value.reason is Reason.OVERLOADED
    assert [what.split()[0] for what in site.asked] == ["metadata"]
    site = SlowSite(LONG / 4)
    site.metadata = {"labels": {}}
    async with apart(site, lambda: site.now) as big:
        made = await big.reply("pods", content)
    assert [what.split()[0] for what in site.asked] == ["metadata", "spec"]
    assert made == await in_the_loop(site, "pods", content)


async def test_a_child_that_hangs_is_waited_for_no_longer_than_there_is_time_for_the_review() -> None:
    site = SlowSite(LONG - 0.5)
    async with apart(site, lambda: site.now) as big:
        with pytest.raises(review.MalformedReviewError):
            await big.reply("pods", b"{")
        assert big._child.pid is not None
        os.kill(big._child.pid, signal.SIGSTOP)
        with pytest.raises(ShedError) as shed:
            await big.reply("workflows", body(workflow("work")))
    assert shed.value.reason is Reason.BEYOND_BUDGET
    assert shed.value.detail == "took more than 0.5 s"


async def test_nothing_is_looked_up_for_a_review_that_has_no_time_left(pod: Json) -> None:
    site = SlowSite(0)
    async with apart(site, lambda: site.now) as big:
        with pytest.raises(review.MalformedReviewError):
            await big.reply("pods", b"{")
        assert big._child.pid is not None
        os.kill(big._child.pid, signal.SIGSTOP)
        one = asyncio.create_task(big.reply("pods", body(pod)))
        await until(lambda: big._child._running)
        site.now += LONG - LEAST + 0.1
        os.kill(big._child.pid, signal.SIGCONT)
        with pytest.raises(ShedError) as shed:
            await one
    assert shed.value.reason is Reason.OVERLOADED
    assert site.asked == []


@asynccontextmanager
async def served(site: Site, directory: Path, **limits: Any) -> AsyncIterator[Served]:
    admission = site.admission()
    async with (
        apart(site, **limits) as big,
        serving(admission.workflow, admission.pod, directory, big=big) as one,
    ):
        yield one


async def test_a_big_review_is_decided_apart_and_a_small_one_is_not(tmp_path: Path) -> None:
    padded = workflow("work") | {
        "metadata": {"name": "w", "annotations": {names.MEMOIZE: "true", "x": "x" * BYTES}}
    }
    site = Site()
    async with served(site, tmp_path, seconds=0.0) as server:
        small = await server.review("/mutate/workflows", ask(workflow("work"), "work"))
        status, text = await server.post("/mutate/workflows", ask(padded, "work"))
    assert small["auditAnnotations"] == {"reason": "Accepted"}
    assert (status, text) == (503, "took more than 0 s\n")
    async with served(site, tmp_path) as server:
        big = await server.review("/mutate/workflows", ask(padded, "work"))
    assert big["auditAnnotations"] == {"reason": "Accepted"}


async def test_a_review_that_is_shed_is_a_503_without_retry_after_that_is_counted_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(Site(), tmp_path, seconds=0.0) as server:
        url = server.url.with_path("/mutate/pods")
        with caplog.at_level(logging.WARNING):
            async with server.session.post(
                url, data=b" " * (BYTES + 1), server_hostname="stepmemo.test.svc"
            ) as got:
                assert got.status == 503
                assert "Retry-After" not in got.headers
        metrics = server.metrics
    assert 'stepmemo_decisions_total{reason="BeyondBudget",webhook="pods"} 1.0' in metrics
    (record,) = [record for record in caplog.records if record.getMessage() == "not decided"]
    assert record.fields["reason"] == "BeyondBudget"  # type: ignore[attr-defined]


def test_what_is_big_is_told_by_bytes_and_by_what_there_can_be_in_them() -> None:
    assert not is_big(b" " * BYTES)
    assert is_big(b" " * (BYTES + 1))
    assert not is_big(b"{," * (PARTS // 2))
    assert is_big(b"{," * (PARTS // 2) + b"{")


def test_recorded_pods_are_small(load: Callable[[str], Json]) -> None:
    for case in ("container", "sidecars-and-init", "container-set"):
        assert not is_big(body(load(f"v4.1.2-legacy/{case}")))


async def test_what_is_said_of_a_namespace_from_elsewhere_is_not_held_against_it() -> None:
    clock = itertools.count().__next__  # each look at it is a second later
    async with apart(Site(), clock) as big:
        await big.reply("workflows", body(workflow("work")), "192.0.2.9")
        assert big._child._turns.owed("work 192.0.2.9") > 0
        assert big._child._turns.owed("work 192.0.2.1") == 0
