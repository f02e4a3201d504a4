"""`stepmemo inject`: shows a step Pod as the Pod webhook would let it pass.

Offline: nothing is asked of a cluster, so only the Pod's own words count, not those of its Workflow's
metadata or its Namespace.
"""

import argparse
import sys
from collections.abc import Mapping
from typing import Any

import jsonpatch

from argo import shape
from argo.steppod import StepPod
from cli import documents
from memoize import names, opt_in
from memoize.reasons import Reason
from webhook.inject.containers import InjectSettings
from webhook.inject.patch import inject
from webhook.pods import room
from webhook.pods.decision import Skip, classify_pod, plan_injection
from webhook.pods.delivery import Delivery

_IMAGE = "stepmemo:latest"
_SKIPPED, _UNUSABLE = 1, 2


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the subcommand; `run` carries it out."""
    parser = subparsers.add_parser(
        "inject",
        help="show a step Pod with check and capture injected",
        description="Shows a step Pod as the Pod webhook would let it pass. "
        "What was decided, and why, is on standard error. "
        "Exit code 0: injected; 1: left alone; 2: wrong usage.",
    )
    parser.add_argument("file", metavar="FILE|-", help="the Pod, YAML or JSON; - is standard input")
    parser.add_argument("-o", dest="output", choices=("yaml", "json"), help="default: yaml, for --patch json")
    parser.add_argument("--capture-only", action="store_true", help=f"as under {names.MODE}: refresh")
    parser.add_argument(
        "--injection",
        choices=[word.value for word in Delivery],
        default=Delivery.INIT_CONTAINER.value,
        help="how the entrypoint gets into the Pod (default: %(default)s)",
    )
    parser.add_argument("--patch", action="store_true", help="show the JSON Patch instead of the Pod")
    parser.add_argument(
        "--image", default=_IMAGE, help="the injected containers' image (default: %(default)s)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Writes the Pod, or the operations, to standard output; returns the exit code."""
    pod = _read_pod(args.file)
    if isinstance(pod, documents.UnreadableDocument):
        return _unusable(args.file, pod.why)
    namespace = pod["metadata"].get("namespace") or "default"
    workflow = {"annotations": {names.MODE: opt_in.Mode.REFRESH}} if args.capture_only else {}
    injection = Delivery(args.injection)
    step = classify_pod(StepPod.parse(pod, namespace), workflow, {})
    decision = step if isinstance(step, Skip) else plan_injection(step, injection)
    _say(args.file, decision.reason, decision.detail)
    if isinstance(decision, Skip):
        return _SKIPPED
    try:
        ops = room.fitted(
            pod, inject(pod, decision.plan, InjectSettings(image=args.image, injection=injection)), {}
        )
    except ValueError as e:
        return _unusable(args.file, str(e))
    if isinstance(ops, str):
        _say(args.file, Reason.NO_ROOM, ops)
        return _SKIPPED
    if args.patch:
        print(documents.dump([ops], args.output or "json"), end="")
    else:
        print(documents.dump([jsonpatch.apply_patch(pod, ops)], args.output or "yaml"), end="")
    return 0


def _unusable(source: str, why: str) -> int:
    _say(source, why)
    return _UNUSABLE


def _say(*parts: str) -> None:
    print(": ".join(filter(None, ("stepmemo inject", *parts))), file=sys.stderr)


def _read_pod(source: str) -> Mapping[str, Any] | documents.UnreadableDocument:
    text = documents.read(source)
    if isinstance(text, documents.UnreadableDocument):
        return text
    found = list(documents.parse(text))
    if len(found) != 1:
        return documents.UnreadableDocument(f"must hold one Pod, holds {len(found)} documents")
    if isinstance(found[0], documents.UnreadableDocument):
        return found[0]
    if not documents.is_pod(found[0]):
        return documents.UnreadableDocument("must hold a Pod")
    wrong = documents.fault(found[0]["spec"], shape.POD_SPEC, "spec")
    return documents.UnreadableDocument(wrong) if wrong else found[0]
