from tests.manifests.rendering import BASE, IMAGE_VOLUME, WEBHOOK, Json, environment, overlay, render
from tests.manifests.rendering import find as found
from webhook import settings
from webhook.pods.delivery import Delivery


def find(kind: str) -> Json:
    return found(overlay(IMAGE_VOLUME), kind, "stepmemo-image-volume")


def test_the_webhook_is_told_and_nothing_else_changes() -> None:
    with_it, without = (
        environment(documents, WEBHOOK) for documents in (overlay(IMAGE_VOLUME), render(BASE))
    )
    assert with_it == {**without, "STEPMEMO_INJECTION": "image-volume"}
    assert settings.parse([], with_it).inject.injection is Delivery.IMAGE_VOLUME
    assert settings.parse([], without).inject.injection is Delivery.INIT_CONTAINER


def test_the_webhook_may_create_pod_templates_in_its_own_namespace_and_nothing_else() -> None:
    assert find("Role")["rules"] == [{"apiGroups": [""], "resources": ["podtemplates"], "verbs": ["create"]}]
    deployment = found(render(BASE), "Deployment", WEBHOOK)
    where = deployment["metadata"]["namespace"]
    account = deployment["spec"]["template"]["spec"]["serviceAccountName"]
    binding = find("RoleBinding")
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": where}]
    assert binding["roleRef"]["name"] == find("Role")["metadata"]["name"]
    assert binding["metadata"]["namespace"] == find("Role")["metadata"]["namespace"] == where
