"""What C and Python say to each other stands in both languages, and is the same."""

import re
from pathlib import Path

from memoize import names
from sidecar.entrypoint import build

SHARED = dict(re.findall(r'^#define (\w+) "(.+)"$', Path(build.SOURCES, "names.h").read_text(), re.MULTILINE))


def test_every_name_in_the_header_is_that_of_python() -> None:
    assert SHARED
    assert {name: getattr(names, name) for name in SHARED} == SHARED


def test_no_other_source_spells_a_name_out() -> None:
    for source in Path(build.SOURCES).glob("*.c"):
        words = re.findall(r'"([^"\n]*)"', source.read_text())
        assert not set(SHARED.values()) & set(words), source.name
