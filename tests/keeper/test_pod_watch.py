from typing import Any

from keeper.pod_watch import Pods

Json = dict[str, Any]


class Told:
    """What the keeper was told."""

    def __init__(self) -> None:
        self.here: set[str] = set()
        self.gone: list[str] = []
        self.pods = Pods(self.see, self.leave)

    def see(self, pod: Json, *, new: bool) -> str:
        uid: str = pod["metadata"]["uid"]
        self.here.add(uid)
        return uid

    def leave(self, uid: str) -> None:
        self.here.discard(uid)
        self.gone.append(uid)


def pod(uid: str) -> Json:
    return {"metadata": {"uid": uid}}


def test_what_a_list_does_not_name_any_more_has_gone() -> None:
    told = Told()
    for uids in (("a", "b"), ("b", "c")):
        told.pods.begin()
        for uid in uids:
            told.pods.listed(pod(uid))
        told.pods.end()
    assert told.gone == ["a"]
    assert told.here == {"b", "c"}


def test_what_only_a_list_that_broke_off_named_goes_with_the_next_one() -> None:
    told = Told()
    told.pods.begin()
    told.pods.listed(pod("a"))
    told.pods.begin()
    told.pods.listed(pod("b"))
    told.pods.end()
    assert told.gone == ["a"]


def test_events_count_as_well() -> None:
    told = Told()
    told.pods.begin()
    told.pods.end()
    told.pods.changed("ADDED", pod("a"))
    told.pods.changed("MODIFIED", pod("b"))
    told.pods.changed("DELETED", pod("a"))
    assert told.here == {"b"}
    told.pods.begin()
    told.pods.end()
    assert told.gone == ["a", "b"]
