import asyncio
import base64
import gzip
import io
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import aiohttp
import jsonpatch
import pytest
from yarl import URL

from kube.jsonpatch import remove
from memoize.reasons import Reason
from server.bodies import BODY_LIMIT
from server.events import Events
from server.listener import Listener
from server.lookups import Lookups
from server.metrics import Metrics
from server.tls import ServingCertificate
from tests.beside import beside
from tests.cluster import Cluster
from tests.waiting import until
from tests.webhook.serving import HOST, api_client, certify, trusting
from webhook.admission import Admission, AdmissionOutcome
from webhook.big_reviews import BigReviews
from webhook.hooks import Decide, Hooks
from webhook.inject.containers import InjectSettings
from webhook.under_way import MOST

Json = dict[str, Any]


class Served:
    """A server on a free port of this machine, called as the API server calls it: by name, over TLS."""

    def __init__(self, session: aiohttp.ClientSession, stop: asyncio.Event, stop_now: asyncio.Event) -> None:
        self.session, self.stop, self.stop_now = session, stop, stop_now
        self.recorded = Metrics()
        self.problem = ""
        self.url = URL()

    @property
    def metrics(self) -> str:
        return self.recorded.render().decode()

    async def get(self, path: str) -> tuple[int, str]:
        async with self.session.get(self.url.with_path(path), server_hostname=HOST) as response:
            return response.status, await response.text()

    async def post(self, path: str, body: bytes | Json) -> tuple[int, str]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        url = self.url.with_path(path)
        async with self.session.post(url, data=io.BytesIO(data), server_hostname=HOST) as response:
            return response.status, await response.text()

    async def review(self, path: str, body: Json) -> Json:
        status, text = await self.post(path, body)
        assert status == 200, text
        answer = json.loads(text)["response"]
        assert answer["uid"] == body["request"]["uid"]
        return dict(answer)


@asynccontextmanager
async def serving(
    workflows: Decide, pods: Decide, directory: Path, delay: float = 60, big: BigReviews | None = None
) -> AsyncIterator[Served]:
    authority = certify(directory)
    certificate = ServingCertificate(directory)
    certificate.reload()
    listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    class Port(logging.Handler):
        """The port is the system's choice, and the log says it."""

        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() == "listening":
                listening.set_result(record.fields["port"])  # type: ignore[attr-defined]

    log, port = logging.getLogger("server.listener"), Port()
    log.setLevel(logging.INFO)
    log.addHandler(port)
    stop, stop_now = asyncio.Event(), asyncio.Event()
    try:
        connector = aiohttp.TCPConnector(ssl=trusting(authority), limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            served = Served(session, stop, stop_now)
            listener = Listener(served.recorded, lambda: served.problem)
            Hooks(workflows, pods, served.recorded, listener, big)
            running = asyncio.create_task(
                listener.run("127.0.0.1", 0, certificate.context, stop, stop_now, delay)
            )
            served.url = URL.build(scheme="https", host="127.0.0.1", port=await listening)
            yield served
            stop.set()
            stop_now.set()
        await running
    finally:
        log.removeHandler(port)


@asynccontextmanager
async def installed(
    cluster: Cluster, directory: Path, validate: str = "enforce", token: str | None = None
) -> AsyncIterator[Served]:
    """The whole server, with a cluster behind it."""
    async with api_client(cluster, token=token) as api:
        lookups = Lookups(api, lambda _: None, seconds=10)
        events = Events(api, lambda _: None, "stepmemo-webhook", "test", workflows=lookups)
        admission = Admission(
            lookups,
            events,
            validate,
            lambda: InjectSettings(image="stepmemo:golden"),
        )
        async with beside(events.run()), serving(admission.workflow, admission.pod, directory) as served:
            yield served


def ask(obj: Json, namespace: str, **changes: Any) -> Json:
    """A review of an object's creation."""
    group, _, version = obj["apiVersion"].rpartition("/")
    request = {
        "uid": "705ab4f5",
        "kind": {"group": group, "version": version, "kind": obj["kind"]},
        "operation": "CREATE",
        "namespace": namespace,
        "name": obj["metadata"].get("name", ""),
        "object": obj,
        **changes,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def patched(obj: Json, answer: Json) -> Json:
    assert answer["patchType"] == "JSONPatch"
    return dict(jsonpatch.apply_patch(obj, json.loads(base64.b64decode(answer["patch"]))))


def workflow(namespace: str, **memoize: Any) -> Json:
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {
            "name": "hello",
            "namespace": namespace,
            "annotations": {"stepmemo.dev/memoize": "true"},
        },
        "spec": {
            "entrypoint": "main",
            "templates": [
                {
                    "name": "main",
                    "container": {"image": "busybox"},
                    "memoize": {"key": "k-1", "cache": {"configMap": {"name": "memo"}}, **memoize},
                }
            ],
        },
    }


def step_pod(pod: Json, cluster: Cluster, namespace: str, changes: Json | None = None, **labels: str) -> Json:
    """The recorded Pod as one of a Workflow, changed by a merge-patch, that really is in the cluster."""
    wanted = workflow(namespace)
    wanted["metadata"]["name"] = name = pod["metadata"]["labels"]["workflows.argoproj.io/workflow"]
    wanted["metadata"]["labels"] = labels
    for part, fields in (changes or {}).items():
        wanted[part] |= fields
    status, body = cluster.create(wanted)
    assert status == 201, body
    own = deepcopy(pod)
    own["metadata"]["namespace"] = namespace
    own["metadata"]["ownerReferences"][0] |= {"name": name, "uid": body["metadata"]["uid"]}
    return own


async def nothing(_: object) -> AdmissionOutcome:
    return AdmissionOutcome(Reason.NOT_MEMOIZED)


# --- /mutate/workflows -------------------------------------------------------------------------------


async def test_a_sound_workflow_is_taken_over(cluster: Cluster, tmp_path: Path) -> None:
    namespace = cluster.namespace()
    obj = workflow(namespace, maxAge="1h")
    async with installed(cluster, tmp_path) as served:
        answer = await served.review("/mutate/workflows", ask(obj, namespace))
    assert answer["allowed"] is True
    assert answer["auditAnnotations"] == {"reason": "Accepted"}
    template = patched(obj, answer)["spec"]["templates"][0]
    assert "memoize" not in template
    assert template["metadata"]["annotations"]["stepmemo.dev/key"] == "k-1"


async def test_a_broken_workflow_is_denied_with_all_its_errors(cluster: Cluster, tmp_path: Path) -> None:
    namespace = cluster.namespace()
    async with installed(cluster, tmp_path) as served:
        obj = workflow(namespace, maxAge="10", key=" ")
        answer = await served.review("/mutate/workflows", ask(obj, namespace))
    assert answer["allowed"] is False
    assert answer["status"]["code"] == 422
    assert len(answer["status"]["details"]["causes"]) == 2
    assert answer["auditAnnotations"] == {"reason": "InvalidMemoize"}


@pytest.mark.parametrize(
    ("server", "namespace", "allowed"), [("enforce", "warn", True), ("off", "enforce", False)]
)
async def test_a_namespaces_label_says_what_becomes_of_errors(
    cluster: Cluster, tmp_path: Path, server: str, namespace: str, allowed: bool
) -> None:
    name = cluster.namespace({"stepmemo.dev/validate": namespace})
    async with installed(cluster, tmp_path, server) as served:
        answer = await served.review("/mutate/workflows", ask(workflow(name, maxAge="10"), name))
    assert answer["allowed"] is allowed


async def test_a_namespace_that_cannot_be_read_means_the_servers_defaults(
    cluster: Cluster, tmp_path: Path
) -> None:
    namespace = cluster.namespace({"stepmemo.dev/validate": "off"})
    token = cluster.service_account(namespace, "powerless", [])
    async with installed(cluster, tmp_path, token=token) as served:
        good = await served.review("/mutate/workflows", ask(workflow(namespace), namespace))
        bad = await served.review("/mutate/workflows", ask(workflow(namespace, maxAge="10"), namespace))
    assert (good["allowed"], bad["allowed"]) == (True, False)


async def test_what_lies_in_no_namespace_is_judged_too(cluster: Cluster, tmp_path: Path) -> None:
    obj = workflow("", maxAge="10") | {"kind": "ClusterWorkflowTemplate"}
    async with installed(cluster, tmp_path) as served:
        answer = await served.review("/mutate/workflows", ask(obj, ""))
    assert answer["allowed"] is False


@pytest.mark.parametrize(
    "changes",
    [
        {"operation": "UPDATE", "oldObject": {}},
        {"operation": "DELETE"},
        {"subResource": "status"},
        {"kind": {"group": "argoproj.io", "version": "v1alpha1", "kind": "WorkflowTaskResult"}},
        {"kind": {"group": "example.org", "version": "v1", "kind": "Workflow"}},
    ],
)
async def test_rules_that_somebody_widened_change_nothing(
    cluster: Cluster, tmp_path: Path, changes: Json
) -> None:
    namespace = cluster.namespace()
    async with installed(cluster, tmp_path) as served:
        obj = workflow(namespace, maxAge="10")
        answer = await served.review("/mutate/workflows", ask(obj, namespace, **changes))
    assert answer["allowed"] is True
    assert "patch" not in answer
    assert answer["auditAnnotations"] == {"reason": "NotMemoized"}


# --- /mutate/pods ------------------------------------------------------------------------------------


async def test_a_step_pod_gets_check_and_capture(cluster: Cluster, tmp_path: Path, pod: Json) -> None:
    namespace = cluster.namespace()
    own = step_pod(pod, cluster, namespace)
    async with installed(cluster, tmp_path) as served:
        answer = await served.review("/mutate/pods", ask(own, namespace))
        again = await served.review("/mutate/pods", ask(patched(own, answer), namespace))
    assert answer["auditAnnotations"] == {"reason": "Injected"}
    spec = patched(own, answer)["spec"]
    assert spec["initContainers"][0]["name"] == "stepmemo-check"
    assert spec["containers"][-1]["name"] == "stepmemo"
    assert "patch" not in again
    assert again["auditAnnotations"] == {"reason": "AlreadyInjected"}


async def test_the_mode_of_the_run_is_read_from_its_workflow(
    cluster: Cluster, tmp_path: Path, pod: Json
) -> None:
    namespace = cluster.namespace()
    own = step_pod(pod, cluster, namespace, **{"stepmemo.dev/mode": "off"})
    async with installed(cluster, tmp_path) as served:
        answer = await served.review("/mutate/pods", ask(own, namespace))
    assert answer["auditAnnotations"] == {"reason": "ModeOff"}
    assert "patch" not in answer


GC = {"spec": {"artifactGC": {"strategy": "OnPodDeletion"}}}
WRITTEN = {"metadata": {"labels": {"workflows.argoproj.io/phase": "Running"}}}
FINALIZER = {"metadata": {"finalizers": ["workflows.argoproj.io/artifact-gc"]}}
UNREADABLE = {"spec": {"workflowTemplateRef": {"name": "nowhere"}}}


@pytest.mark.parametrize(
    ("case", "changes", "deleted"),
    [
        ("artifacts-in-out", {}, False),
        ("artifacts-in-out", GC, True),
        ("artifacts-in-out", UNREADABLE, True),
        ("artifacts-in-out", FINALIZER, True),
        ("artifacts-in-out", WRITTEN | UNREADABLE, False),
        ("container", GC, True),
    ],
    ids=[
        "kept",
        "the spec says so",
        "nobody can tell",
        "the finalizer says so",
        "no finalizer by now",
        "no artifact but an archived log",
    ],
)
async def test_a_step_of_the_first_reconcile_is_told_whether_its_artifacts_will_be_deleted(
    cluster: Cluster,
    tmp_path: Path,
    load: Callable[[str], Json],
    case: str,
    changes: Json,
    deleted: bool,
) -> None:
    namespace = cluster.namespace()
    own = step_pod(load(f"v4.1.2-legacy/{case}"), cluster, namespace, changes)
    async with installed(cluster, tmp_path) as served:
        answer = await served.review("/mutate/pods", ask(own, namespace))
    sidecar = patched(own, answer)["spec"]["containers"][-1]
    step = next(variable["value"] for variable in sidecar["env"] if variable["name"] == "STEPMEMO_STEP")
    assert json.loads(step)["gc"] is deleted


async def test_a_pod_of_a_workflow_that_is_not_there_is_left_alone(
    cluster: Cluster, tmp_path: Path, pod: Json
) -> None:
    namespace = cluster.namespace()
    async with installed(cluster, tmp_path) as served:
        answer = await served.review("/mutate/pods", ask(pod, namespace))
    assert answer["allowed"] is True
    assert answer["auditAnnotations"] == {"reason": "ModeUnknown"}


async def test_the_namespace_is_that_of_the_request_and_not_of_the_pod(
    cluster: Cluster, tmp_path: Path, pod: Json
) -> None:
    namespace = cluster.namespace()
    own = step_pod(pod, cluster, namespace)
    del own["metadata"]["namespace"]
    async with installed(cluster, tmp_path) as served:
        answer = await served.review("/mutate/pods", ask(own, namespace))
    assert answer["auditAnnotations"] == {"reason": "Injected"}


@pytest.mark.parametrize(
    "changes",
    [
        {"operation": "UPDATE", "oldObject": {}},
        {"subResource": "ephemeralcontainers"},
        {"kind": {"group": "", "version": "v1", "kind": "ConfigMap"}},
    ],
)
async def test_only_the_creation_of_a_pod_is_looked_at(
    cluster: Cluster, tmp_path: Path, pod: Json, changes: Json
) -> None:
    namespace = cluster.namespace()
    own = step_pod(pod, cluster, namespace)
    async with installed(cluster, tmp_path) as served:
        answer = await served.review("/mutate/pods", ask(own, namespace, **changes))
    assert "patch" not in answer
    assert answer["auditAnnotations"] == {"reason": "NotAStep"}


async def test_a_skip_that_nobody_asked_for_is_an_event_but_not_in_a_dry_run(
    cluster: Cluster, tmp_path: Path, pod: Json
) -> None:
    namespace = cluster.namespace()
    own = step_pod(pod, cluster, namespace)
    own["metadata"]["annotations"]["stepmemo.dev/key"] = "{{inputs.parameters.lost}}"
    dry = deepcopy(own)
    dry["metadata"]["annotations"]["workflows.argoproj.io/node-id"] = "dry"
    async with installed(cluster, tmp_path) as served:
        await served.review("/mutate/pods", ask(dry, namespace, dryRun=True))
        await served.review("/mutate/pods", ask(own, namespace))
        await until(lambda: cluster.list("Event", namespace)[1]["items"])
    (event,) = cluster.list("Event", namespace)[1]["items"]
    assert event["message"].startswith("UnresolvedTag: ")
    assert own["metadata"]["annotations"]["workflows.argoproj.io/node-id"] in event["message"]


# --- What is no decision -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/mutate/workflows", "/mutate/pods"])
async def test_a_body_that_is_no_review_is_a_400_that_says_why(tmp_path: Path, path: str) -> None:
    async with serving(nothing, nothing, tmp_path) as served:
        half, other = (
            await served.post(path, b"{"),
            await served.post(path, {"apiVersion": "v1", "kind": "Pod"}),
        )
    assert (half[0], other[0]) == (400, 400)
    assert "the body is not JSON" in half[1]
    assert "expected an AdmissionReview" in other[1]


async def test_a_body_of_seven_mebibytes_is_read_and_one_byte_more_is_a_413(tmp_path: Path) -> None:
    whole = json.dumps(ask({"apiVersion": "v1", "kind": "Pod", "metadata": {}}, "work")).encode()
    async with serving(nothing, nothing, tmp_path) as served:
        assert (await served.post("/mutate/pods", whole.ljust(BODY_LIMIT)))[0] == 200
        assert (await served.post("/mutate/pods", whole.ljust(BODY_LIMIT + 1)))[0] == 413
        metrics = served.metrics
    assert 'stepmemo_admission_duration_seconds_count{code="413",webhook="pods"} 1.0' in metrics


async def test_other_methods_and_paths_are_refused(tmp_path: Path) -> None:
    async with serving(nothing, nothing, tmp_path) as served:
        assert (await served.get("/mutate/pods"))[0] == 405
        assert (await served.get("/"))[0] == 404


async def test_a_bug_of_ours_is_a_500_with_a_traceback_in_the_log_and_never_a_denial(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def trip(_: object) -> AdmissionOutcome:
        raise ZeroDivisionError("whoops")

    async with serving(nothing, trip, tmp_path) as served:
        body = ask({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}, "work")
        status, text = await served.post("/mutate/pods", body)
        metrics = served.metrics
    assert status == 500
    assert "whoops" not in text
    assert 'stepmemo_decisions_total{reason="InternalError",webhook="pods"} 1.0' in metrics
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.levelname == "ERROR"
    assert record.fields["reason"] == "InternalError"  # type: ignore[attr-defined]


async def test_a_patch_that_does_not_apply_is_our_bug_and_not_the_api_servers_error(tmp_path: Path) -> None:
    async def remove_what_is_not_there(_: object) -> AdmissionOutcome:
        return AdmissionOutcome(Reason.ACCEPTED, ops=[remove(("spec", "memoize"))])

    async with serving(remove_what_is_not_there, nothing, tmp_path) as served:
        status, _ = await served.post("/mutate/workflows", ask(workflow("work"), "work"))
    assert status == 500


async def test_a_pod_of_a_shape_that_no_api_server_sends_is_a_500(cluster: Cluster, tmp_path: Path) -> None:
    async with installed(cluster, tmp_path) as served:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": {"containers": ["no"]}}
        status, _ = await served.post("/mutate/pods", ask(pod, "work"))
        assert status == 500
        assert (await served.get("/healthz"))[0] == 200


# --- What is told ------------------------------------------------------------------------------------


async def test_one_line_is_logged_per_decision_and_no_value_is_in_it(
    cluster: Cluster, tmp_path: Path, pod: Json, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    namespace = cluster.namespace()
    own = step_pod(pod, cluster, namespace)
    own["metadata"]["annotations"]["stepmemo.dev/key"] = "s3cr3t-{{x}}"
    caplog.set_level(logging.INFO)
    async with installed(cluster, tmp_path) as served:
        bad = workflow(namespace, key="s3cr3t{{", maxAge="s3cr3t", s3cr3t="s3cr3t")
        await served.review("/mutate/workflows", ask(bad, namespace))
        await served.review("/mutate/pods", ask(own, namespace))
    lines = [record.fields for record in caplog.records if record.getMessage() == "decided"]  # type: ignore[attr-defined]
    denied, skipped = lines
    assert denied["reason"] == "InvalidMemoize"
    assert (denied["namespace"], denied["workflow"]) == (namespace, "hello")
    assert "spec.templates[0].memoize.maxAge FieldValueInvalid" in denied["errors"]
    assert skipped["reason"] == "UnresolvedTag"
    assert skipped["workflow"] == own["metadata"]["labels"]["workflows.argoproj.io/workflow"]
    assert skipped["node"] == own["metadata"]["annotations"]["workflows.argoproj.io/node-id"]
    values = {name: value for line in lines for name, value in line.items() if name != "errors"}
    assert "s3cr3t" not in str(values)


async def test_a_decision_that_is_as_it_should_be_is_a_metric_and_a_line_at_debug(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "webhook")
    async with serving(nothing, nothing, tmp_path) as served:
        await served.review("/mutate/workflows", ask(workflow("work"), "work"))
        text = served.metrics
    (line,) = [record for record in caplog.records if record.getMessage() == "decided"]
    assert line.levelname == "DEBUG"
    assert 'stepmemo_decisions_total{reason="NotMemoized",webhook="workflows"} 1.0' in text
    assert 'stepmemo_admission_duration_seconds_count{code="200",webhook="workflows"} 1.0' in text


# --- What is beyond the bounds -----------------------------------------------------------------------


@pytest.mark.slow
async def test_reviews_of_one_namespace_are_shed_without_a_retry_after_and_others_are_answered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    under_way, go_on = 0, asyncio.Event()

    async def ponder(_: object) -> AdmissionOutcome:
        nonlocal under_way
        under_way += 1
        await go_on.wait()
        return AdmissionOutcome(Reason.ACCEPTED)

    share = MOST // 2
    async with serving(nothing, ponder, tmp_path) as served:
        body = ask({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}, "busy")
        waiting = [asyncio.create_task(served.post("/mutate/pods", body)) for _ in range(share)]
        await until(lambda: under_way == share)
        for _ in range(3):
            url = served.url.with_path("/mutate/pods")
            async with served.session.post(url, json=body, server_hostname=HOST) as response:
                assert response.status == 503
                assert "Retry-After" not in response.headers
        await served.review("/mutate/workflows", ask(workflow("quiet"), "quiet"))
        assert (await served.get("/healthz"))[0] == 200
        metrics = served.metrics
        go_on.set()
        assert {status for status, _ in await asyncio.gather(*waiting)} == {200}
    assert 'stepmemo_refused_requests_total{reason="ReviewsOfNamespace"} 3.0' in metrics
    assert 'stepmemo_admission_duration_seconds_count{code="503",webhook="pods"} 3.0' in metrics
    assert f"stepmemo_connections {share + 1}.0" in metrics
    lines = [record for record in caplog.records if record.getMessage() == "not served"]
    assert len(lines) == 1


async def test_a_body_that_claims_to_be_compressed_is_not_expanded(tmp_path: Path) -> None:
    async with serving(nothing, nothing, tmp_path) as served:
        data, url = gzip.compress(b" " * BODY_LIMIT), served.url.with_path("/mutate/pods")
        headers = {"Content-Encoding": "gzip"}
        async with served.session.post(url, data=data, headers=headers, server_hostname=HOST) as response:
            assert response.status == 400


async def test_what_a_caller_wrote_is_not_repeated_at_length(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    long = "x" * 100_000
    async with serving(nothing, nothing, tmp_path) as served:
        status, text = await served.post("/mutate/pods", {"apiVersion": long, "kind": long})
        assert status == 400
        await served.review("/mutate/pods", ask({"apiVersion": long, "kind": long, "metadata": {}}, long))
    assert len(text) < 1_000
    assert all(len(str(getattr(record, "fields", ""))) < 10_000 for record in caplog.records)


# --- Life and death ----------------------------------------------------------------------------------


async def test_the_metrics_say_how_much_there_is_of_bodies_until_they_are_answered(tmp_path: Path) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_: object) -> AdmissionOutcome:
        begun.set()
        await go_on.wait()
        return AdmissionOutcome(Reason.NOT_A_STEP)

    def said() -> float:
        (line,) = [line for line in served.metrics.splitlines() if line.startswith("stepmemo_body_bytes ")]
        return float(line.split()[1])

    question = ask({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x" * 1000}}, "work")
    async with serving(nothing, slow, tmp_path) as served:
        assert said() == 0
        review = asyncio.create_task(served.review("/mutate/pods", question))
        await begun.wait()
        assert said() == len(json.dumps(question))
        go_on.set()
        await review
        assert said() == 0


async def test_readiness_says_what_is_missing(tmp_path: Path) -> None:
    async with serving(nothing, nothing, tmp_path) as served:
        assert await served.get("/readyz") == (200, "ok\n")
        served.problem = "there is no MutatingWebhookConfiguration stepmemo"
        assert await served.get("/readyz") == (503, "there is no MutatingWebhookConfiguration stepmemo\n")
        assert await served.get("/healthz") == (200, "ok\n")


async def test_after_the_signal_it_serves_on_but_is_no_longer_ready(tmp_path: Path) -> None:
    async with serving(nothing, nothing, tmp_path) as served:
        served.stop.set()
        await until(lambda: says(served, "shutting down"))
        await served.review("/mutate/workflows", ask(workflow("work"), "work"))


async def test_after_the_signal_each_answer_is_the_last_on_its_connection(tmp_path: Path) -> None:
    async def is_kept(path: str, body: bytes | None = None) -> bool:
        url, method = served.url.with_path(path), "GET" if body is None else "POST"
        async with served.session.request(method, url, data=body, server_hostname=HOST) as response:
            return response.headers.get("Connection") != "close"

    review = json.dumps(ask(workflow("work"), "work")).encode()
    asked: list[tuple[str, bytes | None]] = [
        ("/mutate/workflows", review),
        ("/mutate/pods", b"no review"),
        ("/healthz", None),
        ("/nowhere", None),
    ]
    async with serving(nothing, nothing, tmp_path) as served:
        assert [await is_kept(*one) for one in asked] == [True] * 4
        served.stop.set()
        await until(lambda: says(served, "shutting down"))
        assert [await is_kept(*one) for one in asked] == [False] * 4


async def test_a_review_in_flight_is_answered_before_the_end(tmp_path: Path) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def ponder(_: object) -> AdmissionOutcome:
        asked.set()
        await go_on.wait()
        return AdmissionOutcome(Reason.ACCEPTED)

    async with serving(ponder, nothing, tmp_path, delay=0) as served:
        body = ask(workflow("work"), "work")
        answer = asyncio.create_task(served.review("/mutate/workflows", body))
        await asked.wait()
        served.stop.set()
        await until(lambda: is_closed(served.url))
        go_on.set()
        assert (await answer)["allowed"] is True


async def says(served: Served, problem: str) -> bool:
    return await served.get("/readyz") == (503, f"{problem}\n")


async def is_closed(url: URL) -> bool:
    try:
        _, writer = await asyncio.open_connection(url.host, url.port)
    except OSError:
        return True
    writer.transport.abort()
    return False
