from typing import Any

import pytest

import keeper.settings
from cli import installation
from memoize import names
from tests.cli.caches import entry, make
from tests.cli.conftest import Stepmemo
from tests.cli.test_why import POD, step_pod
from tests.cluster import Cluster


def deployed(**container: object) -> dict[str, object]:
    return {"spec": {"template": {"spec": {"containers": [container]}}}}


@pytest.mark.parametrize(
    ("found", "seconds"),
    [
        (deployed(command=["python3", "-m", "keeper", "--gate-timeout=40s"]), 40),
        (deployed(args=["--gate-timeout=40s"], env=[{"name": "STEPMEMO_GATE_TIMEOUT", "value": "50s"}]), 40),
        (deployed(env=[{"name": "STEPMEMO_GATE_TIMEOUT", "value": "50s"}]), 50),
        (deployed(env=[{"name": "STEPMEMO_GATE_TIMEOUT", "valueFrom": {}}]), 30),
        (deployed(args=["--of-another-release", "--help"]), 30),
        (deployed(args=["--gate-timeout=never"]), 30),
        (deployed(), 30),
        ({}, 30),
        (None, 30),
    ],
)
def test_settings_are_read_off_a_deployment_by_the_programs_own_reader(
    found: dict[str, object] | None, seconds: float, capsys: pytest.CaptureFixture[str]
) -> None:
    assert installation.settings(found, keeper.settings.parse, {}).gate_timeout == seconds
    assert capsys.readouterr() == ("", "")


POSTGRES = deployed(args=["--store=postgresql"])


def test_where_the_keeper_has_a_database_it_is_said_that_configmaps_alone_are_shown(
    cluster: Cluster, stepmemo: Stepmemo, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def found(*_: Any) -> Any:
        return POSTGRES

    monkeypatch.setattr(installation, "deployment", found)
    name = cluster.namespace()
    make(cluster, name, "greetings", {"k": entry().dump()})
    for command in (
        ["caches"],
        ["entries", "greetings"],
        ["show", "greetings", "k"],
        ["rm", "greetings", "k"],
    ):
        _, _, err = stepmemo(*command, "-n", name)
        said = "the keeper keeps its entries in PostgreSQL; this is about ConfigMaps alone"
        assert err == f"stepmemo {command[0]}: {said}\n"
    pod = step_pod(names.RESULT_MISS, "Miss")
    pod["metadata"]["namespace"] = name
    assert cluster.create(pod)[0] == 201
    _, out, _ = stepmemo("why", POD, "-n", name)
    assert "Entries are kept in PostgreSQL, which is not looked at here." in out
