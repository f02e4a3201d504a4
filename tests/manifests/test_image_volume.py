from typing import Any

from tests.manifests.rendering import BASE, IMAGE_VOLUME, overlay, render
from webhook import settings
from webhook.pods.delivery import Delivery

Json = dict[str, Any]


def find(kind: str, name: str = "stepmemo-image-volume") -> Json:
    (found,) = (d for d in overlay(IMAGE_VOLUME) if (d["kind"], d["metadata"]["name"]) == (kind, name))
    return found


def environment(documents: list[Json]) -> dict[str, str]:
    (deployment,) = (d for d in documents if d["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return {variable["name"]: variable.get("value", "stepmemo") for variable in container["env"]}


def test_the_server_is_told_and_nothing_else_changes() -> None:
    with_it, without = environment(overlay(IMAGE_VOLUME)), environment(render(BASE))
    assert with_it == {**without, "STEPMEMO_INJECTION": "image-volume"}
    assert settings.parse([], with_it).inject.injection is Delivery.IMAGE_VOLUME
    assert settings.parse([], without).inject.injection is Delivery.INIT_CONTAINER


def test_the_server_may_create_pod_templates_in_its_own_namespace_and_nothing_else() -> None:
    assert find("Role")["rules"] == [{"apiGroups": [""], "resources": ["podtemplates"], "verbs": ["create"]}]
    (deployment,) = (d for d in render(BASE) if d["kind"] == "Deployment")
    where = deployment["metadata"]["namespace"]
    account = deployment["spec"]["template"]["spec"]["serviceAccountName"]
    binding = find("RoleBinding")
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": where}]
    assert binding["roleRef"]["name"] == find("Role")["metadata"]["name"]
    assert binding["metadata"]["namespace"] == find("Role")["metadata"]["namespace"] == where


def test_every_object_is_labelled() -> None:
    for kind in ("Role", "RoleBinding"):
        labels = find(kind)["metadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "stepmemo"
