"""`stepmemo release`: lets gated Pods run, for when the keeper that would decide them is gone."""

import argparse

from cli import session
from cli.session import DONE, FAILED, USAGE, Session


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand; `run` carries it out."""
    parser = subparsers.add_parser(
        "release",
        help="let Pods run that stepmemo has gated",
        description="Takes stepmemo's scheduling gate from Pods that are gated, so that their steps run. "
        "Needs the rights to get, list and patch Pods, and to get and delete WorkflowTaskResults. "
        "Exit code 0: none of them is gated any more; 1: one could not be released or is not there; "
        "2: wrong usage, or no cluster.",
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--all", "-A", "--all-namespaces", action="store_true", help="every gated Pod of the cluster"
    )
    where.add_argument(
        "-n", "--namespace", type=session.label, metavar="NAMESPACE", help="the gated Pods of one Namespace"
    )
    parser.add_argument("names", metavar="NAME", nargs="*", type=session.name, help="only these of its Pods")
    session.add_connection(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Release the Pods; returns the exit code."""
    if args.all and args.names:
        return session.say("release", "names go with -n, not with --all", USAGE)

    async def do(connected: Session) -> int:
        return await _release(connected, "" if args.all else args.namespace, args.names)

    return session.run("release", args, do, "interrupted; Pods may still be gated")


async def _release(connected: Session, namespace: str, names: list[str]) -> int:
    from keeper import gated
    from kube.errors import ApiError

    try:
        pods = [gated.Pod(namespace, name) for name in names] or await gated.find(connected.api, namespace)
    except ApiError as error:
        raise session.failure("list Pods", error) from None
    if not pods:
        session.say("release", "no Pod is gated")
    code = DONE
    async for result in gated.release(connected.api, pods):
        missing = result.ending is gated.Ending.NOT_FOUND and names
        if missing or result.ending is gated.Ending.FAILED:
            told = ": ".join(filter(None, (str(result.pod), result.ending.value, result.why)))
            code = session.say("release", told, FAILED)
        else:
            print(f"{result.pod}: {result.ending.value}")
    return code
