"""`stepmemo doctor`: whether stepmemo is well installed, for the workflows of a Namespace."""

import argparse

from cli import session
from cli.session import Session


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand; `run` carries it out."""
    parser = subparsers.add_parser(
        "doctor",
        help="check the installation, and a Namespace of workflows",
        description="Looks at webhook, keeper, Argo's controller, and what a Namespace of workflows allows; "
        "each thing that is wrong comes with its cure. Changes nothing: what has to be tried is tried by a "
        "dry run. What your account may not read is told as unknown. Exit code 0: nothing fails; 1: "
        "something does; 2: wrong usage, or no cluster.",
    )
    session.add_stepmemo_namespace(parser)
    parser.add_argument(
        "--argo-namespace",
        metavar="NAMESPACE",
        type=session.label,
        default="argo",
        help="where Argo's controller runs (default: %(default)s)",
    )
    session.add_form(parser)
    session.add_namespace(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the findings; returns the exit code."""

    async def do(connected: Session) -> int:
        from cli import examination

        return await examination.doctor(connected, args)

    return session.run("doctor", args, do)
