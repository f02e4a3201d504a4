"""`stepmemo leave`: nothing is gated any more, and gated Pods run; then stepmemo can be deleted."""

import argparse
from datetime import timedelta

from cli import session
from cli.plain import plain
from cli.session import DONE, CommandError, Session


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand; `run` carries it out."""
    parser = subparsers.add_parser(
        "leave",
        help="before stepmemo is deleted: gate nothing any more, and let gated Pods run",
        description="Deletes stepmemo's MutatingWebhookConfiguration, then takes its gate from gated Pods, "
        "until none is gated and none can be any more: ten seconds at least. After it both programs can be "
        "deleted, and no Pod waits for them for ever. It may be run again at any time. Needs the rights to "
        "delete mutatingwebhookconfigurations, to get, list and patch Pods everywhere, and to get and delete "
        "WorkflowTaskResults. Exit code 0: nothing is gated; 1: something is in the way, and told; 2: wrong "
        "usage, or no cluster.",
    )
    parser.add_argument(
        "--timeout",
        metavar="DURATION",
        type=session.duration,
        default=timedelta(minutes=3),
        help="how long to go on where something fails, a Go duration (default: 3m)",
    )
    session.add_connection(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Leave; returns the exit code."""

    async def do(connected: Session) -> int:
        from keeper.leave import LeaveError, leave

        try:
            await leave(connected.api, lambda line: print(plain(line)), timeout=args.timeout.total_seconds())
        except LeaveError as error:
            raise CommandError(str(error)) from None
        return DONE

    return session.run("leave", args, do, "interrupted; Pods may still be gated, and be made so")
