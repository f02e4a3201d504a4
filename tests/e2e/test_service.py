"""The cache service: what it takes from whom, and that steps need no rights of their own."""

import copy
import json
import uuid
from collections.abc import Iterator
from unittest.mock import ANY

import pytest

from argo import names as argo
from memoize import names
from tests.e2e import server, service
from tests.e2e.cluster import Namespace, fresh_namespace
from tests.e2e.kube import create, get, kubectl, wait_for
from tests.e2e.outcome import Pod
from tests.e2e.probe import Setting
from tests.e2e.run import Run, twice
from tests.e2e.service import Service
from tests.e2e.steps import RANDOM, answer, container, shell

STUCK = "while :; do sleep 0.1; done"


@pytest.fixture(autouse=True)
def _service() -> None:
    server.needs(server.SERVICE)


@pytest.fixture(scope="module")
def cache() -> Iterator[Service]:
    server.needs(server.SERVICE)
    with service.forwarded() as found:
        yield found


@pytest.fixture
def other() -> Iterator[Namespace]:
    with fresh_namespace() as namespace:
        yield namespace


def running(ns: Namespace) -> Pod:
    """The Pod of a memoized step that runs and does not end; containers of ours are in it."""
    step = container(STUCK, podSpecPatch='{"terminationGracePeriodSeconds": 1}')
    step["metadata"] = {"annotations": {**step["metadata"]["annotations"], names.GATED: "false"}}
    name = ns.submit(step)

    def started() -> Pod | None:
        return next((pod for pod in ns.workflow(name).pods() if pod["status"]["phase"] == "Running"), None)

    return wait_for(f"start of {name}", started)


def made_by(pod: Pod, value: str) -> str:
    """An entry as the step of this Pod would make it."""
    node = pod["metadata"]["annotations"][argo.NODE_ID]
    return json.dumps(json.loads(answer(value)) | {"nodeID": node})


def test_a_step_needs_no_right_on_config_maps(ns: Namespace) -> None:
    """Outputs are stored and served though the step's service account may not even read a ConfigMap."""
    account = f"--as=system:serviceaccount:{ns.name}:default"
    for verb in ("get", "list", "create", "patch", "update"):
        may = kubectl("-n", ns.name, "auth", "can-i", verb, "configmaps", account, check=False)
        assert may.stdout.strip() == "no", verb
    twice(*ns.runs(container()))
    assert list(ns.entries()) == ["k"]


def test_a_step_that_must_decide_for_itself_asks_the_service(ns: Namespace, setting: Setting) -> None:
    """A step whose template lies outside its Pod looks its key up, and stores, through the service."""
    setting.since(3, 6, "no Pod takes a template over 128 KiB")
    env = [{"name": f"V{number}", "value": "x" * 1000} for number in range(140)]
    step = container(container=shell(f"{RANDOM} > /tmp/out", env=env))
    first = ns.run(step).settled()
    second = ns.run(step).settled()
    twice(first, second)
    for run, word in ((first, names.RESULT_STORED), (second, names.RESULT_HIT)):
        (pod,) = run.memoized_pods()
        assert any(volume["name"] == names.TOKEN_VOLUME for volume in pod["spec"]["volumes"])
        assert [one.result for one in run.memoizations()] == [word], run.said()


def test_a_token_reaches_its_own_namespace_alone(ns: Namespace, other: Namespace, cache: Service) -> None:
    """Caches and keys of the same names in two namespaces: each token reads and writes its own."""
    here, there = running(ns), running(other)
    tokens = {ns.name: service.token(ns.name, here), other.name: service.token(other.name, there)}
    for pod, (namespace, bearer) in zip((here, there), tokens.items(), strict=True):
        assert cache.store(bearer, made_by(pod, f"of {namespace}")) == (
            200,
            {"reason": "Stored", "detail": ANY},
        )
    for namespace in (ns, other):
        status, found = cache.look_up(tokens[namespace.name])
        assert (status, namespace.entries()["k"]["outputs"]["parameters"][0]["value"]) == (
            200,
            f"of {namespace.name}",
        )
        assert f"of {namespace.name}" in found["entry"]
    bearer, entry = tokens[ns.name], made_by(here, "forged")
    for field in ("cache", "key"):
        for status, refused in (
            cache.look_up(bearer, **{field: "another"}),
            cache.store(bearer, entry, **{field: "another"}),
        ):
            assert (status, refused["details"]["causes"][0]["field"]) == (403, field), refused
    assert cache.store(bearer, entry, namespace=other.name)[0] == 422
    status, refused = cache.store(bearer, made_by(there, "forged"))
    assert (status, refused["details"]["causes"][0]["field"]) == (403, "entry.nodeID"), refused
    assert [list(namespace.entries()) for namespace in (ns, other)] == [["k"], ["k"]]
    assert "forged" not in json.dumps([ns.entries(), other.entries()])


def test_a_token_that_is_not_for_us_is_refused(ns: Namespace, cache: Service) -> None:
    """No token, one for the API server, one of nobody's Pod and one of a deleted Pod are refused."""
    pod = running(ns)
    whole = service.token(ns.name, pod)
    bearers = {
        "none": "",
        "of another audience": service.token(ns.name, pod, audience="https://kubernetes.default.svc"),
        "of no Pod": kubectl(
            "-n", ns.name, "create", "token", "default", f"--audience={names.TOKEN_AUDIENCE}"
        ).stdout.strip(),
        "torn": whole[:-10],
    }
    for which, bearer in bearers.items():
        assert cache.look_up(bearer)[0] in (401, 403), which
        assert cache.store(bearer, made_by(pod, "forged"))[0] in (401, 403), which
    assert cache.look_up(whole) == (200, {"entry": None})  # and the service remembers this token
    kubectl("-n", ns.name, "delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force")
    assert cache.look_up(whole)[0] in (401, 403)
    assert cache.store(whole, made_by(pod, "forged"))[0] in (401, 403)
    assert ns.entries() == {}


def test_what_is_not_an_entry_is_refused(ns: Namespace, cache: Service) -> None:
    bearer = service.token(ns.name, running(ns))
    for text in ("", "{not json", "[]", "{}"):
        status, refused = cache.store(bearer, text)
        assert status == 422, refused
        assert refused["details"]["causes"][0]["field"] == "entry"
    status, _ = cache.store(bearer, answer("x" * 2_000_000))
    assert status in (413, 422)
    assert ns.entries() == {}


def forged(step: Pod, owner: Run, node_id: str) -> Pod:
    """A Pod as a tenant may make it: like a step of `owner`, which claims a node of whatever Workflow."""
    kept = {name: step["metadata"][name] for name in ("labels", "annotations")}
    metadata = copy.deepcopy(kept) | {"name": f"forged-{uuid.uuid4().hex[:8]}"}
    for label in (names.RESULT, f"{argo.DOMAIN}/completed"):
        metadata["labels"].pop(label, None)
    for annotation in (names.PLAN, names.REASON):
        metadata["annotations"].pop(annotation, None)
    metadata["labels"][argo.WORKFLOW_LABEL] = owner.name
    metadata["annotations"][argo.NODE_ID] = node_id
    reference = {"apiVersion": argo.API_VERSION, "kind": "Workflow", "name": owner.name}
    metadata["ownerReferences"] = [reference | {"uid": owner.workflow["metadata"]["uid"], "controller": True}]
    spec = copy.deepcopy(step["spec"])
    for field in ("nodeName", "schedulingGates"):
        spec.pop(field, None)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


@pytest.mark.parametrize("claims", ["another workflow's node", "a workflow that is not its owner"])
def test_a_pod_that_claims_to_be_another_step_gets_nothing_posted(ns: Namespace, claims: str) -> None:
    ns.run(container()).settled()  # there is an answer for key k
    name = ns.submit({"name": "step", "container": shell(STUCK)})

    def victim() -> Run | None:
        found = ns.workflow(name)
        return found if found.nodes() else None

    run = wait_for(f"node of {name}", victim)
    (node,) = run.nodes()
    mine = ns.run(container())
    (step,) = mine.memoized_pods()
    pod = forged(step, mine, node["id"])
    if claims == "a workflow that is not its owner":
        pod["metadata"]["labels"][argo.WORKFLOW_LABEL] = run.name
    made = create(ns.name, pod)
    pod_path = ("pod", made["metadata"]["name"])
    scheduled = wait_for(
        "Pod that is scheduled", lambda: (found := get(ns.name, *pod_path))["spec"].get("nodeName") and found
    )
    assert scheduled["metadata"]["labels"].get(names.RESULT) != names.RESULT_HIT
    posted = get(ns.name, "workflowtaskresults")["items"]
    assert not [one for one in posted if names.POSTED_FOR in one["metadata"].get("annotations", {})], posted
    kubectl("-n", ns.name, "delete", *pod_path, "--grace-period=0", "--force")
    kubectl("-n", ns.name, "delete", "workflow", run.name)
