"""Entries: Argo's own form, what they are worth to a step, and what hostile ones do."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoize.entry import BrokenEntry, Entry, Hit, Miss, expired, look_up
from memoize.key import data_key
from memoize.outputs import Declared, DeclaredArtifact
from memoize.reasons import Reason
from memoize.spec import Memo
from tests.memoize.test_strictjson import VALUES

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OUTPUTS = {"parameters": [{"name": "out", "value": "x", "valueFrom": {"path": "/tmp/out"}}], "exitCode": "0"}
ARGO_WROTE = json.dumps(
    {
        "nodeID": "memoized-wf-123",
        "outputs": OUTPUTS,
        "creationTimestamp": "2026-01-02T03:00:05Z",
        "lastHitTimestamp": "2026-01-02T03:01:05Z",
    }
)
WANTED = Declared(parameters=("out",))
MEMO = Memo(key="hello-1", cache="c")


def entry(**fields: Any) -> str:
    return json.dumps({**json.loads(ARGO_WROTE), **fields})


def found(text: str, memo: Memo = MEMO, wanted: Declared = WANTED, now: datetime = NOW) -> Hit | Miss:
    return look_up({data_key(memo.key): text}, memo, wanted, now)


def reason(*args: Any, **kwargs: Any) -> Reason:
    result = found(*args, **kwargs)
    return Reason.HIT if isinstance(result, Hit) else result.reason


class TestForm:
    def test_an_entry_that_argo_wrote_is_read(self):
        assert Entry.parse(ARGO_WROTE) == Entry(
            node_id="memoized-wf-123",
            outputs=OUTPUTS,
            created=datetime(2026, 1, 2, 3, 0, 5, tzinfo=UTC),
            last_hit=datetime(2026, 1, 2, 3, 1, 5, tzinfo=UTC),
        )

    def test_an_entry_is_written_with_argos_fields_and_ours_under_one_name(self):
        written = Entry(
            "n", OUTPUTS, NOW, NOW + timedelta(milliseconds=1), key="k", max_age="1h", pod="p", workflow="w"
        )
        assert json.loads(written.dump()) == {
            "nodeID": "n",
            "outputs": OUTPUTS,
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "lastHitTimestamp": "2026-01-02T03:04:05Z",
            "stepmemo": {"key": "k", "maxAge": "1h", "pod": "p", "workflow": "w"},
        }

    def test_what_says_nothing_of_ours_is_written_as_argo_writes_it(self):
        assert json.loads(Entry.parse(ARGO_WROTE).dump()) == json.loads(ARGO_WROTE)

    @given(st.dictionaries(st.text(max_size=5).map("x-{}".format), VALUES, max_size=3))
    def test_fields_that_we_do_not_know_survive(self, unknown: dict[str, Any]):
        text = entry(**unknown, stepmemo={"key": "k", **unknown}, outputs={**OUTPUTS, **unknown})
        assert json.loads(Entry.parse(text).dump()) == json.loads(text)

    @given(
        st.builds(
            Entry,
            node_id=st.text(min_size=1),
            outputs=st.none() | st.just(OUTPUTS),
            created=st.none() | st.datetimes(timezones=st.just(UTC)).map(lambda t: t.replace(microsecond=0)),
            last_hit=st.none(),
            key=st.text(),
            max_age=st.text(),
            pod=st.text(),
            workflow=st.text(),
        )
    )
    def test_what_is_written_is_read_again(self, written: Entry):
        assert Entry.parse(written.dump()) == written

    def test_a_value_of_any_characters_is_written_in_ascii(self):
        text = Entry("n", {"result": 'é"\n\u2028\x00'}, NOW, NOW).dump()
        assert text.isascii()
        assert "\n" not in text

    @pytest.mark.parametrize(
        ("text", "time"),
        [
            ("2026-01-02T03:04:05Z", NOW),
            ("2026-01-02T04:04:05+01:00", NOW),
            ("2026-01-02T03:04:05.5Z", NOW + timedelta(seconds=0.5)),
            (None, None),
        ],
    )
    def test_a_time_is_read_as_go_reads_it(self, text: str | None, time: datetime | None):
        assert Entry.parse(entry(creationTimestamp=text)).created == time

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "null",
            "[]",
            "{}",
            '"x"',
            "[" * 100_000,
            entry(nodeID=""),
            entry(nodeID=None),
            entry(nodeID=1),
            entry(outputs=[]),
            entry(outputs={"parameters": [{"name": "out", "value": {}}]}),
            entry(creationTimestamp=1),
            entry(creationTimestamp="yesterday"),
            entry(creationTimestamp="2026-01-02"),
            entry(creationTimestamp="2026-01-02 03:04:05Z"),
            entry(creationTimestamp="2026-01-02T03:04:05"),
            entry(creationTimestamp="0001-01-01T00:00:00+14:00"),
            entry(stepmemo=[1]),
            entry(stepmemo={"key": 1}),
            ARGO_WROTE[:-1],
            ARGO_WROTE.replace('"0"', "NaN"),
            ARGO_WROTE.replace('"x"', "1" * 400),
            ARGO_WROTE.replace('"x"', r'"\ud800"'),
            ARGO_WROTE.replace("{", '{"nodeID": "twice", ', 1),
        ],
        ids=lambda text: text[:30],
    )
    def test_anything_else_is_a_broken_entry(self, text: str):
        with pytest.raises(BrokenEntry):
            Entry.parse(text)
        if text:
            assert reason(text) is Reason.BROKEN_ENTRY

    @given(st.text(max_size=20) | VALUES.map(json.dumps) | VALUES.map(lambda v: entry(outputs=v, stepmemo=v)))
    def test_no_text_is_more_than_a_miss(self, text: str):
        assert reason(text) in (
            Reason.MISS,
            Reason.BROKEN_ENTRY,
            Reason.INCOMPLETE_ENTRY,
            Reason.KEY_MISMATCH,
        )


class TestLookUp:
    def test_an_entry_that_argo_wrote_is_a_hit(self):
        result = found(ARGO_WROTE)
        assert isinstance(result, Hit)
        assert result.entry.outputs == OUTPUTS

    @pytest.mark.parametrize("data", [{}, {"other": ARGO_WROTE}, {"hello-1": ""}])
    def test_no_entry_is_a_miss(self, data: dict[str, str]):
        assert look_up(data, MEMO, WANTED, NOW) == Miss(Reason.MISS)

    @pytest.mark.parametrize(
        ("max_age", "expected"),
        [
            ("", Reason.HIT),
            ("4m", Reason.HIT),
            ("3m59s", Reason.EXPIRED),
            ("239999999999ns", Reason.EXPIRED),
            ("240s", Reason.HIT),
            ("0", Reason.EXPIRED),
            ("0s", Reason.EXPIRED),
            ("-1h", Reason.EXPIRED),
            ("one hour", Reason.INVALID_ANNOTATIONS),
        ],
    )
    def test_an_entry_four_minutes_old_answers_up_to_an_age_of_four_minutes(
        self, max_age: str, expected: Reason
    ):
        assert reason(ARGO_WROTE, Memo("hello-1", "c", max_age)) is expected

    def test_an_entry_from_the_future_is_fresh(self):
        assert (
            reason(entry(creationTimestamp="2026-01-02T04:04:05Z"), Memo("hello-1", "c", "1s")) is Reason.HIT
        )

    def test_the_clocks_time_zone_does_not_matter(self):
        elsewhere = NOW.astimezone(timezone(timedelta(hours=-9)))
        assert reason(ARGO_WROTE, Memo("hello-1", "c", "4m"), now=elsewhere) is Reason.HIT

    def test_an_entry_without_a_creation_time_answers_only_where_entries_never_expire(self):
        text = entry(creationTimestamp=None)
        assert reason(text) is Reason.HIT
        assert reason(text, Memo("hello-1", "c", "9999h")) is Reason.EXPIRED

    @pytest.mark.parametrize("outputs", [None, {}, {"parameters": [{"name": "out"}]}])
    def test_an_entry_without_a_declared_output_is_incomplete_and_says_of_what(self, outputs: object):
        result = found(entry(outputs=outputs))
        assert result == Miss(Reason.INCOMPLETE_ENTRY, "without parameter out")

    @pytest.mark.parametrize("outputs", [None, {}, OUTPUTS])
    def test_a_step_without_outputs_is_answered_by_any_entry(self, outputs: object):
        assert reason(entry(outputs=outputs), wanted=Declared()) is Reason.HIT

    def test_a_result_counts_only_where_it_is_used(self):
        assert reason(ARGO_WROTE, wanted=Declared(result=True)) is Reason.INCOMPLETE_ENTRY
        assert reason(entry(outputs={"result": ""}), wanted=Declared(result=True)) is Reason.HIT

    def test_an_optional_artifact_may_be_absent(self):
        assert (
            reason(ARGO_WROTE, wanted=Declared(artifacts=(DeclaredArtifact("a", optional=True),)))
            is Reason.HIT
        )
        assert (
            reason(ARGO_WROTE, wanted=Declared(artifacts=(DeclaredArtifact("a"),))) is Reason.INCOMPLETE_ENTRY
        )

    @pytest.mark.parametrize(
        ("own", "expected"),
        [
            ({"key": "a b"}, Reason.HIT),
            ({"key": "a  b"}, Reason.KEY_MISMATCH),
            ({}, Reason.KEY_MISMATCH),
            (None, Reason.KEY_MISMATCH),
        ],
    )
    def test_a_hashed_key_must_stand_in_the_entry(self, own: object, expected: Reason):
        assert reason(entry(stepmemo=own), Memo("a b", "c")) is expected

    def test_a_key_that_argo_allows_need_not_stand_in_the_entry_but_must_not_be_another(self):
        assert reason(entry(stepmemo={})) is Reason.HIT
        assert reason(entry(stepmemo={"key": "hello-2"})) is Reason.KEY_MISMATCH

    def test_no_detail_repeats_a_value(self):
        for text in (entry(outputs={"parameters": "swordfish"}), entry(stepmemo={"key": "swordfish"})):
            result = found(text)
            assert isinstance(result, Miss)
            assert "swordfish" not in result.detail


def test_entries_expire_by_their_own_word_alone():
    data = {
        "old": entry(stepmemo={"maxAge": "3m"}),
        "never-fresh": entry(stepmemo={"maxAge": "0"}),
        "fresh": entry(stepmemo={"maxAge": "5m"}),
        "silent": ARGO_WROTE,
        "unclear": entry(stepmemo={"maxAge": "soon"}),
        "broken": "{",
    }
    assert set(expired(data, NOW)) == {"old", "never-fresh"}
