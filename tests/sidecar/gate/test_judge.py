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

from sidecar.gate import build


class Word(IntEnum):
    NONE, HIT, RUN = range(3)


class Mains(IntEnum):
    RUNNING, FAILED, SUCCEEDED = range(3)


class Waiter(IntEnum):
    NONE, ABSENT, RUNNING, FAILED, SUCCEEDED, KILLED = range(6)


class Asked(IntEnum):
    NOBODY, BY_ARGO, BY_RUNTIME = range(3)


class Act(IntEnum):
    STAY, STORE, LEAVE = range(3)


class Step(ctypes.Structure):
    _fields_ = [("word", ctypes.c_int), ("mains", ctypes.c_int), ("waiter", ctypes.c_int)]


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
        mains: Mains = Mains.SUCCEEDED,
        waiter: Waiter = Waiter.RUNNING,
        ended_ms_ago: int = 0,
        asked: Asked = Asked.NOBODY,
    ) -> tuple[Act, str | None]:
        verdict = function(ctypes.byref(Step(word, mains, waiter)), ended_ms_ago, asked)
        return Act(verdict.act), verdict.reason.decode() if verdict.reason else None

    return call


def test_a_step_is_stored_when_main_and_wait_ended_with_0(judge: Judge) -> None:
    assert judge(waiter=Waiter.SUCCEEDED) == (Act.STORE, None)


def test_a_step_without_wait_is_stored_when_main_ended_with_0(judge: Judge) -> None:
    assert judge(waiter=Waiter.NONE) == (Act.STORE, None)


def test_only_success_of_main_and_wait_is_ever_stored(judge: Judge) -> None:
    for state in itertools.product(Word, Mains, Waiter, (0, 10**8), Asked):
        word, mains, waiter, _, asked = state
        act, reason = judge(*state)
        if act is Act.STORE:
            assert word is not Word.HIT
            assert mains is Mains.SUCCEEDED
            assert waiter in (Waiter.SUCCEEDED, Waiter.NONE)
            assert asked is not Asked.BY_RUNTIME
        assert (reason is None) == (act is not Act.LEAVE)


def test_the_runtime_is_always_obeyed(judge: Judge) -> None:
    for word, mains, waiter in itertools.product(Word, Mains, Waiter):
        assert judge(word, mains, waiter, asked=Asked.BY_RUNTIME)[0] is Act.LEAVE


def test_argo_is_obeyed_unless_every_main_container_succeeded(judge: Judge) -> None:
    for waiter in Waiter:
        assert judge(mains=Mains.RUNNING, waiter=waiter, asked=Asked.BY_ARGO)[0] is Act.LEAVE
        assert judge(waiter=waiter, asked=Asked.BY_ARGO) == judge(waiter=waiter)


def test_a_hit_ends_the_wait(judge: Judge) -> None:
    for mains, waiter in itertools.product(Mains, Waiter):
        assert judge(Word.HIT, mains, waiter) == (Act.LEAVE, "Hit")


def test_a_failed_main_ends_the_wait_though_another_still_runs(judge: Judge) -> None:
    assert judge(mains=Mains.FAILED) == (Act.LEAVE, "StepFailed")


@pytest.mark.parametrize("mains", [Mains.RUNNING, Mains.SUCCEEDED])
@pytest.mark.parametrize("waiter", [Waiter.FAILED, Waiter.KILLED])
def test_a_failed_or_killed_wait_ends_the_wait(judge: Judge, mains: Mains, waiter: Waiter) -> None:
    assert judge(mains=mains, waiter=waiter) == (Act.LEAVE, "OutputsFailed")


def test_a_wait_that_never_comes_is_given_ten_seconds_after_main(judge: Judge) -> None:
    assert judge(mains=Mains.RUNNING, waiter=Waiter.ABSENT) == (Act.STAY, None)
    assert judge(waiter=Waiter.ABSENT, ended_ms_ago=9_999) == (Act.STAY, None)
    assert judge(waiter=Waiter.ABSENT, ended_ms_ago=10_000) == (Act.LEAVE, "OutputsFailed")


def test_a_wait_that_uploads_is_given_an_hour_after_main(judge: Judge) -> None:
    assert judge(ended_ms_ago=3_599_999) == (Act.STAY, None)
    assert judge(ended_ms_ago=3_600_000) == (Act.LEAVE, "OutputsFailed")
