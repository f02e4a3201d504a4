"""What a controller's ConfigMap says of how many workflows run at once, and which are its own."""

import pytest

from argo.parallelism import instance_id, limited_by

LIMITED: dict[str, dict[str, object]] = {
    "in all": {"data": {"parallelism": "10"}},
    "by Namespace": {"data": {"namespaceParallelism": "4"}},
    "in one text": {"data": {"config": "executor: {}\nparallelism: 10\n"}},
    "by Namespace in one text": {"data": {"config": "namespaceParallelism: 4"}},
    "a text that is no number": {"data": {"parallelism": "${LIMIT}"}},
}
FREE: dict[str, dict[str, object]] = {
    "no data": {},
    "nothing of it": {"data": {"executor": "imagePullPolicy: Always\n"}},
    "zero, which is no limit": {"data": {"parallelism": "0", "namespaceParallelism": " 0\n"}},
    "something else in one text": {"data": {"config": "executor: {}\n"}},
}


@pytest.mark.parametrize("case", LIMITED)
def test_a_limit_is_seen(case: str) -> None:
    assert limited_by(LIMITED[case])


@pytest.mark.parametrize("case", FREE)
def test_without_one_there_is_none(case: str) -> None:
    assert not limited_by(FREE[case])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({}, ""),
        ({"instanceID": "blue\n"}, "blue"),
        ({"config": "executor: {}"}, ""),
        ({"config": "instanceID: blue"}, None),
    ],
    ids=str,
)
def test_the_instance_id_is_read_where_it_stands_alone(data: dict[str, str], expected: str | None) -> None:
    assert instance_id({"data": data}) == expected
