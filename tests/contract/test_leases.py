"""Leases, as a leader takes, renews and gives one up."""

import pytest

from tests.cluster import Cluster, Object

pytestmark = pytest.mark.contract

TIME = "2026-01-01T00:00:00.000000Z"


def lease(namespace: str, holder: str = "a", **spec: object) -> Object:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "stepmemo", "namespace": namespace},
        "spec": {
            "holderIdentity": holder,
            "leaseDurationSeconds": 15,
            "acquireTime": TIME,
            "renewTime": TIME,
            "leaseTransitions": 0,
            **spec,
        },
    }


def test_of_two_that_take_a_new_lease_one_gets_it(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    status, taken = cluster.create(lease(namespace))
    assert (status, taken["spec"]) == (201, lease(namespace)["spec"])
    status, body = cluster.create(lease(namespace, "b"))
    assert (status, body["reason"]) == (409, "AlreadyExists")
    assert body["message"] == 'leases.coordination.k8s.io "stepmemo" already exists'


def test_of_two_that_renew_from_one_version_one_fails(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    _, taken = cluster.create(lease(namespace))
    first, second = (
        {**taken, "spec": {**taken["spec"], "holderIdentity": who, "leaseTransitions": 1}} for who in "bc"
    )
    assert cluster.update(first)[0] == 200
    status, body = cluster.update(second)
    assert (status, body["reason"]) == (409, "Conflict")
    assert cluster.get("Lease", namespace, "stepmemo")[1]["spec"]["holderIdentity"] == "b"


def test_an_update_says_which_version_it_starts_from(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    cluster.create(lease(namespace))
    status, body = cluster.update(lease(namespace, "b"))
    assert status == 422
    assert "metadata.resourceVersion: Invalid value: 0: must be specified for an update" in body["message"]


def test_a_patch_renews_it_on_the_base_of_one_version(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    _, taken = cluster.create(lease(namespace))
    renewed = "2026-01-01T00:00:09.123456Z"
    metadata = {"resourceVersion": taken["metadata"]["resourceVersion"]}
    patch = {"metadata": metadata, "spec": {"renewTime": renewed}}
    status, body = cluster.patch("Lease", namespace, "stepmemo", patch)
    assert (status, body["spec"]["renewTime"]) == (200, renewed)
    assert cluster.patch("Lease", namespace, "stepmemo", patch)[0] == 409


def test_its_holder_gives_it_up(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    cluster.create(lease(namespace))
    given_up = {"spec": {"holderIdentity": None, "renewTime": None, "leaseDurationSeconds": 1}}
    status, body = cluster.patch("Lease", namespace, "stepmemo", given_up)
    assert status == 200
    assert body["spec"] == {"leaseDurationSeconds": 1, "acquireTime": TIME, "leaseTransitions": 0}


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("leaseDurationSeconds", 0, "must be greater than 0"),
        ("leaseTransitions", -1, "must be greater than or equal to 0"),
    ],
)
def test_a_lease_that_cannot_be_is_422(cluster: Cluster, field: str, value: int, why: str) -> None:
    status, body = cluster.create(lease(cluster.namespace(), **{field: value}))
    assert status == 422
    where = f"spec.{field}: Invalid value: {value}: {why}"
    assert body["message"] == f'Lease.coordination.k8s.io "stepmemo" is invalid: {where}'


@pytest.mark.parametrize("time", ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.123Z"])
def test_its_times_have_six_digits_after_the_point(cluster: Cluster, time: str) -> None:
    status, body = cluster.create(lease(cluster.namespace(), renewTime=time))
    assert (status, body["reason"]) == (400, "BadRequest")
    assert f'parsing time "{time}" as "2006-01-02T15:04:05.000000Z07:00"' in body["message"]


def test_a_name_narrows_the_right_to_a_lease(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    cluster.create(lease(namespace))
    rule = {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": ["stepmemo"],
        "verbs": ["get", "update"],
    }
    token = cluster.service_account(namespace, "keeper", [rule])
    status, found = cluster.get("Lease", namespace, "stepmemo", token=token)
    assert status == 200
    assert cluster.update(found, token=token)[0] == 200
    assert cluster.get("Lease", namespace, "other", token=token)[0] == 403
    assert cluster.create(lease(namespace), token=token)[0] == 403
