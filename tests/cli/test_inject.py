import io
import json
import sys
from pathlib import Path
from typing import Any

import jsonpatch
import pytest
import yaml

from cli.__main__ import main
from tests.recordedpods import PODS

POD = PODS / "v4.1.2-legacy" / "container.json"


def recorded() -> dict[str, Any]:
    pod: dict[str, Any] = json.loads(POD.read_text(encoding="utf-8"))
    return pod


def written(directory: Path, text: str) -> str:
    path = directory / "pod.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def names_of(containers: list[dict[str, Any]]) -> list[str]:
    return [container["name"] for container in containers]


def test_a_pod_comes_out_injected_as_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inject", str(POD), "--image", "stepmemo:golden"]) == 0
    out, err = capsys.readouterr()
    assert yaml.safe_load(out) == json.loads(POD.with_suffix(".golden.json").read_text(encoding="utf-8"))
    assert err == f"stepmemo inject: {POD}: Injected\n"


def test_the_entrypoint_can_be_our_image_as_a_volume(capsys: pytest.CaptureFixture[str]) -> None:
    golden = POD.with_suffix(".image-volume.golden.json")
    assert main(["inject", str(POD), "--image", "stepmemo:golden", "--injection", "image-volume"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == json.loads(golden.read_text(encoding="utf-8"))


def test_another_injection_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["inject", str(POD), "--injection", "image"])
    assert ended.value.code == 2
    assert "init-container, image-volume" in capsys.readouterr().err.replace("'", "")


def test_json_is_for_the_asking(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inject", str(POD), "-o", "json"]) == 0
    spec = json.loads(capsys.readouterr().out)["spec"]
    assert names_of(spec["initContainers"]) == ["stepmemo-check", "init"]


def test_a_yaml_pod_is_read_from_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = yaml.safe_dump(recorded(), allow_unicode=True).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert main(["inject", "-"]) == 0
    assert names_of(yaml.safe_load(capsys.readouterr().out)["spec"]["containers"])[-1] == "stepmemo"


def test_the_patch_alone_turns_the_pod_into_the_injected_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inject", str(POD), "--patch"]) == 0
    ops = json.loads(capsys.readouterr().out)
    assert main(["inject", str(POD), "-o", "json"]) == 0
    assert jsonpatch.apply_patch(recorded(), ops) == json.loads(capsys.readouterr().out)
    assert main(["inject", str(POD), "--patch", "-o", "yaml"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == ops


def test_capture_only_records_how_main_ends_and_leaves_init_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inject", str(POD), "--capture-only", "-o", "json"]) == 0
    out, err = capsys.readouterr()
    spec, before = json.loads(out)["spec"], recorded()["spec"]
    recorded_main = ["/stepmemo-bin/entrypoint", "-r", "main", "--", *before["containers"][1]["command"]]
    assert spec["containers"][1]["command"] == recorded_main
    assert spec["initContainers"][1] == before["initContainers"][0]
    assert "InjectedCapture: mode refresh" in err


def test_a_pod_that_is_left_alone_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    daemon = str(POD.with_name("daemon.json"))
    assert main(["inject", daemon]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"stepmemo inject: {daemon}: UnsupportedTemplate: a daemon does not end\n"


def test_injecting_twice_says_that_it_was_done(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inject", str(POD.with_suffix(".golden.json"))]) == 1
    assert "AlreadyInjected" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "must hold one Pod, holds 0 documents"),
        ("kind: Pod\n---\nkind: Pod\n", "must hold one Pod, holds 2 documents"),
        ("kind: Workflow\nmetadata: {}\nspec: {containers: [{}]}\n", "must hold a Pod"),
        ("kind: Pod\n", "must hold a Pod"),
        ("kind: Pod\nmetadata: {}\nspec: {containers: []}\n", "must hold a Pod"),
        ("kind: Pod\nmetadata: {}\nspec: {containers: [text]}\n", "must hold a Pod"),
        ("kind: Pod\nmetadata: {}\nspec: {containers: 5}\n", "must hold a Pod"),
        (
            "kind: Pod\nmetadata: {}\nspec: {containers: [{env: [1]}]}\n",
            "spec.containers[0].env[0] is not an object",
        ),
        ("kind: Pod\nmetadata: {}\nspec: {containers: [{env: [~]}]}\n", "spec.containers[0].env[0] is empty"),
        (
            "kind: Pod\nmetadata: {}\nspec: {containers: [{command: 5}]}\n",
            "spec.containers[0].command is not a list",
        ),
        ("[1, 2", "line "),
    ],
)
def test_what_is_no_pod_is_wrong_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, why: str
) -> None:
    assert main(["inject", written(tmp_path, text)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert why in err


def test_a_missing_file_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inject", str(tmp_path / "gone.yaml")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_a_broken_quantity_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pod = recorded()
    pod["spec"]["containers"][0]["resources"] = {"requests": {"memory": "32 megabytes"}}
    assert main(["inject", written(tmp_path, json.dumps(pod))]) == 2
    assert "32 megabytes" in capsys.readouterr().err


def test_an_unquoted_key_is_an_invalid_annotation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pod = recorded()
    pod["metadata"]["annotations"]["stepmemo.dev/key"] = 42
    assert main(["inject", written(tmp_path, json.dumps(pod))]) == 1
    assert "InvalidAnnotations" in capsys.readouterr().err
