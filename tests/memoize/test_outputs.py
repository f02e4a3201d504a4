"""What a template declares, what an entry lacks, and what may be stored."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoize.outputs import (
    BrokenOutputsError,
    Declared,
    NotStorable,
    declared,
    lasting_outputs,
    missing,
    sound,
    storable,
)
from memoize.reasons import Reason
from tests.memoize.test_strictjson import VALUES

S3 = {"endpoint": "minio:9000", "bucket": "b"}
NEVER = {"strategy": "Never"}


def artifact(name: str = "res", **fields: object) -> dict[str, object]:
    return {"name": name, "s3": {"key": f"wf/{name}.tgz"}, **fields}


class TestDeclared:
    def test_a_containers_outputs_are_its_templates_and_whole(self):
        parameters = [{"name": "out", "globalName": "g", "valueFrom": {"path": "/x", "default": "d"}}]
        artifacts = [
            {"name": "a", "path": "/a"},
            {"name": "b", "optional": True, "artifactGC": {"strategy": "Never"}},
        ]
        template = {
            "container": {},
            "outputs": {"parameters": parameters, "artifacts": artifacts},
            "archiveLocation": {"archiveLogs": True, "s3": {**S3, "key": "wf/pod"}},
        }
        assert declared(template, include_result=False) == Declared(
            parameters=tuple(parameters),
            artifacts=tuple(artifacts),
            archive={"s3": S3},
            archives_logs=True,
        )

    @pytest.mark.parametrize("template", [{"script": {}}, {"container": {}}])
    def test_a_result_is_declared_where_another_step_uses_it(self, template: dict[str, object]):
        assert declared(template, include_result=True).result
        assert not declared(template, include_result=False).result

    @pytest.mark.parametrize("include_result", [True, False])
    def test_a_data_step_reports_its_result_unasked(self, include_result: bool):
        assert declared({"data": {"source": {}}}, include_result).result

    @pytest.mark.parametrize(
        "template", [{"resource": {"action": "get"}}, {"containerSet": {"containers": [{"name": "a"}]}}]
    )
    def test_a_step_that_never_reports_a_result_does_not_declare_one(self, template: dict[str, object]):
        assert not declared(template, include_result=True).result

    def test_the_containers_of_a_set_are_the_step(self):
        template = {"containerSet": {"containers": [{"name": "a"}, {"name": "main"}]}}
        found = declared(template, include_result=True)
        assert found.mains == ("a", "main")
        assert found.has_main
        assert found.result

    @pytest.mark.parametrize("template", [{}, {"outputs": None}, {"outputs": {"parameters": None}}])
    def test_a_template_without_outputs_declares_none(self, template: dict[str, object]):
        assert declared(template, include_result=False) == Declared()

    def test_the_template_of_a_resource_is_told_from_others(self):
        assert declared({"resource": {"action": "create"}}, include_result=False).resource

    @pytest.mark.parametrize(
        "outputs", [{"parameters": "x"}, {"artifacts": [None]}, {"parameters": [{"name": ""}]}, ["x"]]
    )
    def test_outputs_that_argos_types_cannot_hold_are_refused(self, outputs: object):
        with pytest.raises(BrokenOutputsError, match="outputs"):
            declared({"outputs": outputs}, include_result=False)

    @given(VALUES)
    def test_whatever_else_a_template_holds_is_no_error(self, value: object):
        for template in (
            {"containerSet": value, "archiveLocation": value, "resource": value, "data": value},
            {"archiveLocation": {"s3": value, "archiveLogs": value}},
        ):
            declared(template, include_result=True)

    @given(VALUES)
    def test_whatever_is_declared_can_be_posted(self, value: object):
        for outputs in (value, {"parameters": value, "artifacts": value}):
            try:
                found = declared({"outputs": outputs}, include_result=True)
            except BrokenOutputsError:
                continue
            sound({"parameters": list(found.parameters), "artifacts": list(found.artifacts)})


class TestMissing:
    WANTED = Declared(
        parameters=({"name": "out"},),
        artifacts=({"name": "res"}, {"name": "log", "optional": True}),
        result=True,
    )

    def test_nothing_is_missing_from_complete_outputs(self):
        outputs = {"parameters": [{"name": "out", "value": ""}], "artifacts": [artifact()], "result": ""}
        assert missing(outputs, self.WANTED) == []

    @pytest.mark.parametrize("outputs", [None, {}, {"parameters": None, "artifacts": None, "result": None}])
    def test_everything_is_missing_from_none(self, outputs: dict[str, object] | None):
        assert missing(outputs, self.WANTED) == ["parameter out", "artifact res", "result"]

    def test_a_parameter_without_a_value_is_missing(self):
        outputs = {"parameters": [{"name": "out", "valueFrom": {"path": "/x", "default": "d"}}]}
        assert missing(outputs, Declared(parameters=({"name": "out"},))) == ["parameter out"]

    def test_a_parameter_that_the_template_gives_a_value_itself_lacks_nothing(self):
        assert missing(None, Declared(parameters=({"name": "out", "value": "fixed"},))) == []

    @pytest.mark.parametrize(
        "found", [{"name": "res"}, {"name": "res", "s3": None}, {"name": "res", "s3": {}}]
    )
    def test_an_artifact_that_lies_nowhere_is_missing(self, found: dict[str, object]):
        assert missing({"artifacts": [found]}, Declared(artifacts=({"name": "res"},))) == ["artifact res"]

    def test_an_artifact_that_argo_deleted_is_missing(self):
        wanted = Declared(artifacts=({"name": "res"},))
        assert missing({"artifacts": [artifact(deleted=True)]}, wanted) == ["artifact res"]

    def test_a_step_without_outputs_lacks_nothing(self):
        assert missing(None, Declared()) == []


class TestStorable:
    DECLARED = Declared(parameters=({"name": "out"},), artifacts=({"name": "res"},), archive={"s3": S3})

    def test_artifacts_get_their_full_location_and_are_never_deleted(self):
        stored = storable({"artifacts": [artifact()]}, self.DECLARED, gc=False)
        assert stored == {
            "artifacts": [
                {"name": "res", "s3": {**S3, "key": "wf/res.tgz"}, "artifactGC": {"strategy": "Never"}}
            ],
            "exitCode": "0",
        }

    @pytest.mark.parametrize("strategy", ["OnWorkflowCompletion", "OnWorkflowDeletion", "Later"])
    def test_an_artifact_that_its_own_strategy_deletes_refuses_the_whole(self, strategy: str):
        outputs = {"artifacts": [artifact(artifactGC={"strategy": strategy})]}
        refused = storable(outputs, self.DECLARED, gc=False)
        assert isinstance(refused, NotStorable)
        assert refused.reason is Reason.ARTIFACT_GC

    def test_the_strategy_that_the_template_declares_counts_as_well(self):
        res = {"name": "res", "artifactGC": {"strategy": "OnWorkflowDeletion"}}
        wanted = Declared(artifacts=(res,), archive={"s3": S3})
        assert isinstance(storable({"artifacts": [artifact()]}, wanted, gc=False), NotStorable)

    def test_under_a_workflow_that_deletes_only_artifacts_that_say_never_are_stored(self):
        assert isinstance(storable({"artifacts": [artifact()]}, self.DECLARED, gc=True), NotStorable)
        stored = storable({"artifacts": [artifact(artifactGC=NEVER)]}, self.DECLARED, gc=True)
        assert not isinstance(stored, NotStorable)

    def test_archived_logs_are_kept(self):
        stored = storable({"artifacts": [artifact("main-logs")]}, self.DECLARED, gc=False)
        assert isinstance(stored, dict)
        assert [a["name"] for a in stored["artifacts"]] == ["main-logs"]

    @pytest.mark.parametrize(("gc", "archive"), [(True, {"s3": S3}), (False, None)])
    def test_archived_logs_that_will_be_deleted_or_lie_nowhere_are_left_out(
        self, gc: bool, archive: dict[str, object] | None
    ):
        stored = storable({"artifacts": [artifact("main-logs")]}, Declared(archive=archive), gc=gc)
        assert stored == {"artifacts": [], "exitCode": "0"}

    def test_an_artifact_that_lies_nowhere_refuses_the_whole(self):
        refused = storable({"artifacts": [artifact()]}, Declared(artifacts=({"name": "res"},)), gc=False)
        assert isinstance(refused, NotStorable)
        assert refused.reason is Reason.OUTPUTS_INCOMPLETE
        assert "wf/res.tgz" not in refused.detail

    def test_a_set_without_a_main_has_no_exit_code(self):
        assert storable(None, Declared(mains=("a",)), gc=False) == {}
        assert storable(None, Declared(), gc=False) == {"exitCode": "0"}

    def test_everything_else_stays(self):
        outputs = {
            "parameters": [{"name": "out", "value": "x", "globalName": "g"}],
            "new": {"a": 1},
            "result": None,
        }
        stored = storable(outputs, self.DECLARED, gc=True)
        assert stored == {"parameters": outputs["parameters"], "new": {"a": 1}, "exitCode": "0"}


class TestSound:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ("x", "x"),
            (True, "true"),
            (False, "false"),
            (7, "7"),
            (-0.5, "-0.5"),
            (3.0, "3"),
            (1e21, "1" + "0" * 21),
            (1e-7, "0.0000001"),
            (2**63 - 1, "9223372036854775807"[:-4] + "6000"),
        ],
    )
    def test_a_parameters_value_becomes_the_string_that_argo_makes_of_it(self, value: object, text: str):
        outputs = sound({"parameters": [{"name": "out", "value": value}]})
        assert outputs is not None
        assert outputs["parameters"][0]["value"] == text

    @pytest.mark.parametrize(
        ("value", "field"),
        [
            ("x", "outputs"),
            ([], "outputs"),
            ({"result": 1}, "outputs.result"),
            ({"exitCode": 0}, "outputs.exitCode"),
            ({"parameters": {}}, "outputs.parameters"),
            ({"parameters": [1]}, "outputs.parameters[0]"),
            ({"parameters": [{}]}, "outputs.parameters[0].name"),
            ({"parameters": [{"name": ""}]}, "outputs.parameters[0].name"),
            ({"parameters": [{"name": "out", "value": ["swordfish"]}]}, "outputs.parameters[0].value"),
            ({"artifacts": [{"name": 1}]}, "outputs.artifacts[0].name"),
            ({"artifacts": [{"name": "a", "s3": "swordfish"}]}, "outputs.artifacts[0].s3"),
            ({"artifacts": [{"name": "a", "artifactGC": "Never"}]}, "outputs.artifacts[0].artifactGC"),
            ({"artifacts": [{"name": "a", "path": 1}]}, "outputs.artifacts[0].path"),
        ],
    )
    def test_a_wrong_type_is_named_by_its_field_and_not_by_its_value(self, value: object, field: str):
        with pytest.raises(BrokenOutputsError) as caught:
            sound(value)
        assert str(caught.value).startswith(f"{field} is ")
        assert "swordfish" not in str(caught.value)

    @given(VALUES)
    def test_what_is_sound_can_be_used_whatever_it_was(self, value: object):
        for outputs in (value, {"parameters": value, "artifacts": value, "result": value}):
            try:
                found = sound(outputs)
            except BrokenOutputsError:
                continue
            missing(found, Declared(parameters=({"name": "out"},)))
            kept = storable(found, Declared(archive={"s3": S3}), gc=False)
            if not isinstance(kept, NotStorable):
                assert sound(json.loads(json.dumps(kept))) == kept


NAMES = st.sampled_from("abcd")
REPORTED = st.fixed_dictionaries(
    {},
    optional={
        "parameters": st.lists(
            st.fixed_dictionaries({"name": NAMES}, optional={"value": st.none() | st.text(max_size=3)}),
            max_size=4,
        ),
        "artifacts": st.lists(
            st.fixed_dictionaries(
                {"name": NAMES, "s3": st.fixed_dictionaries({}, optional={"key": st.text("k", max_size=1)})},
                optional={"deleted": st.booleans(), "artifactGC": st.just(NEVER)},
            ),
            max_size=4,
        ),
        "result": st.none() | st.text(max_size=3),
    },
)
PROMISED = st.builds(
    Declared,
    parameters=st.lists(st.builds(lambda name: {"name": name}, NAMES), unique_by=str).map(tuple),
    artifacts=st.lists(
        st.fixed_dictionaries({"name": NAMES}, optional={"optional": st.booleans()}),
        unique_by=lambda artifact: artifact["name"],
    ).map(tuple),
    result=st.booleans(),
    mains=st.sampled_from([("main",), ("a",), ("a", "main")]),
    archive=st.none() | st.just({"s3": S3}),
)


class TestMonotonic:
    @given(REPORTED, REPORTED, PROMISED)
    def test_more_outputs_never_lack_more(
        self, some: dict[str, Any], others: dict[str, Any], wanted: Declared
    ):
        more = {
            "parameters": [*some.get("parameters", ()), *others.get("parameters", ())],
            "artifacts": [*some.get("artifacts", ()), *others.get("artifacts", ())],
            "result": others.get("result") if some.get("result") is None else some["result"],
        }
        assert set(missing(more, wanted)) <= set(missing(some, wanted))

    @given(REPORTED, PROMISED, PROMISED)
    def test_who_wants_more_lacks_no_less(self, outputs: dict[str, Any], some: Declared, others: Declared):
        wanted = {a["name"]: a for a in others.artifacts if not a.get("optional")}
        wanted |= {a["name"]: a for a in some.artifacts}
        more = some._replace(
            parameters=(*some.parameters, *others.parameters),
            artifacts=tuple(wanted.values()),
            result=some.result or others.result,
        )
        assert set(missing(outputs, some)) <= set(missing(outputs, more))

    @given(REPORTED, PROMISED, st.booleans())
    def test_what_is_stored_answers_whatever_the_step_itself_answered(
        self, outputs: dict[str, Any], promised: Declared, gc: bool
    ):
        stored = storable(sound(outputs), promised, gc)
        if not isinstance(stored, NotStorable):
            assert missing(stored, promised) == missing(outputs, promised)

    @given(REPORTED, PROMISED, st.booleans())
    def test_what_was_stored_is_stored_again_as_it_is(
        self, outputs: dict[str, Any], promised: Declared, gc: bool
    ):
        """A step that was answered by an entry and whose outputs were stored under another key, say."""
        stored = storable(sound(outputs), promised, gc)
        if not isinstance(stored, NotStorable):
            assert storable(stored, promised, gc) == stored

    @given(REPORTED, PROMISED)
    def test_what_may_be_stored_where_artifacts_are_deleted_may_be_stored_where_they_are_not(
        self, outputs: dict[str, Any], promised: Declared
    ):
        if not isinstance(storable(outputs, promised, gc=True), NotStorable):
            kept = storable(outputs, promised, gc=False)
            assert not isinstance(kept, NotStorable)


def test_outputs_that_last_are_those_that_no_workflow_deletes():
    assert lasting_outputs({"artifacts": [artifact(artifactGC={"strategy": "OnWorkflowCompletion"})]}) == {
        "artifacts": [artifact(artifactGC={"strategy": "Never"})]
    }
    assert lasting_outputs({"result": "x"}) == {"result": "x"}
