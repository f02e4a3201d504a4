"""docs/configuration.md: its table is made from the declarations of the settings."""

import os
from pathlib import Path

from server.settings import Setting
from webhook.settings import DECLARED

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
HEAD = "| flag | variable | default | may be | meaning |"


def row(one: Setting) -> str:
    default = f"`{one.default}`" if one.default else ""
    return f"| `--{one.flag}` | `{one.variable}` | {default} | {one.reader.allowed} | {one.help} |"


def test_the_page_lists_every_setting_as_it_is_declared() -> None:
    """STEPMEMO_UPDATE_DOCS=1 writes the table anew; what stands above it is written by hand."""
    above, _, _ = PAGE.read_text(encoding="utf-8").partition(HEAD)
    made = "\n".join([above + HEAD, "|---|---|---|---|---|", *map(row, DECLARED.values()), ""])
    if os.environ.get("STEPMEMO_UPDATE_DOCS"):
        PAGE.write_text(made, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == made, f"STEPMEMO_UPDATE_DOCS=1 pytest {Path(__file__).name}"


def test_no_cell_of_the_table_breaks_it() -> None:
    for one in DECLARED.values():
        assert row(one).count("|") == HEAD.count("|")
