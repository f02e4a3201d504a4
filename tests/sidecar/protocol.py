"""The decision protocol as a model small enough to try every interleaving of it.

What acts: the sidecar's entrypoint, the parent of Python (`answer.c`, `capture.c`); Python itself
(`check.py`, `result.py`); the entrypoints in front of the step's own commands (`decide.c`); the step, which
reports; and the network, which may lose an answer, or deliver a request at any later moment or never. Every
step of an actor is one access to what they share: the claim, the decision, the step's WorkflowTaskResult.
Time has no measure here: whatever may be over, may be over now. test_conformance.py holds the programs
against the same order.

`walk.py` explores all states; a `Bug` breaks the protocol, to see that the walk finds it.
"""

from collections.abc import Iterator
from enum import Enum, IntEnum
from typing import NamedTuple


class Delivery(Enum):
    INIT_CONTAINER = "init-container"
    """Our entrypoint is in an init container: it ends before others start; the Pod fails if it dies."""
    VOLUME = "image-volume"
    """It runs beside the others, and is started again once when it is killed with all that is in it."""


class Assumption(Enum):
    """What no protocol could make up for. Each state knows what was given up on its way."""

    RETRACTION_LANDS = "Python can run, and the API server takes a retraction, within the time for it"
    NOT_KILLED_TWICE = "the sidecar's container is not killed a second time before there is a word"
    OWNER_ANSWERS = "a sidecar that lives, or is started again, decides before an entrypoint gives up on it"


class Bug(Enum):
    """A protocol that is not ours."""

    DECIDES_BEFORE_IT_POSTS = "hit is written, then the result posted"
    RUNS_WITHOUT_THE_CLAIM = "an entrypoint that loses the claim runs"
    POSTS_BEFORE_IT_CLAIMS = "the claim is taken to decide, not to post"
    GUESSES_AFTER_A_CONFLICT = "a 409 is taken for a result of ours without reading it"
    TRUSTS_A_LOST_POST = "a POST without an answer is taken for one that failed"
    DOES_NOT_RETRACT = "the parent of a dead check writes run at once"
    LEAVES_NOTHING_BEHIND = "a retraction that finds no result leaves none"
    RETRACTS_ANY_VERSION = "the retraction takes back whatever is there when it arrives"
    LOOKS_BEFORE_IT_READS = "the retraction looks for the decision first, then reads what to take back"
    IS_NOT_STARTED_AGAIN = "the container that was killed stays dead, and counts as restarted"
    WAITS_FOR_EVER = "an entrypoint never gives up on the owner of the claim"


class Result(IntEnum):
    """The step's WorkflowTaskResult; each stands for a resourceVersion as well, for none ever comes back."""

    NONE = 0
    OURS = 1
    """Complete, with the outputs of an entry, as it was posted."""
    EMPTY = 2
    """Taken back, or kept out, or there before and somebody else's: not complete, and not ours."""
    STEP = 3
    """The step reported."""
    OVER_OURS = 4
    """The step reported into ours: our annotation is still there."""
    ERASED = 5
    """The step's report was taken back."""


OURS = (Result.OURS, Result.OVER_OURS)
"""What carries our annotation."""

_MOST_LOST = 2
"""Requests of one Python process whose answer is lost: the first attempt, and the last."""


class Py(NamedTuple):
    """A Python process: what it does next, and what it has in mind. `at` "ended" is its exit."""

    verb: str
    at: str
    seen: Result = Result.NONE
    """The version that a retraction is for."""
    sure: bool = True
    """No POST of it went unanswered."""
    lost: int = 0
    good: bool = False
    """A retraction succeeded."""


class State(NamedTuple):
    """All there is. Entrypoints are interchangeable: kept sorted."""

    parent: str = "start"
    python: Py | None = None
    kills: int = 0
    entrypoints: tuple[str, ...] = ()
    claim: bool = False
    word: str = ""
    result: Result = Result.NONE
    posts: int = 0
    """POSTs on their way."""
    patch: Result | None = None
    """A PATCH on its way, and the version that it is for."""
    empty: bool = False
    """The POST of an empty result on its way."""
    given_up: frozenset[Assumption] = frozenset()


GONE = ("answered", "started", "gone")
"""Where an entrypoint is through; `gone` was stopped or killed before it came to anything."""
ENDED = ("done", "dead")


class Model:
    """The steps of all actors, for one way to deliver the entrypoint."""

    def __init__(self, delivery: Delivery, bug: Bug | None = None) -> None:
        self.delivery = delivery
        self.bug = bug

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        """What the actors do next of themselves."""
        yield from self._parent(state)
        if state.python and state.python.at != "ended":
            yield from self._python(state, state.python)
        for entrypoint in self._open(state):
            for what, then, after in self._entrypoint(state, entrypoint):
                yield f"entrypoint: {what}", _entrypoint(after, entrypoint, then)
        if "started" in state.entrypoints and state.result <= Result.EMPTY:
            over = state.result is Result.OURS
            yield "the step reports", state._replace(result=Result.OVER_OURS if over else Result.STEP)

    def strokes(self, state: State) -> Iterator[tuple[str, State]]:
        """What may befall them, or never: kills, and requests that arrive long after they were sent."""
        yield from self._kill(state)
        if state.python and state.python.at != "ended":
            yield "python dies", _python(state, at="ended", good=False)
        for entrypoint in self._open(state):
            yield "entrypoint: is stopped or killed", _entrypoint(state, entrypoint, "gone")
        if state.posts:
            yield "a POST arrives late", _posted(state)._replace(posts=state.posts - 1)
        if state.patch is not None:
            yield "a retraction arrives late", _taken_back(state, state.patch)[1]._replace(patch=None)
        if state.empty:
            yield "an empty result arrives late", _kept_out(state)._replace(empty=False)

    # --- the sidecar's entrypoint: answer.c, and after_a_kill in capture.c ---

    def _parent(self, state: State) -> Iterator[tuple[str, State]]:
        python = state.python
        if state.parent == "start":
            at = "claim" if self.bug is not Bug.POSTS_BEFORE_IT_CLAIMS else "post"
            checking = state._replace(parent="check")
            yield "parent: runs check, a miss", checking._replace(python=Py("check", "claim miss"))
            yield "parent: runs check, an entry answers", checking._replace(python=Py("check", at))
        elif state.parent == "check":
            how = "parent: sees check end" if python and python.at == "ended" else "parent: kills check"
            yield how, state._replace(parent="settle", python=None)
        elif state.parent == "settle":
            yield "parent: looks for the word", state._replace(parent="done" if state.word else "claim")
        elif state.parent == "claim":
            if not state.claim or self.bug is Bug.DOES_NOT_RETRACT:
                yield "parent: claims", state._replace(parent="decide", claim=True)
            else:
                yield "parent: runs retract", state._replace(parent="retract", python=Py("retract", "look"))
        elif state.parent == "retract":
            assert python
            after = state._replace(parent="decide", python=None)
            if python.at == "ended" and python.good:
                yield "parent: sees retract succeed", after
            else:
                yield "parent: gives the retraction up", _give_up(after, Assumption.RETRACTION_LANDS)
        elif state.parent == "decide":
            yield "parent: decides run", _decide(state, "run")._replace(parent="done")

    def _kill(self, state: State) -> Iterator[tuple[str, State]]:
        if state.parent in ENDED:
            return
        after = state._replace(python=None, kills=state.kills + 1)
        if self.delivery is Delivery.INIT_CONTAINER:
            yield (
                "the Pod fails",
                after._replace(parent="dead", entrypoints=("gone",) * len(state.entrypoints)),
            )
        elif state.kills == 0 and self.bug is not Bug.IS_NOT_STARTED_AGAIN:
            yield "the sidecar is killed and started again", after._replace(parent="settle")
        else:
            after = after._replace(parent="dead")
            again = state.kills and not state.word
            lost = _give_up(after, Assumption.NOT_KILLED_TWICE) if again else after
            yield "the sidecar is killed for good", lost

    # --- an entrypoint before a command: decide.c ---

    def _open(self, state: State) -> set[str]:
        """Where entrypoints are that are there and not through."""
        there = self.delivery is Delivery.VOLUME or state.parent in ENDED
        return set(state.entrypoints).difference(GONE) if there else set()

    def _entrypoint(self, state: State, entrypoint: str) -> Iterator[tuple[str, str, State]]:
        if entrypoint in ("wait", "owner") and state.word:
            yield "sees the word", _end_of_entrypoint(state), state
        elif entrypoint == "wait":
            yield "waited long enough", "claim", state
        elif entrypoint == "claim":
            if not state.claim:
                yield "claims", "write", state._replace(claim=True)
            elif self.bug is Bug.RUNS_WITHOUT_THE_CLAIM:
                yield "runs", "started", state
            else:
                yield "loses the claim", "owner", state
        elif entrypoint == "owner":
            if self.bug is not Bug.WAITS_FOR_EVER:
                dead = state.parent == "dead"
                after = state if dead else _give_up(state, Assumption.OWNER_ANSWERS)
                yield "gives up on the owner", "write", after
        elif entrypoint == "write":
            after = _decide(state, "run")
            yield "decides", _end_of_entrypoint(after), after

    # --- Python: check.py, result.py ---

    def _python(self, state: State, python: Py) -> Iterator[tuple[str, State]]:
        at = python.at
        if at in ("claim", "claim miss"):
            if state.claim:
                yield "check: loses the claim", _python(state, at="ended")
                return
            first = "decide hit" if self.bug is Bug.DECIDES_BEFORE_IT_POSTS else "post"
            if self.bug is Bug.POSTS_BEFORE_IT_CLAIMS:
                first = "decide hit"
            then = first if at == "claim" else "decide run"
            yield "check: claims", _python(state._replace(claim=True), at=then)
        elif at == "post":
            yield from self._post(state, python)
        elif at == "read":
            ours = state.result in OURS or self.bug is Bug.GUESSES_AFTER_A_CONFLICT
            yield "check: reads", _python(state, at="decide hit" if ours else "decide run")
            yield "check: cannot read", _python(state, at="retract")
        elif at == "decide hit":
            after = _decide(state, "hit")
            if self.bug is Bug.DECIDES_BEFORE_IT_POSTS:
                then = "post" if after.word == "hit" else "ended"
            elif after.word == "hit":
                then = "ended"
            else:
                then = "too late" if python.seen is Result.OURS else "ended"
            yield "check: decides hit", _python(after, at=then)
        elif at == "decide run":
            yield "check: decides run", _python(_decide(state, "run"), at="ended")
        elif at == "too late":
            yield from self._patch(state, python, "ended")
        else:
            yield from self._retract(state, python)

    def _post(self, state: State, python: Py) -> Iterator[tuple[str, State]]:
        posted = _posted(state)
        done = "claim" if self.bug is Bug.POSTS_BEFORE_IT_CLAIMS else "decide hit"
        if self.bug is Bug.DECIDES_BEFORE_IT_POSTS:
            done = "ended"
        if posted.result is not state.result:
            yield "check: POST, created", _python(posted, at=done, seen=Result.OURS)
        elif state.result is not Result.NONE:
            yield "check: POST, conflict", _python(state, at="read")
        else:
            raise AssertionError(state)
        sure = python.sure or self.bug is Bug.TRUSTS_A_LOST_POST
        yield "check: POST, refused", _python(state, at="decide run" if sure else "retract")
        if python.lost < _MOST_LOST:
            last = python.lost + 1 == _MOST_LOST
            out = "decide run" if self.bug is Bug.TRUSTS_A_LOST_POST else "retract"
            lost = {"at": out if last else "post", "sure": False, "lost": python.lost + 1}
            yield "check: POST, never arrives", _python(state, **lost)
            yield "check: POST, arrives, answer lost", _python(posted, **lost)
            yield "check: POST, on its way", _python(state._replace(posts=state.posts + 1), **lost)

    def _retract(self, state: State, python: Py) -> Iterator[tuple[str, State]]:
        """`_retract` of check.py, for both verbs: only the check writes the word itself."""
        at, verb = python.at, python.verb
        done = "decide run" if verb == "check" else "ended"
        good: dict[str, object] = {"at": done, "good": True}
        if at == "look":  # the verb, once
            yield "retract: looks for the word", _python(state, **(good if state.word else {"at": "retract"}))
        elif at == "retract":
            yield f"{verb}: reads to retract, in vain", _python(state, at="ended")
            if state.result is Result.NONE:
                keep = self.bug is not Bug.LEAVES_NOTHING_BEHIND
                yield f"{verb}: finds no result", _python(state, **({"at": "keep out"} if keep else good))
            elif state.result not in OURS:
                yield f"{verb}: finds a result not ours", _python(state, **good)
            else:
                blind = self.bug is Bug.LOOKS_BEFORE_IT_READS
                then = "take back" if blind else "look again"
                yield f"{verb}: finds ours", _python(state, at=then, seen=state.result)
        elif at == "look again":
            decided = good if state.word else {"at": "take back"}
            yield f"{verb}: looks for the word", _python(state, **decided)
        elif at == "take back":
            yield from self._patch(state, python, done)
        elif at == "keep out":
            kept = _kept_out(state)
            if kept.result is not state.result:
                yield f"{verb}: leaves an empty result", _python(kept, **good)
            else:
                yield f"{verb}: meets a late result", _python(state, at="retract")
            yield f"{verb}: is refused", _python(state, at="ended")
            if python.lost < 2 * _MOST_LOST:
                lost = {"lost": python.lost + 1}
                yield f"{verb}: empty, answer lost", _python(kept, **lost)
                yield f"{verb}: empty, on its way", _python(state._replace(empty=True), **lost)

    def _patch(self, state: State, python: Py, then: str) -> Iterator[tuple[str, State]]:
        verb, seen = python.verb, python.seen
        if self.bug is Bug.RETRACTS_ANY_VERSION:
            seen = Result.NONE
        done, after = _taken_back(state, seen)
        if done:
            yield f"{verb}: takes back", _python(after, at=then, good=True)
        else:
            conflict = "ended" if python.at == "too late" else "retract"
            yield f"{verb}: conflict", _python(state, at=conflict)
        yield f"{verb}: is refused", _python(state, at="ended")
        if python.lost < 2 * _MOST_LOST:
            lost = {"lost": python.lost + 1}
            yield f"{verb}: takes back, answer lost", _python(after, **lost)
            yield f"{verb}: takes back, on its way", _python(state._replace(patch=seen), **lost)


def _python(state: State, **changes: object) -> State:
    assert state.python
    return state._replace(python=state.python._replace(**changes))  # type: ignore[arg-type]


def _entrypoint(state: State, one: str, then: str) -> State:
    """One of the entrypoints that are at the same point goes on."""
    others = list(state.entrypoints)
    others[others.index(one)] = then
    return state._replace(entrypoints=tuple(sorted(others)))


def _give_up(state: State, assumption: Assumption) -> State:
    return state._replace(given_up=state.given_up | {assumption})


def _decide(state: State, word: str) -> State:
    """Link the decision: the first word stands."""
    return state if state.word else state._replace(word=word)


def _end_of_entrypoint(state: State) -> str:
    return "answered" if state.word == "hit" else "started"


def _posted(state: State) -> State:
    """The API server gets our POST; it makes a result only where there is none."""
    return state._replace(result=Result.OURS) if state.result is Result.NONE else state


def _kept_out(state: State) -> State:
    return state._replace(result=Result.EMPTY) if state.result is Result.NONE else state


def _taken_back(state: State, version: Result) -> tuple[bool, State]:
    """The API server gets a retraction for a version (NONE: for any); whether it applies."""
    if state.result is Result.NONE or version not in (Result.NONE, state.result):
        return False, state
    reported = state.result in (Result.STEP, Result.OVER_OURS)
    return True, state._replace(result=Result.ERASED if reported else Result.EMPTY)
