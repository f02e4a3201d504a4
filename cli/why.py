"""`stepmemo why`: why a step was served from the cache, or was not."""

import argparse

from cli import session
from cli.session import DONE, Session
from memoize.reasons import Reason


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand; `run` carries it out."""
    parser = subparsers.add_parser(
        "why",
        help="say why a step was served from the cache, or was not",
        description="Says in a paragraph whether a step was looked up, where, what decided it, and what to "
        "do. Of a workflow without STEP it lists all steps. Reads the Pod, Events, the Workflow, its "
        "WorkflowTaskResults and the cache; what may not be read is left out, and said to be.",
    )
    parser.add_argument(
        "target",
        metavar="POD|WORKFLOW|CODE",
        help="a Pod, or else a Workflow, of that name (pod/NAME, workflow/NAME); or a reason code",
    )
    parser.add_argument("step", metavar="STEP", nargs="?", help="of the Workflow: a step's name or node id")
    session.add_form(parser)
    session.add_namespace(parser)
    session.add_account(parser)
    session.add_stepmemo_namespace(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the explanation; returns the exit code."""
    if args.target in Reason.__members__.values():
        return _code(Reason(args.target))

    async def do(connected: Session) -> int:
        from cli import evidence

        return await evidence.why(connected, args)

    return session.run("why", args, do)


def _code(reason: Reason) -> int:
    from cli import output
    from cli.explanations import TEXTS

    text = TEXTS[reason]
    output.paragraph(f"{reason}. {text.what} {text.cure}")
    return DONE
