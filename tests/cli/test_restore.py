import copy
import io
import json
import sys

import jsonpatch
import pytest
import yaml

from cli import documents
from cli.__main__ import main
from memoize import names
from webhook.submit.verdict import review_object

AUTHORED = {
    "apiVersion": "argoproj.io/v1alpha1",
    "kind": "WorkflowTemplate",
    "metadata": {"name": "w", "labels": {names.MEMOIZE: "true"}},
    "spec": {
        "templates": [
            {
                "name": "a",
                "memoize": {"key": "12e5", "maxAge": "1h", "cache": {"configMap": {"name": "results"}}},
                "container": {"image": "busybox", "command": ["sh", "-c", "echo a\necho b\n"]},
            },
            {"name": "b", "container": {"image": "busybox"}, "metadata": {"annotations": {"x": "y"}}},
        ]
    },
}


def dump(*objects):
    return documents.dump(objects, "yaml")


def load(text):
    return list(documents.parse(text))


POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}


@pytest.fixture
def stored():
    """AUTHORED as the webhook leaves it."""
    ops = review_object("WorkflowTemplate", AUTHORED, None, "CREATE", {}, "enforce").ops
    assert ops
    return jsonpatch.apply_patch(AUTHORED, ops)


@pytest.fixture
def restore(capsys, tmp_path):
    """Runs the command over one file for each text: exit code, standard output, standard error."""

    def run(*texts, form="yaml", options=()):
        paths = [tmp_path / f"{i}.yaml" for i in range(len(texts))]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text)
        code = main(["restore", "-o", form, *options, *map(str, paths)])
        return code, *capsys.readouterr()

    return run


def test_managed_annotations_become_the_block_they_were(restore, stored):
    code, out, err = restore(dump(stored))
    assert (code, err) == (0, "")
    assert load(out) == [AUTHORED]


def allowed_by_full_crds(block, version):
    """Whether manifests/base/crds/full takes the block, in kubectl's strict mode (v3.5.15 to v4.1.2).

    `name` is not required; from 4.0 on `configMap` has no other field.
    """
    config_map = block["cache"]["configMap"]
    if {"key", "maxAge", "cache"} != set(block):
        return False
    return "key" in config_map if version < (4, 0) else set(config_map) == {"name"}


@pytest.mark.parametrize("version", [(3, 5), (3, 6), (3, 7), (4, 0), (4, 1)])
@pytest.mark.parametrize("block", [{"key": "k"}, {"key": "k", "maxAge": ""}, {"key": "k", "maxAge": "1h"}])
def test_what_is_restored_is_allowed_by_argos_full_crds(restore, block, version):
    authored = copy.deepcopy(AUTHORED)
    authored["spec"]["templates"][0]["memoize"] = {**block, "cache": {"configMap": {"name": "c"}}}
    ops = review_object("WorkflowTemplate", authored, None, "CREATE", {}, "enforce").ops
    option = ["--configmap-key"] if version < (4, 0) else []
    (found,) = load(restore(dump(jsonpatch.apply_patch(authored, ops)), options=option)[1])
    restored = found["spec"]["templates"][0]["memoize"]
    assert allowed_by_full_crds(restored, version)
    assert restored["maxAge"] == block.get("maxAge", "")


@pytest.mark.parametrize("options", [[], ["--configmap-key"]])
@pytest.mark.parametrize("rest", [{"key": ""}, {"key": "x", "optional": True}])
def test_a_config_map_comes_back_as_it_was(restore, rest, options):
    authored = copy.deepcopy(AUTHORED)
    authored["spec"]["templates"][0]["memoize"]["cache"]["configMap"] |= rest
    ops = review_object("WorkflowTemplate", authored, None, "CREATE", {}, "enforce").ops
    assert load(restore(dump(jsonpatch.apply_patch(authored, ops)), options=options)[1]) == [authored]


def test_json_is_written_on_request(restore, stored):
    code, out, _ = restore(json.dumps(stored), form="json")
    assert code == 0
    assert json.loads(out) == AUTHORED


def test_every_document_of_every_file_is_written_in_order_and_lists_stay_lists(restore, stored):
    several = dump({"kind": "List", "items": [stored, POD]}, POD)
    code, out, _ = restore(several, dump(stored))
    assert code == 0
    assert load(out) == [{"kind": "List", "items": [AUTHORED, POD]}, POD, AUTHORED]


def test_what_was_never_taken_over_is_written_as_it_is(restore):
    assert load(restore(dump(AUTHORED))[1]) == [AUTHORED]


def test_annotations_that_were_edited_by_hand_stay_and_are_told(restore, stored):
    annotations = stored["spec"]["templates"][0]["metadata"]["annotations"]
    annotations[names.KEY] = "mine"
    code, out, err = restore(dump(stored))
    expected = copy.deepcopy(stored)
    del expected["spec"]["templates"][0]["metadata"]["annotations"][names.MANAGED]
    assert code == 0
    assert load(out) == [expected]
    assert err.endswith("0.yaml: spec.templates[0]: annotations were edited by hand and stay\n")


def test_a_template_that_yaml_aliases_repeat_is_restored_in_each_place(restore, stored):
    text = yaml.dump([stored["spec"]["templates"][0]] * 2, default_style='"')
    assert "&" in text
    indented = "".join(f"    {line}\n" for line in text.splitlines())
    head = "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec:\n  templates:\n"
    (found,) = load(restore(head + indented)[1])
    assert found["spec"]["templates"] == [AUTHORED["spec"]["templates"][0]] * 2


def test_nothing_is_written_when_a_file_cannot_be_read(restore, stored):
    code, out, err = restore(dump(stored), "a: {")
    assert (code, out) == (1, "")
    assert "1.yaml: line " in err


def test_standard_input_is_a_dash(monkeypatch, capsys, stored):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(stored).encode())))
    assert main(["restore", "-"]) == 0
    assert load(capsys.readouterr().out) == [AUTHORED]
