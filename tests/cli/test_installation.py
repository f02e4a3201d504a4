from typing import Any

import pytest

import keeper.settings
from cli import installation
from cli.session import CommandError
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
        (deployed(command=["python3", "-m", "keeper"], args=["--gate-timeout", "40s"]), 40),
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


@pytest.mark.parametrize("args", [["--of-another-release", "--help"], ["--gate-timeout=never"]])
def test_settings_that_cannot_be_read_count_as_the_defaults_which_is_told(
    args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    found = {**deployed(args=args), "metadata": {"name": "stepmemo-keeper"}}
    assert installation.settings(found, keeper.settings.parse, {}).gate_timeout == 30
    said = "stepmemo: the settings of stepmemo-keeper cannot be read, so defaults count\n"
    assert capsys.readouterr() == ("", said)


POSTGRES = deployed(args=["--store=postgresql", "--dsn-file=dsn"])


def test_where_the_keeper_has_a_database_what_is_about_configmaps_alone_says_so(
    cluster: Cluster, stepmemo: Stepmemo, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def found(*_: Any) -> Any:
        return POSTGRES

    monkeypatch.setattr(installation, "deployment", found)
    name, other = cluster.namespace(), cluster.namespace()
    make(cluster, name, "greetings", {"k": entry().dump()})
    for command in (
        ["caches", "--no-keeper"],
        ["entries", "greetings", "--no-keeper"],
        ["show", "greetings", "k", "--no-keeper"],
        ["rm", "greetings", "k", "--no-keeper"],
        ["import", "--from", other],
    ):
        _, _, err = stepmemo(*command, "-n", name)
        said = "the keeper keeps its entries in PostgreSQL; this is about ConfigMaps alone"
        assert err.splitlines()[0] == f"stepmemo {command[0]}: {said}"


@pytest.mark.parametrize("readable", [True, False])
def test_where_the_keepers_store_is_not_known_nothing_is_said_of_entries_as_if_it_were(
    readable: bool, cluster: Cluster, stepmemo: Stepmemo, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def found(*_: Any) -> Any:
        if not readable:
            raise CommandError("cannot get deployments in stepmemo: 403")
        return deployed(args=["--of-another-release"])

    monkeypatch.setattr(installation, "deployment", found)
    name = cluster.namespace()
    make(cluster, name, "greetings", {"k": entry().dump()})
    code, out, err = stepmemo("rm", "greetings", "k", "-n", name)
    assert (code, out) == (0, "k: removed\n")
    hint = "whether the keeper keeps entries in PostgreSQL is not known here: if it does, see --keeper"
    assert err == f"stepmemo rm: {hint}\n"
    for command in (["show", "greetings", "k"], ["entries", "none"], ["rm", "none", "k"]):
        code, _, err = stepmemo(*command, "-n", name)
        assert (code, err.endswith(f"; {hint}\n")) == (1, True), err
    assert stepmemo("caches", "-n", name)[2] == ""
    assert stepmemo("caches", "-n", cluster.namespace())[2].endswith(f"; {hint}\n")
    assert hint not in stepmemo("show", "greetings", "k", "-n", name, "--no-keeper")[2]
    pod = step_pod(names.RESULT_MISS, "Miss")
    pod["metadata"]["namespace"] = name
    assert cluster.create(pod)[0] == 201
    _, out, _ = stepmemo("why", POD, "-n", name)
    assert "There is no entry for it now. If the keeper keeps entries in PostgreSQL, that says little" in out
