"""The metrics themselves, as Prometheus' own linter of names and help texts sees them."""

import pytest

from tests.exposed import everything
from tests.monitoring import promtool


@pytest.mark.parametrize("namespaces", [0, 2], ids=["in one", "by Namespace"])
def test_prometheus_finds_no_fault_with_names_and_types(namespaces: int) -> None:
    promtool.run("check", "metrics", given=everything(namespaces).render().decode())
