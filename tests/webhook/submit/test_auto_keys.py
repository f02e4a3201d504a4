"""`key: auto` at submit: what is refused, what is warned of, and what becomes of a block."""

from typing import Any

import jsonpatch
import pytest

from argo.fields import Kind
from memoize import names
from tests.work import grows
from webhook.submit.verdict import Verdict, restore, review_object

Json = dict[str, Any]
CACHE = {"configMap": {"name": "results"}}
ON = {names.MEMOIZE: "true"}
AT = "spec.templates[0]"
IGNORE, SALT = (f"{AT}.metadata.annotations[{name}]" for name in (names.KEY_IGNORE, names.SALT))


def template(annotations: Json | None = None, **fields: Any) -> Json:
    """A template with a key to be computed, written as annotations."""
    made = {"name": "t", "container": {"image": "app:1", "command": ["app"]}} | fields
    ours = {names.KEY: "auto", names.CACHE: "results"} | (annotations or {})
    return made | {"metadata": {"annotations": ours}}


def review(made: Json, metadata: Json | None = None, namespace: Json | None = None, **spec: Any) -> Verdict:
    obj = {"kind": "Workflow", "metadata": metadata or {}, "spec": {"templates": [made], **spec}}
    return review_object("Workflow", obj, None, "CREATE", namespace or {}, "enforce")


def warnings(made: Json, **spec: Any) -> list[str]:
    verdict = review(made, **spec)
    assert verdict.errors == []
    return verdict.warnings


INPUTS = {"parameters": [{"name": "a"}], "artifacts": [{"name": "data", "path": "/data"}]}


def test_such_a_key_is_no_reason_to_warn_whatever_the_inputs():
    assert warnings(template(inputs=INPUTS)) == []


@pytest.mark.parametrize(
    "image", ["app", "app:latest", "r.example:5000/team/app", "r.example:5000/team/app:latest"]
)
def test_an_image_that_may_move_is_warned_of(image: str):
    told = f"{AT}.container.image: {image} may move: the key stays as it is when it does"
    assert warnings(template(container={"image": image})) == [told]


@pytest.mark.parametrize(
    "image",
    ["app:1", "app@sha256:ab", "app:latest@sha256:ab", "r.example:5000/app:v2", "{{inputs.parameters.a}}"],
)
def test_an_image_that_is_named_is_not(image: str):
    assert warnings(template(container={"image": image}, inputs=INPUTS)) == []


def test_images_are_looked_at_wherever_the_step_runs_them():
    everywhere = {
        "containerSet": {"containers": [{"name": "a", "image": "x"}]},
        "sidecars": [{"name": "s", "image": "y"}],
        "initContainers": [{"name": "i", "image": "z"}],
    }
    places = [text.partition(":")[0] for text in warnings(template(container=None, **everywhere))]
    assert places == [
        f"{AT}.containerSet.containers[0].image",
        f"{AT}.sidecars[0].image",
        f"{AT}.initContainers[0].image",
    ]


PER_RUN = "{{workflow.name}}"


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"container": {"image": "x:1", "args": ["a", PER_RUN]}}, "container.args"),
        ({"container": {"image": "x:1", "env": [{"name": "A", "value": PER_RUN}]}}, "container.env[0]"),
        ({"script": {"image": "x:1", "source": f"print('{PER_RUN}')"}}, "script.source"),
        ({"resource": {"action": "get", "manifest": f"a: {PER_RUN}"}}, "resource"),
        ({"inputs": {"artifacts": [{"name": "i", "s3": {"key": PER_RUN}}]}}, "inputs.artifacts[0]"),
        ({"outputs": {"artifacts": [{"name": "o", "s3": {"key": PER_RUN}}]}}, "outputs.artifacts[0]"),
        ({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": PER_RUN}}]}, "volumes"),
    ],
)
def test_what_differs_in_every_run_is_warned_of(fields: Json, place: str):
    kind = next((name for name in ("script", "resource") if name in fields), "")
    made = template(**fields)
    if kind:
        del made["container"]
    told = [text for text in warnings(made) if "side effect" not in text]
    assert told == [f"{AT}.{place}: workflow.name differs in every run: the key never comes back"]


@pytest.mark.parametrize(
    "fields",
    [
        {"container": {"image": "x:1", "resources": {"limits": {"cpu": "{{retries}}"}}}},
        {"container": {"image": "x:1", "args": ["{{ now }} of another tool's"]}},
        {"nodeSelector": {"run": PER_RUN}},
        {"outputs": {"parameters": [{"name": "o", "valueFrom": {"path": "/o"}, "globalName": PER_RUN}]}},
    ],
)
def test_what_is_no_part_of_the_key_may_differ(fields: Json):
    assert warnings(template(**fields)) == []


def test_what_is_left_out_may_differ():
    container = {"image": "x:1", "env": [{"name": "RUN", "value": PER_RUN}]}
    outputs = {"artifacts": [{"name": "o", "path": "/o", "s3": {"key": PER_RUN}}]}
    ignoring = {names.KEY_IGNORE: "env/RUN, artifact/o"}
    assert warnings(template(ignoring, container=container, outputs=outputs)) == []


def test_a_template_that_lists_objects_is_warned_of():
    made = template(data={"source": {"artifactPaths": {"name": "a", "s3": {"key": "in/"}}}})
    del made["container"]
    assert warnings(made) == [f"{AT}.data: the key stays as it is when what is listed there changes"]


def test_a_claim_of_each_run_is_warned_of():
    container = {"image": "x:1", "volumeMounts": [{"name": "work", "mountPath": "/work"}]}
    claims = [{"metadata": {"name": "work"}}]
    told = f"{AT}.container.volumeMounts: work is another claim in every run: the key never comes back"
    assert warnings(template(container=container), volumeClaimTemplates=claims) == [told]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("env/RUM", f"{IGNORE}: there is no env/RUM here: did you mean RUN?"),
        ("artifact/x", f"{IGNORE}: there is no artifact/x here: only data are known here"),
    ],
)
def test_a_name_that_there_is_not_is_warned_of(text: str, told: str):
    container = {"image": "x:1", "env": [{"name": "RUN"}]}
    (warning,) = warnings(template({names.KEY_IGNORE: text}, container=container, inputs=INPUTS))
    assert warning[-40:] == told[-40:]  # the path gives way at its front


@pytest.mark.parametrize(
    ("annotations", "field", "detail"),
    [
        ({names.KEY_IGNORE: "RUN"}, IGNORE, "must be env/NAME or artifact/NAME"),
        ({names.KEY_IGNORE: "env/"}, IGNORE, "must be env/NAME or artifact/NAME"),
        ({names.KEY_IGNORE: "parameter/a"}, IGNORE, "a parameter cannot be left out"),
        ({names.KEY_IGNORE: "inputs.parameters/a"}, IGNORE, "a parameter cannot be left out"),
        ({names.KEY_IGNORE: 1}, IGNORE, "must be a string"),
        ({names.SALT: 2}, SALT, 'must be a string: put it in quotes, "2"'),
        ({names.SALT: "{{input.parameters.a}}"}, SALT, "{{input.parameters.a}} begins with"),
        ({names.SALT: "{{inputs.parameters.b}}"}, SALT, "names no input parameter of this template"),
        ({names.SALT: "{{inputs.parameters.a"}, SALT, "a {{ is never closed by }}"),
    ],
)
def test_what_cannot_work_is_refused_with_its_field(annotations: Json, field: str, detail: str):
    errors = review(template(annotations, inputs=INPUTS)).errors
    assert [error.field for error in errors] == [field]
    assert detail in str(errors[0])
    assert errors[0].kind in (Kind.INVALID, Kind.TYPE_INVALID)


@pytest.mark.parametrize(
    "salt", ["2", "", "{{inputs.parameters.a}}", "{{=sprig.upper(inputs.parameters.a)}}"]
)
def test_any_text_is_a_salt(salt: str):
    assert warnings(template({names.SALT: salt}, inputs=INPUTS)) == []


@pytest.mark.parametrize("name", [names.SALT, names.KEY_IGNORE])
def test_what_goes_with_such_a_key_alone_is_warned_of_elsewhere(name: str):
    made = template({names.KEY: "constant", name: "env/A"}, container={"image": "x", "env": [{"name": "A"}]})
    assert [one.rpartition("]: ")[2] for one in warnings(made)] == ['counts beside key "auto" alone']


def test_a_key_of_the_defaults_is_its_templates_key():
    made = {"name": "t", "container": {"image": "x"}, "metadata": {"annotations": {names.SALT: "1"}}}
    defaults = {"metadata": {"annotations": {names.KEY: "auto", names.CACHE: "results"}}}
    assert warnings(made, templateDefaults=defaults) == [
        f"{AT}.container.image: x may move: the key stays as it is when it does"
    ]


def block() -> Json:
    return {"name": "t", "container": {"image": "x:1"}, "memoize": {"key": "auto", "cache": CACHE}}


def test_a_block_becomes_annotations_and_comes_back():
    made = block() | {"metadata": {"annotations": {names.SALT: "1"}}}
    obj = {"kind": "Workflow", "metadata": {"annotations": ON}, "spec": {"templates": [made]}}
    verdict = review(made, {"annotations": ON})
    assert (verdict.errors, verdict.warnings) == ([], [])
    stored = jsonpatch.apply_patch(obj, verdict.ops)
    (converted,) = stored["spec"]["templates"]
    assert "memoize" not in converted
    assert converted["metadata"]["annotations"].items() >= {names.KEY: "auto", names.SALT: "1"}.items()
    back = jsonpatch.apply_patch(stored, restore("Workflow", stored))
    assert back["spec"]["templates"][0]["metadata"]["annotations"] == {names.SALT: "1"}
    assert back["spec"]["templates"][0]["memoize"]["key"] == "auto"


def test_a_block_that_stays_with_argo_is_warned_of():
    told = f'{AT}.memoize.key: without opt-in "auto" is one key to Argo, for all steps alike'
    assert warnings(block()) == [told]


def test_the_work_grows_with_what_is_in_the_template():
    def made(count: int) -> Json:
        env = [{"name": f"A{i}", "value": "{{workflow.parameters.x}}"} for i in range(count)]
        container = {"image": "x:1", "env": env, "args": ["{{workflow.parameters.x}}"] * count}
        return template({names.KEY_IGNORE: " ".join(f"env/A{i}" for i in range(count))}, container=container)

    assert grows(review, made, 60) <= 2.3
