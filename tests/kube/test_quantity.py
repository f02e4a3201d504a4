import contextlib
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kube.quantity import quantity


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1),
        ("+1.5", Fraction(3, 2)),
        (".5", Fraction(1, 2)),
        ("2.", 2),
        ("250m", Fraction(1, 4)),
        ("3n", Fraction(3, 10**9)),
        ("1k", 1000),
        ("64Mi", 64 * 1024**2),
        ("1E", 10**18),
        ("1Ei", 1024**6),
        ("1e3", 1000),
        ("1E3", 1000),
        ("12e-1", Fraction(6, 5)),
        (2, 2),
        (0.5, Fraction(1, 2)),
        ("0" * 40 + "1", 1),
    ],
)
def test_a_quantity_is_read_exactly(text: object, number: Fraction) -> None:
    assert quantity(text) == number


@pytest.mark.parametrize(
    "text", ["", "1 Gi", "1gi", "Mi", "1KI", "one", "1e", None, "1Mib", "0x10", "1e999999999"]
)
def test_what_is_no_quantity_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="not a Kubernetes quantity"):
        quantity(text)


@given(st.text(alphabet="0123456789.eE+-numkMGTPi", max_size=8))
def test_a_quantity_is_a_number_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(quantity(text), Fraction)
