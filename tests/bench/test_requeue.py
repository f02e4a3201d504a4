from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

import pytest

from bench import requeue
from bench.controller import Used
from bench.hits import Side
from bench.requeue import Kind, Taken, figures, kinds_of


def parsed(*words: str) -> Namespace:
    parser = ArgumentParser()
    requeue.add_arguments(parser)
    return parser.parse_args(words)


def taken(*seconds: float, meanwhile: float = 40.0) -> list[Taken]:
    return [Taken(one, Used(one / 10, {"Create pods": one * 2}), meanwhile) for one in seconds]


def test_rows_fan_outs_and_ordinary_workflows_are_run() -> None:
    kinds = kinds_of(parsed())
    assert [kind.name for kind in kinds] == ["row-5", "row-20", "fan-out-200", "ordinary-10"]
    assert [len(kind.sides) for kind in kinds] == [3, 3, 3, 1]
    assert [kind.workflows for kind in kinds] == [1, 1, 1, 10]
    assert kinds_of(parsed("--rows", "--fan-outs", "--ordinary=0")) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--requeue", "10"], "'10' lacks a unit after"),
        (["--requeue", "0s"], "'0s' is not more than nothing"),
        (["--requeue-now", "soon"], "'soon' is not a Go duration"),
    ],
)
def test_a_requeue_time_that_is_none_is_told(
    words: Sequence[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parsed(*words)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--without", "60s:row-21"], "--without: 60s:row-21 is not run anyway"),
        (["--without", "1s:ordinary-10:ours"], "--without: 1s:ordinary-10:ours is not run anyway"),
        (["--once", "2s"], "--once: 2s is not run anyway"),
    ],
)
def test_what_would_not_be_run_cannot_be_left_out(words: Sequence[str], said: str) -> None:
    with pytest.raises(SystemExit, match=said):
        requeue.run(parsed(*words))


ROW, FAN_OUT, ORDINARY = kinds_of(parsed("--rows", "5"))


def shown(kind: Kind, all_taken: dict[tuple[str, str, Side], list[Taken]]) -> list[tuple[object, ...]]:
    return [
        (figure.what, figure.against, round(figure.ratio.median, 6), figure.value.n)
        for figure in figures(all_taken, [kind], ["1s"], 20)
    ]


def test_hits_stand_beside_plain_argo_and_argos_own() -> None:
    found = shown(
        ROW,
        {
            ("1s", "row-5", Side.OURS): taken(5, 6, 7),
            ("1s", "row-5", Side.PLAIN): taken(10, 12, 14),
            ("1s", "row-5", Side.ARGOS): taken(1, 2, 3),
        },
    )
    assert found == [
        ("5 hits in a row, 1s", "plain Argo", 0.5, 3),
        ("5 hits in a row, 1s", "Argo's own", 3, 3),
        ("… requests of the controller", "Argo's own", 3, 3),
        ("… CPU of the controller", "Argo's own", 3, 3),
    ]


def test_what_only_some_rounds_have_is_compared_in_these() -> None:
    found = shown(
        ROW,
        {("1s", "row-5", Side.OURS): taken(5, 6, 7), ("1s", "row-5", Side.PLAIN): taken(10)},
    )
    assert found == [("5 hits in a row, 1s", "plain Argo", 0.5, 1)]


def test_a_fan_out_has_a_target_and_the_controllers_own_bound() -> None:
    found = figures(
        {
            ("1s", "fan-out-200", Side.OURS): taken(10),
            ("1s", "fan-out-200", Side.ARGOS): taken(40),
        },
        [FAN_OUT],
        ["1s"],
        20,
    )
    assert [one.what for one in found if one.target and one.target.met(one)] == ["200 hits at once, 1s"]
    rate = found[-1]
    assert (rate.against, rate.value.median, rate.ratio.median) == ("its --qps", 4, 0.2)


@pytest.mark.parametrize(
    ("requeues", "against", "ratios"),
    [(["1s", "10s"], "at 10s", [0.5, 1]), (["1s", "60s"], "at 1s", [1, 3])],
)
def test_ordinary_workflows_stand_beside_those_of_the_usual_requeue_time(
    requeues: Sequence[str], against: str, ratios: Sequence[float]
) -> None:
    seconds = {"1s": 10.0, "10s": 20.0, "60s": 30.0}
    found = figures(
        {(one, "ordinary-10", Side.PLAIN): taken(seconds[one]) for one in requeues},
        [ORDINARY],
        requeues,
        20,
    )
    assert {one.against for one in found} == {against}
    assert [one.ratio.median for one in found if one.unit == "s" and "CPU" not in one.what] == ratios
