from typing import Any

import pytest

from cli import keychange
from cli.keychange import Earlier
from memoize import autokey
from tests.cli.caches import entry
from tests.cli.conftest import NOW

OURS = f"auto-{autokey.FORM}-{'0' * 64}"
OTHER = f"auto-{autokey.FORM}-{'1' * 64}"


def earlier(parts: dict[str, str], data_key: str = OTHER, **fields: Any) -> Earlier:
    return Earlier(data_key, entry(**{"template": "say", "parts": parts, **fields}))


PARTS = {"image": "1", "args": "2", "env/A": "3", "env/B": "4"}
COMPARED = (
    "Its key is auto. Compared with the newest earlier entry of the template say, made 3h ago by workflow "
    "greet-x2k9f: "
)
NOT_RECORDED = (
    "Its key is auto. Which part of it changed cannot be told: the newest earlier entry of the template say, "
    "made 3h ago by workflow greet-x2k9f, does not record its parts."
)


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (PARTS | {"image": "9"}, f"{COMPARED}image changed."),
        (PARTS | {"image": "9", "env/A": "9"}, f"{COMPARED}env A changed, image changed."),
        ({"image": "1", "args": "2", "env/A": "3"}, f"{COMPARED}env B is new."),
        (PARTS | {"salt": "5", "volumes/v": "6"}, f"{COMPARED}salt is gone, volume v is gone."),
        ({"image": "1", "args": "2", "env": "0"}, f"{COMPARED}env changed."),
        (PARTS, f"{COMPARED.removesuffix(': ')}, no part that is recorded changed."),
        ({}, NOT_RECORDED),
    ],
)
def test_what_changed_is_named_in_words(before: dict[str, str], said: str) -> None:
    assert keychange.difference(OURS, PARTS, "say", earlier(before), NOW) == said


@pytest.mark.parametrize(
    ("before", "names"),
    [
        (earlier(PARTS | {"image": "9"}), ["image"]),
        (earlier(PARTS), []),
        (earlier({}), None),
        (earlier(PARTS, "by-hand"), None),
        (earlier(PARTS, f"auto-v99-{'0' * 64}"), None),
        (None, None),
    ],
)
def test_what_changed_is_known_where_both_record_their_parts(
    before: Earlier | None, names: list[str] | None
) -> None:
    assert keychange.changed(OURS, PARTS, before) == names


def test_of_many_changes_the_first_are_named_and_the_others_counted() -> None:
    many = PARTS | {f"artifact/{number:02}": "0" for number in range(12)}
    said = keychange.difference(OURS, PARTS, "say", earlier(many), NOW)
    assert said.startswith(f"{COMPARED}input artifact 00 is gone, ")
    assert said.endswith("input artifact 09 is gone, and 2 more.")


def test_an_entry_whose_key_its_author_wrote_is_not_compared() -> None:
    assert keychange.difference(OURS, PARTS, "say", earlier(PARTS, "by-hand"), NOW) == NOT_RECORDED


def test_an_entry_of_another_form_is_not_compared() -> None:
    other = earlier(PARTS, f"auto-v99-{'0' * 64}")
    assert keychange.difference(OURS, PARTS, "say", other, NOW) == (
        "Its key is auto. Its form is v1, and v99 in the newest earlier entry of the template say, made 3h "
        "ago by workflow greet-x2k9f: another release of stepmemo made that, so their parts cannot be "
        "compared."
    )


@pytest.mark.parametrize(
    ("template", "of"), [("say", "the template say"), ("", "its template, whose name is not known here")]
)
def test_with_nothing_to_compare_with_it_says_so(template: str, of: str) -> None:
    assert keychange.difference(OURS, PARTS, template, None, NOW) == (
        f"Its key is auto. There is nothing to compare it with: its cache has no earlier entry of {of}."
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("image", "image"),
        ("env", "env"),
        ("containers/a/image", "image of container a"),
        ("sidecars/a/env/B", "env B of sidecar a"),
        ("initContainers/a", "init container a"),
        ("mounts/%2Fdata%2Fx", "mount /data/x"),
        ("env/A", "env A"),
        ("salt", "salt"),
        ("artifact/in", "input artifact in"),
        ("output/parameter/x", "output parameter x"),
        ("output/artifact", "output artifacts"),
        ("output", "outputs"),
        ("ref/secret/creds", "Secret creds"),
        ("ref/configmap", "ConfigMaps"),
        ("containers", "containers"),
        ("something/new", "something new"),
    ],
)
def test_a_part_has_a_name_in_words(name: str, words: str) -> None:
    assert keychange.words(name) == words
