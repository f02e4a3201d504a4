"""The drawings in docs/pictures: text that fits, in the colours of the reader's page, and what is true."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from memoize import names
from tests.manifests.rendering import PROGRAMS

PICTURES = sorted((Path(__file__).parents[2] / "docs" / "pictures").glob("*.svg"))
SVG = "{http://www.w3.org/2000/svg}"


def drawing(name: str) -> ET.Element:
    (path,) = (path for path in PICTURES if path.stem == name)
    return ET.fromstring(path.read_text(encoding="utf-8"))


def texts(root: ET.Element) -> list[str]:
    return [str(one.text) for one in root.iter(f"{SVG}text")]


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_it_says_in_words_what_it_shows_and_follows_the_readers_colours(path: Path) -> None:
    root = ET.fromstring(path.read_text(encoding="utf-8"))
    assert root.findtext(f"{SVG}title")
    assert len(str(root.findtext(f"{SVG}desc"))) > 100
    assert "@media (prefers-color-scheme: dark)" in str(root.findtext(f"{SVG}style"))
    used = {word for one in root.iter() for word in one.get("class", "").split()}
    style = str(root.findtext(f"{SVG}style"))
    assert used == set(re.findall(r"\.([a-z]+)", style)), "what is styled is used, and the other way round"


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_every_text_fits_into_the_box_that_it_stands_in(path: Path) -> None:
    root = ET.fromstring(path.read_text(encoding="utf-8"))
    boxes = [
        tuple(float(one.get(name, 0)) for name in ("x", "y", "width", "height"))
        for one in root.iter(f"{SVG}rect")
    ]
    for one in root.iter(f"{SVG}text"):
        classes, x, y = one.get("class", "").split(), float(one.attrib["x"]), float(one.attrib["y"])
        length = len(str(one.text)) * (6.8 if "small" in classes else 8.8 if "who" in classes else 7.9)
        begin = x if "left" in classes else x - length / 2
        around = [box for box in boxes if box[0] <= x <= box[0] + box[2] and box[1] <= y <= box[1] + box[3]]
        left, _, width, _ = min(around, key=lambda box: box[2] * box[3])
        assert left + 4 <= begin <= begin + length <= left + width - 4, one.text


def test_the_life_of_a_step_shows_every_value_of_the_label() -> None:
    told = {text.removeprefix("result: ") for text in texts(drawing("life-of-a-step")) if "result: " in text}
    assert told == {value for name, value in vars(names).items() if name.startswith("RESULT_")}


def test_the_two_programs_are_there_by_their_names() -> None:
    assert set(PROGRAMS) <= set(texts(drawing("two-programs")))
