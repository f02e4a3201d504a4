"""The cluster that a command talks to: kubectl's flags, and what goes wrong there as one line and a code.

What a Kubernetes client needs is loaded when a command runs: it takes longer than the commands on files do.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memoize import __version__, spec
from memoize import duration as durations

if TYPE_CHECKING:
    from kubernetes_asyncio.client import ApiClient

    from kube.errors import ApiError

DONE, FAILED, USAGE = 0, 1, 2
"""Exit codes of every command: 2 is wrong usage, or no cluster to talk to."""
_INTERRUPTED = 130
_USER_AGENT = f"stepmemo-cli/{__version__}"
SECONDS = 10.0
"""For one request."""


class CommandError(Exception):
    """Why a command cannot go on, as one line for its user."""

    def __init__(self, text: str, code: int = FAILED, *, status: int = 0, said: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.status, self.said = status, said
        """Where it was the API server: the HTTP status of its answer, and its own sentence."""


@dataclass(frozen=True, slots=True)
class Session:
    """A connection, and the Namespace that the command is about."""

    api: "ApiClient"
    namespace: str
    """"" for all of them."""

    def within(self, namespace: str) -> "Session":
        """The same connection, for another Namespace."""
        return replace(self, namespace=namespace)

    async def ask(self, doing: str, method: str, path: str, **options: Any) -> dict[str, Any]:
        """As kube.client.request; CommandError where it fails. `doing` says what for, as `list Pods`."""
        from kube import client
        from kube.errors import ApiError

        try:
            return await client.request(self.api, method, path, seconds=SECONDS, **options)
        except ApiError as error:
            raise failure(doing, error) from None

    async def find(self, doing: str, path: str, **options: Any) -> dict[str, Any] | None:
        """As `ask` with GET; None where it is not there."""
        from kube import client
        from kube.errors import ApiError, NotFound

        try:
            return await client.request(self.api, "GET", path, seconds=SECONDS, **options)
        except NotFound:
            return None
        except ApiError as error:
            raise failure(doing, error) from None


def add_connection(parser: argparse.ArgumentParser) -> None:
    """Add kubectl's flags that say which cluster."""
    group = parser.add_argument_group("cluster", "as for kubectl")
    group.add_argument("--kubeconfig", metavar="FILE", help="default: $KUBECONFIG, or ~/.kube/config")
    group.add_argument("--context", metavar="NAME", help="default: the kubeconfig's current one")


def add_namespace(parser: argparse.ArgumentParser, *, all_namespaces: bool = False) -> None:
    """Add those that say which cluster and Namespace."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "-n", "--namespace", type=label, metavar="NAMESPACE", help="default: the context's, or default"
    )
    if all_namespaces:
        where.add_argument("-A", "--all-namespaces", action="store_true", help="those of every Namespace")
    add_connection(parser)


def add_stepmemo_namespace(parser: argparse.ArgumentParser) -> None:
    """Add the flag that says where the installation is."""
    parser.add_argument(
        "--stepmemo-namespace",
        metavar="NAMESPACE",
        type=label,
        default="stepmemo",
        help="where webhook and keeper run (default: %(default)s)",
    )


def add_account(parser: argparse.ArgumentParser) -> None:
    """Add the flag that says by whose token the keeper is asked."""
    parser.add_argument(
        "--account",
        metavar="NAME",
        type=name,
        default="default",
        help="the ServiceAccount of the Namespace that the keeper is shown a token of, where it is asked "
        "(default: %(default)s)",
    )


def add_keeper(parser: argparse.ArgumentParser) -> None:
    """Add those that say whether the keeper is asked, where it is, and by whose token."""
    parser.add_argument(
        "--keeper",
        action=argparse.BooleanOptionalAction,
        help="ask the keeper, wherever it keeps entries, or look at ConfigMaps (default: ask it where its "
        "Deployment says --store postgresql)",
    )
    add_account(parser)
    add_stepmemo_namespace(parser)


def add_form(parser: argparse.ArgumentParser) -> None:
    """Add the flag that says how a command prints."""
    parser.add_argument(
        "-o",
        "--output",
        choices=("table", "wide", "json", "yaml"),
        default="table",
        help="wide: more columns, and nothing is cut (default: %(default)s)",
    )


def is_name(text: str) -> bool:
    """Whether an object may be named so."""
    return spec.is_dns1123_subdomain(text)


def name(text: str) -> str:
    """A flag's or argument's value that names an object; argparse tells who gives another one."""
    if not is_name(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name of Kubernetes")
    return text


def label(text: str) -> str:
    """The same for a Namespace."""
    if "." in name(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a Namespace")
    return text


def duration(text: str) -> timedelta:
    """A flag's value that is a Go duration, and longer than nothing; argparse tells who gives another one."""
    try:
        nanoseconds = durations.parse(text)
    except durations.DurationError as error:
        raise argparse.ArgumentTypeError(f"{text!r} {error}") from None
    if nanoseconds <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not longer than 0s")
    return timedelta(microseconds=nanoseconds / 1000)


def run(
    command: str,
    args: argparse.Namespace,
    do: Callable[[Session], Awaitable[int]],
    interrupted: str = "interrupted",
) -> int:
    """Connect, and do it; returns the exit code. Errors and Ctrl-C are told on standard error."""
    try:
        return asyncio.run(connected(args, do))
    except CommandError as error:
        return say(command, str(error), error.code)
    except KeyboardInterrupt:
        return say(command, interrupted, _INTERRUPTED)


def now() -> datetime:
    """The time that ages are counted to, aware."""
    return datetime.now(UTC)


def say(command: str, text: str, code: int = DONE) -> int:
    """Write a line to standard error; returns the code."""
    from cli.plain import plain

    print(f"stepmemo {command}: {plain(text)}", file=sys.stderr)
    return code


def failure(doing: str, error: "ApiError") -> CommandError:
    """What to tell of a request that failed; of one that was refused the right that is missing.

    The API server's own sentence names user, verb, resource and Namespace.
    """
    said = f"{error}: {error.message}" if error.message else str(error)
    return CommandError(f"cannot {doing}: {said}", status=error.status, said=error.message or str(error))


async def connected(args: argparse.Namespace, do: Callable[[Session], Awaitable[int]]) -> int:
    """Connect, and do it; CommandError where there is no cluster."""
    import yaml

    from kube import client
    from kube.errors import ApiError

    try:
        context, contexts_namespace = _context(args)
        api = await client.connect(_USER_AGENT, kubeconfig=args.kubeconfig, context=context)
    except (ApiError, OSError, yaml.YAMLError, AttributeError, LookupError, TypeError, ValueError) as error:
        # From AttributeError on: a kubeconfig that is YAML, or text, and no kubeconfig.
        raise CommandError(f"no cluster to talk to: {error}", USAGE) from None
    namespace = getattr(args, "namespace", None) or contexts_namespace
    everywhere = getattr(args, "all_namespaces", False)
    async with api:
        return await do(Session(api, "" if everywhere else namespace))


def _context(args: argparse.Namespace) -> tuple[str | None, str]:
    """The context, None for that of the Pod's service account, and its Namespace."""
    import yaml

    from kube import client

    files = args.kubeconfig or client.kubeconfigs()
    if files is None:
        return None, "default"
    # Of several files the first one says which context is the current one (client-go's loading rules); to the
    # library it would be the last one's, and so, now and then, another cluster than kubectl's.
    paths = [Path(path).expanduser() for path in files.split(os.pathsep) if path]
    found = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
    if not found:
        raise FileNotFoundError(f"{files}: no such file")
    name = args.context or next((current for one in found if (current := one.get("current-context"))), None)
    if name is None:
        raise CommandError(f"no cluster to talk to: {files} names no current-context, say --context", USAGE)
    contexts = (context for one in found for context in one.get("contexts") or ())
    context = next((one for one in contexts if one["name"] == name), None)
    if context is None:
        raise CommandError(f"no cluster to talk to: no context {name!r} in {files}", USAGE)
    return str(name), str(context["context"].get("namespace") or "default")
