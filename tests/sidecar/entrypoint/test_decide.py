"""One word per Pod: entrypoints and a checker race for it with real processes and files."""

import os
import threading
import time
from pathlib import Path

import pytest

TURNS = 60


class Checker:
    """The checker's half of the protocol: claim, post, decide; it gives way when the claim is taken."""

    def __init__(self, shared: Path) -> None:
        self.shared = shared
        self.posted = False

    def claim(self) -> bool:
        try:
            os.close(os.open(self.shared / "claim", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        return True

    def decide(self, word: str) -> None:
        self.posted = word == "hit"
        (self.shared / ".checker").write_text(word)
        os.link(self.shared / ".checker", self.shared / "decision")

    def check(self, after: float, word: str) -> None:
        moment = time.perf_counter() + after
        while time.perf_counter() < moment:
            pass
        if self.claim():
            self.decide(word)


def clean(shared: Path) -> None:
    for path in shared.iterdir():
        path.unlink()


def outcome(pod, entrypoints) -> int:
    """How many commands ran; none or all, with the word to match."""
    ran = [pod.end(entrypoint).stdout for entrypoint in entrypoints].count("ran\n")
    assert (pod.word, ran) in {("hit", 0), ("run", len(entrypoints))}
    assert pod.leftovers() == []
    return ran


@pytest.mark.parametrize("word", ["hit", "run"])
def test_two_entrypoints_and_a_checker_always_agree(pod, word: str) -> None:
    words = set()
    for turn in range(TURNS):
        checker = Checker(pod.shared)
        thread = threading.Thread(target=checker.check, args=(turn * 100e-6, word))
        thread.start()
        entrypoints = [pod.start("--", "echo", "ran"), pod.start("-r", "wait", "--", "echo", "ran")]
        ran = outcome(pod, entrypoints)
        thread.join()
        assert checker.posted == (ran == 0)
        words.add(pod.word)
        clean(pod.shared)
    assert word in words


def test_entrypoints_alone_always_run(pod) -> None:
    for _ in range(TURNS // 3):
        assert outcome(pod, [pod.start("--", "echo", "ran") for _ in range(4)]) == 4
        clean(pod.shared)


@pytest.mark.parametrize("word", ["hit", "run"])
@pytest.mark.parametrize("early", [0, 1, 2])
def test_entrypoints_that_come_before_and_after_the_word_agree_once_claimed(
    pod, early: int, word: str
) -> None:
    checker = Checker(pod.shared)
    assert checker.claim()
    before = [pod.waiting(pod.start("--", "echo", "ran")) for _ in range(early)]
    checker.decide(word)
    after = [pod.start("-r", "wait", "--", "echo", "ran") for _ in range(2 - early)]
    assert outcome(pod, before + after) == (0 if word == "hit" else 2)


def test_a_checker_that_comes_after_an_entrypoint_must_not_post(pod) -> None:
    assert pod.run("--", "echo", "ran").stdout == "ran\n"
    checker = Checker(pod.shared)
    checker.check(0, "hit")
    assert (checker.posted, pod.word) == (False, "run")


def test_a_checker_and_its_parent_always_leave_one_word(pod) -> None:
    """The check is killed at any moment: what it posted stands only with `hit`."""
    command = pod.script(
        "case $1 in check) (set -C; : > claim) && touch posted && echo hit > .w && ln .w decision;;"
        " retract) rm -f posted;; esac"
    )
    for turn in range(TURNS):
        assert pod.run("check", "-t", turn // 10, "--", *command).returncode == 0
        assert (pod.word, (pod.shared / "posted").exists()) in {("hit\n", True), ("run", False)}
        clean(pod.shared)
