import os
from pathlib import Path

import pytest

from bench.inotify import Watch


def test_a_file_made_moved_or_linked_there_is_seen(tmp_path: Path) -> None:
    watched, aside = tmp_path / "watched", tmp_path / "aside"
    watched.mkdir()
    aside.touch()
    with Watch(watched) as watch:
        (watched / "other").touch()
        (watched / "made").touch()
        first = watch.wait_for("made", 10)
        os.link(aside, watched / "linked")
        second = watch.wait_for("linked", 10)
        aside.rename(watched / "moved")
        assert first < second < watch.wait_for("moved", 10)


def test_a_file_that_never_comes_ends_the_waiting(tmp_path: Path) -> None:
    with Watch(tmp_path) as watch, pytest.raises(TimeoutError, match="no file x"):
        watch.wait_for("x", 0.01)
