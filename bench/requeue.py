"""What the controller's requeue time costs on a cluster: hits in a row and at once, ordinary workflows."""

import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TypeVar

from argo.version import CONTROLLER
from bench import controller, hits, machine
from bench.chain import Object
from bench.cluster import prepared_namespace, versions
from bench.controller import Controller, Used
from bench.fanout import HALF, add_surroundings
from bench.figures import Figure, Report, Target, compare
from bench.hits import Side
from bench.kube import Kube, KubeError, connected
from bench.report import number
from bench.workflows import Runner
from cli.checks import DEFAULT_REQUEUE
from memoize import duration

NAME = "requeue"
_METHOD = """Argo's controller is started anew with each requeue time in turn (its `DEFAULT_REQUEUE_TIME`).
Steps are in the cache, by entries that were put there by hand; plain Argo runs as many trivial ones (`true`).
A time is from the moment before the first Workflow is created until a watch shows the last one finished; hits
are proved as in the fan-out benchmark. Ordinary workflows are three such trivial steps in a row, memoized by
nobody. CPU and requests are those of the controller by its own metrics, from before the first Workflow is
created until it has sent nothing for some seconds, which is the rest before the next run: its Events and the
labels of Pods come after the end. Watches and its leader election are not counted. `requests a second
meanwhile` ends with the last Workflow. The order of requeue times, kinds and sides is turned every round."""
_FAN_OUT = "fan-out"
_ORDINARY_STEPS = 3
T = TypeVar("T")
_LONGEST_REST = 120.0


def add_arguments(parser: ArgumentParser) -> None:
    """What to run where, and who sets the requeue time."""
    parser.add_argument(
        "--requeue",
        type=_requeue,
        nargs="+",
        default=["100ms", "1s", "10s", "60s"],
        metavar="TIME",
        help="default %(default)s",
    )
    parser.add_argument(
        "--once",
        type=_requeue,
        nargs="+",
        default=[],
        metavar="TIME",
        help="those that the first round alone has",
    )
    parser.add_argument(
        "--without",
        default=[],
        nargs="+",
        metavar="TIME:KIND[:SIDE]",
        help="leave these out, such as 60s:row-20 or 10s:fan-out-200:plain; sides: ours, argos, plain",
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default %(default)s")
    parser.add_argument("--rows", type=int, nargs="*", default=[5, 20], metavar="N", help="hits in a row")
    parser.add_argument("--fan-outs", type=int, nargs="*", default=[200], metavar="N", help="hits at once")
    parser.add_argument("--ordinary", type=int, default=10, metavar="N", help="workflows at once; 0: none")
    parser.add_argument(
        "--rest", type=float, default=5, metavar="S", help="without a request, before each run"
    )
    parser.add_argument("--patience", type=float, default=600, metavar="S", help="longest time for one run")
    parser.add_argument("--label", default="", metavar="WORD", help="of this run, beside Argo's version")
    parser.add_argument(
        "--qps", type=float, default=20, metavar="N", help="what the controller may send a second"
    )
    parser.add_argument(
        "--controller-deployment", default=CONTROLLER, metavar="NAME", help="default %(default)s"
    )
    parser.add_argument(
        "--set-requeue",
        default="",
        metavar="COMMAND",
        help="starts a controller that is a process of its own anew, {requeue} in it replaced",
    )
    parser.add_argument(
        "--requeue-now", type=_requeue, metavar="TIME", help="what that one is set to at the end"
    )
    parser.add_argument(
        "--controller-metrics",
        default="",
        metavar="URL",
        help="by default through the API server, and https://127.0.0.1:9090/metrics with --set-requeue",
    )
    add_surroundings(parser)


@dataclass(frozen=True, slots=True)
class Kind:
    """Workflows of one shape: so many at once, each of so many steps, answered by each of these sides."""

    name: str
    title: str
    groups: hits.Groups
    steps: int
    sides: tuple[Side, ...] = tuple(Side)
    workflows: int = 1


@dataclass(frozen=True, slots=True)
class Taken:
    """One run: its seconds, what the controller used until it rested, and its requests until the end."""

    seconds: float
    used: Used
    meanwhile: float


@dataclass
class Bench:
    """Runs everything against one controller. What was taken lies by requeue time, kind and side."""

    kube: Kube
    controller: Controller
    arguments: Namespace
    kinds: Sequence[Kind]
    taken: dict[tuple[str, str, Side], list[Taken]] = field(default_factory=dict)
    pods: list[Object] = field(default_factory=list)
    """Of a run that had any."""
    namespace: str = ""
    """The last one that was made."""

    def rounds(self) -> None:
        """All rounds."""
        for number_ in range(self.arguments.rounds):
            values = [one for one in self.arguments.requeue if not number_ or one not in self.arguments.once]
            for requeue in _turned(values, number_):
                _until_gone(self.kube, self.namespace)
                self.controller.set(requeue)
                self._round(requeue, number_)

    def _round(self, requeue: str, number_: int) -> None:
        arguments = self.arguments
        seconds = duration.parse(requeue) / 1e9
        most = max((kind.steps for kind in self.kinds), default=0)
        patience = arguments.patience + seconds * (2 + max([0, *arguments.rows]))
        with ExitStack() as stack:
            self.namespace = stack.enter_context(prepared_namespace(self.kube))
            runner = Runner(self.kube, self.namespace, patience)
            homes = {Side.OURS: self.namespace, Side.ARGOS: arguments.controller_namespace}
            caches = {
                side: stack.enter_context(hits.cache(self.kube, home, "bench-requeue", hits.answers(most)))
                for side, home in homes.items()
            }
            for kind in _turned(self.kinds, number_):
                for side in _turned(kind.sides, number_):
                    if not _names(requeue, kind, side) & set(arguments.without):
                        taken = self._run(runner, kind, side, caches.get(side, ""))
                        self.taken.setdefault((requeue, kind.name, side), []).append(taken)
                        print(f"  round {number_ + 1}: {_line(requeue, kind, side, taken)}", file=sys.stderr)

    def _run(self, runner: Runner, kind: Kind, side: Side, cache: str) -> Taken:
        one = hits.workflow(
            kind.groups,
            side,
            image=self.arguments.image,
            cache=cache,
            instance_id=self.arguments.instance_id,
            name=f"{kind.name}-",
        )
        before = self._rested()
        seconds, finished = runner.run(*[one] * kind.workflows)
        meanwhile = self.controller.used() - before
        for each in finished:
            pods = runner.pods(each)
            hits.prove(each, pods, side, kind.steps)
            self.pods = pods or self.pods
        return Taken(seconds, self._rested() - before, meanwhile.sent)

    def _rested(self) -> Used:
        """What the controller has used once it rests: it has sent nothing for a while."""
        found = self.controller.used()
        began = since = time.monotonic()
        while (now := time.monotonic()) - since < self.arguments.rest:
            if now - began > _LONGEST_REST:
                print("  the controller does not rest", file=sys.stderr)
                break
            time.sleep(1)
            last, found = found, self.controller.used()
            if found.sent > last.sent:
                since = time.monotonic()
        return found


def run(arguments: Namespace) -> Report:
    """All rounds; Ctrl-C, or a failure, ends them with what was taken so far."""
    described = machine.describe()
    kinds = kinds_of(arguments)
    _refuse_unknown(arguments, kinds)
    with connected() as kube:
        bench = Bench(kube, _controller(kube, arguments), arguments, kinds)
        ended = "as planned"
        with bench.controller.restored():
            try:
                bench.rounds()
            except KeyboardInterrupt:
                ended = "by hand"
            except (KubeError, OSError) as error:
                ended = f"early: {error}"
        if not bench.taken:
            raise SystemExit(f"nothing was measured; it ended {ended}")
        ran = versions(kube, bench.pods)
    facts = {**ran, "rounds": str(arguments.rounds), "ended": ended, **_requests(bench)}
    label = f"-{arguments.label}" if arguments.label else ""
    argo = ran["Argo"].partition(",")[0]
    return Report(
        f"{NAME}-{argo}{label}",
        f"What the requeue time costs, on Argo {argo}",
        _METHOD,
        facts,
        described,
        figures(bench.taken, kinds, arguments.requeue, arguments.qps),
    )


def kinds_of(arguments: Namespace) -> list[Kind]:
    """What is run, by the arguments."""
    rows = (
        Kind(f"row-{steps}", f"{steps} hits in a row", hits.in_a_row(steps), steps)
        for steps in arguments.rows
    )
    fans = (
        Kind(f"{_FAN_OUT}-{width}", f"{width} hits at once", hits.at_once(width), width)
        for width in arguments.fan_outs
    )
    count = arguments.ordinary
    ordinary = Kind(
        f"ordinary-{count}",
        f"{count} ordinary workflows at once",
        hits.in_a_row(_ORDINARY_STEPS),
        _ORDINARY_STEPS,
        (Side.PLAIN,),
        count,
    )
    return [*rows, *fans, *([ordinary] if count else [])]


def figures(
    taken: Mapping[tuple[str, str, Side], Sequence[Taken]],
    kinds: Sequence[Kind],
    requeues: Sequence[str],
    qps: float,
) -> tuple[Figure, ...]:
    """Hits beside plain Argo and Argo's own of the same rounds; ordinary workflows beside those of 10 s.

    Where the controller never ran at 10 s, its default, they stand beside those of the first requeue time.
    """
    usual = DEFAULT_REQUEUE if DEFAULT_REQUEUE in requeues else requeues[0]
    made: list[Figure] = []
    for requeue in requeues:
        for kind in kinds:
            what = f"{kind.title}, {requeue}"
            ours, argos, plain = (taken.get((requeue, kind.name, side), ()) for side in Side)
            if Side.OURS not in kind.sides:
                made += _beside(what, plain, f"at {usual}", taken.get((usual, kind.name, Side.PLAIN), ()))
                continue
            fan_out = kind.name.startswith(_FAN_OUT)
            made += list(_beside(what, ours, Side.PLAIN, plain))[:1]
            made += _beside(what, ours, Side.ARGOS, argos, HALF if fan_out else None)
            if fan_out and ours:
                rates = [one.meanwhile / one.seconds for one in ours]
                allowed = [qps] * len(rates)
                made.append(compare("… requests a second meanwhile", "/s", rates, "its --qps", allowed))
    return tuple(made)


def _beside(
    what: str, ours: Sequence[Taken], against: str, theirs: Sequence[Taken], target: Target | None = None
) -> Iterator[Figure]:
    """Seconds, requests and CPU of the rounds that both have."""
    both = list(zip(ours, theirs, strict=False))
    if not both:
        return

    def pair(of: Callable[[Taken], float]) -> tuple[list[float], list[float]]:
        return [of(one) for one, _ in both], [of(other) for _, other in both]

    values, references = pair(lambda one: one.seconds)
    yield compare(what, "s", values, against, references, target)
    values, references = pair(lambda one: one.used.sent)
    yield compare("… requests of the controller", "", values, against, references)
    values, references = pair(lambda one: one.used.cpu)
    yield compare("… CPU of the controller", "s", values, against, references)


def _requests(bench: Bench) -> dict[str, str]:
    """Which requests the widest fan-out of ours was made of, as a fact of the report."""
    fans = [kind for kind in bench.kinds if kind.name.startswith(_FAN_OUT)]
    if not fans:
        return {}
    widest = max(fans, key=lambda kind: kind.steps)
    found = (bench.taken.get((requeue, widest.name, Side.OURS)) for requeue in bench.arguments.requeue)
    taken = next((one[-1] for one in found if one), None)
    return {f"requests of the controller for {widest.title}": _most(taken.used)} if taken else {}


def _most(used: Used) -> str:
    sent = sorted(used.requests.items(), key=lambda one: -one[1])
    return ", ".join(f"{count:.0f} × {what}" for what, count in sent)


def _line(requeue: str, kind: Kind, side: Side, taken: Taken) -> str:
    waited = "" if taken.used.waited is None else f", {number(taken.used.waited)} s in its rate limiter"
    return (
        f"{requeue}, {kind.title}, {side}: {number(taken.seconds)} s, {taken.meanwhile:.0f} requests "
        f"meanwhile; until it rested {number(taken.used.cpu)} s CPU{waited}, {taken.used.sent:.0f} requests: "
        f"{_most(taken.used)}"
    )


def _controller(kube: Kube, arguments: Namespace) -> Controller:
    if not arguments.set_requeue:
        where = arguments.controller_namespace, arguments.controller_deployment
        return controller.deployed(kube, *where, arguments.controller_metrics)
    if not arguments.requeue_now:
        raise SystemExit("--set-requeue needs --requeue-now TIME, to set it back at the end")
    url = arguments.controller_metrics or "https://127.0.0.1:9090/metrics"
    return controller.started_by(arguments.set_requeue, arguments.requeue_now, url)


def _refuse_unknown(arguments: Namespace, kinds: Sequence[Kind]) -> None:
    """SystemExit where `--without` or `--once` name what is not run anyway: most likely it is misspelt."""
    known = {
        word
        for requeue in arguments.requeue
        for kind in kinds
        for side in kind.sides
        for word in _names(requeue, kind, side)
    }
    for flag, wrong in (
        ("--without", set(arguments.without) - known),
        ("--once", set(arguments.once) - set(arguments.requeue)),
    ):
        if wrong:
            raise SystemExit(f"{flag}: {', '.join(sorted(wrong))} is not run anyway")


def _names(requeue: str, kind: Kind, side: Side) -> set[str]:
    """What `--without` may call this run."""
    return {f"{requeue}:{kind.name}", f"{requeue}:{kind.name}:{side.name.lower()}"}


def _turned(items: Sequence[T], number_: int) -> Sequence[T]:
    return items if number_ % 2 == 0 else items[::-1]


def _requeue(text: str) -> str:
    try:
        nanoseconds = duration.parse(text)
    except duration.DurationError as error:
        raise ArgumentTypeError(f"{text!r} {error}") from None
    if nanoseconds <= 0:
        raise ArgumentTypeError(f"{text!r} is not more than nothing: write a time such as 1s")
    return text


def _until_gone(kube: Kube, namespace: str) -> None:
    """Wait for the deletion of a namespace, if there is one: its many Pods keep the cluster busy."""
    deadline = time.monotonic() + _LONGEST_REST
    with suppress(KubeError):
        while namespace and time.monotonic() < deadline:
            kube.request("GET", f"/api/v1/namespaces/{namespace}")
            time.sleep(1)
