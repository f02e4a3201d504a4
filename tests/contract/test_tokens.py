"""Tokens for others than the API server: asked for, bound to a Pod, and reviewed."""

import pytest

from tests.cluster import Cluster, Object, wait_for

pytestmark = pytest.mark.contract

AUDIENCE = "stepmemo"
REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
EXTRA = "authentication.kubernetes.io"


def with_pod(cluster: Cluster) -> tuple[str, Object]:
    """A fresh namespace with the account `step` and a Pod `p` of it."""
    namespace = cluster.namespace()
    account = {"kind": "ServiceAccount", "metadata": {"name": "step", "namespace": namespace}}
    assert cluster.create(account)[0] == 201
    return namespace, create_pod(cluster, namespace)


def create_pod(cluster: Cluster, namespace: str) -> Object:
    spec = {"serviceAccountName": "step", "containers": [{"name": "main", "image": "x"}]}
    metadata = {"name": "p", "namespace": namespace}
    status, created = cluster.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    assert status == 201, created
    found: Object = created
    return found


def request(cluster: Cluster, namespace: str, account: str = "step", **spec: object) -> tuple[int, Object]:
    path = cluster.path("ServiceAccount", namespace, account, "token")
    return cluster.request("POST", path, {"spec": spec})[:2]


def reference(pod: Object) -> Object:
    metadata = pod["metadata"]
    return {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}


def issued(cluster: Cluster, namespace: str, pod: Object | None = None, *audiences: str) -> str:
    bound = {"boundObjectRef": reference(pod)} if pod else {}
    status, body = request(cluster, namespace, audiences=list(audiences or (AUDIENCE,)), **bound)
    assert status == 201, body
    token: str = body["status"]["token"]
    return token


def review(cluster: Cluster, token: str, *audiences: str) -> Object:
    """What the server says of a token."""
    spec: Object = {"token": token, "audiences": list(audiences)} if audiences else {"token": token}
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
    status, body, _ = cluster.request("POST", REVIEWS, asked)
    assert (status, body["kind"]) == (201, "TokenReview"), body
    found: Object = body["status"]
    return found


def test_a_bound_token_names_its_account_and_its_pod(cluster: Cluster) -> None:
    namespace, pod = with_pod(cluster)
    status = review(cluster, issued(cluster, namespace, pod), AUDIENCE)
    assert (status["authenticated"], status["audiences"]) == (True, [AUDIENCE])
    user = status["user"]
    assert user["username"] == f"system:serviceaccount:{namespace}:step"
    assert user["uid"] == cluster.get("ServiceAccount", namespace, "step")[1]["metadata"]["uid"]
    assert {"system:serviceaccounts", f"system:serviceaccounts:{namespace}"} < set(user["groups"])
    assert user["extra"][f"{EXTRA}/pod-name"] == ["p"]
    assert user["extra"][f"{EXTRA}/pod-uid"] == [pod["metadata"]["uid"]]


def test_a_token_that_is_bound_to_nothing_names_no_pod(cluster: Cluster) -> None:
    namespace, _ = with_pod(cluster)
    extra = review(cluster, issued(cluster, namespace), AUDIENCE)["user"]["extra"]
    assert extra.keys() == {f"{EXTRA}/credential-id"}


def test_the_audiences_of_a_review_are_those_in_common(cluster: Cluster) -> None:
    namespace, _ = with_pod(cluster)
    token = issued(cluster, namespace, None, AUDIENCE, "b", "c")
    assert review(cluster, token, "a", AUDIENCE)["audiences"] == [AUDIENCE]


@pytest.mark.parametrize("asked", [(), ("other",)])
def test_a_token_for_another_audience_is_refused(cluster: Cluster, asked: tuple[str, ...]) -> None:
    namespace, pod = with_pod(cluster)
    told = asked[0] if asked else "https://kubernetes.default.svc"
    why = f'token audiences ["{AUDIENCE}"] is invalid for the target audiences ["{told}"]'
    status = review(cluster, issued(cluster, namespace, pod), *asked)
    assert status == {"user": {}, "error": f"[invalid bearer token, {why}]"}


def test_a_token_for_the_api_is_for_nobody_else(cluster: Cluster) -> None:
    namespace, _ = with_pod(cluster)
    _, body = request(cluster, namespace)
    token = body["status"]["token"]
    assert body["spec"] == {
        "audiences": ["https://kubernetes.default.svc"],
        "expirationSeconds": 3600,
        "boundObjectRef": None,
    }
    assert review(cluster, token)["authenticated"] is True
    assert "authenticated" not in review(cluster, token, AUDIENCE)
    assert "authenticated" not in review(cluster, cluster.admin_token, AUDIENCE)


def test_the_api_takes_no_token_that_is_for_another(cluster: Cluster) -> None:
    namespace, pod = with_pod(cluster)
    assert cluster.list("Pod", namespace, token=issued(cluster, namespace, pod))[0] == 401


def test_a_token_ends_with_its_pod(cluster: Cluster) -> None:
    """A real server learns of it by a watch, and what was good to it is good for 10 more seconds."""
    namespace, pod = with_pod(cluster)
    token = issued(cluster, namespace, pod)
    cluster.delete("Pod", namespace, "p")
    why = "[invalid bearer token, service account token has been invalidated]"
    wait_for(lambda: review(cluster, token, AUDIENCE) == {"user": {}, "error": why})


def test_another_pod_of_that_name_does_not_make_it_good(cluster: Cluster) -> None:
    namespace, pod = with_pod(cluster)
    token = issued(cluster, namespace, pod)
    cluster.delete("Pod", namespace, "p")
    create_pod(cluster, namespace)
    wait_for(lambda: "authenticated" not in review(cluster, token, AUDIENCE))
    assert review(cluster, token, AUDIENCE)["error"].startswith("[invalid bearer token, ")


def test_a_token_ends_with_its_account(cluster: Cluster) -> None:
    namespace, _ = with_pod(cluster)
    token = issued(cluster, namespace)
    cluster.delete("ServiceAccount", namespace, "step")
    why = '[invalid bearer token, serviceaccounts "step" not found]'
    wait_for(lambda: review(cluster, token, AUDIENCE) == {"user": {}, "error": why})


def test_what_nobody_issued_is_refused_and_nothing_at_all_is_400(cluster: Cluster) -> None:
    assert review(cluster, "made-up", AUDIENCE) == {"user": {}, "error": "invalid bearer token"}
    status, body, _ = cluster.request("POST", REVIEWS, {"spec": {"token": ""}})
    assert (status, body["message"]) == (400, "token is required for TokenReview in authentication")


def test_to_review_is_a_right(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    caller = cluster.service_account(namespace, "nobody", [])
    status, body, _ = cluster.request("POST", REVIEWS, {"spec": {"token": "x"}}, token=caller)
    assert status == 403
    what = 'cannot create resource "tokenreviews" in API group "authentication.k8s.io" at the cluster scope'
    user = f'User "system:serviceaccount:{namespace}:nobody"'
    assert body["message"] == f"tokenreviews.authentication.k8s.io is forbidden: {user} {what}"


def test_reviews_are_asked_and_not_kept(cluster: Cluster) -> None:
    assert cluster.request("GET", REVIEWS).status == 405
    assert cluster.request("GET", f"{REVIEWS}/x").status == 404
    resources = cluster.request("GET", REVIEWS.rpartition("/")[0]).body["resources"]
    assert {each["name"]: each["verbs"] for each in resources}["tokenreviews"] == ["create"]


def test_a_token_is_bound_to_a_pod_that_is_there_and_the_accounts_own(cluster: Cluster) -> None:
    namespace, pod = with_pod(cluster)
    known = reference(pod)
    refused = [
        ({**known, "name": "none"}, 404, 'pods "none" not found'),
        ({**known, "uid": "x"}, 409, "does not match the UID in record"),
        ({**known, "kind": "ConfigMap"}, 400, "cannot bind token to object of type /v1, Kind=ConfigMap"),
    ]
    for bound, code, message in refused:
        status, body = request(cluster, namespace, boundObjectRef=bound)
        assert status == code
        assert message in body["message"]
    status, body = request(cluster, namespace, "default", boundObjectRef=known)
    assert status == 400
    assert 'cannot bind token for serviceaccount "default" to pod' in body["message"]


def test_a_token_lives_ten_minutes_or_longer(cluster: Cluster) -> None:
    namespace, _ = with_pod(cluster)
    status, body = request(cluster, namespace, expirationSeconds=599)
    assert status == 422
    why = "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes"
    assert body["message"] == f'TokenRequest.authentication.k8s.io "" is invalid: {why}'
    assert request(cluster, namespace, expirationSeconds=600)[0] == 201
