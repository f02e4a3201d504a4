"""`stepmemo completion`: what a shell needs to complete our commands and flags; argcomplete does the work.

kubectl asks `kubectl_complete-stepmemo` for the completions of its plugin (since 1.26), with the words of the
line as arguments, and reads them as a program made with cobra prints them
(pkg/cmd/plugin/plugin_completion.go in k8s.io/kubectl).
"""

import argparse
import asyncio
import os
import shlex
import sys
from contextlib import suppress
from io import StringIO
from typing import NoReturn

_CLUSTER_TIMEOUT = 2.0
"""Seconds that somebody who pressed the tab key waits for the cluster."""
_NO_FILES = ":4"
"""Cobra's ShellCompDirectiveNoFileComp, as its last line."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand; `run` carries it out."""
    parser = subparsers.add_parser(
        "completion",
        help="print what makes a shell complete stepmemo's commands",
        description='For bash: eval "$(stepmemo completion bash)" in ~/.bashrc; zsh likewise; for fish: '
        "stepmemo completion fish | source. `kubectl stepmemo` is completed by kubectl's own completion.",
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the script to standard output; returns the exit code."""
    from argcomplete.shell_integration import shellcode

    print(shellcode(["stepmemo", "kubectl-stepmemo"], shell=args.shell))
    return 0


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell and end, where it is the shell that asks."""
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser)


def caches(prefix: str, parsed_args: argparse.Namespace, **_: object) -> list[str]:
    """The names of caches that begin so, for argcomplete; none where the cluster does not say in time."""
    from cli import browse, session

    found: list[str] = []

    async def do(connected: session.Session) -> int:
        async with asyncio.timeout(_CLUSTER_TIMEOUT):
            found.extend([name async for name in browse.names(connected) if name.startswith(prefix)])
        return session.DONE

    with suppress(Exception):
        asyncio.run(session.connected(parsed_args, do))
    return found


class _Done(Exception):  # noqa: N818 - the end of a good run
    pass


def kubectl(argv: list[str] | None = None) -> int:
    """Print the completions of a line whose words, the last one unfinished, are the arguments."""
    import argcomplete

    from cli.__main__ import make_parser

    words = sys.argv[1:] if argv is None else argv
    line = " ".join(["stepmemo", *map(shlex.quote, words[:-1]), *words[-1:]])
    os.environ.update(
        _ARGCOMPLETE="1",
        _ARGCOMPLETE_IFS="\n",
        _ARGCOMPLETE_SUPPRESS_SPACE="1",
        COMP_LINE=line,
        COMP_POINT=str(len(line.encode())),
    )
    found = StringIO()

    def done(code: int) -> NoReturn:
        raise _Done

    with suppress(_Done):
        argcomplete.autocomplete(make_parser(), exit_method=done, output_stream=found)
    print(*filter(None, found.getvalue().splitlines()), _NO_FILES, sep="\n")
    return 0
