"""The sidecar's judgement is a pure function: it is called here as it is, out of the C source."""

import ctypes
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path

import pytest

from sidecar.entrypoint import build


class Word(IntEnum):
    NONE, HIT, RUN = range(3)


class Ended(IntEnum):
    SUCCEEDED, RUNNING, ABSENT, KILLED, FAILED = range(5)


class Asked(IntEnum):
    NOBODY, BY_ARGO, BY_RUNTIME = range(3)


class Act(IntEnum):
    STAY, STORE, LEAVE = range(3)


class Step(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in ("word", "mains", "waiter", "sidecars")]


class Verdict(ctypes.Structure):
    _fields_ = [("act", ctypes.c_int), ("reason", ctypes.c_char_p), ("text", ctypes.c_char_p)]


Judge = Callable[..., tuple[Act, str | None]]


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    library = tmp_path_factory.mktemp("judge") / "judge.so"
    source = Path(build.SOURCES, "judge.c")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "ziglang",
            "cc",
            "-std=c17",
            "-shared",
            "-fPIC",
            "-nostdlib",
            source,
            "-o",
            library,
        ],
        env={**os.environ, "ZIG_LOCAL_CACHE_DIR": str(library.parent)},
        check=True,
    )
    function = ctypes.CDLL(str(library)).judge
    function.restype = Verdict
    function.argtypes = [ctypes.POINTER(Step), ctypes.c_long, ctypes.c_int]

    def call(
        word: Word = Word.RUN,
        mains: Ended = Ended.SUCCEEDED,
        waiter: Ended = Ended.RUNNING,
        sidecars: Ended = Ended.SUCCEEDED,
        ended_ms_ago: int = 0,
        asked: Asked = Asked.NOBODY,
    ) -> tuple[Act, str | None]:
        step = Step(word, mains, waiter, sidecars)
        verdict = function(ctypes.byref(step), ended_ms_ago, asked)
        return Act(verdict.act), verdict.reason.decode() if verdict.reason else None

    return call


def test_a_step_is_stored_when_all_of_it_succeeded(judge: Judge) -> None:
    assert judge(waiter=Ended.SUCCEEDED) == (Act.STORE, None)


def test_only_success_of_all_is_ever_stored(judge: Judge) -> None:
    for state in itertools.product(Word, Ended, Ended, Ended, (0, 10**8), Asked):
        word, *ends, _, asked = state
        act, reason = judge(*state)
        if act is Act.STORE:
            assert word is not Word.HIT
            assert ends == [Ended.SUCCEEDED] * 3
            assert asked is not Asked.BY_RUNTIME
        assert (reason is None) == (act is not Act.LEAVE)


def test_the_runtime_is_always_obeyed(judge: Judge) -> None:
    for state in itertools.product(Word, Ended, Ended, Ended):
        assert judge(*state, asked=Asked.BY_RUNTIME)[0] is Act.LEAVE


def test_argo_is_obeyed_unless_every_main_container_succeeded(judge: Judge) -> None:
    for waiter, sidecars in itertools.product(Ended, Ended):
        others = {"waiter": waiter, "sidecars": sidecars}
        assert judge(mains=Ended.RUNNING, **others, asked=Asked.BY_ARGO)[0] is Act.LEAVE
        assert judge(**others, asked=Asked.BY_ARGO) == judge(**others)


def test_a_hit_ends_the_wait(judge: Judge) -> None:
    for ends in itertools.product(Ended, Ended, Ended):
        assert judge(Word.HIT, *ends) == (Act.LEAVE, "Hit")


@pytest.mark.parametrize("mains", [Ended.FAILED, Ended.KILLED])
def test_a_failed_or_killed_main_ends_the_wait(judge: Judge, mains: Ended) -> None:
    assert judge(mains=mains) == (Act.LEAVE, "StepFailed")


@pytest.mark.parametrize("mains", [Ended.RUNNING, Ended.SUCCEEDED])
def test_a_failed_sidecar_ends_the_wait(judge: Judge, mains: Ended) -> None:
    assert judge(mains=mains, sidecars=Ended.FAILED) == (Act.LEAVE, "StepFailed")


@pytest.mark.parametrize("mains", [Ended.RUNNING, Ended.SUCCEEDED])
@pytest.mark.parametrize("waiter", [Ended.FAILED, Ended.KILLED])
def test_a_failed_or_killed_wait_ends_the_wait(judge: Judge, mains: Ended, waiter: Ended) -> None:
    assert judge(mains=mains, waiter=waiter) == (Act.LEAVE, "OutputsFailed")


@pytest.mark.parametrize("kind", ["waiter", "sidecars"])
def test_a_container_that_never_comes_is_given_ten_seconds_after_main(judge: Judge, kind: str) -> None:
    ends = {"waiter": Ended.SUCCEEDED, kind: Ended.ABSENT}
    assert judge(mains=Ended.RUNNING, **ends) == (Act.STAY, None)
    assert judge(**ends, ended_ms_ago=9_999) == (Act.STAY, None)
    assert judge(**ends, ended_ms_ago=10_000) == (Act.LEAVE, "OutputsFailed")


@pytest.mark.parametrize("kind", ["waiter", "sidecars"])
def test_what_runs_on_is_given_an_hour_after_main(judge: Judge, kind: str) -> None:
    ends = {"waiter": Ended.SUCCEEDED, kind: Ended.RUNNING}
    assert judge(**ends, ended_ms_ago=3_599_999) == (Act.STAY, None)
    assert judge(**ends, ended_ms_ago=3_600_000) == (Act.LEAVE, "OutputsFailed")
