"""YAML and JSON as kubectl and Argo read and write them, several documents to a file.

kubectl's YAML (sigs.k8s.io/yaml over go-yaml v2) and PyYAML disagree on what a plain scalar is: `1e3` and
`0o17` are numbers to the one only, `12:30` and `2024-01-01` are not text to the other only. Here the reader
takes go-yaml's side, and the writer quotes whatever either of them would not take for text.
"""

import json
import math
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml

from argo import shape
from cli.plain import UNSAFE

STDIN = "-"


@dataclass(frozen=True, slots=True)
class UnreadableDocument:
    """A document, or a whole file, that is no YAML; `why` is for a person, with the line where known."""

    why: str


def read(source: str) -> str | UnreadableDocument:
    """The text of a file, or of standard input for `-`."""
    try:
        data = sys.stdin.buffer.read() if source == STDIN else Path(source).read_bytes()
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        return UnreadableDocument(f"is not UTF-8 at byte {e.start}")
    except OSError as e:
        return UnreadableDocument(e.strerror or str(e))


def parse(text: str) -> Iterator[Any | UnreadableDocument]:
    """The documents of a file in their order, empty ones left out, a broken one in its place.

    Documents are cut at `---` lines first, as kubectl does, so that one broken document hides no other.
    """
    if text.lstrip()[:1] in ("{", "["):
        try:
            yield json.loads(text)
        except (ValueError, RecursionError):
            pass  # YAML's own flow style, or several documents
        else:
            return
    line = 0
    for chunk in _SEPARATOR.split(text):
        try:
            # The empty lines in front make the error's line the file's.
            document = _unshared(yaml.load("\n" * line + chunk, Loader=_Loader), [_MOST + len(chunk)])
        except (yaml.YAMLError, ValueError, RecursionError) as e:
            yield UnreadableDocument(_why(e))
        else:
            if document is not None:
                yield document
        line += chunk.count("\n")


def objects(document: Any) -> Iterator[Any]:
    """The document itself, or the items of a `kind: List` (and of a `…List` that kubectl printed)."""
    if isinstance(document, dict) and str(document.get("kind", "")).endswith("List"):
        items = document.get("items")
        if isinstance(items, list):
            for item in items:
                yield from objects(item)
            return
    yield document


def is_pod(document: object) -> bool:
    """Whether it has the shape of a Pod, as far as the API server has seen to it for the webhook."""
    if not isinstance(document, dict) or document.get("kind") != "Pod":
        return False
    metadata, spec = document.get("metadata"), document.get("spec")
    if not isinstance(metadata, dict) or not isinstance(spec, dict):
        return False
    kinds = [spec.get(kind) or [] for kind in ("initContainers", "containers")]
    if not all(isinstance(containers, list) for containers in kinds):
        return False
    containers = [container for containers in kinds for container in containers]
    return bool(containers) and all(isinstance(container, dict) for container in containers)


def fault(value: object, expected: Any, path: str) -> str:
    """Which field is of another type than Kubernetes and Argo want (argo.shape), "" for none.

    Nor may a list hold nothing: the API server makes an empty object of that.
    """
    try:
        shape.check(value, expected, path)
    except shape.ShapeError as error:
        return str(error)
    rest = [(path, value)]
    while rest:
        at, one = rest.pop()
        if isinstance(one, dict):
            rest += [(f"{at}.{name}", inner) for name, inner in one.items()]
        elif isinstance(one, list):
            if None in one:
                return f"{at}[{one.index(None)}] is empty"
            rest += [(f"{at}[{i}]", inner) for i, inner in enumerate(one)]
    return ""


def dump(documents: Iterable[Any], form: str) -> str:
    """The documents as `yaml` or `json`, fields in the order given."""
    documents = list(documents)
    if form == "json":
        return "".join(json.dumps(document, indent=2, ensure_ascii=False) + "\n" for document in documents)
    return "---\n".join(
        yaml.dump(d, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6) for d in documents
    )


_MOST = 100_000
"""Values that aliases may repeat, in one document: a few lines of them can ask for billions."""


def _unshared(value: Any, left: list[int]) -> Any:
    """A copy in which what an alias repeats is there twice, as in JSON: a change of one leaves the other.

    ValueError for what JSON does not have: explicit tags of YAML bring it. A name is text, as kubectl has it.
    `left` counts down the values that there may be yet.
    """
    left[0] -= 1
    if left[0] < 0:
        raise ValueError("its aliases repeat too much")
    if isinstance(value, dict):
        return {_name(key): _unshared(item, left) for key, item in value.items()}
    if value is not None and not isinstance(value, (str, int, float, list)):
        raise ValueError(f"holds a value of YAML's type {type(value).__name__}, which JSON does not have")
    return [_unshared(item, left) for item in value] if isinstance(value, list) else value


def _name(key: object) -> str:
    if isinstance(key, str):
        return key
    if type(key) not in (int, float, bool):
        raise ValueError(f"the name of a field is no text: {key!r}: put it in quotes")
    return json.dumps(key)


def _why(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem or error.context}"
    return "nests too deep" if isinstance(error, RecursionError) else str(error)


_SEPARATOR = re.compile(r"^---(?=\s|\Z)", re.MULTILINE)


class _Scalar:
    """What PyYAML asks in place of a pattern: go-yaml reads past underscores."""

    def __init__(self, pattern: str):
        self._pattern = re.compile(pattern)

    def match(self, text: str) -> object:
        return self._pattern.fullmatch(text.replace("_", ""))


_TRUE = frozenset(["y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"])
_FALSE = frozenset(["n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"])
_NULL, _BOOL, _INT, _FLOAT, _MERGE, _STR = (
    f"tag:yaml.org,2002:{tag}" for tag in ("null", "bool", "int", "float", "merge", "str")
)
_GO_SCALARS = (
    (_NULL, re.compile(r"(?:~|null|Null|NULL|)\Z"), ["~", "n", "N", ""]),
    (_BOOL, re.compile(rf"(?:{'|'.join(_TRUE | _FALSE)})\Z"), list("yYnNtTfFoO")),
    (
        _INT,
        _Scalar(r"[-+]?(?:0[bB][01]+|0[oO]?[0-7]+|0[xX][0-9a-fA-F]+|0|[1-9][0-9]*)"),
        list("-+0123456789"),
    ),
    (_FLOAT, _Scalar(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"), list("-+.0123456789")),
    (_FLOAT, re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"), list("-+.")),
    (_MERGE, re.compile(r"<<\Z"), ["<"]),
)
"""Plain scalars that are no text to go-yaml v2 (`resolve.go`), with the letters that they may begin with."""

_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SafeLoader):  # type: ignore[misc]
    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _int(loader: Any, node: yaml.ScalarNode) -> int:
    digits = node.value.replace("_", "")
    return int(digits, 8 if re.fullmatch(r"[-+]?0[0-7]+", digits) else 0)


def _float(loader: Any, node: yaml.ScalarNode) -> float | str:
    digits = node.value.replace("_", "").lower()
    if digits.endswith(("inf", "nan")):
        return float(digits.replace(".", ""))
    number = float(digits)
    return str(node.value) if math.isinf(number) else number  # out of range is text to go-yaml


def _bool(loader: Any, node: yaml.ScalarNode) -> bool:
    return node.value in _TRUE


def _merge(loader: Any, node: yaml.ScalarNode) -> str:
    return str(node.value)  # as a value, rather than a key, it is text


def _str(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML writes Unicode's own line ends as they are unless they stand in double quotes; and what
    # a terminal would obey is escaped there (cli.plain).
    style = '"' if UNSAFE.search(text) else "|" if "\n" in text else None
    return dumper.represent_scalar(_STR, text, style=style)


for _tag, _pattern, _letters in _GO_SCALARS:
    _Loader.add_implicit_resolver(_tag, _pattern, _letters)
    _Dumper.add_implicit_resolver(_tag, _pattern, _letters)
for _tag, _constructor in ((_INT, _int), (_FLOAT, _float), (_BOOL, _bool), (_MERGE, _merge)):
    _Loader.add_constructor(_tag, _constructor)
_Dumper.add_representer(str, _str)
