import ast
import re
from pathlib import Path

from tests.manifests.rendering import DIRECT, render

SIDECAR = Path(__file__).parents[2] / "sidecar"


def permissions() -> dict[str, list[str]]:
    (role,) = (document for document in render(DIRECT, "work") if document["kind"] == "Role")
    return {"/".join([*rule["apiGroups"], *rule["resources"]]): rule["verbs"] for rule in role["rules"]}


def test_steps_may_use_caches_report_results_and_tell_events() -> None:
    assert permissions() == {
        "/configmaps": ["get", "create", "patch"],
        "argoproj.io/workflowtaskresults": ["create", "patch"],
        "/events": ["create"],
    }


def test_the_role_is_bound_to_the_account_that_pods_run_as_by_default() -> None:
    (binding,) = (document for document in render(DIRECT, "work") if document["kind"] == "RoleBinding")
    (role,) = (document for document in render(DIRECT, "work") if document["kind"] == "Role")
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "default", "namespace": "work"}]
    assert binding["roleRef"] == {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "Role",
        "name": role["metadata"]["name"],
    }


def test_the_sidecar_asks_for_no_other_resource() -> None:
    texts = (
        node.value
        for path in SIDECAR.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    asked = {
        match
        for text in texts
        for match in re.findall(r"^/(configmaps|secrets|events|workflow\w+|pods)", text)
    }
    assert asked == {"configmaps", "events", "workflowtaskresults"}
