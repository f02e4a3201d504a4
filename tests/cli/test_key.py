import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.__main__ import main
from memoize import names
from tests.argopods import pod_of
from tests.cli.conftest import Stepmemo
from tests.cli.test_stepkey import AUTO, SAY, key_of, workflow
from tests.cluster import Cluster

Json = dict[str, Any]
POD = pod_of(SAY)
WITHOUT = pod_of(SAY)
del WITHOUT["metadata"]["annotations"][names.KEY]
TEMPLATE = workflow({**SAY, **AUTO})


def written(directory: Path, *documents: Json) -> str:
    path = directory / "file.yaml"
    path.write_text(yaml.safe_dump_all(documents), encoding="utf-8")
    return str(path)


def test_a_pods_key_is_shown_with_its_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["key", written(tmp_path, POD)]) == 0
    out, err = capsys.readouterr()
    above, below = out.split("\n\n")
    assert above.splitlines()[1].split() == ["Key:", key_of(POD).key]
    assert below.split()[:3] == ["PART", "DIGEST", "VALUE"]
    assert "busybox:1.36" in below
    assert err == ""


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_programs_get_one_key_as_it_is_and_several_as_items(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    item = key_of(POD).item()
    assert main(["key", written(tmp_path, POD), "-o", form]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == json.loads(json.dumps(item))
    listed = {"apiVersion": "v1", "kind": "List", "items": [POD, POD]}
    assert main(["key", written(tmp_path, listed), "-o", form]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == {"items": [json.loads(json.dumps(item))] * 2}


def test_a_pod_is_read_from_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(POD).encode())))
    assert main(["key", "-", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["key"] == key_of(POD).key


@pytest.mark.parametrize(
    ("documents", "code", "said"),
    [
        ([WITHOUT], 1, f"stepmemo key: its Pod has no annotation {names.KEY}, so it is not memoized"),
        ([POD, WITHOUT], 1, f"stepmemo key: its Pod has no annotation {names.KEY}, so it is not memoized"),
        ([TEMPLATE], 0, "stepmemo key: tags are left in, and what templateDefaults"),
        ([{"kind": "Pod"}], 2, "holds no Pod, and no workflow or template with a key"),
        ([workflow(SAY)], 2, "holds no Pod, and no workflow or template with a key"),
        ([], 2, "holds no Pod, and no workflow or template with a key"),
        (
            [{**POD, "spec": {"containers": [{"env": {"A": 1}}]}}, POD],
            2,
            "file.yaml: spec.containers[0].env is not a list",
        ),
        ([{**POD, "spec": {"containers": 5}}], 2, "holds no Pod"),
        (
            [workflow({**SAY, **AUTO, "container": {"args": [1]}})],
            1,
            "stepmemo key: Workflow/greet-: spec.templates[0].container.args[0] is not a string",
        ),
    ],
)
def test_what_has_no_key_is_told_and_the_rest_is_shown(
    documents: list[Json], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["key", written(tmp_path, *documents)]) == code
    out, err = capsys.readouterr()
    assert said in err
    assert len(err.splitlines()) == 1
    assert bool(out) == (code < 2 and (POD in documents or TEMPLATE in documents))


def test_what_is_no_yaml_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("a: [", encoding="utf-8")
    assert main(["key", str(path)]) == 2
    assert main(["key", str(tmp_path / "gone.yaml")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "line " in err
    assert "No such file" in err


def test_a_pod_of_the_cluster_is_asked_for_by_its_name(cluster: Cluster, stepmemo: Stepmemo) -> None:
    namespace = cluster.namespace()
    pod = {**POD, "metadata": {**POD["metadata"], "namespace": namespace}}
    assert cluster.create(pod)[0] == 201
    code, out, err = stepmemo("key", f"pod/{POD['metadata']['name']}", "-n", namespace, "-o", "json")
    assert (code, json.loads(out)["key"], err) == (0, key_of(POD).key, "")
    gone = stepmemo("key", "po/gone", "-n", namespace)
    assert gone == (1, "", f"stepmemo key: no Pod gone in the Namespace {namespace}\n")
    assert stepmemo("key", "pod/A_B", "-n", namespace) == (2, "", "stepmemo key: 'pod/A_B' names no Pod\n")
