"""The commands that pages tell people to type: found in blocks and in lines of text, and taken apart."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "bench" / "README.md",
    ROOT / "devcluster" / "README.md",
    ROOT / "tests" / "e2e" / "README.md",
]
_BLOCK = re.compile(r"^```(sh|console)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`([^`\n]+)`")
_PROGRAMS = ("kubectl", "stepmemo", "make", "docker", "pip", "python", "argo", "helm", "cmctl")
"""Whose commands are looked for in lines of text."""
_HEREDOC = re.compile(r" ?<<'END'(.*?)\n.*?^END$", re.DOTALL | re.MULTILINE)
_WITHIN = re.compile(r"\$\((.*?)\)")
_BETWEEN = {"&&", "||", "|", ";", "&", "do", "done", "then", "fi"}
_TAKES_VALUE = {"-n", "-l", "-L", "-f", "-k", "-o", "-c", "-p", "-t"}
"""Short flags of kubectl that are followed by their value."""


class Command(NamedTuple):
    """One program with its arguments."""

    words: tuple[str, ...]
    page: str
    whole: bool
    """It stands in a block, to be copied; in a line of text it may be no more than a name."""

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"

    @property
    def program(self) -> str:
        """Its first word; `stepmemo` as a plugin of kubectl too."""
        return "stepmemo" if self.words[:2] == ("kubectl", "stepmemo") else self.words[0]

    @property
    def arguments(self) -> tuple[str, ...]:
        """The words after the program."""
        return self.words[2 if self.words[:2] == ("kubectl", "stepmemo") else 1 :]

    @property
    def _parts(self) -> tuple[list[str], list[tuple[str, str]]]:
        plain, flags = [], []
        rest = iter(self.arguments)
        for word in rest:
            if word == "--":
                break
            if not word.startswith("-") or word == "-":
                plain.append(word)
            elif word in _TAKES_VALUE:
                flags.append((word, next(rest, "")))
            else:
                name, _, value = word.partition("=")
                flags.append((name, value))
        return plain, flags

    @property
    def plain(self) -> list[str]:
        """Arguments that are no flags."""
        return self._parts[0]

    @property
    def flags(self) -> list[tuple[str, str]]:
        """Flags with their values, "" for none."""
        return self._parts[1]

    def values(self, *names: str) -> list[str]:
        """The values of these flags."""
        return [value for name, value in self.flags if name in names]


def commands() -> list[Command]:
    """All of them, each page's own, in their order."""
    return list(dict.fromkeys(command for page in PAGES for command in of_page(page)))


def of_page(page: Path) -> Iterator[Command]:
    """Those of one page."""
    name, text = str(page.relative_to(ROOT)), page.read_text(encoding="utf-8")
    for kind, block in _BLOCK.findall(text):
        lines = re.findall(r"^\$ (.*)$", block, re.MULTILINE) if kind == "console" else [block]
        for words in (words for line in lines for words in _of_shell(line)):
            yield Command(words, name, whole=True)
    for code in _INLINE.findall(_BLOCK.sub("", text)):
        if code.split(" ")[0] in _PROGRAMS and " " in code and code != "kubectl stepmemo":
            for words in _of_shell(code):
                yield Command(words, name, whole=False)


def _of_shell(text: str) -> Iterator[tuple[str, ...]]:
    """The simple commands of a piece of shell, those within $(…) too."""
    text = re.sub(r"\\\n", " ", _HEREDOC.sub(r"\1", text))
    for line in re.sub(r"<(\w+)>", "NAME", text).splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;<>")
        lexer.whitespace_split, lexer.commenters = True, "#"
        words: list[str] = []
        skip = False
        for word in [*lexer, ";"]:
            for within in _WITHIN.findall(word):
                yield from _of_shell(within)
            if word in _BETWEEN:
                if words and words[0] != "for":
                    yield tuple(words)
                words = []
            elif word in (">", "<", ">>"):
                skip = True
            elif skip:
                skip = False
            elif words or not re.fullmatch(r"[A-Z0-9_]+=.*", word):  # a variable of the command's own
                words.append(word)
