"""What a controller's ConfigMap says of how many workflows run at once."""

import pytest

from argo.parallelism import limited_by

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
