"""`make mutations` takes minutes and is seldom run: what it would break has to be there still."""

import importlib.util
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def mutations() -> list[tuple[str, str, str]]:
    """Name, file and text of each."""
    loader = SourceFileLoader("mutations", str(ROOT / "tools" / "mutations"))
    spec = importlib.util.spec_from_loader("mutations", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    exec(compile(loader.get_data(loader.path), loader.path, "exec"), module.__dict__)
    return [(each.name, each.file, each.old) for each in module.MUTATIONS]


@pytest.mark.parametrize(("name", "file", "old"), mutations(), ids=[name for name, _, _ in mutations()])
def test_what_a_mutation_breaks_stands_once_where_it_says(name: str, file: str, old: str) -> None:
    assert (ROOT / file).read_text(encoding="utf-8").count(old) == 1, f"{name}: say anew what would be wrong"
