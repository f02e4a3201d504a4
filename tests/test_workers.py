"""How the tests are shared among workers."""

import pytest


@pytest.mark.xdist_group("together")
def test_what_is_grouped_goes_to_one_worker(request: pytest.FixtureRequest) -> None:
    """xdist goes by the end of the id; where it is not there, every worker starts an API server."""
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("nothing is grouped here")
    assert request.node.nodeid.endswith("@together")
