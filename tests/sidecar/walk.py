"""A walk through every state of the protocol, with everything in it that must not be."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from tests.sidecar.protocol import ENDED, GONE, Assumption, Bug, Delivery, Model, Result, State


class Wrong(Enum):
    """What must not be."""

    DISAGREE = "one command started, another one exited as answered"
    TWO_WORDS = "the decision changed"
    UNFOUNDED = "`hit` without our complete result at the API server"
    BESIDE = "an answer of ours stands while the step runs"
    ERASED = "what the step itself reported was taken back"
    STUCK = "somebody waits for ever"
    ENDLESS = "a run that need not end"


Known = frozenset[tuple[Wrong, frozenset[Assumption]]]


@dataclass
class Found:
    """What a walk saw: all states, how the runs ended, and the ways to what must not be."""

    states: list[State] = field(default_factory=list)
    ends: set[tuple[str, frozenset[str]]] = field(default_factory=set)
    """Word, and what became of the entrypoints, of every run that lost no assumption."""
    wrong: dict[tuple[Wrong, frozenset[Assumption]], list[str]] = field(default_factory=dict)
    """By what is wrong and which assumptions were given up: the shortest way there."""

    def least(self) -> Known:
        """What is wrong with no more given up than it takes."""
        return frozenset(
            (wrong, lost)
            for wrong, lost in self.wrong
            if not any(other is wrong and less < lost for other, less in self.wrong)
        )


def _follows(wrong: Wrong, lost: frozenset[Assumption], from_known: Known) -> bool:
    """Whether so much being wrong is no news, given what is known: no more than that was lost already."""
    return any(other is wrong and less <= lost for other, less in from_known)


def known(delivery: Delivery) -> Known:
    """What is wrong where an assumption does not hold, and in no other case."""
    lost = [Assumption.RETRACTION_LANDS]
    if delivery is Delivery.VOLUME:
        lost += [Assumption.NOT_KILLED_TWICE, Assumption.OWNER_ANSWERS]
    return frozenset((Wrong.BESIDE, frozenset((assumption,))) for assumption in lost)


def explore(
    delivery: Delivery, entrypoints: int, bug: Bug | None = None, until: Known = frozenset()
) -> Found:
    """Walk every state that `entrypoints` entrypoints and one sidecar can get into, the nearest first.

    With `until`, the walk ends at the first thing that is wrong and does not follow from it.
    """
    model = Model(delivery, bug)
    states = [
        State(entrypoints=("wait",) * entrypoints, result=result) for result in (Result.NONE, Result.EMPTY)
    ]
    numbers = {state: number for number, state in enumerate(states)}
    came: list[tuple[int, str]] = [(-1, "")] * len(states)
    nexts: list[list[int]] = []
    found = Found()
    while len(nexts) < len(states):
        number, state = len(nexts), states[len(nexts)]
        own = list(model.steps(state))
        if not own and not state.given_up:
            found.ends.add((state.word, frozenset(state.entrypoints)))
        wrongs = [*_wrongs(state, bool(own))]
        following = []
        for what, after in (*own, *model.strokes(state)):
            if after not in numbers:
                numbers[after] = len(states)
                states.append(after)
                came.append((number, what))
            following.append(numbers[after])
            if state.word and after.word != state.word:
                wrongs.append(Wrong.TWO_WORDS)
        nexts.append(following)
        for wrong in wrongs:
            found.wrong.setdefault((wrong, state.given_up), _way(came, number))
            if until and not _follows(wrong, state.given_up, until):
                return found
    found.states = states
    if not _all_end(nexts):
        found.wrong[Wrong.ENDLESS, frozenset()] = []
    return found


def _wrongs(state: State, moves: bool) -> Iterator[Wrong]:
    started, answered = "started" in state.entrypoints, "answered" in state.entrypoints
    if started and answered:
        yield Wrong.DISAGREE
    if state.word == "hit" and state.result is not Result.OURS:
        yield Wrong.UNFOUNDED
    if started and state.result is Result.OURS:
        yield Wrong.BESIDE
    if state.result is Result.ERASED:
        yield Wrong.ERASED
    if not moves and not (
        state.parent in ENDED and all(entrypoint in GONE for entrypoint in state.entrypoints)
    ):
        yield Wrong.STUCK


def _all_end(nexts: list[list[int]]) -> bool:
    """Whether no state comes after itself, so that every run ends: then there is an order of all states."""
    into = Counter(after for following in nexts for after in following)
    ready, ordered = [number for number in range(len(nexts)) if not into[number]], 0
    while ready:
        ordered += 1
        for after in nexts[ready.pop()]:
            into[after] -= 1
            if not into[after]:
                ready.append(after)
    return ordered == len(nexts)


def _way(came: list[tuple[int, str]], number: int) -> list[str]:
    """The steps from a first state to this one."""
    way = []
    while came[number][1]:
        number, what = came[number]
        way.append(what)
    return way[::-1]
