import re
from pathlib import Path

from memoize.event import TOLD
from memoize.reasons import Reason

PAGE = Path(__file__).parents[2] / "docs" / "reasons.md"
ROW = re.compile(r"^\| `(\w+)` \| (.+) \| (.+) \|$", re.MULTILINE)


def test_the_page_explains_every_reason_code_once_and_in_the_order_of_the_code() -> None:
    explained = [code for code, _, _ in ROW.findall(PAGE.read_text(encoding="utf-8"))]
    assert explained == [reason.value for reason in Reason]


MEMOIZED = {"Injected", "InjectedCapture", "InjectedCheck", "Gated", "NotGated"}
ASKED_FOR = {"NotAStep", "NoKey", "OptedOut", "ModeOff", "AlreadyInjected"}
"""Its author wants the Pod left alone, or never wanted it memoized: an Event would tell him nothing."""


def test_whoever_opted_in_and_is_left_alone_is_told_by_an_event() -> None:
    page = PAGE.read_text(encoding="utf-8")
    at_admission = page.partition("## Pods, at admission")[2].partition("\n## ")[0]
    codes = {code for code, _, _ in ROW.findall(at_admission)}
    assert codes - MEMOIZED - ASKED_FOR <= {reason.value for reason in TOLD}
    assert not {reason.value for reason in TOLD} & (MEMOIZED | ASKED_FOR)
