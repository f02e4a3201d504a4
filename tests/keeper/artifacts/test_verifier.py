import asyncio
import json
import logging
import sys
from collections.abc import Hashable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from keeper.artifacts import verifier as bounds
from keeper.artifacts.repositories import Repository, parse
from keeper.artifacts.verifier import NOT_KNOWN_YET, ObjectGone, There, Unknown, Verifier
from memoize.entry import Entry
from memoize.outcome import Outcome
from memoize.reasons import Reason
from tests.waiting import until

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
PLACE = ("work", "cache", "key")
GONE = Outcome(Reason.ARTIFACT_GONE, "artifact out is gone from repository main")
CHANGED = Outcome(Reason.ARTIFACT_CHANGED, "artifact out in repository main is not what was stored")
MAIN = {"endpoint": "minio:9000", "bucket": "b"}


def repository(**fields: Any) -> Repository:
    (found,) = parse(json.dumps({"repositories": [{"name": "main", "s3": MAIN, **fields}]}).encode())
    return found


def at(key: str, name: str = "out", bucket: str = "b") -> dict[str, Any]:
    return {"name": name, "s3": {**MAIN, "bucket": bucket, "key": key}}


def entry(*artifacts: Mapping[str, Any], **changes: Any) -> Entry:
    return Entry("wf-1", {"artifacts": [dict(one) for one in artifacts]}, NOW, NOW)._replace(**changes)


class Bucket:
    """A repository of which a test says what it answers."""

    def __init__(self, **answers: There | ObjectGone | Unknown) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.at_once = self.most_at_once = 0
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, key: str) -> There | ObjectGone | Unknown:
        self.asked.append(key)
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            await self.open.wait()
        finally:
            self.at_once -= 1
        return self.answers.get(key, There('"1"'))


class Site:
    """A verifier, and all that it tells others."""

    def __init__(self, bucket: Bucket, *, seconds: float = 30.0, **fields: Any) -> None:
        self.now = 0.0
        self.checked: list[str] = []
        self.dropped: list[tuple[str, ...]] = []
        self.told: list[tuple[str, str, Mapping[str, Hashable]]] = []
        self.drops: bool | Outcome = True
        self.drops_may_end = asyncio.Event()
        self.drops_may_end.set()
        self.sizes: list[int] = []
        self.verifier = Verifier(
            self.drop,
            self.checked.append,
            self.sizes.append,
            seconds=seconds,
            drop_every=0.0,
            clock=lambda: self.now,
        )
        self.verifier.on_known = lambda *told: self.told.append(told)
        self.verifier.use({repository(**fields): bucket})

    async def drop(self, *place: str) -> bool | Outcome:
        self.dropped.append(place)
        await self.drops_may_end.wait()
        return self.drops

    async def verify(
        self, one: Entry | str, seconds: float = 30.0, namespace: str = "work"
    ) -> Outcome | None:
        text = one if isinstance(one, str) else one.dump()
        return await self.verifier.verify(namespace, *PLACE[1:], text, seconds)


async def test_an_entry_whose_artifacts_are_all_there_is_served() -> None:
    bucket = Bucket()
    site = Site(bucket)
    assert await site.verify(entry(at("a"), at("b", "logs"))) is None
    assert sorted(bucket.asked) == ["a", "b"]
    assert site.checked == ["there", "there"]
    assert site.dropped == []


@pytest.mark.parametrize(
    "text",
    [
        entry().dump(),
        Entry("wf-1", {"parameters": [{"name": "artifacts", "value": "1"}]}, NOW, NOW).dump(),
        '{"artifacts"',
        '{"outputs": {"artifacts": "none"}}',
        '{"outputs": {"artifacts": ["\ud800"]}}',
        "[" * 100_000 + '"artifacts"',
        entry({"name": "out", "deleted": True, "s3": {**MAIN, "key": "a"}}).dump(),
        entry({"name": "out", "raw": {"data": "x"}}).dump(),
    ],
    ids=str,
)
async def test_where_there_is_nothing_to_look_for_nobody_is_asked(text: str) -> None:
    bucket = Bucket()
    site = Site(bucket)
    assert await site.verify(text) is None
    assert (bucket.asked, site.checked) == ([], [])


async def test_an_entry_with_an_artifact_that_is_gone_is_a_miss_and_is_dropped_by_its_text() -> None:
    site, one = Site(Bucket(a=ObjectGone())), entry(at("a"), at("b", "other"))
    assert await site.verify(one) == GONE
    await until(lambda: site.sizes == [len(one.dump())])
    assert site.dropped == [(*PLACE, one.dump())]
    assert "gone" in site.checked


@pytest.mark.parametrize("drops", [False, Outcome(Reason.FORBIDDEN, "may not patch configmaps")])
async def test_what_was_not_dropped_is_not_counted_and_is_a_miss_all_the_same(
    drops: bool | Outcome, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(Bucket(a=ObjectGone()))
    site.drops = drops
    assert await site.verify(entry(at("a"))) == GONE
    await until(lambda: bool(site.dropped))
    await asyncio.sleep(0)
    assert site.sizes == []
    assert ("could not be dropped" in caplog.text) is (drops is not False)


@pytest.mark.parametrize(
    ("etags", "answer", "changed", "expected", "finding"),
    [
        ({"out": '"1"'}, There('"1"'), "miss", None, "there"),
        ({"out": '"2"'}, There('"1"'), "miss", CHANGED, "changed"),
        ({"out": '"2"'}, There('"1"'), "serve", None, "changed"),
        ({"out": '"2"'}, There(), "miss", None, "there"),
        ({"other": '"2"'}, There('"1"'), "miss", None, "there"),
        ({}, There('"1"'), "miss", None, "there"),
        ({"out": '"2"'}, ObjectGone(), "serve", GONE, "gone"),
    ],
)
async def test_content_that_is_another_one_is_a_miss_unless_the_repository_says_otherwise(
    etags: dict[str, str],
    answer: There | ObjectGone,
    changed: str,
    expected: Outcome | None,
    finding: str,
) -> None:
    site = Site(Bucket(a=answer), changed=changed)
    assert await site.verify(entry(at("a"), etags=etags)) == expected
    assert site.checked == [finding]
    assert (site.dropped == []) is (answer != ObjectGone())


async def test_etags_of_any_type_do_no_harm() -> None:
    fields = json.loads(entry(at("a")).dump())
    for etags in ("no", [1], {"out": 1}):
        site = Site(Bucket())
        assert await site.verify(json.dumps({**fields, "stepmemo": {"etags": etags}})) in (None, CHANGED)


@pytest.mark.parametrize(
    ("artifact", "answer", "why"),
    [
        (at("a"), Unknown("status 403"), "repository main: status 403"),
        (at("a"), Unknown("no answer", down=True), "repository main: no answer"),
        (at("a", bucket="elsewhere"), ObjectGone(), "no repository is configured for where it lies (s3)"),
    ],
)
async def test_what_cannot_be_told_is_served_and_said_and_counted(
    artifact: dict[str, Any], answer: Unknown | ObjectGone, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(Bucket(a=answer))
    assert await site.verify(entry(artifact)) is None
    (line,) = caplog.records
    assert line.levelno == logging.WARNING
    assert line.__dict__["fields"] == {"namespace": "work", "artifact": "out", "detail": why}
    assert site.checked == ["unknown"]


async def test_a_bug_of_ours_lets_the_entry_be_served(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(key: str) -> There:
        raise TypeError("a bug")

    site = Site(Bucket())
    site.verifier.use({repository(): broken})
    assert await site.verify(entry(at("a"))) is None
    assert site.checked == ["unknown"]
    assert "a bug" in caplog.text


async def test_a_repository_that_is_slow_lets_the_entry_be_served_when_the_time_is_over() -> None:
    bucket = Bucket(b=ObjectGone())
    bucket.open.clear()
    site = Site(bucket, seconds=0.01)
    assert await site.verify(entry(at("a"), at("b"))) is None
    assert site.checked == ["unknown", "unknown"]
    assert bucket.at_once == 0


async def test_who_is_not_patient_is_told_later_and_all_wait_for_the_one_look() -> None:
    bucket, one = Bucket(a=ObjectGone()), entry(at("a"))
    bucket.open.clear()
    site = Site(bucket)
    assert await site.verify(one, seconds=0.01) is NOT_KNOWN_YET
    assert await site.verify(one, seconds=0.01) is NOT_KNOWN_YET
    assert site.told == []
    bucket.open.set()
    await until(lambda: bool(site.told))
    assert [told[:2] for told in site.told] == [PLACE[:2]]
    assert site.told[0][2].keys() == {"key"}
    assert await site.verify(one, seconds=0.0) == GONE
    assert bucket.asked == ["a"]


async def test_an_entry_that_was_slow_to_look_at_is_served_where_it_is_slow_again() -> None:
    """Else a Pod whose turns come late would be undecided until it runs."""
    bucket, one = Bucket(), entry(at("a"))
    bucket.open.clear()
    site = Site(bucket)
    assert await site.verify(one, seconds=0.01) is NOT_KNOWN_YET
    bucket.open.set()
    await until(lambda: bool(site.told))
    site.now += bounds.THERE_SECONDS
    bucket.open.clear()
    assert await site.verify(one, seconds=0.01) is None
    assert site.checked == ["there", "unknown"]
    bucket.open.set()
    await until(lambda: bucket.at_once == 0)


@pytest.mark.parametrize("answer", [ObjectGone(), There('"2"')])
async def test_an_entry_that_was_slow_to_be_ruled_out_is_a_miss_where_it_is_slow_again(
    answer: There | ObjectGone,
) -> None:
    """What was said a moment ago to one Pod is not served to the next, whose turn came late."""
    bucket, one = Bucket(a=answer), entry(at("a"), etags={"out": '"1"'})
    bucket.open.clear()
    site = Site(bucket)
    assert await site.verify(one, seconds=0.01) is NOT_KNOWN_YET
    bucket.open.set()
    await until(lambda: bool(site.told))
    site.now += bounds.ELSE_SECONDS
    bucket.open.clear()
    assert await site.verify(one, seconds=0.01) in (GONE, CHANGED)
    bucket.open.set()
    await until(lambda: bucket.at_once == 0)


@pytest.mark.parametrize(
    ("answer", "seconds"), [(There(), bounds.THERE_SECONDS), (ObjectGone(), bounds.ELSE_SECONDS)]
)
async def test_what_is_known_is_remembered_for_seconds(answer: There | ObjectGone, seconds: float) -> None:
    bucket, one = Bucket(a=answer), entry(at("a"))
    site = Site(bucket)
    for _ in range(3):
        await site.verify(one)
    assert bucket.asked == ["a"]
    await site.verify(one._replace(workflow="another"))
    assert bucket.asked == ["a"] * 2
    await site.verify(one, namespace="other")
    assert bucket.asked == ["a"] * 3
    site.now += seconds
    await site.verify(one)
    assert bucket.asked == ["a"] * 4


async def test_a_repository_without_an_answer_is_not_asked_for_that_namespace_for_seconds() -> None:
    bucket = Bucket(a=Unknown("no answer", down=True))
    site = Site(bucket)
    await site.verify(entry(at("a")))
    assert await site.verify(entry(at("b"))) is None
    assert bucket.asked == ["a"]
    await site.verify(entry(at("c")), namespace="other")
    assert bucket.asked == ["a", "c"]
    site.now += bounds.DOWN_SECONDS
    await site.verify(entry(at("d")))
    assert bucket.asked == ["a", "c", "d"]


@pytest.mark.slow
async def test_of_one_namespace_few_are_asked_for_at_once_and_others_are_served_beside() -> None:
    bucket = Bucket()
    bucket.open.clear()
    site = Site(bucket)
    many = [entry(*(at(f"{one}-{number}") for number in range(10_000))) for one in range(3)]
    slow = [asyncio.create_task(site.verify(one)) for one in many]
    await until(lambda: bucket.at_once == bounds.AT_ONCE_OF_ONE)
    beside = asyncio.create_task(site.verify(entry(at("other")), namespace="other"))
    await until(lambda: "other" in bucket.asked)
    bucket.open.set()
    assert await asyncio.gather(beside, *slow) == [None] * 4
    assert bucket.most_at_once == bounds.AT_ONCE_OF_ONE + 1
    assert len(bucket.asked) == 1 + 3 * bounds.MOST_OF_AN_ENTRY
    assert site.checked.count("unknown") == 3


async def test_so_many_entries_of_a_namespace_are_looked_at_at_once_and_more_are_served() -> None:
    bucket = Bucket()
    bucket.open.clear()
    site = Site(bucket)
    looks = [asyncio.create_task(site.verify(entry(at(str(n))))) for n in range(bounds.MOST_UNDER_WAY)]
    await until(lambda: site.verifier._under_way["work"] == bounds.MOST_UNDER_WAY)
    assert await site.verify(entry(at("one more"))) is None
    assert await site.verifier.with_etags("work", entry(at("a"))) == entry(at("a"))
    assert site.checked == ["unknown"]
    bucket.open.set()
    assert await asyncio.gather(*looks) == [None] * bounds.MOST_UNDER_WAY
    assert not site.verifier._under_way


async def test_so_many_bytes_of_entries_are_held_at_once_and_more_are_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    big = [entry(at(str(n)), node_id="n" * 1000) for n in range(4)]
    monkeypatch.setattr(bounds, "HELD_BYTES_OF_ONE", 2 * sys.getsizeof(big[0].dump()))
    monkeypatch.setattr(bounds, "HELD_BYTES", 3 * sys.getsizeof(big[0].dump()))
    bucket = Bucket()
    bucket.open.clear()
    site = Site(bucket)
    looks = [asyncio.create_task(site.verify(one)) for one in big[:2]]
    await until(lambda: bucket.at_once == 2)
    assert await site.verify(big[2]) is None
    looks.append(asyncio.create_task(site.verify(big[2], namespace="other")))
    await until(lambda: bucket.at_once == 3)
    assert await site.verify(big[3], namespace="another") is None
    assert site.checked == ["unknown"] * 2
    bucket.open.set()
    await asyncio.gather(*looks)
    assert await site.verify(big[3]) is None
    assert site.checked == ["unknown"] * 2 + ["there"] * 4


async def test_entries_of_a_cache_are_dropped_one_by_one_and_few_wait_for_that() -> None:
    """Else each of a thousand drops would have all who wait for that cache look again."""
    some = [entry(at("a"), workflow=str(n)) for n in range(bounds.MOST_TO_DROP + 3)]
    site = Site(Bucket(a=ObjectGone()))
    site.drops_may_end.clear()
    assert {await site.verify(one) for one in some} == {GONE}
    assert await site.verifier.verify("work", "another", "key", some[0].dump(), 30.0) == GONE
    await until(lambda: len(site.dropped) == 2)
    site.drops_may_end.set()
    await until(lambda: len(site.sizes) == bounds.MOST_TO_DROP + 1)
    assert [place[1:] for place in site.dropped] == [
        ("cache", "key", some[0].dump()),
        ("another", "key", some[0].dump()),
        *(("cache", "key", one.dump()) for one in some[1 : bounds.MOST_TO_DROP]),
    ]
    site.now += bounds.ELSE_SECONDS
    await until(lambda: not site.verifier._drops)
    assert await site.verify(some[-1]) == GONE
    await until(lambda: len(site.sizes) == bounds.MOST_TO_DROP + 2)


async def test_so_many_bytes_wait_to_be_dropped_at_once_and_other_entries_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    some = [entry(at("a"), workflow=str(n)) for n in range(3)]
    monkeypatch.setattr(bounds, "HELD_BYTES_OF_ONE", 2 * sys.getsizeof(some[0].dump()))
    site = Site(Bucket(a=ObjectGone()))
    site.drops_may_end.clear()
    assert {await site.verify(one) for one in some} == {GONE}
    site.drops_may_end.set()
    await until(lambda: not site.verifier._drops)
    assert len(site.dropped) == 2
    site.now += bounds.ELSE_SECONDS
    assert await site.verify(some[-1]) == GONE
    await site.verifier.close()
    assert not site.verifier._drops
    assert site.verifier._to_drop.take("work", bounds.HELD_BYTES_OF_ONE)


async def test_an_entry_that_is_known_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be a megabyte, and all Pods of a fan-out ask for it."""
    site, one = Site(Bucket()), entry(at("a"))
    await site.verify(one)
    monkeypatch.delattr(bounds, "_read")
    assert await site.verify(one) is None


async def test_what_is_looked_for_ends_with_the_first_that_is_gone() -> None:
    bucket = Bucket(**{"0": ObjectGone()})
    site = Site(bucket)
    assert await site.verify(entry(*(at(str(number)) for number in range(100)))) == GONE
    assert len(bucket.asked) <= 2 * bounds.OF_AN_ENTRY


# --- When an entry is stored -----------------------------------------------------------------------------


async def test_an_entry_is_stored_with_the_etags_that_are_known() -> None:
    bucket = Bucket(b=Unknown("status 403"), c=ObjectGone(), d=There())
    site = Site(bucket)
    artifacts = [at(key, key) for key in "abcd"] + [at("e", "e", bucket="elsewhere")]
    stored = await site.verifier.with_etags("work", entry(*artifacts, etags={"b": '"forged"'}))
    assert stored.etags == {"a": '"1"'}
    assert Entry.parse(stored.dump()).etags == {"a": '"1"'}
    assert site.checked == []


async def test_an_entry_is_stored_without_etags_where_that_takes_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bounds, "CAPTURE_SECONDS", 0.01)
    bucket = Bucket()
    bucket.open.clear()
    assert (await Site(bucket).verifier.with_etags("work", entry(at("a")))).etags == {}


async def test_etags_take_so_many_bytes_of_an_entry_at_most() -> None:
    artifacts = [at("a", f"{number}{'n' * 100}") for number in range(50)]
    assert (await Site(Bucket()).verifier.with_etags("work", entry(*artifacts))).etags == {}
