"""The view's benchmark, as small as it gets."""

from argparse import ArgumentParser

import pytest

from bench import report, view


@pytest.mark.usefixtures("no_kube_apiserver")
def test_it_runs_and_every_figure_has_its_reference() -> None:
    parser = ArgumentParser()
    view.add_arguments(parser)
    taken = view.run(parser.parse_args(["--rounds=1", "--entries", "40", "--each=20"]))
    assert [figure.what for figure in taken.figures] == [
        "40 entries: one in the index",
        "40 entries: the process above idle",
        "40 entries: one question",
    ]
    assert all(figure.reference.n == figure.value.n == 1 for figure in taken.figures)
    assert report.Report.from_json(taken.to_json()) == taken
    assert report.as_text(taken)
