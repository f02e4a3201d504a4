"""PodTemplates: what the trial of `--injection image-volume` sees of an API server."""

import pytest

from tests.cluster import Answer, Cluster, Object
from webhook.inject import preflight
from webhook.inject.containers import InjectSettings

pytestmark = pytest.mark.contract

SETTINGS = InjectSettings(image="stepmemo:golden")


def tried(cluster: Cluster, template: Object, token: str | None = None) -> Answer:
    path = cluster.path("PodTemplate", cluster.namespace())
    return cluster.request("POST", path, template, query={"dryRun": "All"}, token=token)


def test_every_field_of_an_image_volume_is_taken(cluster: Cluster) -> None:
    template = preflight.pod_template(SETTINGS)
    status, body, _ = tried(cluster, template)
    assert status == 201, body
    assert preflight.evaluate_preflight(template, status, body) == preflight.Taken()


def test_a_dry_run_leaves_nothing_behind(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    path = cluster.path("PodTemplate", namespace)
    cluster.request("POST", path, preflight.pod_template(SETTINGS), query={"dryRun": "All"})
    assert cluster.list("PodTemplate", namespace)[1]["items"] == []


def test_a_volume_of_an_unknown_source_becomes_an_empty_directory(cluster: Cluster) -> None:
    """What a server without image volumes makes of ours."""
    template = preflight.pod_template(SETTINGS)
    (volume,) = template["template"]["spec"]["volumes"]
    volume["picture"] = volume.pop("image")
    status, body, _ = tried(cluster, template)
    assert status == 201, body
    assert body["template"]["spec"]["volumes"] == [{"name": volume["name"], "emptyDir": {}}]
    verdict = preflight.evaluate_preflight(template, status, body)
    assert isinstance(verdict, preflight.Unusable)
    assert "spec.volumes[stepmemo-image].picture" in verdict.why


def test_an_unknown_field_of_a_container_is_dropped(cluster: Cluster) -> None:
    template = preflight.pod_template(SETTINGS)
    sidecar = template["template"]["spec"]["containers"][0]
    sidecar["restartRules"] = sidecar.pop("restartPolicyRules")
    status, body, _ = tried(cluster, template)
    assert status == 201, body
    verdict = preflight.evaluate_preflight(template, status, body)
    assert isinstance(verdict, preflight.Unusable)
    assert "drops spec.containers[stepmemo].restartRules:" in verdict.why


def test_a_template_that_cannot_be_is_422(cluster: Cluster) -> None:
    template = preflight.pod_template(SETTINGS)
    template["template"]["spec"]["volumes"] = []
    status, body, _ = tried(cluster, template)
    assert status == 422
    causes = [(cause["field"], cause["reason"]) for cause in body["details"]["causes"]]
    assert causes == [("template.spec.containers[1].volumeMounts[0].name", "FieldValueNotFound")]
    assert isinstance(preflight.evaluate_preflight(template, status, body), preflight.Unusable)


def test_an_account_without_the_right_is_403(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    token = cluster.service_account(namespace, "powerless", [])
    template = preflight.pod_template(SETTINGS)
    status, body, _ = tried(cluster, template, token)
    assert status == 403
    verdict = preflight.evaluate_preflight(template, status, body)
    assert isinstance(verdict, preflight.Unusable)
    assert 'cannot create resource "podtemplates"' in verdict.why
