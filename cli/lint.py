"""`stepmemo lint`: what the workflow webhook would say of files, before they are submitted."""

import argparse
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from argo import templates
from argo.shape import mapping
from cli import documents
from webhook.submit.verdict import ENFORCE, review_object

_SUFFIXES = (".yaml", ".yml", ".json")
_SOUND, _ERRORS, _USAGE = 0, 1, 2


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand; `run` carries it out."""
    parser = subparsers.add_parser(
        "lint",
        help="check the memoize blocks and annotations of workflows and templates",
        description="Checks every memoize block and every stepmemo.dev annotation of Argo's objects in the "
        "files, as the workflow webhook does. Errors go to standard output as "
        "`file: Kind/name: field: message`, warnings to standard error. "
        "Exit code 0: no errors; 1: errors; 2: wrong usage.",
    )
    parser.add_argument(
        "paths",
        metavar="PATH|-",
        nargs="+",
        help=f"a file, a folder (its {', '.join(_SUFFIXES)} files, at any depth), or - for standard input",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Lint every path; returns the exit code."""
    missing = [path for path in args.paths if path != documents.STDIN and not Path(path).exists()]
    for path in missing:
        print(f"stepmemo lint: {path}: no such file or folder", file=sys.stderr)
    if missing:
        return _USAGE
    failed, linted = False, 0
    for source in _sources(args.paths):
        for remark in _lint(source):
            linted += remark.linted
            for error in remark.errors:
                failed = True
                print(f"{remark.where}: {error}")
            for warning in remark.warnings:
                print(f"{remark.where}: warning: {warning}", file=sys.stderr)
    if not linted:
        print("stepmemo lint: no workflow or template found", file=sys.stderr)
    return _ERRORS if failed else _SOUND


@dataclass(frozen=True, slots=True)
class _Source:
    """A file to read; `named` says that a person named it, rather than a folder around it."""

    path: str
    named: bool


@dataclass(frozen=True, slots=True)
class _Remark:
    """What there is to say of one object (`linted`), or of a document that cannot be read."""

    where: str
    errors: list[str]
    warnings: list[str]
    linted: bool


def _sources(paths: list[str]) -> Iterator[_Source]:
    for path in paths:
        if path == documents.STDIN or not Path(path).is_dir():
            yield _Source(path, named=True)
            continue
        for folder, folders, files in os.walk(path):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(files):
                if name.endswith(_SUFFIXES):
                    yield _Source(str(Path(folder, name)), named=False)


def _lint(source: _Source) -> Iterator[_Remark]:
    text = documents.read(source.path)
    if isinstance(text, documents.UnreadableDocument):
        yield _Remark(source.path, [text.why], [], linted=False)
        return
    for document in documents.parse(text):
        if isinstance(document, documents.UnreadableDocument):
            yield _unreadable(source, text, document.why)
            continue
        for obj in documents.objects(document):
            if isinstance(obj, Mapping) and templates.is_argo(obj):
                yield _lint_object(source, obj)


def _lint_object(source: _Source, obj: Mapping[str, Any]) -> _Remark:
    verdict = review_object(obj["kind"], obj, None, "CREATE", None, ENFORCE, most=sys.maxsize)
    metadata = mapping(obj.get("metadata"))
    name = metadata.get("name") or metadata.get("generateName") or "(no name)"
    where = f"{source.path}: {obj['kind']}/{name}"
    return _Remark(where, [str(error) for error in verdict.errors], verdict.warnings, linted=True)


_HELM = re.compile(r"\{\{-?\s*(?:[.$]|/\*|(?:if|else|end|range|with|define|include|template|block|toYaml)\b)")
"""How a Go template for Helm begins a tag, and Argo never does."""


def _unreadable(source: _Source, text: str, why: str) -> _Remark:
    """An error, except for files in a folder that are evidently not for Argo, such as a chart's."""
    if _HELM.search(text):
        why += "; this looks like a Helm template: lint what `helm template` prints"
        return _told(source, f"not read: {why}") if not source.named else _broken(source, why)
    if not source.named and "argoproj.io/" not in text:
        return _told(source, f"not read: {why}")
    return _broken(source, why)


def _told(source: _Source, text: str) -> _Remark:
    return _Remark(source.path, [], [text], linted=False)


def _broken(source: _Source, why: str) -> _Remark:
    return _Remark(source.path, [f"not YAML: {why}"], [], linted=False)
