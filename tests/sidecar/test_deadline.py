"""Time that runs out."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from sidecar.deadline import Deadline, process_age

ROOT = Path(__file__).parents[2]


def test_the_age_of_a_process_counts_the_time_that_python_took_to_come_up():
    code = "import time; time.sleep(0.2); from sidecar.deadline import process_age; print(process_age())"
    start = time.monotonic()
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 0.19 <= float(shown.stdout) <= time.monotonic() - start + 0.02


def test_a_process_is_never_younger_than_nothing():
    assert process_age() >= 0


def test_a_part_ends_when_its_share_of_the_whole_is_over():
    now = time.monotonic()
    whole = Deadline(100, now - 50)
    assert whole.remaining == pytest.approx(50, abs=5)
    assert whole.part(0.6).remaining == pytest.approx(10, abs=5)
    assert whole.part(0.4).over


def test_a_pause_that_would_outlast_the_time_is_not_begun():
    start = time.monotonic()
    assert not Deadline(1).pause(5)
    assert time.monotonic() - start < 1
    assert Deadline(5).pause(0)


def test_what_is_over_stays_over():
    over = Deadline(0)
    assert over.over
    assert over.remaining == 0
