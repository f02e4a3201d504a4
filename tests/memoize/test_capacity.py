from typing import Any

import pytest

from memoize import capacity, names
from memoize.configmap import MOST_BYTES


@pytest.mark.parametrize(
    ("text", "expected"),
    [("4096", 4096), ("4Ki", 4096), ("500k", 500_000), ("1M", 1_000_000), ("1Mi", MOST_BYTES)],
)
def test_a_number_of_bytes(text: str, expected: int):
    assert capacity.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "-1", "1.5Mi", "12 GB", "1Gi", "٣٤٥٦٧", "9" * 13, "1e6", " 5000", "4095", "0"]
)
def test_what_is_none_is_told(text: str):
    with pytest.raises(ValueError, match=r'such as "512Ki"|at least "4Ki"'):
        capacity.parse(text)


def config_map(value: object) -> dict[str, Any]:
    return {"metadata": {"annotations": {names.MAX_BYTES: value}}}


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ({}, 10_000),
        ({"metadata": None}, 10_000),
        ({"metadata": {"annotations": None}}, 10_000),
        ({"metadata": {"annotations": {"other": "5000"}}}, 10_000),
        (config_map("5000"), 5000),
        (config_map("1Mi"), 10_000),
    ],
)
def test_a_config_map_can_only_lower_its_limit(made: dict[str, Any], expected: int):
    assert capacity.limit(made, 10_000) == (expected, "")


def test_a_limit_that_is_none_is_told_by_name_and_value_and_ignored():
    limit = capacity.limit(config_map("12 GB" + "x" * 1000), 10_000)
    assert limit.bytes == 10_000
    assert limit.problem.startswith('annotation stepmemo.dev/max-bytes: "12 GBxxx')
    assert 'must be a number of bytes, such as "512Ki"' in limit.problem
    assert len(limit.problem) < 200
