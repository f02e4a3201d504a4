"""The overlays in `manifests/overlays`: what each adds to the base, and that it holds together."""

from pathlib import Path

import pytest

import keeper.settings
import webhook.settings
from memoize import names
from tests.manifests.rendering import (
    BASE,
    KEEPER,
    OVERLAYS,
    PROGRAMS,
    ROOT,
    WEBHOOK,
    Json,
    environment,
    find,
    installation,
    render,
)

HA, NAMESPACED = ROOT / "overlays" / "ha", ROOT / "overlays" / "namespaced"
INSTALL = ROOT.parent / "docs" / "install.md"


def spec(documents: list[Json], program: str) -> Json:
    found: Json = find(documents, "Deployment", program)["spec"]
    return found


@pytest.mark.parametrize("directory", OVERLAYS, ids=lambda path: path.name)
def test_an_overlay_says_what_it_is_for_and_the_docs_name_it(directory: Path) -> None:
    text = (directory / "kustomization.yaml").read_text(encoding="utf-8")
    assert text.startswith("# An installation ")
    assert f"manifests/overlays/{directory.name}" in text or "<this folder>" in text
    assert f"| `{directory.name}` |" in INSTALL.read_text(encoding="utf-8")


@pytest.mark.parametrize("directory", OVERLAYS, ids=lambda path: path.name)
def test_the_programs_accept_their_environment(directory: Path) -> None:
    documents = installation(directory)
    keeper.settings.parse([], environment(documents, KEEPER))
    webhook.settings.parse([], environment(documents, WEBHOOK))


def test_with_ha_a_webhook_is_left_when_one_is_drained_and_another_has_died() -> None:
    documents = installation(HA)
    budget = find(documents, "PodDisruptionBudget", WEBHOOK)["spec"]["maxUnavailable"]
    assert spec(documents, WEBHOOK)["replicas"] - budget - 1 >= 1
    assert spec(documents, KEEPER)["replicas"] == 2


@pytest.mark.parametrize("program", PROGRAMS)
def test_with_ha_replicas_share_no_host_while_another_has_none(program: str) -> None:
    before = spec(render(BASE), program)["template"]["spec"]["topologySpreadConstraints"]
    zone, host = spec(installation(HA), program)["template"]["spec"]["topologySpreadConstraints"]
    assert zone == before[0]
    added = {
        "whenUnsatisfiable": "DoNotSchedule",
        "nodeTaintsPolicy": "Honor",
        "matchLabelKeys": ["pod-template-hash"],
    }
    assert host == {**before[1], **added}


def test_a_namespaced_installation_keeps_those_namespaces_that_it_has_roles_in() -> None:
    documents = installation(NAMESPACED)
    (kept,) = keeper.settings.parse([], environment(documents, KEEPER)).namespaces
    assert {d["metadata"].get("namespace", "stepmemo") for d in documents} == {kept, "stepmemo"}
    for program in PROGRAMS:
        assert [d for d in documents if d["kind"] == "RoleBinding" and d["metadata"]["namespace"] == kept]
        found = [d for d in documents if d["kind"] == "Role" and d["metadata"]["name"] == program]
        assert {one["metadata"]["namespace"] for one in found} == {kept, "stepmemo"}
    for hook in find(documents, "MutatingWebhookConfiguration")["webhooks"]:
        assert {"key": names.MEMOIZE, "operator": "Exists"} in hook["namespaceSelector"]["matchExpressions"]
