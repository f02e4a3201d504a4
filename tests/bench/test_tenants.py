"""Which loads are taken, how large; and the memory that a process and its children had."""

import subprocess
import sys
from argparse import ArgumentParser, Namespace

import pytest

from bench import tenants
from bench.peak import Peak, peaks
from tests.cluster import wait_for


def parsed(*words: str) -> Namespace:
    parser = ArgumentParser()
    tenants.add_arguments(parser)
    return parser.parse_args(words)


def test_all_loads_are_taken_whole_unless_others_are_named() -> None:
    assert (len(parsed().loads), parsed().share) == (len(tenants.LOADS) + 1, 1)
    assert parsed("--loads=gated,ends", "--share=0.1").loads == ("gated", "ends")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("--loads=gated,held", "no such load: held; there are parameters,"),
        ("--share=0", "'0' is not more than 0 and at most 1, such as 0.1"),
        ("--share=2", "'2' is not more than 0"),
        ("--share=much", "'much' is not more than 0"),
    ],
)
def test_a_wrong_argument_is_told_with_what_to_write(
    word: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parsed(word)
    assert said in capsys.readouterr().err


def test_names_of_loads_are_unlike_and_times_add_up_to_less_than_twelve_minutes() -> None:
    assert len({load.name for load in tenants.LOADS}) == len(tenants.LOADS)
    assert sum(load.seconds for load in tenants.LOADS) < 12 * 60


def test_memory_of_a_child_counts_and_of_a_process_that_is_gone_is_none() -> None:
    child = "import sys; held = bytearray(100 << 20); print('held', flush=True); sys.stdin.read()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with peaks(process.pid) as (seen,):
            assert process.stdout.readline() == b"held\n"
            wait_for(lambda: seen.mib > 100)
            process.stdin.close()
            process.wait()
        assert seen.died
        assert seen.mib > 100
        assert Peak(process.pid).died
