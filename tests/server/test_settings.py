"""What any program's settings get from the mechanism; webhook/settings.py is tested on its own."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from server import values
from server.settings import SettingsError, declared, group, parse, setting


@dataclass(frozen=True, slots=True)
class Part:
    size: int = setting("size", values.count(1, 9), "2", "how many")
    known_later: str = "not yet"


@dataclass(frozen=True, slots=True)
class Program:
    name: str = setting("name", values.LABEL, "some", "what it is called")
    part: Part = group(Part)
    most: int = setting("most", values.count(1, 9), "9", "how many at most")


def conflicts(read: Mapping[str, Any]) -> Iterator[str]:
    if read.get("size", 0) > read.get("most", 9):
        yield "too many"


def parsed(*argv: str, **environ: str) -> Program:
    return parse(Program, argv, environ, conflicts, program="it", description="It.")


def test_an_object_made_without_parsing_has_the_declared_defaults() -> None:
    assert Program() == parsed() == Program("some", Part(2, "not yet"), 9)


def test_a_group_is_filled_with_settings_of_its_own_and_leaves_other_fields() -> None:
    assert [one.flag for one in declared(Program)] == ["name", "size", "most"]
    assert parsed("--size=3", STEPMEMO_MOST="4") == Program(part=Part(3), most=4)


def test_values_are_compared_only_if_they_could_be_read() -> None:
    with pytest.raises(SettingsError) as caught:
        parsed("--size=8", "--most=many", "--name=A")
    name, most = caught.value.errors
    assert name.startswith("--name (STEPMEMO_NAME): ")
    assert most.startswith("--most (STEPMEMO_MOST): ")
    with pytest.raises(SettingsError, match="too many"):
        parsed("--size=8", "--most=7")
