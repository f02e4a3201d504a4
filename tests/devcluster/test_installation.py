"""What the devcluster makes of manifests/: base, components, and what these add, change and take away."""

import pytest

from devcluster import installation
from devcluster.client import Object

KEEPER = {"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}


def kinds(documents: list[Object], name: str) -> set[str]:
    return {each["kind"] for each in documents if each["metadata"]["name"] == name}


def variables(documents: list[Object]) -> dict[str, str]:
    (deployment,) = [each for each in documents if each["kind"] == "Deployment"]
    (server,) = deployment["spec"]["template"]["spec"]["containers"]
    return {each["name"]: each["value"] for each in server["env"] if "value" in each}


def test_base_gives_the_keeper_its_rights() -> None:
    documents = installation.rendered([])

    assert kinds(documents, "stepmemo-keeper") == KEEPER
    assert "STEPMEMO_ACCESS" not in variables(documents)


def test_a_component_takes_away_what_it_deletes_and_nothing_else() -> None:
    direct = installation.rendered([installation.ACCESS_DIRECT])

    assert kinds(direct, "stepmemo-keeper") == set()
    left = [each for each in installation.rendered([]) if each["metadata"]["name"] != "stepmemo-keeper"]
    assert [each["metadata"]["name"] for each in direct] == [each["metadata"]["name"] for each in left]
    assert variables(direct)["STEPMEMO_ACCESS"] == "direct"


def test_components_add_up() -> None:
    both = installation.rendered(["image-volume", installation.ACCESS_DIRECT])

    assert {"STEPMEMO_ACCESS", "STEPMEMO_INJECTION"} <= variables(both).keys()


@pytest.mark.parametrize(
    ("patch", "why"),
    [
        ("kind: Role\nmetadata: {name: none}\n$patch: delete", "nothing to patch"),
        ("kind: Service\nmetadata: {name: stepmemo}\nspec: {type: NodePort}", "alone"),
    ],
)
def test_a_patch_that_it_does_not_understand_is_an_error(patch: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        installation._patched(installation.rendered([]), {"patch": patch})
