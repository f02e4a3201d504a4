import re
from pathlib import Path

from memoize.reasons import Reason
from sidecar.entrypoint import build


def test_every_reason_of_the_entrypoint_is_in_the_closed_table() -> None:
    header = Path(build.SOURCES, "reasons.h").read_text()
    reported = re.findall(r'^#define \w+ "(\w+)"$', header, re.MULTILINE)
    assert reported
    assert set(reported) <= {reason.value for reason in Reason}
