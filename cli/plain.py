"""Text of others on a terminal: what tenants write into entries, keys and messages is shown, never obeyed."""

import re

UNSAFE = re.compile(r"[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""In JSON and YAML that we wrote: control characters beyond those that both escape, those that turn text
around, and halves of pairs (JSON may hold them, no encoding can)."""


def plain(text: str) -> str:
    """One line of printable characters; any other is written as its escape in a string of Python."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text
    )


def escaped(document: str) -> str:
    """A JSON or YAML document with each such character as the escape that both take in double quotes."""
    return UNSAFE.sub(lambda found: f"\\u{ord(found.group()):04x}", document)
