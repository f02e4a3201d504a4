"""How the tests are shared among workers."""

import re
from pathlib import Path

import pytest


@pytest.mark.xdist_group("together")
def test_what_is_grouped_goes_to_one_worker(request: pytest.FixtureRequest) -> None:
    """xdist goes by the end of the id; where it is not there, every worker starts an API server."""
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("nothing is grouped here")
    assert request.node.nodeid.endswith("@together")


def test_tests_of_a_devcluster_go_to_the_worker_that_starts_it(request: pytest.FixtureRequest) -> None:
    """Each worker would else start one, which takes longer than the tests."""
    groups = set()
    for item in request.session.items:
        if "devcluster/test_end_to_end" in item.nodeid:
            assert isinstance(item, pytest.Function)
            (marker,) = item.iter_markers("xdist_group")
            groups.add(marker.args[0].partition(" ")[2])
    if not groups:
        pytest.skip("none is among the tests of this run")
    assert groups <= {"strongest None", "plain None", "inside None"}


GROUPED = "tests/a/test_b.py::test_it[busybox@sha256:1]"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (f"{GROUPED}@tests/a/test_b.py", GROUPED),
        (f"{GROUPED}@tests/a/test_b.py plain None", GROUPED),
        (f"{GROUPED}@kube-apiserver 0", GROUPED),
        (GROUPED, GROUPED),
    ],
)
def test_a_report_names_a_test_as_pytest_takes_it(
    request: pytest.FixtureRequest, said: str, told: str
) -> None:
    ours = request.config.pluginmanager.get_plugin(str(Path(__file__).with_name("conftest.py")))
    report = pytest.TestReport(said, ("", None, ""), {}, "passed", None, "call")
    report.node = "of a worker"
    ours.pytest_runtest_logreport(report)
    assert report.nodeid == told


@pytest.mark.parametrize("text", ["x" * 61, b"x" * 61, re.compile("x" * 61)])
def test_a_long_text_is_no_part_of_an_id(request: pytest.FixtureRequest, text: object) -> None:
    """xdist sends all ids to every worker, and whoever reads a report reads them too."""
    assert re.fullmatch("text[0-2]", request.node.callspec.id)
