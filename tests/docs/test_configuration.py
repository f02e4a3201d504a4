"""docs/configuration.md: its tables are made from the declarations of the settings."""

import os
from collections.abc import Mapping
from pathlib import Path

import keeper.settings
import webhook.settings
from server.settings import ServerSettings, Setting, declared

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
PROGRAMS = {"webhook": webhook.settings.DECLARED, "keeper": keeper.settings.DECLARED}
FIRST = "## python -m webhook\n"
HEAD = "| flag | variable | default | may be | meaning |"


def row(one: Setting) -> str:
    default = f"`{one.default}`" if one.default else ""
    return f"| `--{one.flag}` | `{one.variable}` | {default} | {one.reader.allowed} | {one.help} |"


def table(program: str, declared: Mapping[str, Setting]) -> str:
    rows = "\n".join(map(row, declared.values()))
    return f"## python -m {program}\n\n{HEAD}\n|---|---|---|---|---|\n{rows}\n"


def test_the_page_lists_every_setting_of_both_programs_as_it_is_declared() -> None:
    """STEPMEMO_UPDATE_DOCS=1 writes the tables anew; what stands above them is written by hand."""
    above, _, _ = PAGE.read_text(encoding="utf-8").partition(FIRST)
    made = above + "\n".join(table(program, declared) for program, declared in PROGRAMS.items())
    if os.environ.get("STEPMEMO_UPDATE_DOCS"):
        PAGE.write_text(made, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == made, f"STEPMEMO_UPDATE_DOCS=1 pytest {Path(__file__).name}"


def test_a_setting_that_both_have_is_declared_for_both() -> None:
    webhooks, keepers = PROGRAMS.values()
    of_both = {one.flag for one in declared(ServerSettings)}
    own_words = {"certs", "cache-max-bytes", "store"}
    assert webhooks.keys() & keepers.keys() == of_both | own_words
    assert all(webhooks[flag] is keepers[flag] for flag in of_both)
    assert all(webhooks[flag].default == keepers[flag].default for flag in own_words)


def test_no_cell_of_a_table_breaks_it() -> None:
    for settings in PROGRAMS.values():
        for one in settings.values():
            assert row(one).count("|") == HEAD.count("|")
