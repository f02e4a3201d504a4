from tests.manifests.rendering import ACCESS_DIRECT, BASE, overlay, render
from webhook import settings


def test_the_server_is_told_and_has_no_right_that_only_the_keeper_needs() -> None:
    with_it, without = overlay(ACCESS_DIRECT), render(BASE)
    gone = [document for document in without if document not in with_it]
    assert {(d["kind"], d["metadata"]["name"]) for d in gone} == {
        ("ClusterRole", "stepmemo-keeper"),
        ("ClusterRoleBinding", "stepmemo-keeper"),
        ("Role", "stepmemo-keeper"),
        ("RoleBinding", "stepmemo-keeper"),
        ("Deployment", "stepmemo"),
    }
    (deployment,) = (d for d in with_it if d["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    environment = {variable["name"]: variable.get("value", "stepmemo") for variable in container["env"]}
    assert settings.parse([], environment).access == "direct"
    assert settings.parse(["--access=service"], environment).access == "service"
