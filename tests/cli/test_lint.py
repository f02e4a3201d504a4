import io
import os
import sys
from pathlib import Path

import pytest

from cli.__main__ import main

ROOT = Path(__file__).parents[2]
EIGHT_MISTAKES = ROOT / "tests" / "data" / "eight-mistakes.yaml"
SOUND = """\
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: sound-}
spec:
  templates:
  - name: a
    container: {image: busybox}
    memoize: {key: k, cache: {configMap: {name: results}}}
"""
BROKEN = SOUND.replace("sound-", "broken-").replace("key: k", "key: 42")
ERROR = (
    "Workflow/broken-: spec.templates[0].memoize.key: "
    'Invalid value: 42: must be a string: put it in quotes, "42"'
)


@pytest.fixture
def lint(capsys):
    """Runs the command: its exit code, the lines of its standard output, and of its standard error."""

    def run(*paths):
        code = main(["lint", *map(str, paths)])
        captured = capsys.readouterr()
        return code, captured.out.splitlines(), captured.err.splitlines()

    return run


@pytest.fixture
def folder(tmp_path):
    """Writes files below a folder, and gives the folder."""

    def write(**files):
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


UNHEARD = """\
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {name: by-pod-metadata}
spec:
  podMetadata:
    annotations: {stepmemo.dev/memoize: "true", stepmemo.dev/mode: refesh}
  templates: []
---
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {name: by-reference, labels: {stepmemo.dev/memoize: "true"}}
spec: {workflowTemplateRef: {name: library}}
"""


def test_a_word_that_reaches_nothing_is_a_warning_and_a_misspelt_one_an_error(lint, folder):
    path = folder(words_yaml=UNHEARD) / "words.yaml"
    code, out, err = lint(path)
    assert code == 1
    assert [line.removeprefix(f"{path}: ").partition(": Unsupported")[0] for line in out] == [
        "Workflow/by-pod-metadata: spec.podMetadata.annotations[stepmemo.dev/mode]"
    ]
    assert [line.removeprefix(f"{path}: ").rpartition("]: ")[0] for line in err] == [
        "Workflow/by-pod-metadata: warning: spec.podMetadata.annotations[stepmemo.dev/memoize",
        "Workflow/by-reference: warning: metadata.labels[stepmemo.dev/memoize",
    ]


def test_eight_mistakes_are_eight_errors_in_one_run(lint):
    code, out, err = lint(EIGHT_MISTAKES)
    where = f"{EIGHT_MISTAKES}: WorkflowTemplate/eight-mistakes: spec.templates"
    assert code == 1
    assert [
        line.partition(": Invalid")[0].partition(": Required")[0].partition(": Unknown")[0] for line in out
    ] == [
        f"{where}[0].memoize.key",
        f"{where}[1].memoize.cache.configMap.name",
        f"{where}[2].memoize.cache.configMap.name",
        f"{where}[3].memoize.maxAge",
        f"{where}[4].memoize.maxage",
        f"{where}[5].memoize.key",
        f"{where}[6].memoize.key",
        f"{where}[7].memoize.key",
    ]
    assert [line for line in err if "warning" not in line] == []


def test_argos_own_examples_have_no_error(lint):
    folder = Path(os.environ.get("STEPMEMO_ARGO_EXAMPLES", ROOT.parent / "shared" / "argo" / "examples"))
    if not folder.is_dir():
        pytest.skip(f"Argo's examples are not at {folder}; STEPMEMO_ARGO_EXAMPLES may name their folder")
    code, out, err = lint(folder)
    assert (code, out) == (0, [])
    assert err, "one of the examples memoizes a steps template, which is worth a warning"


def test_a_sound_file_is_no_news(lint, folder):
    assert lint(folder(a_yaml=SOUND) / "a.yaml") == (0, [], [])


def test_errors_go_to_standard_output_and_warnings_to_standard_error(lint, folder):
    path = folder(a_yaml=BROKEN + "---\n" + SOUND.replace("container:", "steps:")) / "a.yaml"
    assert lint(path) == (
        1,
        [f"{path}: {ERROR}"],
        [
            f"{path}: Workflow/sound-: warning: spec.templates[0].memoize: "
            "memoize on a steps template is left to Argo's controller"
        ],
    )


def test_folders_are_walked_for_yaml_and_json(lint, folder):
    path = folder(
        b__c_yml=BROKEN, a_yaml=BROKEN, d_json='{"kind": "List"}', e_txt=BROKEN, _git__config_yaml=BROKEN
    )
    code, out, _ = lint(path)
    assert code == 1
    assert out == [f"{path}/a.yaml: {ERROR}", f"{path}/b/c.yml: {ERROR}"]


def test_every_item_of_a_list_is_judged(lint, folder):
    indented = "".join(f"  {line}\n" for line in BROKEN.splitlines())
    path = folder(a_yaml=f"kind: List\napiVersion: v1\nitems:\n- {indented.lstrip()}") / "a.yaml"
    assert lint(path) == (1, [f"{path}: {ERROR}"], [])


def test_standard_input_is_a_dash(lint, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(BROKEN.encode())))
    assert lint("-") == (1, [f"-: {ERROR}"], [])


@pytest.mark.parametrize(
    "text",
    [
        "kind: Pod\napiVersion: v1\n",
        BROKEN.replace("argoproj.io/", "example.com/"),
        BROKEN.replace("kind: Workflow", "kind: Sensor"),
        "- 1\n- 2\n",
        "just text\n",
        "kind: [Workflow]\napiVersion: argoproj.io/v1alpha1\n",
        "",
    ],
)
def test_what_is_not_argos_is_passed_over(lint, folder, text):
    assert lint(folder(a_yaml=text)) == (0, [], ["stepmemo lint: no workflow or template found"])


def test_an_object_without_a_name_is_called_so(lint, folder):
    code, out, _ = lint(folder(a_yaml=BROKEN.replace("generateName: broken-", "")))
    assert code == 1
    assert ": Workflow/(no name): spec" in out[0]


def test_a_file_that_is_no_yaml_is_an_error_of_that_file_and_hides_no_other(lint, folder):
    path = folder(a_yaml="a: {", b_yaml=BROKEN)
    code, out, _ = lint(path / "a.yaml", path / "b.yaml")
    assert code == 1
    assert out[0].startswith(f"{path}/a.yaml: not YAML: line ")
    assert out[1:] == [f"{path}/b.yaml: {ERROR}"]


def test_a_file_that_cannot_be_read_is_an_error_of_that_file(lint, folder):
    path = folder(b_yaml=SOUND)
    (path / "a.yaml").write_bytes(b"\xff")
    assert lint(path) == (1, [f"{path}/a.yaml: is not UTF-8 at byte 0"], [])


HELM = """\
apiVersion: argoproj.io/v1alpha1
kind: Workflow
spec:
{{- if .Values.x }}
  a: {{ include "x" . }}
{{- end }}
"""


def test_a_helm_template_in_a_folder_is_told_and_passed_over(lint, folder):
    code, out, err = lint(folder(chart__a_yaml=HELM, b_yaml=SOUND))
    assert (code, out) == (0, [])
    assert len(err) == 1
    assert "chart/a.yaml: warning: not read: " in err[0]
    assert err[0].endswith("this looks like a Helm template: lint what `helm template` prints")


def test_a_helm_template_that_was_named_is_an_error(lint, folder):
    code, out, _ = lint(folder(a_yaml=HELM) / "a.yaml")
    assert code == 1
    assert out[0].endswith("lint what `helm template` prints")


def test_a_broken_file_in_a_folder_counts_where_it_may_be_argos(lint, folder):
    code, out, err = lint(folder(a_yaml="other: {", b_yaml=SOUND + "---\na: {"))
    assert code == 1
    assert len(out) == 1
    assert "b.yaml: not YAML: line" in out[0]
    assert len(err) == 1
    assert "a.yaml: warning: not read: line " in err[0]


def test_argos_own_tags_do_not_look_like_helm(lint, folder):
    code, out, _ = lint(folder(a_yaml=SOUND + "status: {{inputs.parameters.x}} {{=item}}"))
    assert code == 1
    assert "Helm" not in out[0]


def test_a_path_that_is_not_there_is_wrong_usage(lint, folder):
    path = folder(a_yaml=BROKEN)
    assert lint(path, path / "none") == (2, [], [f"stepmemo lint: {path}/none: no such file or folder"])


def test_no_path_is_wrong_usage(capsys):
    with pytest.raises(SystemExit) as exited:
        main(["lint"])
    assert exited.value.code == 2
    assert "usage: stepmemo lint" in capsys.readouterr().err


AUTO = SOUND.replace("key: k,", "key: auto,")
MOVES = "spec.templates[0].container.image: busybox may move: the key stays as it is when it does"


@pytest.mark.parametrize(
    ("said", "code", "error", "warning"),
    [
        ("", 0, "", MOVES),
        ("metadata: {annotations: {stepmemo.dev/key-ignore: env/DATE}}", 0, "", "there is no env/DATE here"),
        ("metadata: {annotations: {stepmemo.dev/key-ignore: DATE}}", 1, "must be env/NAME or artifact/", ""),
    ],
)
def test_of_an_auto_key_it_says_what_the_webhook_says(said, code, error, warning, lint, folder):
    text = AUTO.replace("  - name: a", f"  - name: a\n    {said}")
    found, out, err = lint(folder(auto_yaml=text) / "auto.yaml")
    assert (found, bool(out)) == (code, bool(error))
    assert error in "".join(out)
    assert warning in "".join(err)
