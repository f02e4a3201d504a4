"""`python -m devcluster demo` shows stepmemo at work; `… up` runs a cluster to play with."""

import argparse
import asyncio
import signal
import sys
import tempfile
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from devcluster import demo
from devcluster.cluster import start
from devcluster.terminal import Terminal


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, 1 when something is not as promised, 128+n when a signal ended it."""
    parser = argparse.ArgumentParser(prog="python -m devcluster", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("demo", help="run workflows of examples/ and show what stepmemo does")
    verbs.add_parser("up", help="run a cluster with stepmemo until Ctrl-C")
    chosen = parser.parse_args(arguments)
    terminal = Terminal(sys.stdout)
    try:
        asyncio.run(_until_signalled(demo.run(terminal) if chosen.verb == "demo" else up(terminal)))
    except demo.BrokenPromiseError as error:
        terminal.bad(f"\nnot as promised: {error}")
        return 1
    except (RuntimeError, TimeoutError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


async def up(terminal: Terminal) -> None:
    """Run a cluster with the namespace `demo` until cancelled."""
    with tempfile.TemporaryDirectory(prefix="stepmemo-devcluster-") as directory:
        async with start(Path(directory)) as cluster:
            await cluster.namespace("demo")
            terminal.say(f"export KUBECONFIG={cluster.kubeconfig}")
            terminal.say("kubectl -n demo create --validate=false -f examples/greet.yaml")
            await cluster.unless_broken(asyncio.Event().wait(), seconds=None)


async def _until_signalled(work: Coroutine[Any, Any, None]) -> None:
    """Do `work`; SIGTERM ends it in good order, as Ctrl-C does."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await task


if __name__ == "__main__":
    sys.exit(main())
