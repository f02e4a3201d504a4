from kube.backoff import Backoff


def test_pauses_double_up_to_the_longest_and_are_cut_by_a_half_at_most() -> None:
    backoff = Backoff(1, 5)
    for most in (1, 2, 4, 5, 5):
        assert most / 2 <= backoff.next() <= most


def test_after_a_success_the_first_pause_comes_again() -> None:
    backoff = Backoff(1, 5)
    backoff.next()
    backoff.next()
    backoff.reset()
    assert backoff.next() <= 1
