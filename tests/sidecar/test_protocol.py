"""Every interleaving of the decision protocol, walked; and the walk itself, on protocols that are wrong."""

from itertools import combinations

import pytest

from tests.sidecar.protocol import Assumption, Bug, Delivery
from tests.sidecar.walk import Found, Wrong, explore, known

pytestmark = pytest.mark.slow

ANSWERED, RAN, MIXED = frozenset({"answered"}), frozenset({"started"}), frozenset({"answered", "started"})


@pytest.fixture(scope="module", params=Delivery)
def walked(request: pytest.FixtureRequest) -> tuple[Delivery, Found]:
    return request.param, explore(request.param, entrypoints=2)


def test_nothing_is_wrong_but_where_a_named_assumption_does_not_hold(walked: tuple[Delivery, Found]):
    delivery, found = walked
    assert found.least() == known(delivery), found.wrong


def test_even_then_all_entrypoints_agree_the_steps_own_report_stands_and_every_run_ends(
    walked: tuple[Delivery, Found],
):
    _, found = walked
    assert {wrong for wrong, _ in found.wrong} == {Wrong.BESIDE}


def test_the_walk_meets_hits_misses_and_pods_that_are_stopped(walked: tuple[Delivery, Found]):
    delivery, found = walked
    assert {("hit", ANSWERED), ("run", RAN)} <= found.ends
    # Only an init container that dies leaves no word: its Pod has failed, and nothing was started.
    wordless = {entrypoints for word, entrypoints in found.ends if not word}
    assert wordless == ({frozenset({"gone"})} if delivery is Delivery.INIT_CONTAINER else set())
    assert not any(entrypoints >= MIXED for _, entrypoints in found.ends)


def test_the_walk_is_not_a_short_one():
    assert len(explore(Delivery.VOLUME, entrypoints=1).states) > 10_000


def test_every_combination_of_lost_assumptions_was_walked(walked: tuple[Delivery, Found]):
    delivery, found = walked
    lost = {assumption for _, (assumption,) in known(delivery)}
    sets = {frozenset(some) for n in range(1, len(lost) + 1) for some in combinations(lost, n)}
    assert {given_up for _, given_up in found.wrong} <= sets
    assert {frozenset({assumption}) for assumption in lost} <= {given_up for _, given_up in found.wrong}


EXPECTED = {
    Bug.DECIDES_BEFORE_IT_POSTS: Wrong.UNFOUNDED,
    Bug.RUNS_WITHOUT_THE_CLAIM: Wrong.BESIDE,
    Bug.POSTS_BEFORE_IT_CLAIMS: Wrong.BESIDE,
    Bug.GUESSES_AFTER_A_CONFLICT: Wrong.UNFOUNDED,
    Bug.TRUSTS_A_LOST_POST: Wrong.BESIDE,
    Bug.DOES_NOT_RETRACT: Wrong.BESIDE,
    Bug.LEAVES_NOTHING_BEHIND: Wrong.BESIDE,
    Bug.RETRACTS_ANY_VERSION: Wrong.ERASED,
    Bug.LOOKS_BEFORE_IT_READS: Wrong.ERASED,
    Bug.IS_NOT_STARTED_AGAIN: Wrong.BESIDE,
    Bug.WAITS_FOR_EVER: Wrong.STUCK,
}


@pytest.mark.parametrize("bug", Bug, ids=lambda bug: bug.name)
def test_the_walk_finds_what_is_wrong_with_another_protocol(bug: Bug):
    found = explore(Delivery.VOLUME, entrypoints=2, bug=bug, until=known(Delivery.VOLUME))
    wrong = {wrong: (lost, way) for (wrong, lost), way in found.wrong.items() if wrong is EXPECTED[bug]}
    assert wrong, found.wrong
    print(bug.value, *wrong[EXPECTED[bug]], sep="\n  ")


def test_a_retraction_of_any_version_takes_the_steps_report_back_with_no_assumption_lost():
    """What the protocol did before: a late PATCH of a retraction met what the step had reported."""
    for delivery in Delivery:
        found = explore(delivery, entrypoints=1, bug=Bug.RETRACTS_ANY_VERSION)
        assert (Wrong.ERASED, frozenset()) in found.least()


def test_each_assumption_is_needed_for_itself():
    assert {lost for _, lost in known(Delivery.VOLUME)} == {frozenset({each}) for each in Assumption}
