from contextlib import ExitStack

import pytest

from server.refusals import Refusal, RefusedError
from webhook.under_way import UnderWay


def refusal(under_way: UnderWay, namespace: str, peer: str, share: float = 1.0) -> Refusal | None:
    """Why one more is refused."""
    try:
        with under_way.one(namespace, peer, share):
            return None
    except RefusedError as refused:
        return refused.refusal if refused.status == 503 else None


def test_one_namespace_has_half_of_all_and_the_others_the_rest() -> None:
    under_way = UnderWay(most=8)
    with ExitStack() as stack:
        for number in range(4):
            stack.enter_context(under_way.one("busy", f"peer-{number}"))
        assert refusal(under_way, "busy", "other") is Refusal.REVIEWS_OF_NAMESPACE
        for number in range(4):
            stack.enter_context(under_way.one(f"quiet-{number}", "other"))
        assert refusal(under_way, "quiet-9", "third") is Refusal.REVIEWS
    assert refusal(under_way, "busy", "other") is None


def test_one_address_leaves_a_quarter_to_the_others() -> None:
    under_way = UnderWay(most=8)
    with ExitStack() as stack:
        for number in range(6):
            stack.enter_context(under_way.one(f"forged-{number}", "flood"))
        assert refusal(under_way, "forged-6", "flood") is Refusal.REVIEWS_OF_ADDRESS
        assert refusal(under_way, "work", "api-server") is None


def test_who_has_a_smaller_share_is_refused_first() -> None:
    under_way = UnderWay(most=8)
    with ExitStack() as stack:
        for number in range(6):
            stack.enter_context(under_way.one(f"work-{number}", f"peer-{number}"))
        assert refusal(under_way, "pods", "peer", share=0.75) is Refusal.REVIEWS
        assert refusal(under_way, "workflows", "peer") is None


def test_nothing_is_kept_of_what_is_over() -> None:
    under_way = UnderWay(most=8)
    for number in range(100):
        with pytest.raises(ZeroDivisionError), under_way.one(f"work-{number}", "peer"):
            raise ZeroDivisionError
    assert not under_way._namespaces
    assert not under_way._peers
    assert refusal(under_way, "work", "peer") is None
