"""`stepmemo restore`: turns the annotations that the workflow webhook made back into memoize blocks."""

import argparse
import sys
from collections.abc import Mapping
from typing import Any

import jsonpatch

from argo import templates
from cli import documents
from webhook.submit import verdict

_DONE, _UNREADABLE = 0, 1


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand; `run` carries it out."""
    parser = subparsers.add_parser(
        "restore",
        help="turn managed annotations back into memoize blocks, for leaving stepmemo",
        description="Writes the documents of the files to standard output, with a memoize block in place of "
        "the annotations that the workflow webhook made from it. Annotations that a person wrote or edited "
        "stay. Exit code 0: done; 1: a file could not be read, and nothing was written; 2: wrong usage.",
    )
    parser.add_argument("files", metavar="FILE|-", nargs="+", help="YAML or JSON; - is standard input")
    parser.add_argument(
        "--configmap-key",
        action="store_true",
        help="write an empty `configMap.key` where a block had none: Argo's full CRDs require one up to 3.7, "
        "and know none from 4.0 on",
    )
    parser.add_argument("-o", dest="output", choices=("yaml", "json"), default="yaml", help="default: yaml")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Restore every file; returns the exit code."""
    restored: list[Any] = []
    readable = True
    for source in args.files:
        text = documents.read(source)
        for document in [text] if isinstance(text, documents.UnreadableDocument) else documents.parse(text):
            if isinstance(document, documents.UnreadableDocument):
                readable = False
                print(f"{source}: {document.why}", file=sys.stderr)
                continue
            for obj in documents.objects(document):
                _restore(source, obj, config_map_key=args.configmap_key)
            restored.append(document)
    if not readable:
        return _UNREADABLE
    print(documents.dump(restored, args.output), end="")
    return _DONE


def _restore(source: str, obj: Any, *, config_map_key: bool) -> None:
    """Restore the object in place, so that a List around it stays whole."""
    if not isinstance(obj, Mapping) or not templates.is_argo(obj):
        return
    kind = obj["kind"]
    for path in verdict.edited(kind, obj):
        print(f"{source}: {path}: annotations were edited by hand and stay", file=sys.stderr)
    jsonpatch.apply_patch(obj, verdict.restore(kind, obj, config_map_key=config_map_key), in_place=True)
