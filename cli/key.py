"""`stepmemo key`: what the key of a step is, and which parts it is made of where it is `auto`."""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from argo import shape, templates
from cli import documents, session
from cli.session import DONE, FAILED, USAGE, CommandError, Session

if TYPE_CHECKING:
    from cli.stepkey import StepKey

_PODS = ("pod/", "pods/", "po/")
"""What a name of the cluster begins with; a file of such a path is `./pod/…`."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand; `run` carries it out."""
    parser = subparsers.add_parser(
        "key",
        help="show a step's key, and what it is made of where it is auto",
        description="Shows the memoize key of each step Pod in the file, or of a Pod of the cluster. Where "
        "that is computed (stepmemo.dev/key: auto), it shows the parts that it is a digest of. Values of "
        "environment variables are shown as digests. Of templates it shows the parts with tags left in: "
        "only a Pod has a key. Exit code 0: done; 1: a Pod has no key, or it cannot be told; 2: wrong usage, "
        "or no cluster.",
    )
    parser.add_argument(
        "target",
        metavar="FILE|-|pod/NAME",
        help="Pods, workflows or templates, YAML or JSON; - is standard input; or a Pod of the cluster",
    )
    session.add_form(parser)
    session.add_namespace(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the keys; returns the exit code."""
    if args.target.startswith(_PODS):
        return session.run("key", args, lambda connected: _of_cluster(connected, args))
    text = documents.read(args.target)
    found = [text] if isinstance(text, documents.UnreadableDocument) else list(documents.parse(text))
    for document in found:
        if isinstance(document, documents.UnreadableDocument):
            return session.say("key", f"{args.target}: {document.why}", USAGE)
    objects = [one for document in found for one in documents.objects(document)]
    for one in objects:
        if documents.is_pod(one) and (wrong := documents.fault(one["spec"], shape.POD_SPEC, "spec")):
            return session.say("key", f"{args.target}: {wrong}", USAGE)
    keys = [key for one in objects for key in _keys(one)]
    if not keys:
        said = f"{args.target}: holds no Pod, and no workflow or template with a key"
        return session.say("key", said, USAGE)
    return _print(args.output, keys)


async def _of_cluster(connected: Session, args: argparse.Namespace) -> int:
    from cli import stepkey

    name = args.target.partition("/")[2]
    if not session.is_name(name):
        raise CommandError(f"{args.target!r} names no Pod", USAGE)
    path = f"/api/v1/namespaces/{connected.namespace}/pods/{quote(name, safe='')}"
    pod = await connected.find(f"get the Pod {name}", path)
    if pod is None:
        raise CommandError(f"no Pod {name} in the Namespace {connected.namespace}")
    return _print(args.output, [stepkey.of_pod(pod, connected.namespace)])


def _keys(obj: object) -> Iterable["StepKey | str"]:
    from cli import stepkey

    if not isinstance(obj, Mapping):
        return ()
    if documents.is_pod(obj):
        return (stepkey.of_pod(obj, str(obj["metadata"].get("namespace") or "default")),)
    return stepkey.of_object(obj) if templates.is_argo(obj) else ()


def _print(form: str, keys: "Sequence[StepKey | str]") -> int:
    """Print those that there are; why there is none goes to standard error."""
    from cli import output
    from cli.output import Field

    parts = (Field("PART"), Field("DIGEST"), Field("VALUE", yields=True))
    told = [key for key in keys if not isinstance(key, str)]
    if form in ("json", "yaml"):
        items: list[dict[str, Any]] = [key.item() for key in told]
        if items:
            output.document(items[0] if len(keys) == 1 else {"items": items}, form)
    else:
        for number, key in enumerate(told):
            if number:
                print()
            output.facts(key.facts())
            if rows := key.rows():
                print()
                output.table(parts, rows, output.console(), wide=form == "wide")
    sys.stdout.flush()
    for said in (key if isinstance(key, str) else key.note for key in keys):
        if said:
            session.say("key", said)
    return DONE if len(told) == len(keys) else FAILED
