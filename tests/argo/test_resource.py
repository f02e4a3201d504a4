import pytest

from argo.resource import goes_with_workflow

UID = "6b1f0f2e-0d4c-4b8e-9a53-0e6c6f0d4a11"
OWNED = "metadata: {ownerReferences: [{kind: Workflow, name: w, uid: '%s'}]}"


def resource(**fields):
    return {"resource": {"action": "create", **fields}}


@pytest.mark.parametrize(
    "tag",
    [
        "{{workflow.uid}}",
        "{{ workflow.uid }}",
        "{{=workflow.uid}}",
        "{{=workflow['uid']}}",
        '{{= workflow [ "uid" ] }}',
        "{{=workflow?.uid}}",
        "{{=sprig.upper(workflow.uid)}}",
        "{{=map([1], {workflow.uid})}}",
    ],
)
def test_a_manifest_with_the_workflows_uid_goes_with_it(tag):
    why = "workflow.uid in its manifest"
    assert goes_with_workflow(resource(manifest=OWNED % tag)) == why
    artifact = {"artifact": {"name": "m", "raw": {"data": OWNED % tag}}}
    assert goes_with_workflow(resource(manifestFrom=artifact)) == why


def test_in_a_pod_the_uid_stands_in_place_of_its_tag():
    manifest = resource(manifest=OWNED % UID)
    assert goes_with_workflow(manifest, UID) == "workflow.uid in its manifest"
    assert goes_with_workflow(manifest, UID.replace("6", "7")) is None
    assert goes_with_workflow(manifest) is None


def test_an_owner_reference_that_argo_sets_is_one_too():
    assert goes_with_workflow(resource(setOwnerReference=True)) == "setOwnerReference"
    assert goes_with_workflow(resource(setOwnerReference=False)) is None


@pytest.mark.parametrize(
    "template",
    [
        {},
        {"container": {"args": ["{{workflow.uid}}"]}},
        {"resource": "text"},
        resource(),
        resource(
            manifest="workflow.uid, and {{workflow.name}}, {{workflow.parameters.uid}}, {{workflow.uids}}"
        ),
        resource(manifest=5, manifestFrom={"artifact": {"name": "m", "s3": {"key": "k"}}}),
    ],
)
def test_anything_else_stays(template):
    assert goes_with_workflow(template, UID) is None
