"""Entries: Argo's own form, what they are worth to a step, and what hostile ones do."""

import json
import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from unittest.mock import ANY

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoize.entry import LONGEST_TOOK, BrokenEntry, Entry, Hit, Miss, look_up
from memoize.key import data_key
from memoize.outputs import Declared
from memoize.reasons import Reason
from memoize.spec import Memo
from tests.memoize.test_strictjson import VALUES

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ELSEWHERE = timezone(timedelta(hours=-9))
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
        "etags": {"out": '"abc"'},
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

    def test_an_entry_under_a_computed_key_says_what_that_was_computed_from(self):
        text = Entry("n", None, NOW, NOW, template="train", parts={"image": "0123abcd"}).dump()
        assert json.loads(text)["stepmemo"] == {"template": "train", "parts": {"image": "0123abcd"}}

    @pytest.mark.parametrize(
        "parts", [{"image": 1}, {"image": "x"}, ["image"], {"a": {"b": "0123abcd"}}, "x"]
    )
    def test_parts_of_another_form_survive_and_break_nothing(self, parts: object):
        """A later version may keep more of them."""
        text = entry(stepmemo={"key": "k", "parts": parts})
        assert Entry.parse(text).parts == {}
        assert json.loads(Entry.parse(text).dump()) == json.loads(text)

    def test_the_etags_of_artifacts_are_kept_by_their_names(self):
        text = Entry("n", OUTPUTS, NOW, NOW, etags={"out": '"abc"'}).dump()
        assert json.loads(text)["stepmemo"] == {"etags": {"out": '"abc"'}}
        assert Entry.parse(text).etags == {"out": '"abc"'}
        assert Entry.parse(entry(stepmemo={"etags": {"out": 1}})).etags == {}

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
            template=st.text(),
            parts=st.dictionaries(st.text("env/A", max_size=3), st.from_regex("[0-9a-f]{8}", fullmatch=True)),
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


@dataclass(frozen=True)
class Case:
    """A lookup of `memo`, by a step that declares `wanted`, in a cache whose one `entry` is 4 minutes old."""

    name: str
    want_reason: Reason
    entry: str = ARGO_WROTE
    memo: Memo = MEMO
    wanted: Declared = WANTED
    now: datetime = NOW
    want_detail: str = ""


def of_age(max_age: str) -> Memo:
    return Memo("hello-1", "c", max_age)


HOUR_AHEAD = "2026-01-02T04:04:05Z"
NO_VALUE = {"parameters": [{"name": "out"}]}
LOOK_UPS = [
    Case("an entry that Argo wrote", Reason.HIT),
    Case("no maxAge", Reason.HIT, memo=of_age("")),
    Case("as old as maxAge", Reason.HIT, memo=of_age("4m")),
    Case("as old as maxAge, said otherwise", Reason.HIT, memo=of_age("240s")),
    Case("a second older than maxAge", Reason.EXPIRED, memo=of_age("3m59s")),
    Case("a nanosecond older than maxAge", Reason.EXPIRED, memo=of_age("239999999999ns")),
    Case("maxAge 0", Reason.EXPIRED, memo=of_age("0")),
    Case("maxAge 0s", Reason.EXPIRED, memo=of_age("0s")),
    Case("maxAge below 0", Reason.EXPIRED, memo=of_age("-1h")),
    Case("maxAge is no duration", Reason.INVALID_ANNOTATIONS, memo=of_age("one hour"), want_detail=ANY),
    Case("from the future", Reason.HIT, entry(creationTimestamp=HOUR_AHEAD), of_age("1s")),
    Case("from the future, maxAge 0", Reason.EXPIRED, entry(creationTimestamp=HOUR_AHEAD), of_age("0")),
    Case("from the future, below 0", Reason.EXPIRED, entry(creationTimestamp=HOUR_AHEAD), of_age("-1h")),
    Case("made now, maxAge 0", Reason.EXPIRED, entry(creationTimestamp=f"{NOW:%FT%TZ}"), of_age("0")),
    Case("made now, maxAge below 0", Reason.EXPIRED, entry(creationTimestamp=f"{NOW:%FT%TZ}"), of_age("-1h")),
    Case("a clock in another zone", Reason.HIT, memo=of_age("4m"), now=NOW.astimezone(ELSEWHERE)),
    Case("no creation time, no maxAge", Reason.HIT, entry(creationTimestamp=None)),
    Case("no creation time, a long maxAge", Reason.EXPIRED, entry(creationTimestamp=None), of_age("9999h")),
    Case("outputs null", Reason.INCOMPLETE_ENTRY, entry(outputs=None), want_detail="without parameter out"),
    Case("outputs empty", Reason.INCOMPLETE_ENTRY, entry(outputs={}), want_detail="without parameter out"),
    Case("no value", Reason.INCOMPLETE_ENTRY, entry(outputs=NO_VALUE), want_detail="without parameter out"),
    Case("nothing declared, outputs null", Reason.HIT, entry(outputs=None), wanted=Declared()),
    Case("nothing declared, outputs empty", Reason.HIT, entry(outputs={}), wanted=Declared()),
    Case("nothing declared, outputs there", Reason.HIT, entry(outputs=OUTPUTS), wanted=Declared()),
    Case("no result", Reason.INCOMPLETE_ENTRY, wanted=Declared(result=True), want_detail=ANY),
    Case("an empty result", Reason.HIT, entry(outputs={"result": ""}), wanted=Declared(result=True)),
    Case(
        "no artifact", Reason.INCOMPLETE_ENTRY, wanted=Declared(artifacts=({"name": "a"},)), want_detail=ANY
    ),
    Case("no optional artifact", Reason.HIT, wanted=Declared(artifacts=({"name": "a", "optional": True},))),
    Case("a hashed key stands in it", Reason.HIT, entry(stepmemo={"key": "a b"}), Memo("a b", "c")),
    Case(
        "another hashed key",
        Reason.KEY_MISMATCH,
        entry(stepmemo={"key": "a  b"}),
        Memo("a b", "c"),
        want_detail=ANY,
    ),
    Case("no hashed key", Reason.KEY_MISMATCH, entry(stepmemo={}), Memo("a b", "c"), want_detail=ANY),
    Case(
        "nothing of ours, a hashed key",
        Reason.KEY_MISMATCH,
        entry(stepmemo=None),
        Memo("a b", "c"),
        want_detail=ANY,
    ),
    Case("a key that Argo allows is not repeated", Reason.HIT, entry(stepmemo={})),
    Case(
        "a key that Argo allows is another",
        Reason.KEY_MISMATCH,
        entry(stepmemo={"key": "hello-2"}),
        want_detail=ANY,
    ),
]


class TestLookUp:
    @pytest.mark.parametrize("case", LOOK_UPS, ids=lambda case: case.name)
    def test_an_entry_is_worth_this_to_a_step(self, case: Case):
        result = look_up({data_key(case.memo.key): case.entry}, case.memo, case.wanted, case.now)
        assert (Reason.HIT if isinstance(result, Hit) else result.reason) is case.want_reason
        if isinstance(result, Hit):
            assert result.entry == Entry.parse(case.entry)
        else:
            assert case.want_detail in (ANY, result.detail)

    @pytest.mark.parametrize("data", [{}, {"other": ARGO_WROTE}, {"hello-1": ""}])
    def test_no_entry_is_a_miss(self, data: dict[str, str]):
        assert look_up(data, MEMO, WANTED, NOW) == Miss(Reason.MISS)

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


@pytest.mark.parametrize("parse", [Entry.parse, Entry.parse_times])
@pytest.mark.parametrize(
    ("text", "expected"),
    {
        entry(stepmemo={"maxAge": "3m"}): True,
        entry(stepmemo={"maxAge": "0"}): True,
        entry(stepmemo={"maxAge": "5m"}): False,
        ARGO_WROTE: False,
        entry(stepmemo={"maxAge": "soon"}): False,
    }.items(),
)
def test_an_entry_expires_by_its_own_word_alone(parse: Callable[[str], Entry], text: str, expected: bool):
    assert parse(text).expired(NOW) is expected


@pytest.mark.parametrize("text", [entry(), ARGO_WROTE, entry(stepmemo={"maxAge": "3m", "key": "x"})])
def test_the_times_alone_are_those_of_the_whole(text: str):
    whole, times = Entry.parse(text), Entry.parse_times(text)
    assert (times.created, times.last_hit, times.max_age) == (whole.created, whole.last_hit, whole.max_age)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "[" * 100_000, entry(creationTimestamp="soon"), entry(stepmemo=[1])]
)
def test_what_has_no_times_is_no_entry(text: str):
    with pytest.raises(BrokenEntry):
        Entry.parse_times(text)


@given(st.datetimes(datetime(1, 1, 1), datetime(9999, 1, 1), timezones=st.just(UTC)), st.integers(1, 2**62))
def test_it_expires_at_the_very_moment_from_which_on_it_is_too_old_by_its_own_word(
    created: datetime, limit: int
) -> None:
    entry = Entry("node", None, created, None, max_age=f"{limit}ns")
    expires = entry.expires
    if expires is None:
        assert created.year + limit // (366 * 86_400 * 10**9) >= 9999 - 1
        return
    assert entry.older_than(entry.max_age, expires)
    assert not entry.older_than(entry.max_age, expires - timedelta(microseconds=1))


@pytest.mark.parametrize(
    ("created", "max_age", "expires"),
    [
        (NOW, "", None),
        (None, "", None),
        (NOW, "soon", None),
        (NOW, "0s", NOW),
        (NOW, "-1h", NOW),
        (None, "1h", datetime(1970, 1, 1, tzinfo=UTC)),
        (datetime(9999, 12, 31, 23, tzinfo=UTC), "1h", None),
    ],
)
def test_what_never_expires_says_so_and_what_is_too_old_whatever_the_time_has_expired(
    created: datetime | None, max_age: str, expires: datetime | None
) -> None:
    assert Entry("node", None, created, None, max_age=max_age).expires == expires
