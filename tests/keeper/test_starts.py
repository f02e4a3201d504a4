import json
import logging
from pathlib import Path

import pytest

from keeper.starts import FILE, RECENT, Starts


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def begin(directory: Path, clock: Clock, *, after: float = 5.0) -> tuple[bool, Starts]:
    """What the next start is told."""
    clock.now += after
    starts = Starts(directory, now=clock)
    return starts.begin(), starts


def test_the_third_start_after_two_that_were_killed_releases_first_and_so_does_each_after_it(
    tmp_path: Path,
) -> None:
    clock = Clock()
    assert [begin(tmp_path / "state", clock)[0] for _ in range(5)] == [False, False, True, True, True]


def test_a_start_that_ended_as_it_should_counts_for_nothing(tmp_path: Path) -> None:
    clock = Clock()
    for _ in range(5):
        releases, starts = begin(tmp_path, clock)
        assert not releases
        starts.end()


def test_ends_that_are_ten_minutes_apart_do_not_add_up(tmp_path: Path) -> None:
    clock = Clock()
    assert not any(begin(tmp_path, clock, after=RECENT)[0] for _ in range(5))


def test_what_counts_is_when_it_was_killed_and_not_when_it_began(tmp_path: Path) -> None:
    clock = Clock()
    begin(tmp_path, clock)
    begin(tmp_path, clock, after=86_400)  # killed after a day
    assert begin(tmp_path, clock, after=60)[0]


def test_two_that_were_killed_are_not_forgotten_by_one_that_ended_well(tmp_path: Path) -> None:
    clock = Clock()
    begin(tmp_path, clock)
    begin(tmp_path, clock)
    begin(tmp_path, clock)[1].end()
    assert begin(tmp_path, clock)[0]


def test_a_clock_that_was_set_back_forgets(tmp_path: Path) -> None:
    clock = Clock()
    begin(tmp_path, clock)
    begin(tmp_path, clock)
    assert not begin(tmp_path, clock, after=-3600)[0]


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"runs": true}', '{"runs":1,"unclean":["x"]}', "null", "\0"]
)
def test_a_file_that_cannot_be_read_is_a_first_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    (tmp_path / FILE).write_text(text)
    assert not begin(tmp_path, Clock())[0]
    assert "cannot read how the last start ended" in caplog.text
    assert json.loads((tmp_path / FILE).read_text())["runs"] is True


def test_a_directory_that_cannot_be_written_is_said_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    (tmp_path / "file").write_text("")
    assert not begin(tmp_path / "file", Clock())[0]
    assert "cannot write down this start" in caplog.text
