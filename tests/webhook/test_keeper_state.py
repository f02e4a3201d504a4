"""What admission believes of the keeper, from what its Lease shows and when."""

import json
from dataclasses import replace
from typing import Any

import pytest

from memoize.keeper_status import EVERY, NONE, KeeperStatus, Namespaces, digest
from tests.webhook.keeperstatus import FROZEN, READY, lease
from webhook.keeper_state import TRUST, Injection, KeeperState, SeenLease, injection, state

Json = dict[str, Any]


def seen(*looks: tuple[float, Json | None] | Json | None) -> SeenLease:
    """A Lease by what a list showed, and by what a watch did with the time that it did so at."""
    found = SeenLease()
    for look in looks:
        if isinstance(look, tuple):
            at, shown = look
            found.changed(shown, at)
        else:
            found.listed(look)
    return found


BELIEVED = {
    "a renewal after the first look": (lease(1), (100.0, lease(2))),
    "one by another holder": (lease(1), (100.0, lease(2, holder="b"))),
    "one after it was given up": (lease(1), (99.0, lease(2, holder="")), (100.0, lease(3, holder="b"))),
    "one of a Lease that was made before our eyes": (None, (99.0, lease(1)), (100.0, lease(2))),
    "a list after it": (lease(1), (100.0, lease(2)), lease(3)),
    "another writer after it": (lease(1), (100.0, lease(2)), (101.0, {**lease(2), "kind": "Lease"})),
}
NOT_BELIEVED = {
    "nothing seen": (),
    "no Lease": (None,),
    "the first look": (lease(1),),
    "the first look by a watch": (None, (100.0, lease(1))),
    "two lists, since nobody knows when it was renewed": (lease(1), lease(2)),
    "somebody wrote it who is not its holder": (lease(1, None), (100.0, lease(1))),
    "deleted": (lease(1), (99.0, lease(2)), (100.0, None)),
    "gone from the list": (lease(1), (100.0, lease(2)), None),
    "another of its name, as from a backup": (lease(1), (99.0, lease(2)), (100.0, lease(3, uid="v"))),
    "another of its name in the list": (lease(1), (100.0, lease(2)), lease(3, uid="v")),
    "given up": (lease(1), (99.0, lease(2)), (100.0, lease(3, holder=""))),
    "no word of the keeper's": (lease(1), (100.0, lease(2, None))),
    "what is not JSON": (lease(1), (100.0, lease(2, "{"))),
    "a status of another version": (
        lease(1),
        (100.0, lease(2, FROZEN.replace(":1,", ":2,", 1))),
    ),
    "fields of other kinds": (lease(1), (100.0, {"metadata": {"uid": "u", "annotations": 7}, "spec": []})),
    "no fields": (lease(1), (100.0, {"metadata": None})),
}


@pytest.mark.parametrize("looks", BELIEVED.values(), ids=BELIEVED)
def test_a_keeper_whose_renewal_was_seen_is_believed(looks: tuple[Any, ...]) -> None:
    assert seen(*looks).status(100.5) == READY


@pytest.mark.parametrize("looks", NOT_BELIEVED.values(), ids=NOT_BELIEVED)
def test_what_is_no_word_of_a_keeper_that_acts_is_not(looks: tuple[Any, ...]) -> None:
    assert seen(*looks).status(100.5) is None


@pytest.mark.parametrize(("after", "believed"), [(0.0, True), (2.9, True), (3.0, False), (3600.0, False)])
def test_a_keeper_that_falls_silent_is_believed_for_three_seconds(after: float, believed: bool) -> None:
    assert TRUST == 3.0
    found = seen(lease(1), (100.0, lease(2)))
    assert (found.status(100.0 + after) is not None) is believed


def test_a_list_makes_no_keeper_younger() -> None:
    found = seen(lease(1), (100.0, lease(2)), lease(3), lease(4))
    assert found.status(102.9) == READY
    assert found.status(103.0) is None


def test_what_a_list_shows_holds_at_once() -> None:
    busy = replace(READY, ready=False)
    assert seen(lease(1), (100.0, lease(2)), lease(3, busy)).status(100.5) == busy
    assert seen(lease(1), (100.0, lease(2)), lease(3, holder="")).status(100.5) is None


def test_a_keeper_that_comes_back_is_believed_from_its_first_renewal_on() -> None:
    found = seen(lease(1), (100.0, lease(2)))
    assert found.status(110.0) is None
    found.changed(lease(3), 110.0)
    assert found.status(110.0) == READY


SURE = {
    "a renewal": (lease(1), (100.0, lease(2))),
    "a renewal, and silence": (lease(1), (50.0, lease(2))),
    "a renewal by a keeper that cannot be understood": (lease(1, "{"), (100.0, lease(2, "{"))),
    "a renewal, and a new Lease": (lease(1), (99.0, lease(2)), (100.0, lease(3, uid="v"))),
    "no Lease": (None,),
    "nobody holds it": (lease(1, holder=""),),
    "given up": (lease(1), (100.0, lease(2, holder=""))),
    "deleted": (lease(1), (100.0, None)),
}
UNSURE = {
    "nothing seen": (),
    "the first look": (lease(1),),
    "renewed between two lists, nobody knows when": (lease(1), lease(2)),
    "somebody wrote it who is not its holder": (lease(1, None), (100.0, lease(1))),
    "another Lease": (lease(1), (100.0, lease(2, uid="v"))),
}


@pytest.mark.parametrize(
    ("looks", "unsure"),
    [(looks, False) for looks in SURE.values()] + [(looks, True) for looks in UNSURE.values()],
    ids=[*SURE, *UNSURE],
)
def test_whether_a_keeper_may_act_that_was_not_seen_to(looks: tuple[Any, ...], unsure: bool) -> None:
    assert seen(*looks).unsure is unsure


STATES = {
    "ready": (READY, KeeperState.READY),
    "gone": (None, KeeperState.GONE),
    "not in sync": (replace(READY, ready=False), KeeperState.BUSY),
    "keeps only others": (replace(READY, keeps=Namespaces.of(["b"])), KeeperState.ELSEWHERE),
    "keeps only others, and is busy": (
        replace(READY, ready=False, keeps=Namespaces.of(["b"])),
        KeeperState.ELSEWHERE,
    ),
    "keeps it too": (replace(READY, keeps=Namespaces.of(["a", "b"])), KeeperState.READY),
    "keeps none": (replace(READY, keeps=NONE), KeeperState.ELSEWHERE),
    "backlogged": (replace(READY, backlogged=Namespaces.of(["a"])), KeeperState.BUSY),
    "others backlogged": (replace(READY, backlogged=Namespaces.of(["b"])), KeeperState.READY),
    "too many backlogged to be named": (replace(READY, backlogged=EVERY), KeeperState.BUSY),
    "reads our plans and newer ones": (replace(READY, plans=frozenset({1, 2})), KeeperState.READY),
    "reads newer plans alone": (replace(READY, plans=frozenset({2})), KeeperState.BUSY),
    "does not say which plans it reads": (replace(READY, plans=frozenset()), KeeperState.BUSY),
}


@pytest.mark.parametrize(("status", "expected"), STATES.values(), ids=STATES)
def test_a_pod_is_gated_only_where_a_keeper_will_decide_it(
    status: KeeperStatus | None, expected: KeeperState
) -> None:
    assert state(status, "a") is expected


A, B = Namespaces.of(["a"]), Namespaces.of(["b"])
INJECTIONS = {
    "nothing amiss": (READY, Injection.ALLOWED),
    "stopped": (replace(READY, stopped=A), Injection.STOPPED),
    "others stopped": (replace(READY, stopped=B), Injection.ALLOWED),
    "on trial": (replace(READY, trial=A), Injection.TRIAL),
    "others on trial": (replace(READY, trial=B), Injection.ALLOWED),
    "too many stopped to be named": (replace(READY, stopped=EVERY), Injection.STOPPED),
    "named as on trial, and too many stopped": (replace(READY, stopped=EVERY, trial=A), Injection.TRIAL),
    "named as stopped, and too many on trial": (replace(READY, stopped=A, trial=EVERY), Injection.STOPPED),
    "too many of either, or none would ever be tried": (
        replace(READY, stopped=EVERY, trial=EVERY),
        Injection.TRIAL,
    ),
    "its last Pod": (replace(READY, troubled=(digest("a", "n"),)), Injection.TROUBLED),
    "its last Pod, and on trial": (
        replace(READY, trial=A, troubled=(digest("a", "n"),)),
        Injection.TROUBLED,
    ),
    "another step's last Pod": (replace(READY, troubled=(digest("a", "m"),)), Injection.ALLOWED),
}


@pytest.mark.parametrize(("status", "expected"), INJECTIONS.values(), ids=INJECTIONS)
def test_a_pod_is_injected_only_where_its_containers_can_start(
    status: KeeperStatus, expected: Injection
) -> None:
    assert injection(status, "a", "n") is expected


def test_the_first_version_of_the_status_is_believed_as_it_was_frozen() -> None:
    status = seen(lease(1, FROZEN), (100.0, lease(2, FROZEN))).status(100.0)
    assert status is not None
    assert state(status, "work") is KeeperState.READY
    assert state(status, "busy") is KeeperState.BUSY
    assert injection(status, "no-pull-secret", "n") is Injection.STOPPED


@pytest.mark.parametrize("field", json.loads(FROZEN))
def test_without_one_of_its_fields_no_pod_is_gated_that_would_wait_for_ever(field: str) -> None:
    fields = {name: value for name, value in json.loads(FROZEN).items() if name != field}
    told = json.dumps(fields)
    status = seen(lease(1, told), (100.0, lease(2, told))).status(100.0)
    needed = {
        "version": KeeperState.GONE,
        "keeps": KeeperState.ELSEWHERE,
        "ready": KeeperState.BUSY,
        "plans": KeeperState.BUSY,
    }
    assert state(status, "work") is needed.get(field, KeeperState.READY)
