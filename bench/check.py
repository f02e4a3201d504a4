"""The check inside a Pod: how long a step waits for its decision."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping

from bench import api, machine
from bench.figures import Report, Target, compare
from bench.measure import interleave
from bench.steppod import Workload, bare_python, tls_get
from bench.steps import CACHE, entry
from memoize.reasons import Reason

NAME = "check"
_METHOD = """The real entrypoint (`entrypoint check`) and the sidecar it runs, as in the image, against
an API server over TLS, as processes without containers. From the entrypoint's start to the appearance of the
decision (inotify). The reference of the issue is the sum of two parts of the same round: `python3 -S -c pass`
as a process, and one TLS GET of the same ConfigMap (handshake, request, JSON), timed inside a process that
has imported `http.client` and `ssl` already. The second reference is that whole process, imports and all: the
least that any Python program which asks the API server can take."""
_AGAINST = "`python3 -S -c pass` + one TLS GET"
_LEAST = "the smallest Python process with one TLS GET"
_LIMIT = Target("at most", 3)


def add_arguments(parser: ArgumentParser) -> None:
    """How often to measure."""
    parser.add_argument("--rounds", type=int, default=40, metavar="N", help="rounds (default %(default)s)")


def run(arguments: Namespace) -> Report:
    """Measure checks that miss and checks that hit."""
    described = machine.describe()
    with api.scratch() as (cluster, directory):
        workload = Workload(cluster, directory)
        path = workload.have_cache(CACHE, {"known": entry()})
        get = tls_get(workload, path)

        def reference() -> Mapping[str, float]:
            inside, whole = get()
            return {"get": inside, "least": whole}

        series = interleave(
            arguments.rounds,
            [
                lambda: {"python": bare_python()},
                reference,
                lambda: _decided(workload, "unknown", Reason.MISS),
                lambda: _decided(workload, "known", Reason.HIT),
            ],
        )
        facts = {"API server": api.describe(cluster), "rounds": str(arguments.rounds)}
    issue = [python + get for python, get in zip(series["python"], series["get"], strict=True)]
    figures = [
        compare("a miss, to its decision", "ms", series["Miss"], _AGAINST, issue, _LIMIT),
        compare("a hit, to its decision", "ms", series["Hit"], _AGAINST, issue, _LIMIT),
        compare("a miss, to its decision", "ms", series["Miss"], _LEAST, series["least"]),
        compare("a hit, to its decision", "ms", series["Hit"], _LEAST, series["least"]),
        compare("a miss, to the entrypoint's end", "ms", series["Miss ends"], _AGAINST, issue),
        compare("a hit, to the entrypoint's end", "ms", series["Hit ends"], _AGAINST, issue),
        compare(
            "of the reference: the TLS GET", "ms", series["get"], "`python3 -S -c pass`", series["python"]
        ),
    ]
    return Report(NAME, "The check in a Pod", _METHOD, facts, described, tuple(figures))


def _decided(workload: Workload, key: str, expected: Reason) -> Mapping[str, float]:
    decided = workload.check(key)
    if decided.reason is not expected:
        raise RuntimeError(f"the check said {decided.reason}, not {expected}")
    return {str(expected): decided.to_decision, f"{expected} ends": decided.to_end}
