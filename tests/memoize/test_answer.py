"""An answer is what a run of the reader's template would have reported, with the values that the entry holds.

The run is a model of its own, written after Argo's executor (workflow/executor, 3.5 to 4.1: SaveParameters,
SaveArtifacts, SaveLogs, CaptureScriptResult, SaveResourceParameters, Data and ReportOutputs).
"""

import json
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoize.answer import answer
from memoize.entry import Entry, Hit, Miss, look_up
from memoize.outputs import NotStorable, declared, missing, sound, storable
from memoize.reasons import Reason
from memoize.spec import Memo

Json = dict[str, Any]
NEVER = {"strategy": "Never"}
NOW = datetime(2026, 11, 28, tzinfo=UTC)
REPO = {"s3": {"endpoint": "minio:9000", "bucket": "writers"}}


def answered(template: Json, outputs: Json, include_result: bool = False) -> Json:
    promised = declared(template, include_result)
    assert missing(outputs, promised) == []
    return answer(outputs, promised)


CASES = {
    "a parameter comes with all that the reader says of it": (
        {
            "name": "out",
            "globalName": "g",
            "valueFrom": {"path": "/x", "default": "d"},
            "description": "D",
        },
        {"name": "out", "globalName": "h", "valueFrom": {"path": "/y"}, "value": "v", "enum": ["v"]},
        {
            "name": "out",
            "globalName": "g",
            "valueFrom": {"path": "/x", "default": "d"},
            "description": "D",
            "value": "v",
        },
    ),
    "a global name that the reader does not have is not exported": (
        {"name": "out", "valueFrom": {"path": "/x"}},
        {"name": "out", "globalName": "left", "value": "v"},
        {"name": "out", "valueFrom": {"path": "/x"}, "value": "v"},
    ),
    "the value that the template itself gives is the value": (
        {"name": "out", "value": "fixed"},
        {"name": "out", "value": "of the run"},
        {"name": "out", "value": "fixed"},
    ),
    "a file's content counts before the template's value": (
        {"name": "out", "value": "overwritten", "valueFrom": {"path": "/x"}},
        {"name": "out", "value": "of the run"},
        {"name": "out", "value": "of the run", "valueFrom": {"path": "/x"}},
    ),
}


@pytest.mark.parametrize(("mine", "theirs", "posted"), CASES.values(), ids=CASES.keys())
def test_a_parameter_is_the_readers_with_the_value_of_the_entry(mine: Json, theirs: Json, posted: Json):
    template = {"container": {}, "outputs": {"parameters": [mine]}}
    assert answered(template, {"parameters": [theirs]}) == {"parameters": [posted]}


def test_a_resources_parameter_is_read_from_the_object_and_from_no_file():
    template = {
        "resource": {"action": "create"},
        "outputs": {
            "parameters": [
                {"name": "a", "value": "mine", "valueFrom": {"jsonPath": "{.x}"}},
                {"name": "b", "value": "mine", "valueFrom": {"jqFilter": ".x"}},
                {"name": "c", "value": "mine", "valueFrom": {"path": "/x"}},
            ]
        },
    }
    entry = {"parameters": [{"name": name, "value": "theirs"} for name in "abc"]}
    posted = answered(template, entry)["parameters"]
    assert {p["name"]: p["value"] for p in posted} == {"a": "theirs", "b": "theirs", "c": "mine"}


def test_a_location_that_says_nothing_does_not_hide_the_one_that_does():
    mine, place = {"name": "res", "path": "/mine"}, {"bucket": "b", "key": "k"}
    theirs = {"name": "res", "gcs": {}, "s3": place, "archive": {}, "mode": 0}
    posted = {**mine, "s3": place, "archive": {}, "mode": 0, "artifactGC": NEVER}
    assert answered({"outputs": {"artifacts": [mine]}}, {"artifacts": [theirs]}) == {"artifacts": [posted]}


def test_an_artifact_is_the_readers_where_the_stored_one_lies_and_as_it_is_packed():
    mine = {
        "name": "res",
        "path": "/mine",
        "globalName": "mine",
        "optional": True,
        "recurseMode": True,
        "s3": {"key": "{{my key}}"},
        "archive": {"tar": {"compressionLevel": 9}},
        "artifactGC": {"strategy": "OnWorkflowDeletion"},
        "archiveLogs": False,
    }
    theirs = {
        "name": "res",
        "path": "/theirs",
        "globalName": "theirs",
        "gcs": {"bucket": "b", "key": "k"},
        "archive": {"none": {}},
        "mode": 420,
        "unknown": 1,
    }
    assert answered({"outputs": {"artifacts": [mine]}}, {"artifacts": [theirs]}) == {
        "artifacts": [
            {
                "name": "res",
                "path": "/mine",
                "globalName": "mine",
                "optional": True,
                "recurseMode": True,
                "gcs": {"bucket": "b", "key": "k"},
                "archive": {"none": {}},
                "mode": 420,
                "archiveLogs": False,
                "artifactGC": NEVER,
            }
        ]
    }


def test_the_packing_that_the_entry_does_not_name_is_not_the_readers():
    mine = {"name": "res", "archive": {"none": {}}, "mode": 511}
    theirs = {"name": "res", "s3": {"key": "k"}}
    assert answered({"outputs": {"artifacts": [mine]}}, {"artifacts": [theirs]}) == {
        "artifacts": [{"name": "res", "s3": {"key": "k"}, "artifactGC": NEVER}]
    }


@pytest.mark.parametrize("field", ["from", "fromExpression", "subPath", "deleted"])
def test_what_a_step_with_a_pod_never_reports_is_never_posted(field: str):
    value: object = field == "deleted" or "x"
    mine, theirs = {"name": "res", field: value}, {"name": "res", "s3": {"key": "k"}}
    assert field not in answered({"outputs": {"artifacts": [mine]}}, {"artifacts": [theirs]})["artifacts"][0]


def test_an_optional_artifact_that_the_entry_lacks_is_left_out():
    template = {"outputs": {"artifacts": [{"name": "res", "optional": True}]}}
    for found in ([], [{"name": "res", "s3": {"key": "k"}, "deleted": True}], [{"name": "res"}]):
        assert answered(template, {"artifacts": found}) == {}


LOGS = {"artifacts": [{"name": "main-logs", "s3": {"key": "log"}, "globalName": "g"}]}


def test_logs_are_posted_to_a_reader_who_archives_his_own():
    template = {"container": {}, "archiveLocation": {"archiveLogs": True}}
    posted = {"name": "main-logs", "s3": {"key": "log"}, "artifactGC": NEVER}
    assert answered(template, LOGS) == {"artifacts": [posted]}


@pytest.mark.parametrize(
    "template",
    [
        {"container": {}, "archiveLocation": {"archiveLogs": False}},
        {"container": {}},
        {"containerSet": {"containers": [{"name": "a"}]}, "archiveLocation": {"archiveLogs": True}},
    ],
)
def test_logs_are_not_posted_to_others(template: Json):
    assert answered(template, LOGS) == {}


def test_a_declared_artifact_that_is_named_like_a_log_is_a_declared_artifact():
    template = {"outputs": {"artifacts": [{"name": "main-logs", "path": "/x"}]}}
    assert answered(template, LOGS)["artifacts"] == [
        {"name": "main-logs", "path": "/x", "s3": {"key": "log"}, "artifactGC": NEVER}
    ]


@pytest.mark.parametrize(
    ("template", "asked", "posted"),
    [
        ({"script": {}}, True, {"result": "hello"}),
        ({"script": {}}, False, {}),
        ({"container": {}}, False, {}),
        ({"resource": {"action": "get"}}, True, {}),
        ({"containerSet": {"containers": [{"name": "a"}]}}, True, {}),
        ({"containerSet": {"containers": [{"name": "main"}]}}, True, {"result": "hello"}),
        ({"data": {"source": {}}}, False, {"result": "hello"}),
    ],
)
def test_a_result_is_posted_to_a_step_that_would_have_reported_one(template: Json, asked: bool, posted: Json):
    assert answered(template, {"result": "hello", "exitCode": "0"}, asked) == posted


def test_nothing_undeclared_is_posted():
    outputs = {
        "parameters": [{"name": "stray", "value": "v"}, {"name": "empty"}],
        "artifacts": [{"name": "stray", "s3": {"key": "k"}}],
        "exitCode": "0",
        "result": "r",
        "unknown": {"a": 1},
    }
    assert answered({"container": {}}, outputs) == {}


# --- The run: a model of Argo's executor -----------------------------------------------------------------

_DRIVERS = ("artifactory", "azure", "git", "gcs", "hdfs", "http", "oss", "raw", "s3", "plugin")


def run(template: Json, found: Json, include_result: bool) -> Json:
    """What Argo's executor reports of a run of the template that finds these values.

    `found`: `values` by the name of a parameter, `objects` by that of an artifact (with its location, archive
    and mode, which another run of the same key may have chosen), `result`.
    """
    outputs = deepcopy(template.get("outputs") or {})
    for parameter in outputs.get("parameters") or []:
        source = parameter.get("valueFrom") or {}
        if "resource" in template:
            is_set = bool(source.get("jsonPath") or source.get("jqFilter"))
        else:
            is_set = bool(source.get("path"))
        if is_set:
            parameter["value"] = found["values"][parameter["name"]]
    saved = []
    for artifact in outputs.get("artifacts") or []:
        thing = found["objects"].get(artifact["name"])
        if thing is None:
            assert artifact.get("optional")
            continue
        for field in (*_DRIVERS, "archive", "mode", "from", "fromExpression", "subPath", "deleted"):
            artifact.pop(field, None)
        saved.append({**artifact, **thing, "artifactGC": NEVER})
    containers = (template.get("containerSet") or {}).get("containers") or [{"name": "main"}]
    if (template.get("archiveLocation") or {}).get("archiveLogs"):
        names = {artifact["name"] for artifact in outputs.get("artifacts") or []}
        for log in (f"{container['name']}-logs" for container in containers):
            if log not in names and log in found["objects"]:
                saved.append({"name": log, **found["objects"][log], "artifactGC": NEVER})
    reported = {"parameters": outputs.get("parameters") or [], "artifacts": saved}
    has_output = "resource" not in template and any(c["name"] == "main" for c in containers)
    if "data" in template or (include_result and has_output):
        reported["result"] = found["result"]
    return {name: value for name, value in reported.items() if value or name == "result"}


NAMES = ("a", "b", "c")
TEXT = st.text(max_size=3)
WHOLE = st.sampled_from(
    [
        {"s3": {"endpoint": "e", "bucket": "b", "key": "k"}},
        {"gcs": {"bucket": "b", "key": "k"}, "archive": {"none": {}}},
        {"azure": {"endpoint": "e", "container": "c", "blob": "b"}, "mode": 420},
    ]
)


def named(extra: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[list[Json]]:
    one = st.fixed_dictionaries({"name": st.sampled_from(NAMES)}, optional=extra)
    return st.lists(one, unique_by=lambda item: str(item["name"]), max_size=3)


SOURCES = st.sampled_from([{"path": "/x"}, {"path": "/x", "default": "d"}, {"jsonPath": "{.x}"}])
PARAMETERS = named(
    {"globalName": TEXT, "description": TEXT, "enum": st.just(["x"]), "valueFrom": SOURCES, "value": TEXT}
)


def has_values(template: Json) -> bool:
    """Argo refuses a parameter that nothing gives a value to, or fails the workflow that has one."""
    source = "jsonPath" if "resource" in template else "path"
    parameters = template["outputs"]["parameters"]
    return all("value" in p or source in p.get("valueFrom", {}) for p in parameters)


ARTIFACTS = named(
    {
        "path": TEXT,
        "globalName": TEXT,
        "optional": st.booleans(),
        "recurseMode": st.booleans(),
        "subPath": TEXT,
        "from": TEXT,
        "mode": st.just(511),
        "archive": st.just({"zip": {}}),
        "s3": st.just({"key": "own"}),
        "artifactGC": st.sampled_from([NEVER, {"strategy": "OnWorkflowDeletion"}]),
    }
)
KINDS = st.sampled_from(
    [
        {"container": {"image": "i"}},
        {"script": {"source": "s"}},
        {"resource": {"action": "create"}},
        {"data": {"source": {}}},
        {"containerSet": {"containers": [{"name": "main"}, {"name": "x"}]}},
        {"containerSet": {"containers": [{"name": "x"}]}},
    ]
)
TEMPLATES = st.builds(
    lambda kind, parameters, artifacts, logs: {
        **kind,
        "outputs": {"parameters": parameters, "artifacts": artifacts},
        "archiveLocation": {"archiveLogs": logs, **REPO},
    },
    KINDS,
    PARAMETERS,
    ARTIFACTS,
    st.booleans(),
).filter(has_values)
FOUND = st.fixed_dictionaries(
    {
        "values": st.fixed_dictionaries(dict.fromkeys(NAMES, TEXT)),
        "objects": st.fixed_dictionaries(
            dict.fromkeys(NAMES, WHOLE), optional={"main-logs": WHOLE, "x-logs": WHOLE}
        ),
        "result": TEXT,
    }
)


def entry_of(found: Json) -> Json:
    """An entry that holds these values, with other names beside them than any reader gives."""
    return {
        "parameters": [
            {"name": name, "value": value, "globalName": f"writers-{name}", "valueFrom": {"path": "/writers"}}
            for name, value in found["values"].items()
        ],
        "artifacts": [
            {"name": name, "path": "/writers", "globalName": f"writers-{name}", **thing}
            for name, thing in found["objects"].items()
        ],
        "result": found["result"],
        "exitCode": "0",
    }


@given(TEMPLATES, FOUND, st.booleans())
def test_an_answer_is_what_a_run_of_the_reader_would_have_reported(
    template: Json, found: Json, include_result: bool
):
    outputs = sound(entry_of(found))
    assert answer(outputs, declared(template, include_result)) == run(template, found, include_result)


@given(TEMPLATES, TEMPLATES, FOUND, st.booleans(), st.booleans())
def test_what_one_step_stored_answers_another_as_its_own_run_would_have_or_not_at_all(
    writer: Json, reader: Json, found: Json, writer_asked: bool, reader_asked: bool
):
    """Through the whole way: reported, stored, written down, looked up, answered."""
    stored = storable(sound(run(writer, found, writer_asked)), declared(writer, writer_asked), gc=False)
    if isinstance(stored, NotStorable):
        return
    text = Entry("wf-1", stored, NOW, NOW).dump()
    promised = declared(reader, reader_asked)
    match look_up({"k": text}, Memo("k", "c"), promised, NOW):
        case Miss(reason):
            assert reason is Reason.INCOMPLETE_ENTRY
        case Hit(entry):
            written = {p["name"]: p["value"] for p in stored.get("parameters", ()) if "value" in p}
            objects = {a["name"]: a for a in stored.get("artifacts", ())}
            packed = {
                name: {k: v for k, v in a.items() if k in (*_DRIVERS, "archive", "mode")}
                for name, a in objects.items()
            }
            known = {"values": written, "objects": packed, "result": stored.get("result")}
            assert answer(entry.outputs, promised) == run(reader, known, reader_asked)


@given(TEMPLATES, FOUND, st.booleans())
def test_an_answer_can_always_be_posted(template: Json, found: Json, include_result: bool):
    posted = answer(sound(entry_of(found)), declared(template, include_result))
    assert sound(json.loads(json.dumps(posted))) == (posted or {})
