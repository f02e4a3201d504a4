"""What the devcluster makes of manifests/: base, components, and what these add, change and take away."""

from pathlib import Path

import pytest

from devcluster import installation
from devcluster.client import Object
from devcluster.installation import KEEPER, WEBHOOK
from tests.manifests.rendering import OF_THE_BASE, OF_THE_KEEPER


def by_name(documents: list[Object], name: str) -> dict[str, Object]:
    return {each["kind"]: each for each in documents if each["metadata"]["name"] == name}


def test_base_runs_each_program_under_its_own_account() -> None:
    found = installation.workloads(installation.rendered([]))

    assert {name: (one.account, one.command[-1]) for name, one in found.items()} == {
        WEBHOOK: (WEBHOOK, "webhook"),
        KEEPER: (KEEPER, "keeper"),
    }
    assert not any(one.variables for one in found.values())


def test_an_account_has_what_its_own_bindings_give_it() -> None:
    documents = installation.rendered(["image-volume"])

    def verbs(account: str, kind: str, resource: str) -> list[str]:
        rules = installation.rules(documents, account, kind)
        return [verb for rule in rules if resource in rule["resources"] for verb in rule["verbs"]]

    assert "patch" in verbs(KEEPER, "ClusterRole", "pods")
    assert verbs(WEBHOOK, "ClusterRole", "pods") == []
    assert verbs(WEBHOOK, "Role", "podtemplates") == ["create"]
    assert verbs(KEEPER, "Role", "podtemplates") == []


def test_a_component_takes_away_what_it_deletes_and_nothing_else() -> None:
    direct = installation.rendered([installation.ACCESS_DIRECT])

    assert by_name(direct, KEEPER) == {}
    left = [each for each in installation.rendered([]) if each["metadata"]["name"] not in OF_THE_KEEPER]
    assert [each["metadata"]["name"] for each in direct] == [each["metadata"]["name"] for each in left]
    assert installation.workloads(direct)[WEBHOOK].variables["STEPMEMO_ACCESS"] == "direct"


def test_components_add_up() -> None:
    both = installation.workloads(installation.rendered(["image-volume", installation.ACCESS_DIRECT]))

    assert {"STEPMEMO_ACCESS", "STEPMEMO_INJECTION"} <= both[WEBHOOK].variables.keys()


def test_a_patch_changes_every_object_that_its_expression_fits() -> None:
    documents = installation.rendered(["priority-class"])

    for program in (WEBHOOK, KEEPER):
        pod = by_name(documents, program)["Deployment"]["spec"]["template"]["spec"]
        assert pod["priorityClassName"] == "stepmemo"


def test_a_patch_of_what_an_anchor_made_of_two_places_changes_the_one() -> None:
    (configuration,) = (
        each
        for each in installation.rendered(["namespace-opt-in"])
        if each["kind"] == "MutatingWebhookConfiguration"
    )

    for webhook in configuration["webhooks"]:
        assert len(webhook["namespaceSelector"]["matchExpressions"]) == 2


@pytest.mark.parametrize("component", OF_THE_BASE, ids=lambda path: path.name)
def test_of_every_kind_in_the_manifests_something_is_known(component: Path) -> None:
    for document in installation.rendered([component.name]):
        assert document["kind"] in installation.KINDS


@pytest.mark.parametrize(
    ("patch", "why"),
    [
        ("kind: Role\nmetadata: {name: none}\n$patch: delete", "nothing to patch"),
        ("kind: Service\nmetadata: {name: stepmemo-webhook}\nspec: {type: NodePort}", "alone"),
    ],
)
def test_a_patch_that_it_does_not_understand_is_an_error(patch: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        installation._patched(installation.rendered([]), {"patch": patch})
