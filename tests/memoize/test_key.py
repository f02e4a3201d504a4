"""Where the entry for a memoize key lies."""

import re
import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from memoize.key import belongs, data_key, digest, is_hashed
from memoize.step import Step

KUBERNETES_ALLOWS = re.compile(r"[-._a-zA-Z0-9]{1,253}")


@pytest.mark.parametrize("key", ["a", "hello-1", "A-", "0", "x" * 253, "sha256-abc", "sha256-" + "A" * 64])
def test_a_key_that_argo_allows_stands_for_itself(key: str):
    assert data_key(key) == key


@pytest.mark.parametrize(
    "key", ["", "-a", "a.b", "a b", "a\n", "é", "x" * 254, 'quote "', "sha256-" + "0" * 64, "٣"]
)
def test_any_other_key_is_hashed(key: str):
    assert is_hashed(data_key(key))


def test_the_digest_is_that_of_the_keys_utf8_form():
    assert data_key("é") == "sha256-4a99557e4033c3539de2eb65472017cad5f9557f7a0625a09f1c3f6e2ba69c4c"


def step_of(key: str) -> Step:
    return Step(key, "c", "", "n", "w", "u", "", False, False, None)


@given(st.text(st.characters(), max_size=300))
def test_kubernetes_takes_every_data_key(key: str):
    assert KUBERNETES_ALLOWS.fullmatch(data_key(key))


def argo_takes(key: str) -> bool:
    """Argo's cacheKeyRegex, spelt out: ASCII letters and digits, and after the first one a dash."""
    letters = frozenset(string.ascii_letters + string.digits)
    return bool(key) and key[0] in letters and letters.issuperset(key[1:].replace("-", ""))


@given(st.text("aZ09-._ \n٣é", max_size=8) | st.text("a-", min_size=250, max_size=256))
def test_a_key_is_its_own_place_where_argo_takes_it_and_it_is_not_too_long(key: str):
    assert (data_key(key) == key) == (argo_takes(key) and len(key) <= 253)


@pytest.mark.parametrize("said", ["a b", "sha256-" + digest("a b")])
def test_an_entry_belongs_to_a_hashed_place_by_its_key_or_by_the_place_itself(said: str):
    assert belongs(said, data_key("a b"))


@pytest.mark.parametrize("said", ["", "a  b", data_key("a  b"), "sha256-"])
def test_no_other_entry_belongs_to_a_hashed_place(said: str):
    assert not belongs(said, data_key("a b"))


KEYS = st.one_of(
    st.text("ab-.", max_size=4),
    st.text(max_size=300),
    st.text("ab-", max_size=260).map(data_key),
    st.text(max_size=3).map(data_key),
)


@given(KEYS, KEYS)
def test_steps_find_one_anothers_entries_if_they_have_one_key_however_it_is_handed_on(one: str, other: str):
    assume(one)  # no key is empty
    for step in (step_of(one), step_of(one).without_key()):
        assert Step.from_json(step.to_json()) == step
        for reader in (step_of(other), step_of(other).without_key()):
            assert (step.data_key == reader.data_key) == (one == other)
            assert one != other or belongs(step.entry_key, reader.data_key)


@given(KEYS, KEYS)
def test_no_authors_key_is_taken_for_what_stands_in_the_place_of_another(written: str, other: str):
    """An author may write a digest as his key; it has a place of its own all the same."""
    shortened = step_of(other).without_key().data_key
    assert step_of(data_key(other)).data_key != shortened or data_key(other) == other


@given(KEYS, KEYS)
def test_two_keys_never_share_a_place(one: str, other: str):
    assert (data_key(one) == data_key(other)) == (one == other)


@given(st.text(max_size=3))
def test_nobody_can_take_the_place_of_a_hashed_key_by_writing_its_digest(key: str):
    place = data_key(key)
    assert data_key(place) != place or not is_hashed(place)
