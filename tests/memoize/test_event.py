from datetime import UTC, datetime, timedelta

import pytest

from memoize.entry import Entry
from memoize.event import brief, event, origin, saved
from memoize.reasons import Reason


def made(reason: Reason, text: str = "node n") -> dict:
    return event(
        name="wf.1",
        namespace="ns",
        involved="wf",
        involved_uid="u-1",
        reason=reason,
        text=text,
        component="stepmemo",
        instance="pod",
        now=datetime(2026, 1, 2, 3, 4, 5, 999999, UTC),
    )


@pytest.mark.parametrize(
    ("reason", "word", "kind"),
    [
        (Reason.HIT, "MemoizationHit", "Normal"),
        (Reason.STORED, "MemoizationStored", "Normal"),
        (Reason.CACHE_FULL, "MemoizationSkipped", "Warning"),
        (Reason.EVICTED, "MemoizationEvicted", "Normal"),
        (Reason.INVALID_LIMIT, "MemoizationLimit", "Warning"),
    ],
)
def test_the_reason_is_one_of_a_few_words_and_our_code_leads_the_message(
    reason: Reason, word: str, kind: str
) -> None:
    told = made(reason)
    assert (told["reason"], told["type"], told["message"]) == (word, kind, f"{reason}: node n")


def test_it_stands_on_the_workflow_at_whole_seconds() -> None:
    told = made(Reason.HIT)
    assert told["involvedObject"]["kind"] == "Workflow"
    assert told["involvedObject"]["uid"] == "u-1"
    assert told["firstTimestamp"] == told["lastTimestamp"] == "2026-01-02T03:04:05Z"


def test_a_long_message_is_cut_to_what_kubernetes_takes() -> None:
    assert len(made(Reason.HIT, "x" * 2000)["message"]) == 1024


NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ENTRY = Entry("wf-1", None, NOW - timedelta(hours=3), None, workflow="hello-x2k9f", took=312)


def test_an_answer_says_what_it_saved_and_where_it_is_from() -> None:
    assert saved(ENTRY) == "saved 5m12s"
    assert origin(ENTRY, NOW) == "from workflow hello-x2k9f, 3h ago"


def test_an_entry_of_argos_tells_neither_time_nor_workflow() -> None:
    bare = Entry("wf-1", None, None, None)
    assert (saved(bare), origin(bare, NOW)) == ("", "")
    assert origin(bare._replace(created=NOW + timedelta(hours=1)), NOW) == "0s ago"


@pytest.mark.parametrize("took", [0, -1, float("nan"), float("inf")])
def test_a_time_that_is_none_is_not_told(took: float) -> None:
    assert saved(ENTRY._replace(took=took)) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"),
        (0, "0s"),
        (0.01, "0.1s"),
        (0.42, "0.4s"),
        (0.97, "1s"),
        (59.4, "59s"),
        (59.6, "1m"),
        (312, "5m12s"),
        (3 * 3600, "3h"),
        (3 * 3600 + 59, "3h"),
        (49 * 3600 + 600, "2d1h"),
    ],
)
def test_a_time_is_told_in_its_two_largest_units(seconds: float, text: str) -> None:
    assert brief(seconds) == text
