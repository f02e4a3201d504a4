from datetime import UTC, datetime, timedelta

import pytest

from keeper.postgresql.rows import LONG_AGO, EntryRef, created_of, digest_of, put_arguments, storable
from memoize.entry import Entry
from memoize.key import data_key, digest

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


@pytest.mark.parametrize("key", ["k", "a/b c", "x" * 300, "sha256-" + "0" * 64, "é", "\ud800"])
def test_the_digest_of_a_row_is_that_of_the_memoize_key_however_its_data_key_looks(key: str) -> None:
    assert digest_of(data_key(key)) == digest(key)


@pytest.mark.parametrize(
    ("place", "valid"),
    [
        (("work", "cache", "k"), True),
        (("work", "my.cache", "sha256-" + "0" * 64), True),
        (("", "cache", "k"), False),
        (("work", "", "k"), False),
        (("work", "Cache", "k"), False),
        (("work", "cache", ""), False),
        (("work", "cache", "a/b"), False),
        (("work", "cache", "a\0"), False),
        (("work", "cache", "\ud800"), False),
        (("work", "cache", "k" * 254), False),
    ],
)
def test_only_where_an_entry_could_lie_is_looked_at(place: tuple[str, str, str], valid: bool) -> None:
    assert EntryRef(*place).valid is valid


PLACE = EntryRef("work", "cache", "k")


def columns(text: str) -> tuple[object, ...]:
    """What is said of an entry beside its place, its text and its size: four arguments of `sql.PUT`."""
    *place, written, bytes_, created, expires, last_hit, template = put_arguments(PLACE, text)
    assert (place, written, bytes_) == ([*PLACE.row, "k"], text, len(text))
    return created, expires, last_hit, template


@pytest.mark.parametrize(
    ("template", "column"),
    [("say", "say"), ("", None), ("a b", None), ("\0", None), ("\ud800", None), ("x" * 129, None)],
)
def test_what_an_entry_says_of_itself_becomes_columns(template: str, column: str | None) -> None:
    entry = Entry("node", None, NOW, NOW + timedelta(minutes=1), "k", "1h", template=template)
    assert columns(entry.dump()) == (NOW, entry.expires, NOW + timedelta(minutes=1), column)


def test_no_more_of_an_entry_is_read_than_that() -> None:
    """Whoever reads all of it, as a look-up does, finds out that it answers nobody."""
    text = '{"nodeID":1,"outputs":[[[]]],"creationTimestamp":"2026-05-04T12:00:00Z"}'
    assert columns(text) == (NOW, None, None, None)


@pytest.mark.parametrize("text", ["", "{", '{"nodeID":"n"}', '{"nodeID":"n","creationTimestamp":"soon"}'])
def test_what_says_no_time_is_older_than_anything_that_does(text: str) -> None:
    assert columns(text) == (LONG_AGO, None, None, None)
    assert created_of(text) == LONG_AGO


@pytest.mark.parametrize(
    ("text", "fits"),
    [("", False), ("a\0", False), ("\ud800", False), ("é𝄞", True), ('"\\u0000\\ud800"', True)],
)
def test_what_postgresql_cannot_hold_is_told_before_it_is_asked(text: str, fits: bool) -> None:
    assert storable(text) is fits


def test_whatever_an_entry_holds_its_own_text_can_be_stored() -> None:
    assert storable(Entry("node", {"result": "\0 \ud800 é"}, NOW, None).dump())
