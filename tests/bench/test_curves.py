import xml.etree.ElementTree as ET
from argparse import ArgumentParser
from dataclasses import replace

import pytest

from bench import curves, report, requeue
from bench.__main__ import BENCHMARKS
from bench.controller import Used
from bench.figures import Figure, Report, Target, compare
from bench.hits import Side
from bench.requeue import Taken
from tests.bench.test_report import made

SVG = "{http://www.w3.org/2000/svg}"


def picture(name: str, *figures: Figure) -> ET.Element:
    return ET.fromstring(curves.drawn([made(name, *figures)])[name])


def texts(drawing: ET.Element) -> list[str]:
    return [str(one.text) for one in drawing.iter(f"{SVG}text")]


def dots(drawing: ET.Element, class_: str) -> list[tuple[float, float]]:
    found = (one for one in drawing.iter(f"{SVG}circle") if one.get("class") == class_)
    return [(float(one.attrib["cx"]), float(one.attrib["cy"])) for one in found]


def recorded() -> list[Report]:
    return report.load([benchmark.NAME for benchmark in BENCHMARKS])


def test_the_pictures_that_are_committed_are_those_of_the_results() -> None:
    """`python -m bench report` draws them anew."""
    there = {path.stem: path.read_text(encoding="utf-8") for path in report.RESULTS.glob("*.svg")}
    assert there == curves.drawn(recorded())


def test_the_document_is_that_of_the_results_and_shows_their_pictures() -> None:
    text = report.DOCUMENT.read_text(encoding="utf-8")
    assert text == report.render(recorded())
    assert all(f"(results/{name}.svg)" in text for name in curves.drawn(recorded()))


@pytest.mark.parametrize("name", curves.drawn(recorded()))
def test_no_text_leaves_its_picture(name: str) -> None:
    drawing = ET.fromstring(curves.drawn(recorded())[name])
    _, _, width, height = map(float, drawing.attrib["viewBox"].split())
    for one in drawing.iter(f"{SVG}text"):
        x, length = float(one.attrib["x"]), 7 * len(str(one.text))
        begin = x - {"end": length, "middle": length / 2}.get(one.get("class", ""), 0)
        assert 0 <= begin <= begin + length <= width, one.text
        assert 0 < float(one.attrib["y"]) < height


def written(size: int, ours: float, argos: float) -> Figure:
    return compare(f"a hit in a cache of {size} KB", "KiB", [ours], "Argo's own hit", [argos])


def test_larger_values_lie_further_up_and_larger_caches_further_right() -> None:
    drawing = picture("written", written(40, 14, 41), written(1000, 14, 994))
    (ours, ours_later), (argos, argos_later) = dots(drawing, "a"), dots(drawing, "b")
    assert ours[1] == ours_later[1] > argos[1] > argos_later[1]
    assert ours[0] == argos[0] < argos_later[0]
    assert {"stepmemo, 14 KiB", "Argo's own hit, 994 KiB", "40 KB", "1 MB"} <= {*texts(drawing)}


def load(name: str, beside: float, alone: float, measured: str = "slowest hit") -> Figure:
    target = Target("at most", 1, of="value")
    return compare(f"{name} (how far): {measured}", "s", [beside], "alone", [alone], target)


def test_each_load_has_a_row_which_says_whether_its_target_is_met() -> None:
    plain = compare("… slowest plain write", "s", [0.2], "alone", [0.01])
    drawing = picture("tenants", load("few", 0.5, 0.05), plain, load("<many>", 5, 0.05))
    ours, missed, alone, writes = (dots(drawing, one) for one in ("a", "missed", "hollow a", "hollow c"))
    assert [len(one) - 1 for one in (ours, missed, alone, writes)] == [1, 1, 2, 1], "one more in the legend"
    assert writes[1][1] == ours[1][1] < missed[1][1]
    assert alone[1][0] < writes[1][0] < ours[1][0] < missed[1][0]
    assert {"few", "<many>", "500 ms", "5 s"} <= {*texts(drawing)}


def test_hits_in_a_row_are_drawn_by_the_requeue_time_for_all_sides() -> None:
    parser = ArgumentParser()
    requeue.add_arguments(parser)
    arguments = parser.parse_args(["--rows", "20", "5"])
    kinds, taken = requeue.kinds_of(arguments), {}
    for time, seconds in {"1s": 5.3, "10s": 50.0}.items():
        for side, times in {Side.OURS: 1, Side.ARGOS: 0.01, Side.PLAIN: 1}.items():
            taken[time, "row-5", side] = [Taken(seconds * times, Used(1, {}), 1)]
            taken[time, "row-20", side] = [Taken(seconds * 4, Used(1, {}), 1)]
    figures = requeue.figures(taken, kinds, ["1s", "10s"], 20)
    drawing = picture("requeue-v4.1.2", *figures)
    assert texts(drawing)[0].startswith("5 hits in a row")
    assert [len(dots(drawing, one)) for one in "abc"] == [2, 2, 2]
    places = {one.text: float(one.attrib["y"]) for one in drawing.iter(f"{SVG}text")}
    assert abs(places["stepmemo, 50 s"] - places["plain Argo, 50 s"]) == 16, "they would lie upon each other"


def test_a_report_of_another_benchmark_or_without_such_figures_has_no_picture() -> None:
    reports = [made("check"), made("written-else"), made("requeue-v4"), made("tenants")]
    assert curves.drawn(reports) == {}
    assert "![" not in report.render([replace(reports[0], name="requeued")])


def test_a_single_size_and_a_time_of_nothing_are_drawn_too() -> None:
    """A benchmark that took ten minutes is not to end by its picture."""
    assert len(dots(picture("written", written(40, 14, 41)), "a")) == 1
    assert len(dots(picture("tenants", load("none", 0, 0)), "a")) == 2
