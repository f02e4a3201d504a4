"""Argo's template tags: `{{inputs.parameters.x}}` and `{{=sprig.upper(inputs.parameters.x)}}`.

Found as Argo finds them (util/template over fasttemplate): a tag runs from `{{` to the next `}}`, and is an
expression if `=` follows at once. A simple tag is one name, looked up whole; an expression is a program in
expr-lang, of which this module reads no more than its names.

What is reported here ends in a denial, so every doubt is resolved for the author: an expression's names
count only where they must be evaluated and cannot mean anything else.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

OPEN, CLOSE = "{{", "}}"

ROOTS = frozenset(
    {"cronworkflow", "inputs", "item", "lastRetry", "node", "outputs", "pod", "retries", "steps", "tasks"}
    | {"workflow"}
)
"""First words of the variables that Argo knows anywhere in a template (docs/variables.md, util/variables)."""

_SHOWN = 80
"""Longest text of a tag that a message repeats, in characters …"""
_READ = 4 * _SHOWN
"""… and of what is read for it: one tag may be the subject of thousands of messages."""

EXPRESSION_ROOTS = ROOTS | {"$env", "now", "sprig"}
"""Expressions know the functions of sprig by that name, and of expr-lang's own words these two."""


class Tag(NamedTuple):
    """One tag: its text between the braces, without `=`, and the names in it, as paths of segments.

    `certain` holds those of the names whose evaluation nothing in the tag makes conditional.
    """

    text: str
    expression: bool
    names: tuple[tuple[str, ...], ...]
    certain: tuple[tuple[str, ...], ...]

    def __str__(self) -> str:
        text = " ".join(self.text[:_READ].split())
        text = text if len(text) <= _SHOWN and len(self.text) <= _READ else f"{text[: _SHOWN - 1]}…"
        return f"{OPEN}{'=' if self.expression else ''}{text}{CLOSE}"

    @property
    def unknown_roots(self) -> tuple[str, ...]:
        """First words that are no variable of Argo's, such as `input` for `inputs`."""
        known = EXPRESSION_ROOTS if self.expression else ROOTS
        return tuple(dict.fromkeys(name[0] for name in self.names if name[0] not in known))


def has_tags(text: str) -> bool:
    """Whether Argo may change the text before it uses it."""
    return OPEN in text


def is_unbalanced(text: str) -> bool:
    """Whether a `{{` is never closed; a `}}` without one is plain text to Argo."""
    if not has_tags(text):
        return False
    *_, end = _spans(text)
    return OPEN in text[end[1] :]


def find(text: str) -> list[Tag]:
    """The closed tags in their order."""
    if not has_tags(text):  # like most texts
        return []
    *spans, _ = _spans(text)
    return [_tag(text[start + len(OPEN) : end - len(CLOSE)]) for start, end in spans]


def distinct(found: Sequence[Tag]) -> Iterable[Tag]:
    """Each tag once, in their order."""
    return found if len(found) < 2 else dict.fromkeys(found)


_VARYING = re.compile(
    r"workflow\.(uid|name|duration|scheduledTime|creationTimestamp(\.(RFC3339|s|S|L))?)|pod\.name|node\.name"
    r"|retries|lastRetry(\..+)?|cronworkflow\.lastScheduledTime|now|sprig\.(now|uuidv4|rand\w+)"
    r"|(steps|tasks)\.[^.]+\.(id|ip|startedAt|finishedAt|hostNodeName)"
)


def varying(found: Sequence[Tag]) -> Iterator[str]:
    """The variables and functions in the tags that have another value in every run, or in every attempt."""
    for tag in distinct(found):
        for name in tag.names:
            dotted = ".".join(name)
            if (tag.expression or name[0] in ROOTS) and _VARYING.fullmatch(dotted):
                yield dotted


def filled(text: str, value: str) -> str:
    """The text with `value` where its tags were."""
    *spans, _ = _spans(text)
    starts = [0, *(end for _, end in spans)]
    ends = [*(start for start, _ in spans), len(text)]
    return value.join(text[start:end] for start, end in zip(starts, ends, strict=True))


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of each closed tag, then an empty one where the search for more began."""
    position = 0
    while (start := text.find(OPEN, position)) >= 0:
        close = text.find(CLOSE, start + len(OPEN))
        if close < 0:
            break
        position = close + len(CLOSE)
        yield start, position
    yield position, position


def _tag(inner: str) -> Tag:
    if inner.startswith("="):
        return _expression(inner[1:])
    # `{{inputs.parameters.{{item}}}}`: Argo resolves the inner tag first; what the outer one then names is
    # not known before.
    name = tuple(inner.split(OPEN)[-1].strip().split("."))
    return Tag(inner, False, (name,), (name,))


# --- Names in an expression ---------------------------------------------------------------------------

_LITERAL = re.compile(
    r"(?P<comment>//[^\n]*|/\*.*?(?:\*/|\Z))"
    r"|'(?:[^'\\]|\\(?:.|\Z))*(?:'|\Z)|\"(?:[^\"\\]|\\(?:.|\Z))*(?:\"|\Z)|`[^`]*(?:`|\Z)",
    re.DOTALL,
)
"""Comments and strings; one that never ends takes the rest, so that reading stays linear."""
_IDENTIFIER = r"[A-Za-z_$][A-Za-z0-9_$]*"
_PATH = re.compile(
    rf"(?P<root>{_IDENTIFIER})(?P<rest>(?:\s*\.\s*{_IDENTIFIER}|\s*\[\s*\x00[0-9]+\x00\s*\])*)"
)
_MEMBER = re.compile(rf"\.\s*(?P<name>{_IDENTIFIER})|\[\s*\x00(?P<literal>[0-9]+)\x00\s*\]")
_MEMBER_OF_SOMETHING = re.compile(r"\.\s*\Z|[0-9]\Z")
_DECLARED = re.compile(rf"\blet\s+({_IDENTIFIER})\s*=")
_CONDITIONAL = re.compile(r"\?|&&|\|\||\b(?:and|or|if|in)\b")
"""What can keep a name from being evaluated or missed: `a ? b : c`, `??`, `?.`, logic that stops early, a
test by `in`."""
_LONGEST = 16_384
"""Characters of an expression that are read; a longer one is left to Argo, so that nobody's key takes the
webhook's time."""


def _expression(program: str) -> Tag:
    literals: list[str] = []

    def keep(literal: re.Match[str]) -> str:
        if literal["comment"]:
            return " "
        literals.append(literal[0][1:-1])
        return f"\x00{len(literals) - 1}\x00"

    if len(program) > _LONGEST or OPEN in program or "\x00" in program:
        return Tag(program, True, (), ())
    bare = _LITERAL.sub(keep, program)
    if "{" in bare:  # a predicate: inside it, names may be members of what is looped over
        return Tag(program, True, (), ())
    names = tuple(_paths(bare, literals))
    return Tag(program, True, names, () if _CONDITIONAL.search(bare) else names)


def _paths(bare: str, literals: list[str]) -> Iterator[tuple[str, ...]]:
    """Member paths such as `inputs.parameters.x` or `inputs.parameters['my-x']`, whole, in order.

    A bare word counts only where it is known: it may be a function, an operator or a constant of expr-lang.
    """
    declared = set(_DECLARED.findall(bare))
    for path in _PATH.finditer(bare):
        before = bare[max(0, path.start() - 80) : path.start()]
        if path["root"] in declared or _MEMBER_OF_SOMETHING.search(before):
            continue
        if not path["rest"] and path["root"] not in EXPRESSION_ROOTS:
            continue
        members = _MEMBER.finditer(path["rest"])
        yield path["root"], *(m["name"] or literals[int(m["literal"])] for m in members)
