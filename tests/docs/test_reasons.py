import re
from pathlib import Path

import pytest

from memoize.event import EVENT_AT_ADMISSION, WITHOUT_EVENT
from memoize.reasons import Reason
from server.refusals import Refusal

PAGE = Path(__file__).parents[2] / "docs" / "reasons.md"
REFUSALS = "\n## Requests that are not served\n"
ROW = re.compile(r"^\| `(\w+)` \| (.+) \| (.+) \|$", re.MULTILINE)


def test_the_page_explains_every_reason_code_once_and_in_the_order_of_the_code() -> None:
    page, _, _ = PAGE.read_text(encoding="utf-8").partition(REFUSALS)
    explained = [code for code, _, _ in ROW.findall(page)]
    assert explained == [reason.value for reason in Reason]


def test_the_page_explains_every_refusal_once_and_in_the_order_of_the_code() -> None:
    _, _, page = PAGE.read_text(encoding="utf-8").partition(REFUSALS)
    assert [code for code, _, _ in ROW.findall(page)] == [refusal.value for refusal in Refusal]


MEMOIZED = {"Injected", "InjectedCapture", "InjectedCheck", "Gated", "NotGated"}
ASKED_FOR = {"NotAStep", "NoKey", "OptedOut", "ModeOff", "AlreadyInjected"}
"""Its author wants the Pod left alone, or never wanted it memoized: an Event would tell him nothing."""


def test_whoever_opted_in_and_is_left_alone_is_told_by_an_event() -> None:
    page = PAGE.read_text(encoding="utf-8")
    at_admission = page.partition("## Pods, at admission")[2].partition("\n## ")[0]
    codes = {code for code, _, _ in ROW.findall(at_admission)}
    assert codes - MEMOIZED - ASKED_FOR <= {reason.value for reason in EVENT_AT_ADMISSION}
    assert not {reason.value for reason in EVENT_AT_ADMISSION} & (MEMOIZED | ASKED_FOR)


CODE = re.compile(r"`(\w+)`")


@pytest.mark.parametrize(("who", "codes"), [("the webhook", EVENT_AT_ADMISSION), ("keeper", WITHOUT_EVENT)])
def test_the_page_says_of_which_codes_there_is_an_event(who: str, codes: frozenset[Reason]) -> None:
    page = PAGE.read_text(encoding="utf-8").partition("\n## Events\n")[2].partition("\n## ")[0]
    (row,) = (line for line in page.splitlines() if line.startswith(f"| {who}"))
    assert CODE.findall(row) == [reason.value for reason in Reason if reason in codes]


@pytest.mark.parametrize("reason", Reason)
def test_what_a_person_should_act_on_is_told_by_an_event(reason: Reason) -> None:
    """Of what happened to a step: at admission see above, and a submit is answered."""
    page = PAGE.read_text(encoding="utf-8").partition(REFUSALS)[0].partition("\n## Steps: the lookup\n")[2]
    to_do = {code: what for code, _, what in ROW.findall(page)}.get(reason.value, "Nothing")
    may_be_left = to_do.startswith(("Nothing", "If it is frequent"))
    assert may_be_left or reason not in WITHOUT_EVENT
