from pathlib import Path
from typing import Any

import pytest
import yaml

from cli import completion
from cli.__main__ import main, make_parser
from tests.cli.caches import make
from tests.cli.conftest import Stepmemo
from tests.cluster import Cluster


def written(cluster: Cluster, path: Path, **changes: Any) -> str:
    found = yaml.safe_load(cluster.kubeconfig.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({**found, **changes}), encoding="utf-8")
    return str(path)


def context(cluster: Cluster, name: str, namespace: str) -> dict[str, Any]:
    """A context of the cluster's, for a Namespace."""
    found = yaml.safe_load(cluster.kubeconfig.read_text(encoding="utf-8"))["contexts"][0]["context"]
    return {"name": name, "context": {**found, "namespace": namespace}}


def test_the_namespace_is_the_flags_or_the_contexts_or_default(
    cluster: Cluster, stepmemo: Stepmemo, tmp_path: Path
) -> None:
    one, two = cluster.namespace(), cluster.namespace()
    contexts = [context(cluster, "one", one), context(cluster, "two", two)]
    kubeconfig = written(cluster, tmp_path / "k", contexts=contexts, **{"current-context": "one"})
    for namespace in (one, two):
        make(cluster, namespace, f"in-{namespace}", {})

    def shown(*args: str) -> list[str]:
        _, out, err = stepmemo("caches", "--kubeconfig", kubeconfig, *args)
        return [line.split()[1] for line in out.splitlines()[1:]] or [err]

    assert shown() == [f"in-{one}"]
    assert shown("--context", "two") == [f"in-{two}"]
    assert shown("--context", "two", "-n", one) == [f"in-{one}"]
    assert {f"in-{one}", f"in-{two}"} <= set(shown("-A"))
    bare = written(cluster, tmp_path / "bare")
    code, _, err = stepmemo("entries", "none", "--kubeconfig", bare)
    assert (code, err) == (1, "stepmemo entries: no ConfigMap none in the Namespace default\n")


def test_of_several_files_in_the_variable_the_first_says_the_context(
    cluster: Cluster, stepmemo: Stepmemo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = cluster.namespace()
    contexts = [context(cluster, "mine", name)]
    written(
        cluster,
        tmp_path / "contexts",
        clusters=[],
        users=[],
        contexts=contexts,
        **{"current-context": "mine"},
    )
    written(cluster, tmp_path / "rest", contexts=[])
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'missing'}:{tmp_path / 'contexts'}:{tmp_path / 'rest'}")
    assert stepmemo("caches") == (0, "", f"stepmemo caches: no cache in the Namespace {name}\n")


@pytest.mark.parametrize(
    "text", [None, "", "[]", "{", "contexts: 7", "\x00", "clusters: [{}]", "current-context: x"]
)
def test_what_is_no_kubeconfig_is_told_in_a_line(
    text: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "kubeconfig"
    if text is not None:
        path.write_text(text)
    assert main(["caches", "--kubeconfig", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("stepmemo caches: no cluster to talk to: ")
    assert len(err.splitlines()) == 1


def test_a_context_that_is_not_there_is_told(cluster: Cluster, stepmemo: Stepmemo) -> None:
    code, _, err = stepmemo("caches", "--context", "none")
    assert (code, err) == (
        2,
        f"stepmemo caches: no cluster to talk to: no context 'none' in {cluster.kubeconfig}\n",
    )


def test_a_server_that_is_away_is_told_in_a_line(
    cluster: Cluster, stepmemo: Stepmemo, tmp_path: Path
) -> None:
    clusters = yaml.safe_load(cluster.kubeconfig.read_text(encoding="utf-8"))["clusters"]
    clusters[0]["cluster"]["server"] = "https://127.0.0.1:1"
    kubeconfig = written(cluster, tmp_path / "k", clusters=clusters)
    code, out, err = stepmemo("caches", "--kubeconfig", kubeconfig)
    assert (code, out) == (1, "")
    assert err.startswith("stepmemo caches: cannot list ConfigMaps: ClientConnectorError")
    assert len(err.splitlines()) == 1


def test_credentials_that_are_not_known_are_told(
    cluster: Cluster, stepmemo: Stepmemo, kubeconfig_of: Any
) -> None:
    code, _, err = stepmemo("caches", "--kubeconfig", kubeconfig_of("nobody"))
    assert code == 1
    assert err.startswith("stepmemo caches: cannot list ConfigMaps: 401 Unauthorized")


def test_a_shell_completes_names_of_caches(cluster: Cluster, stepmemo: Stepmemo) -> None:
    name = cluster.namespace()
    for cache in ("greetings", "greens", "reports"):
        make(cluster, name, cache, {})
    args = make_parser().parse_args(["entries", "-n", name, "gre"])
    assert sorted(completion.caches("gre", args)) == ["greens", "greetings"]


def test_a_shell_completes_nothing_where_there_is_no_cluster(tmp_path: Path) -> None:
    args = make_parser().parse_args(["entries", "--kubeconfig", str(tmp_path / "none"), "gre"])
    assert completion.caches("gre", args) == []
