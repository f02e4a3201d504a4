import pytest

from cli.__main__ import main
from keeper import leave
from memoize import names
from tests.cli.test_release import gate, gates, get
from tests.cluster import Cluster


@pytest.fixture(autouse=True)
def clustered(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    monkeypatch.setattr(leave, "SETTLE_SECONDS", 0.1)
    monkeypatch.setattr(leave, "_PAUSE", 0.05)


def test_gated_pods_run(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    pod = gate(cluster, cluster.namespace(), "one")
    assert main(["leave"]) == 0
    assert gates(get(cluster, pod)) == []
    assert get(cluster, pod)["metadata"]["labels"][names.RESULT] == names.RESULT_SKIPPED
    assert capsys.readouterr().out.endswith("no Pod is gated, and none will be\n")


def test_what_is_in_the_way_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(leave, "SETTLE_SECONDS", 60.0)
    assert main(["leave", "--timeout=3s"]) == 1
    assert capsys.readouterr().err == (
        "stepmemo leave: not done after 3 s: a Pod that is being admitted may be gated yet\n"
    )


def test_a_time_that_is_none_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["leave", "--timeout=0s"])
    assert exited.value.code == 2
    assert "'0s' is not longer than 0s" in capsys.readouterr().err
