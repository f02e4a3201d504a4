import base64
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argo.fields import FieldError, Kind
from kube import jsonpatch
from memoize.reasons import Reason
from webhook import review
from webhook.review import AdmissionRequest, MalformedReviewError

Json = dict[str, Any]


def ask(**changes: Any) -> Json:
    request: Json = {
        "uid": "705ab4f5",
        "kind": {"group": "argoproj.io", "version": "v1alpha1", "kind": "Workflow"},
        "resource": {"group": "argoproj.io", "version": "v1alpha1", "resource": "workflows"},
        "name": "hello",
        "namespace": "work",
        "operation": "CREATE",
        "object": {"metadata": {"name": "hello"}},
        "oldObject": None,
        "dryRun": False,
    }
    request |= changes
    request = {name: value for name, value in request.items() if value is not ...}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def parse(**changes: Any) -> AdmissionRequest:
    return review.parse(json.dumps(ask(**changes)).encode())


def test_a_review_is_read() -> None:
    body = json.dumps(ask(dryRun=True, subResource="status")).encode()
    assert review.parse(body) == AdmissionRequest(
        uid="705ab4f5",
        group="argoproj.io",
        kind="Workflow",
        subresource="status",
        operation="CREATE",
        namespace="work",
        name="hello",
        object={"metadata": {"name": "hello"}},
        old_object=None,
        dry_run=True,
        size=len(body),
    )


def test_what_the_api_server_leaves_out_is_empty() -> None:
    cluster_wide = parse(namespace=..., name=..., dryRun=..., oldObject=...)
    assert (cluster_wide.namespace, cluster_wide.name, cluster_wide.dry_run) == ("", "", False)


def test_a_generated_name_is_shown_as_its_prefix() -> None:
    request = parse(name=..., object={"metadata": {"generateName": "hello-"}})
    assert request.shown_name == "hello-"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"uid": ...}, "request.uid is missing"),
        ({"uid": 7}, "request.uid must be a string"),
        ({"kind": ...}, "request.kind must be an object"),
        ({"kind": "Workflow"}, "request.kind must be an object"),
        ({"operation": ...}, "request.operation must be one of CREATE, UPDATE, DELETE, CONNECT"),
        ({"operation": "create"}, "request.operation must be one of"),
        ({"object": ...}, "request.object is missing from a CREATE"),
        ({"object": []}, "request.object must be an object"),
        ({"operation": "UPDATE"}, "request.oldObject is missing from an UPDATE"),
        ({"dryRun": "yes"}, "request.dryRun must be true or false"),
        ({"namespace": {}}, "request.namespace must be a string"),
    ],
)
def test_a_malformed_request_says_what_is_wrong_with_it(changes: Json, text: str) -> None:
    with pytest.raises(MalformedReviewError) as caught:
        parse(**changes)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "the body is not JSON"),
        (b"{", "the body is not JSON"),
        (b"\xff\xfe\x00", "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        (b"9" * 5000, "the body is not JSON"),
        (b"[]", "the body must be an object"),
        (b"null", "the body must be an object"),
        (b"{}", "got no kind of no apiVersion"),
        (b'{"apiVersion": "v1", "kind": "Pod"}', "got Pod of v1"),
        (
            b'{"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview"}',
            "of admission.k8s.io/v1, got AdmissionReview of admission.k8s.io/v1beta1",
        ),
        (b'{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}', "request must be an object"),
    ],
)
def test_a_body_that_is_no_review_says_so(body: bytes, text: str) -> None:
    with pytest.raises(MalformedReviewError) as caught:
        review.parse(body)
    assert text in str(caught.value)


def test_a_delete_needs_no_object() -> None:
    assert parse(operation="DELETE", object=None, oldObject={"metadata": {}}).object is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["apiVersion", "kind", "request", "uid", "object", "operation"]), inner
        )
    ),
    max_leaves=10,
)


@given(JSON, JSON)
def test_any_json_is_read_or_refused(document: Any, request: Any) -> None:
    for body in (document, {"apiVersion": review.API_VERSION, "kind": "AdmissionReview", "request": request}):
        with suppress(MalformedReviewError):
            review.parse(json.dumps(body).encode())


def response(answer: Json) -> Json:
    assert (answer["apiVersion"], answer["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    found: Json = answer["response"]
    assert found["uid"] == "705ab4f5"
    return found


def test_an_object_left_alone_is_allowed_without_a_patch() -> None:
    assert response(review.allowed(parse(), Reason.NOT_MEMOIZED)) == {
        "uid": "705ab4f5",
        "allowed": True,
        "auditAnnotations": {"reason": "NotMemoized"},
    }


def test_operations_travel_as_a_json_patch_in_base64() -> None:
    ops = [jsonpatch.add(("metadata", "labels"), {"a": "ü\ud800"})]
    answer = response(review.allowed(parse(), Reason.ACCEPTED, ["mind the gap"], ops))
    assert answer["patchType"] == "JSONPatch"
    assert json.loads(base64.b64decode(answer["patch"])) == ops
    assert answer["warnings"] == ["mind the gap"]


ERRORS = [
    FieldError("spec.templates[0].memoize.key", Kind.REQUIRED, "must not be blank"),
    FieldError("spec.templates[0].memoize.maxAge", Kind.INVALID, "lacks a unit", "10"),
]


def test_a_denial_is_one_invalid_status_with_a_cause_per_error() -> None:
    answer = response(review.denied(parse(), Reason.INVALID_MEMOIZE, ERRORS))
    assert answer["allowed"] is False
    assert "patch" not in answer
    status = answer["status"]
    assert (status["code"], status["reason"], status["status"]) == (422, "Invalid", "Failure")
    assert status["details"] == {
        "name": "hello",
        "group": "argoproj.io",
        "kind": "Workflow",
        "causes": [
            {
                "reason": "FieldValueRequired",
                "message": "Required value: must not be blank",
                "field": "spec.templates[0].memoize.key",
            },
            {
                "reason": "FieldValueInvalid",
                "message": 'Invalid value: "10": lacks a unit',
                "field": "spec.templates[0].memoize.maxAge",
            },
        ],
    }


def test_a_denials_message_holds_every_error_for_clients_that_show_nothing_else() -> None:
    message = response(review.denied(parse(), Reason.INVALID_MEMOIZE, ERRORS))["status"]["message"]
    assert message == (
        'Workflow.argoproj.io "hello" is invalid: ['
        "spec.templates[0].memoize.key: Required value: must not be blank, "
        'spec.templates[0].memoize.maxAge: Invalid value: "10": lacks a unit]'
    )


def test_one_error_stands_without_brackets() -> None:
    message = response(review.denied(parse(), Reason.INVALID_MEMOIZE, ERRORS[:1]))["status"]["message"]
    assert message.endswith("is invalid: spec.templates[0].memoize.key: Required value: must not be blank")


@pytest.mark.parametrize("text", ["x", "é", "\U0001f600", '"', "\ud800"])
def test_whatever_is_wrong_and_however_long_it_is_an_answer_has_a_bound(text: str) -> None:
    long = text * 100_000
    errors = [FieldError(f"spec[{long}]", Kind.INVALID, long, long) for _ in range(20)]
    request = parse(name=..., object={"metadata": {"generateName": long}}, kind={"group": long, "kind": long})
    answer = review.denied(request, Reason.INVALID_MEMOIZE, errors, [text * 120] * 21, 312)
    assert len(json.dumps(answer)) <= review.ANSWER
    assert len(answer["response"]["status"]["details"]["causes"]) == 20
    assert answer["response"]["status"]["message"].endswith(", and 312 more]")


def test_a_uid_that_no_api_server_makes_is_not_repeated() -> None:
    with pytest.raises(MalformedReviewError, match=r"request\.uid is too long"):
        parse(uid="x" * 129)
