from datetime import UTC, datetime

import pytest

from memoize.event import event
from memoize.reasons import Reason


def made(reason: Reason, text: str = "node n") -> dict:
    return event(
        name="wf.1",
        namespace="ns",
        workflow="wf",
        workflow_uid="u-1",
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
    ],
)
def test_the_reason_is_one_of_three_words_and_our_code_leads_the_message(
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
