"""`stepmemo release`: lets gated Pods run, for when the keeper that would decide them is gone."""

import argparse
import asyncio
import sys

from memoize import spec

_DONE, _FAILED, _USAGE = 0, 1, 2


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand; `run` carries it out."""
    parser = subparsers.add_parser(
        "release",
        help="let Pods run that stepmemo holds",
        description="Takes stepmemo's scheduling gate from Pods that are held, so that their steps run. "
        "Needs the rights to list and patch Pods, and to get and delete WorkflowTaskResults, in the cluster "
        "that kubectl would use. Exit code 0: none of them is held any more; 1: one could not be released "
        "or is not there; 2: wrong usage.",
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--all", action="store_true", help="every held Pod of the cluster")
    where.add_argument("-n", "--namespace", metavar="NAMESPACE", help="the held Pods of one Namespace")
    parser.add_argument("names", metavar="NAME", nargs="*", help="only these Pods of the Namespace")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Release the Pods; returns the exit code."""
    if args.all and args.names:
        return _say("names go with -n, not with --all", _USAGE)
    for name in [*([] if args.all else [args.namespace]), *args.names]:
        if not spec.is_dns1123_subdomain(name):
            return _say(f"{name!r} is not a name", _USAGE)
    try:
        return asyncio.run(_release("" if args.all else args.namespace, args.names))
    except KeyboardInterrupt:
        return _say("interrupted; Pods may still be held", _FAILED)


async def _release(namespace: str, names: list[str]) -> int:
    # A Kubernetes client takes longer to load than the other subcommands take to run.
    from cli import held
    from kube import client
    from kube.errors import ApiError

    try:
        api = await client.connect()
    except ApiError as error:
        return _say(f"no cluster to talk to: {error}", _USAGE)
    async with api:
        try:
            pods = [held.Pod(namespace, name) for name in names] or await held.find(api, namespace)
        except ApiError as error:
            return _say(f"cannot list Pods: {error}", _FAILED)
        if not pods:
            _say("no Pod is held")
        code = _DONE
        async for result in held.release(api, pods):
            missing = result.ending is held.Ending.NOT_FOUND and names
            if missing or result.ending is held.Ending.FAILED:
                code = _say(
                    ": ".join(filter(None, (str(result.pod), result.ending.value, result.why))), _FAILED
                )
            else:
                print(f"{result.pod}: {result.ending.value}")
        return code


def _say(text: str, code: int = _DONE) -> int:
    print(f"stepmemo release: {text}", file=sys.stderr)
    return code
