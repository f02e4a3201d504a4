import pytest

from bench.steps import entries, entry, step
from memoize.entry import Entry


def test_entries_are_of_one_size_and_fill_the_map() -> None:
    made = entries(50, 20_000)
    sizes = {len(text) for text in made.values()}
    assert sizes == {20_000 // 50}
    assert Entry.parse(made["key-7"]).outputs


def test_entries_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="50 entries do not fit"):
        entries(50, 50)


def test_an_entry_holds_what_the_step_declares() -> None:
    declared = step("k").declared
    assert declared is not None
    outputs = Entry.parse(entry("v")).outputs
    assert outputs is not None
    assert [one["name"] for one in outputs["parameters"]] == [one["name"] for one in declared.parameters]
