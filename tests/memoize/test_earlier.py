from datetime import UTC, datetime, timedelta

import pytest

from memoize.earlier import earlier
from memoize.entry import Entry

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def text(template: str = "say", age: timedelta | None = 3 * HOUR) -> str:
    return Entry("node", None, None if age is None else NOW - age, None, template=template).dump()


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ({"a": text(), "b": text(age=HOUR)}, "b"),
        ({"a": text(), "b": text(age=-HOUR)}, "a"),
        ({"a": text(), "own": text(age=HOUR)}, "a"),
        ({"a": text(age=HOUR - HOUR)}, "a"),
        ({"a": text("shout")}, ""),
        ({"a": text("")}, ""),
        ({"a": text(age=None)}, ""),
        ({"a": "[", "b": "{}"}, ""),
        ({}, ""),
    ],
)
def test_it_is_the_newest_of_the_template_that_was_there_before_the_pod(
    data: dict[str, str], found: str
) -> None:
    assert earlier(data, "say", "own", NOW) == found


def test_where_the_pods_time_is_not_known_it_is_the_newest() -> None:
    assert earlier({"a": text(), "b": text(age=-HOUR)}, "say", "own", None) == "b"


def test_a_template_without_a_name_has_no_entries() -> None:
    assert earlier({"a": text("")}, "", "own", None) == ""
