import io
import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from cli import browse, output
from cli.output import Field
from cli.plain import escaped, plain
from tests.cli.caches import entry
from tests.cli.conftest import NOW


def console(width: int, **options: Any) -> Console:
    return Console(file=io.StringIO(), width=width, color_system=None, **options)


def printed(fields: Any, rows: Any, width: int, *, wide: bool = False) -> list[str]:
    out = console(width)
    output.table(fields, rows, out, wide=wide)
    found: str = out.file.getvalue()  # type: ignore[attr-defined]
    return found.splitlines()


LONG = browse.inventory.items(
    {
        "data": {
            "short": entry(key="short").dump(),
            "sha256-" + "0" * 64: entry(
                key="a very long key " * 8, workflow="nightly-report-of-everything-x2k9f"
            ).dump(),
        }
    }
)


def test_a_table_at_80_columns_cuts_what_is_longest() -> None:
    rows = [item.row(NOW) for item in LONG]
    assert printed(browse.ENTRIES, rows, 80) == [
        "KEY              AGE  LAST HIT  EXPIRES   TOOK  SIZE  TEMPLATE  FROM",
        "short             3h        1h      21h  5m12s   305  say       greet-x2k9f",
        "a very long ke…   3h        1h      21h  5m12s   451            nightly-report-…",
    ]


def test_half_a_pair_of_characters_is_printed_as_its_escape(capfd: pytest.CaptureFixture[str]) -> None:
    for form in ("json", "yaml"):
        output.document({"a": "\ud800"}, form)
        assert "\\ud800" in capfd.readouterr().out.lower()


def test_a_wide_table_cuts_nothing() -> None:
    lines = printed(browse.ENTRIES, [item.row(NOW) for item in LONG], 80, wide=True)
    assert "a very long key " * 7 in lines[2]
    assert "sha256-" + "0" * 64 in lines[2]
    assert lines[0].split() == [
        "KEY",
        "AGE",
        "LAST",
        "HIT",
        "EXPIRES",
        "TOOK",
        "SIZE",
        "TEMPLATE",
        "FROM",
        "DATA",
        "KEY",
        "NODE",
    ]


TEXTS = st.text(
    st.characters(exclude_categories=["Cs", "Mn", "Me", "Cf", "Cc", "Zl", "Zp"]), max_size=40
).map(plain)


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=5), st.integers(28, 60))
def test_no_line_is_longer_than_the_terminal(rows: list[tuple[str, str]], width: int) -> None:
    fields = [Field("ONE", yields=True), Field("TWO", yields=True)]
    lines = printed(fields, rows, width)
    assert len(lines) == len(rows) + 1
    assert max(map(cell_len, lines)) <= width


def test_colours_are_for_terminals_and_for_whole_words(monkeypatch: pytest.MonkeyPatch) -> None:
    fields, rows = [Field("A"), Field("B")], [["hit", "white"]]
    out = Console(file=io.StringIO(), force_terminal=True, color_system="standard", width=80)
    output.table(fields, rows, out)
    found: str = out.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[32mhit\x1b[0m" in found
    assert "\x1b[32mhit\x1b[0me" not in found
    monkeypatch.setenv("NO_COLOR", "1")
    bare = Console(file=io.StringIO(), force_terminal=True, width=80)
    output.table(fields, rows, bare)
    assert "[32m" not in bare.file.getvalue()  # type: ignore[attr-defined]


def test_what_goes_into_a_pipe_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    output.show("table", [Field("A", yields=True)], [["x" * 500]], [])
    output.paragraph("word " * 100)
    assert capsys.readouterr().out == f"A\n{'x' * 500}\n{('word ' * 100).strip()}\n"


@given(st.text())
def test_a_text_of_others_is_one_line_of_printable_characters(text: str) -> None:
    assert plain(text).isprintable()
    assert plain(plain(text)) == plain(text)


@given(st.dictionaries(st.text(), st.text()))
def test_an_escaped_document_says_the_same(found: dict[str, str]) -> None:
    text = escaped(json.dumps(found, ensure_ascii=False))
    assert json.loads(text) == found
    assert not set("\x7f\x9b\u202e\u2066") & set(text)


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_a_document_is_read_as_it_was(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = {"a": ["\x9b1m", "\u202e", "1e3", "off", "ö"], "n": None}
    output.document(found, form)
    assert yaml.safe_load(capsys.readouterr().out) == found
