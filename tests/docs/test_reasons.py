import re
from pathlib import Path

from memoize.reasons import Reason

PAGE = Path(__file__).parents[2] / "docs" / "reasons.md"
ROW = re.compile(r"^\| `(\w+)` \| (.+) \| (.+) \|$", re.MULTILINE)


def test_the_page_explains_every_reason_code_once_and_in_the_order_of_the_code() -> None:
    explained = [code for code, _, _ in ROW.findall(PAGE.read_text(encoding="utf-8"))]
    assert explained == [reason.value for reason in Reason]
