"""Opting in and out, at submit and for one run."""

import pytest

from argo import names as argo
from tests.e2e.cluster import CONTROLLER, Namespace, fresh_namespace, workflow
from tests.e2e.kube import kubectl
from tests.e2e.run import twice
from tests.e2e.steps import arguments, container, in_a_row, memo, opted_in, shell, use

ARGOS = {argo.WAIT_CONTAINER, argo.SUPERVISOR_CONTAINER}


def test_modes_of_one_run(ns: Namespace) -> None:
    mode = "stepmemo.dev/mode"
    first = ns.run(container())
    off = ns.run(container(), labels={mode: "off"})
    assert off.output() != first.output()
    assert ns.run(container()).output() == first.output()
    refreshed = ns.run(container(), labels={mode: "refresh"})
    assert refreshed.executions() == 1, refreshed.said()
    assert ns.run(container()).output() == refreshed.output() != first.output()
    read_only = ns.run(container(memoize=memo("other")), annotations={mode: "readonly"})
    assert read_only.executions() == 1
    assert list(ns.entries()) == ["k"]


def test_a_broken_block_is_denied_at_submit(ns: Namespace) -> None:
    """Without a field that there is not, which kubectl itself refuses under Argo's full CRDs."""
    with pytest.raises(AssertionError) as refused:
        ns.submit(
            container(memoize={"key": " ", "maxAge": "1d", "cache": {"configMap": {"name": "Upper_Case"}}})
        )
    for field in ("memoize.key", "memoize.maxAge", "memoize.cache.configMap.name"):
        assert f"spec.templates[0].{field}" in str(refused.value)


def test_a_namespace_label_opts_in() -> None:
    with fresh_namespace({"stepmemo.dev/memoize": "true"}) as namespace:
        template = container(metadata={})
        twice(*namespace.runs(template))


def test_a_template_of_steps_is_left_to_argo(ns: Namespace) -> None:
    """A memoized template of steps stays Argo's, and what is in it runs."""
    plain = {"name": "plain", "container": shell("true")}
    group = in_a_row({"template": "plain"}) | {"memoize": memo("group", cache=ns.name, max_age="1h")}
    try:
        run = ns.run(group, plain, entrypoint="main", annotations={"stepmemo.dev/memoize": "true"})
        assert run.phase == "Succeeded", run.said()
        assert run.executions() == 1, run.said()
        assert ns.entries() == {}, run.said()
        assert {c["name"] for pod in run.pods() for c in pod["spec"]["containers"]} <= {"main", *ARGOS}
    finally:  # Argo keeps its own entries beside its controller
        kubectl("-n", CONTROLLER, "delete", "configmap", ns.name, "--ignore-not-found", check=False)


def test_a_memoized_daemon_always_runs(ns: Namespace) -> None:
    """A memoized daemon always runs: nobody keeps it, and who uses its address gets it."""
    daemon = {"name": "daemon", "daemon": True, "memoize": memo("daemon", cache=ns.name, max_age="1h")}
    daemon |= {"metadata": opted_in(), "container": shell("sleep 600")}
    main = in_a_row(
        {"template": "daemon"},
        {"template": "use", "arguments": arguments(x="{{steps.a.ip}}")},
    )
    runs = ns.runs(main, daemon, use(), entrypoint="main")
    for run in runs:
        assert run.phase == "Succeeded", run.said()
        assert run.executions() == 2, run.said()
        (pod,) = (pod for pod in run.pods() if "-daemon-" in pod["metadata"]["name"])
        assert run.output("seen", "use") == pod["status"]["podIP"]
    assert ns.entries() == {}
    warnings = ns.warnings(workflow(main, daemon, use(), entrypoint="main"))
    assert any("templates[1].memoize" in warning for warning in warnings), warnings
