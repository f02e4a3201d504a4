"""Entries: Argo's own form, what they are worth to a step, and what hostile ones do."""

import json
import re
from copy import deepcopy
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoize.entry import LONGEST_TOOK, BrokenEntry, Entry, Hit, Miss, expired, look_up
from memoize.key import data_key
from memoize.outputs import Declared
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
WHOLE = {
    "nodeID": "n",
    "outputs": {
        "parameters": [
            {"name": "out", "value": "x", "valueFrom": {"path": "/x", "configMapKeyRef": {"key": "k"}}},
        ],
        "artifacts": [
            {
                "name": "res",
                "mode": 420,
                "archive": {"tar": {"compressionLevel": 1}},
                "artifactGC": {"strategy": "Never", "podMetadata": {}},
                "s3": {"key": "k", "insecure": True, "accessKeySecret": {"name": "s", "key": "k"}},
            },
            {"name": "web", "http": {"url": "u", "headers": [{"name": "h", "value": "v"}]}},
        ],
        "result": "r",
        "exitCode": "0",
    },
    "creationTimestamp": "2026-01-02T03:00:05Z",
    "lastHitTimestamp": "2026-01-02T03:01:05Z",
    "stepmemo": {
        "key": "hello-1",
        "maxAge": "1h",
        "pod": "p",
        "workflow": "w",
        "tookSeconds": 7.5,
        "later": {"x": 1},
    },
    "later": {"x": [{"y": 1}]},
}
"""An entry with something at every level."""
HOSTILE = (
    *("NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, str(1 << 63), "01", "0x1", "'x'", "undefined", ""),
    *(
        r'"\ud800"',
        r'"\udc00\ud800"',
        '"\x00"',
        '"\\x"',
        '{"a": 1, "a": 2}',
        "[" * 100_000,
        "[" * 70 + "]" * 70,
    ),
)
"""What is no JSON, or is not the same to every reader."""
WANTED = Declared(parameters=({"name": "out"},))
MEMO = Memo(key="hello-1", cache="c")


def entry(**fields: Any) -> str:
    return json.dumps({**json.loads(ARGO_WROTE), **fields})


def found(text: str, memo: Memo = MEMO, wanted: Declared = WANTED, now: datetime = NOW) -> Hit | Miss:
    return look_up({memo.data_key: text}, memo, wanted, now)


def reason(*args: Any, **kwargs: Any) -> Reason:
    result = found(*args, **kwargs)
    return Reason.HIT if isinstance(result, Hit) else result.reason


def objects(value: Any) -> list[dict[str, Any]]:
    """Every object within a value, itself included."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [*([value] if isinstance(value, dict) and value else []), *(o for v in inner for o in objects(v))]


def lists(value: Any) -> list[list[Any]]:
    """Every list within a value."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [*([value] if isinstance(value, list) else []), *(found for v in inner for found in lists(v))]


class TestForm:
    def test_an_entry_that_argo_wrote_is_read(self):
        assert Entry.parse(ARGO_WROTE) == Entry(
            node_id="memoized-wf-123",
            outputs=OUTPUTS,
            created=datetime(2026, 1, 2, 3, 0, 5, tzinfo=UTC),
            last_hit=datetime(2026, 1, 2, 3, 1, 5, tzinfo=UTC),
        )

    def test_an_entry_is_written_with_argos_fields_and_ours_under_one_name(self):
        last_hit = NOW + timedelta(milliseconds=1)
        written = Entry("n", OUTPUTS, NOW, last_hit, key="k", max_age="1h", pod="p", workflow="w", took=312.5)
        assert json.loads(written.dump()) == {
            "nodeID": "n",
            "outputs": OUTPUTS,
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "lastHitTimestamp": "2026-01-02T03:04:05Z",
            "stepmemo": {"key": "k", "maxAge": "1h", "pod": "p", "workflow": "w", "tookSeconds": 312.5},
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
            took=st.floats(0, LONGEST_TOOK) | st.integers(0, LONGEST_TOOK),
            extra=st.just({}),
            own_extra=st.just({}),
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
            entry(creationTimestamp=""),
            entry(creationTimestamp="yesterday"),
            entry(creationTimestamp="2026-01-02"),
            entry(creationTimestamp="2026-01-02 03:04:05Z"),
            entry(creationTimestamp="2026-01-02T03:04:05"),
            entry(creationTimestamp="2026-01-02t03:04:05Z"),
            entry(creationTimestamp="2026-01-02T03:04Z"),
            entry(creationTimestamp="2026-01-02T030405Z"),
            entry(creationTimestamp="2026-W01-5T03:04:05Z"),
            entry(creationTimestamp="2026-01-02T03:04:05+0100"),
            entry(creationTimestamp="2026-01-02T03:04:05+01:00:30"),
            entry(creationTimestamp="2026-02-30T03:04:05Z"),
            entry(creationTimestamp="0001-01-01T00:00:00+14:00"),
            entry(stepmemo=[1]),
            entry(stepmemo={"key": 1}),
            entry(stepmemo={"tookSeconds": "5"}),
            entry(stepmemo={"tookSeconds": True}),
            entry(stepmemo={"tookSeconds": -1}),
            entry(stepmemo={"tookSeconds": 1e300}),
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

    @given(st.data())
    def test_fields_that_we_do_not_know_survive_at_every_level(self, data: st.DataObject):
        whole = deepcopy(WHOLE)
        for holder in data.draw(st.lists(st.sampled_from(objects(whole)), min_size=1, max_size=4)):
            holder[data.draw(st.text(max_size=5).map("x-{}".format))] = data.draw(VALUES)
        assert json.loads(Entry.parse(json.dumps(whole)).dump()) == whole

    @given(st.data())
    def test_a_value_of_any_type_anywhere_is_an_answer_or_a_miss(self, data: st.DataObject):
        whole = deepcopy(WHOLE)
        holder = data.draw(st.sampled_from([*objects(whole), *lists(whole)]))
        place = data.draw(st.sampled_from(sorted(holder) if isinstance(holder, dict) else range(len(holder))))
        holder[place] = data.draw(VALUES)
        result = found(json.dumps(whole))
        if isinstance(result, Hit):
            again = Entry.parse(result.entry.dump())
            assert again.outputs == result.entry.outputs
            assert again.created == result.entry.created
        else:
            assert result.reason in (Reason.BROKEN_ENTRY, Reason.INCOMPLETE_ENTRY, Reason.KEY_MISMATCH)

    @given(st.data())
    def test_text_that_readers_take_differently_is_a_miss_wherever_it_stands(self, data: st.DataObject):
        text = json.dumps(WHOLE)
        values = list(re.finditer(r'(?<=: )("[^"]*"|[0-9]+|true)', text))
        at = data.draw(st.sampled_from(values))
        hostile = data.draw(st.sampled_from(HOSTILE))
        assert reason(text[: at.start()] + hostile + text[at.end() :]) is Reason.BROKEN_ENTRY

    @given(st.integers(0, len(json.dumps(json.loads(ARGO_WROTE))) - 1))
    def test_an_entry_that_was_cut_off_is_a_miss(self, length: int):
        assert reason(ARGO_WROTE[:length]) is (Reason.BROKEN_ENTRY if length else Reason.MISS)

    @given(st.data())
    def test_a_field_that_stands_twice_is_a_miss_at_every_level(self, data: st.DataObject):
        whole = deepcopy(WHOLE)
        holder = data.draw(st.sampled_from(objects(whole)))
        field = data.draw(st.sampled_from(sorted(holder)))
        holder["twice"] = holder[field]
        assert reason(json.dumps(whole).replace('"twice"', json.dumps(field))) is Reason.BROKEN_ENTRY

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

    @pytest.mark.parametrize("max_age", ["0", "-1h"])
    @pytest.mark.parametrize("made", ["2026-01-02T03:04:05Z", "2026-01-02T04:04:05Z"])
    def test_under_an_age_of_nothing_or_less_not_even_an_entry_of_now_or_later_answers(
        self, made: str, max_age: str
    ):
        assert reason(entry(creationTimestamp=made), Memo("hello-1", "c", max_age)) is Reason.EXPIRED

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
        assert reason(ARGO_WROTE, wanted=Declared(artifacts=({"name": "a", "optional": True},))) is Reason.HIT
        assert reason(ARGO_WROTE, wanted=Declared(artifacts=({"name": "a"},))) is Reason.INCOMPLETE_ENTRY

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

    def test_a_step_with_the_digest_of_its_key_alone_shares_entries_with_those_that_have_the_key(self):
        whole, handed_on = Memo("a b", "c"), Memo("", "c", digest=data_key("a b"))
        for said in (whole.key, handed_on.digest):
            assert reason(entry(stepmemo={"key": said}), whole) is Reason.HIT
            assert reason(entry(stepmemo={"key": said}), handed_on) is Reason.HIT
        for other in ("a  b", data_key("a  b"), ""):
            assert reason(entry(stepmemo={"key": other}), whole) is Reason.KEY_MISMATCH
            assert reason(entry(stepmemo={"key": other}), handed_on) is Reason.KEY_MISMATCH

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
