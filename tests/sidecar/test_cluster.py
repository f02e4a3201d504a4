"""The sidecar as the entrypoint starts it, in a process of its own, with no more rights than a step has.

The same tests run against the devcluster and a real kube-apiserver: they hold our picture of the API's
answers (bare 422s, causes, preconditions) to the truth. And they run over both ways to the cache, by the
step's own rights and by the cache service, which here is the one that the webhook serves.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from argo import names as argo
from memoize import names
from memoize.key import digest
from memoize.outputs import Declared
from memoize.reasons import Reason
from memoize.step import Step
from tests.cluster import DEVCLUSTER, Cluster
from tests.sidecar import cacheservice
from tests.sidecar.steppod import CACHE_LABELS, ENOUGH_MS, OUTPUTS, POD_UID, STEP, entry

pytestmark = pytest.mark.contract

ROOT = Path(__file__).parents[2]
RESULTS = {"apiGroups": ["argoproj.io"], "resources": ["workflowtaskresults"], "verbs": ["create", "patch"]}
CONFIG_MAPS = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create", "patch"]}


class StepPod:
    """A step Pod's shared files, and its sidecar run with the rights of the step's service account."""

    def __init__(self, cluster: Cluster, directory: Path, service: cacheservice.Served | None) -> None:
        self.cluster, self.directory, self.service = cluster, directory, service
        self.pods: dict[str, str] = {}
        """UIDs of the Pods that there are for the cache service, by their names."""
        self.namespace = cluster.namespace()
        self.step = STEP._replace(workflow_uid=self._workflow())
        for path in ("shared", "serviceaccount", "argo/ctr/main"):
            (directory / path).mkdir(parents=True)
        (directory / "argo/ctr/main/exitcode").write_text("0")
        (directory / "serviceaccount/ca.crt").write_bytes(cluster.ca_file.read_bytes())
        self.may(*([RESULTS] if service else [RESULTS, CONFIG_MAPS]))

    def _workflow(self) -> str:
        template = {"name": "a", "container": {"image": "x", "command": ["x"]}}
        status, body = self.cluster.create(
            {
                "apiVersion": "argoproj.io/v1alpha1",
                "kind": "Workflow",
                "metadata": {"name": "wf", "namespace": self.namespace},
                "spec": {"entrypoint": "a", "templates": [template]},
            }
        )
        assert status == 201, body
        uid: str = body["metadata"]["uid"]
        return uid

    def may(self, *rules: dict[str, Any]) -> None:
        """Give the step's service account these rights and no others."""
        token = self.cluster.service_account(self.namespace, "step", list(rules))
        (self.directory / "serviceaccount/token").write_text(token)

    def run(self, verb: str, **changes: Any) -> Reason:
        """Run a verb to its end, for this step or one with some fields changed."""
        step = self.step._replace(**changes)
        host, _, port = self.cluster.url.rpartition("//")[2].rpartition(":")
        environment = {
            names.ENV_STEP: step.to_json(),
            names.ENV_NAMESPACE: self.namespace,
            names.ENV_POD_NAME: "wf-a-123",
            names.ENV_POD_UID: POD_UID,
            names.ENV_TIMEOUT_MS: str(ENOUGH_MS),
            names.ENV_SHARED_DIR: str(self.directory / "shared"),
            names.ENV_ARGO_DIR: str(self.directory / "argo"),
            names.ENV_SERVICEACCOUNT_DIR: str(self.directory / "serviceaccount"),
            "KUBERNETES_SERVICE_HOST": host,
            "KUBERNETES_SERVICE_PORT": port,
        }
        if self.service:
            environment |= self._at_the_service(step, self.service)
        ended = subprocess.run(
            [sys.executable, *names.SIDECAR_COMMAND[1:], verb],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        assert ended.stderr.count("\n") == 1, ended.stderr
        return Reason(ended.stderr.removeprefix("stepmemo: reason=").split()[0])

    def _at_the_service(self, step: Step, service: cacheservice.Served) -> dict[str, str]:
        """What a Pod of this step is told of the service; each step gets one Pod."""
        name = f"{step.node_id}-{digest(step.key)[:8]}"
        directory = self.directory / name
        if name not in self.pods:
            uid = cacheservice.create_pod(self.cluster, self.namespace, "step", name, step)
            directory.mkdir()
            token = cacheservice.token_of(self.cluster, self.namespace, "step", name, uid)
            (directory / "token").write_text(token)
            self.pods[name] = uid
        return {
            names.ENV_SERVICE: service.url,
            names.ENV_SERVICE_CA: service.ca,
            names.ENV_TOKEN_DIR: str(directory),
            names.ENV_POD_NAME: name,
            names.ENV_POD_UID: self.pods[name],
        }

    @property
    def decision(self) -> str:
        path = self.directory / "shared" / names.DECISION_FILE
        return path.read_text() if path.exists() else ""

    def config_map(self, **fields: Any) -> None:
        """Have the ConfigMap, labelled unless `metadata` says otherwise."""
        metadata = {**fields.pop("metadata", CACHE_LABELS), "name": "my-cache", "namespace": self.namespace}
        status, body = self.cluster.create({"kind": "ConfigMap", "metadata": metadata, **fields})
        assert status == 201, body

    def data(self) -> dict[str, str]:
        _, body = self.cluster.get("ConfigMap", self.namespace, "my-cache")
        return body.get("data") or {}

    def result(self, name: str = "wf-123") -> dict[str, Any]:
        status, body = self.cluster.get("WorkflowTaskResult", self.namespace, name)
        return body if status == 200 else {}

    def reports(self, complete: str = "true", outputs: dict[str, Any] = OUTPUTS) -> None:
        """Do as Argo's `wait` does."""
        metadata = {
            "name": self.step.node_id,
            "namespace": self.namespace,
            "labels": {argo.WORKFLOW_LABEL: "wf", argo.OUTPUTS_COMPLETED: complete},
        }
        status, body = self.cluster.create(
            {
                "apiVersion": "argoproj.io/v1alpha1",
                "kind": "WorkflowTaskResult",
                "metadata": metadata,
                "outputs": outputs,
            }
        )
        assert status == 201, body


@pytest.fixture(scope="session")
def service(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[cacheservice.Served]:
    with cacheservice.serving(cluster, tmp_path_factory.mktemp("cache-service")) as served:
        yield served


@pytest.fixture(params=["direct", "service"])
def access(request: pytest.FixtureRequest) -> str:
    way: str = request.param
    return way


@pytest.fixture
def step_pod(cluster: Cluster, tmp_path: Path, access: str, request: pytest.FixtureRequest) -> StepPod:
    served = request.getfixturevalue("service") if access == "service" else None
    return StepPod(cluster, tmp_path, served)


directly = pytest.mark.parametrize("access", ["direct"])
"""For what the step's own rights to ConfigMaps are about."""


def test_what_one_step_stores_answers_the_next(step_pod: StepPod):
    step_pod.reports()
    assert step_pod.run("capture") is Reason.STORED
    step_pod.step = step_pod.step._replace(node_id="wf-124")
    assert step_pod.run("check") is Reason.HIT
    assert step_pod.decision == names.DECISION_HIT
    posted = step_pod.result("wf-124")
    assert posted["outputs"] == OUTPUTS
    assert posted["metadata"]["labels"][argo.OUTPUTS_COMPLETED] == "true"


@pytest.mark.parametrize("access", ["service"])
def test_through_the_service_no_right_to_any_config_map_is_needed(step_pod: StepPod):
    step_pod.may(RESULTS)
    step_pod.config_map(data={"other": "x"})
    step_pod.reports()
    assert step_pod.run("capture") is Reason.STORED
    stored = json.loads(step_pod.data()["hello-1"])
    assert (stored["nodeID"], stored["stepmemo"]["workflow"]) == ("wf-123", "wf")


@pytest.mark.parametrize("access", ["service"])
def test_a_pod_that_is_gone_is_refused(step_pod: StepPod):
    step_pod.reports()
    assert step_pod.run("check") is Reason.MISS
    (name,) = step_pod.pods
    path = step_pod.cluster.path("Pod", step_pod.namespace, name)
    step_pod.cluster.request("DELETE", path, query={"gracePeriodSeconds": "0"})
    assert step_pod.run("capture") is Reason.FORBIDDEN


def test_a_first_step_finds_no_cache(step_pod: StepPod):
    assert step_pod.run("check") is Reason.MISS
    assert step_pod.decision == names.DECISION_RUN


def test_a_cache_made_by_hand_without_data_takes_an_entry(step_pod: StepPod):
    step_pod.config_map()
    step_pod.reports()
    assert step_pod.run("capture") is Reason.STORED
    assert step_pod.data().keys() == {"hello-1"}


def test_other_entries_stay_as_they_are(step_pod: StepPod):
    step_pod.config_map(data={"other": "x"})
    step_pod.reports()
    step_pod.run("capture")
    assert step_pod.data()["other"] == "x"
    assert step_pod.data().keys() == {"other", "hello-1"}


def test_steps_that_end_at_the_same_moment_all_keep_their_entries(step_pod: StepPod):
    step_pod.config_map()
    step_pod.reports()
    keys = [f"key-{number}" for number in range(6)]
    with ThreadPoolExecutor(len(keys)) as pool:
        reasons = list(pool.map(lambda key: step_pod.run("capture", key=key), keys))
    assert set(reasons) == {Reason.STORED}
    assert step_pod.data().keys() == set(keys)


@pytest.mark.parametrize("labels", [{}, {argo.CONFIGMAP_TYPE: "Parameter"}])
def test_a_config_map_that_is_no_cache_is_neither_read_nor_written(step_pod: StepPod, labels: dict[str, str]):
    step_pod.config_map(metadata={"labels": labels}, data={"hello-1": entry()})
    step_pod.reports()
    before = step_pod.data()
    assert step_pod.run("check") is Reason.NOT_A_CACHE
    assert step_pod.decision == names.DECISION_RUN
    assert step_pod.run("capture") is Reason.NOT_A_CACHE
    assert step_pod.data() == before


def test_an_immutable_cache_is_not_written(step_pod: StepPod):
    if step_pod.cluster.tier == DEVCLUSTER:
        pytest.skip("the devcluster lets an immutable ConfigMap be changed")
    step_pod.config_map(data={"other": "x"}, immutable=True)
    step_pod.reports()
    assert step_pod.run("capture") is Reason.NOT_A_CACHE


def test_a_full_cache_gives_up_expired_entries(step_pod: StepPod):
    old = entry(creationTimestamp="2020-01-01T00:00:00Z", stepmemo={"maxAge": "1h", "pod": "p" * 1000})
    step_pod.config_map(data={"old": old, "fill": "x" * ((1 << 20) - len(old))})
    step_pod.reports()
    assert step_pod.run("capture") is Reason.STORED
    assert step_pod.data().keys() == {"fill", "hello-1"}


def old_entries(bytes_: int) -> dict[str, str]:
    """Entries of a kilobyte that fill so many bytes; the higher its number, the longer ago one was used."""
    data = dict[str, str]()
    for number in range(bytes_ // 1000):
        used = f"2020-01-{28 - number % 28:02}T00:00:00Z"
        text = entry(creationTimestamp=used, lastHitTimestamp=used)
        data[f"old-{number}"] = text + " " * (1000 - len(text))
    return data


def test_a_full_cache_gives_up_what_was_not_used_for_the_longest_time(step_pod: StepPod):
    data = old_entries(20_000)
    step_pod.config_map(data={**data, "fill": "x" * ((1 << 20) - 20_000)})
    step_pod.reports()
    assert step_pod.run("capture") is Reason.STORED
    left = step_pod.data().keys()
    assert {"fill", "hello-1", "old-0"} <= left
    assert "old-19" not in left


def test_steps_that_end_at_the_same_moment_at_the_limit_all_keep_their_entries(step_pod: StepPod):
    metadata = {**CACHE_LABELS, "annotations": {names.MAX_BYTES: "10k"}}
    step_pod.config_map(metadata=metadata, data=old_entries(10_000))
    step_pod.reports()
    keys = [f"key-{number}" for number in range(6)]
    with ThreadPoolExecutor(len(keys)) as pool:
        reasons = list(pool.map(lambda key: step_pod.run("capture", key=key), keys))
    assert set(reasons) == {Reason.STORED}
    assert set(keys) <= step_pod.data().keys()
    # The next one makes room for what came side by side.
    assert step_pod.run("capture", key="last") is Reason.STORED
    assert {*keys, "last", "old-0"} <= step_pod.data().keys()
    assert sum(map(len, step_pod.data().values())) <= 10_000


def test_a_cache_that_stays_full_is_said_to_be(step_pod: StepPod):
    step_pod.config_map(data={"fill": "x" * (1 << 20)})
    step_pod.reports()
    assert step_pod.run("capture") is Reason.CACHE_FULL


def test_a_key_of_any_characters_is_stored_and_found(step_pod: StepPod):
    step_pod.step = step_pod.step._replace(key='"quotes"\nand ünicode ' + "x" * 5000)
    step_pod.reports()
    assert step_pod.run("capture") is Reason.STORED
    step_pod.step = step_pod.step._replace(node_id="wf-124")
    assert step_pod.run("check") is Reason.HIT


def test_a_result_that_is_there_already_is_not_answered_over(step_pod: StepPod):
    step_pod.config_map(data={"hello-1": entry()})
    step_pod.reports(complete="false", outputs={})
    assert step_pod.run("check") is Reason.UNDECIDED
    assert step_pod.decision == names.DECISION_RUN
    assert names.POSTED_FOR not in step_pod.result()["metadata"].get("annotations", {})


def test_our_own_result_whose_fate_was_unknown_is_recognized(step_pod: StepPod):
    step_pod.config_map(data={"hello-1": entry()})
    step_pod.run("check")
    for name in (names.CLAIM_FILE, names.DECISION_FILE):
        (step_pod.directory / "shared" / name).unlink()
    assert step_pod.run("check") is Reason.HIT


def test_a_retraction_takes_the_outputs_back(step_pod: StepPod):
    step_pod.config_map(data={"hello-1": entry()})
    step_pod.run("check")
    (step_pod.directory / "shared" / names.DECISION_FILE).unlink()
    step_pod.run("retract")
    result = step_pod.result()
    assert not result.get("outputs")
    assert result["metadata"]["labels"][argo.OUTPUTS_COMPLETED] == "false"
    assert names.POSTED_FOR not in result["metadata"].get("annotations", {})


def test_a_retraction_before_the_result_arrives_keeps_it_out(step_pod: StepPod):
    step_pod.config_map(data={"hello-1": entry()})
    step_pod.run("retract")
    assert step_pod.run("check") is Reason.UNDECIDED
    assert step_pod.decision == names.DECISION_RUN
    assert not step_pod.result().get("outputs")


def without(rule: dict[str, Any], verb: str) -> dict[str, Any]:
    return {**rule, "verbs": [v for v in rule["verbs"] if v != verb]}


@directly
@pytest.mark.parametrize(
    ("rules", "check", "capture"),
    [
        ((), Reason.FORBIDDEN, Reason.FORBIDDEN),
        ((RESULTS, without(CONFIG_MAPS, "get")), Reason.FORBIDDEN, Reason.STORED),
        ((RESULTS, without(CONFIG_MAPS, "patch")), Reason.HIT, Reason.FORBIDDEN),
        ((without(RESULTS, "create"), CONFIG_MAPS), Reason.FORBIDDEN, Reason.STORED),
        ((without(RESULTS, "patch"), CONFIG_MAPS), Reason.HIT, Reason.FORBIDDEN),
    ],
    ids=["none", "get-configmaps", "patch-configmaps", "create-results", "patch-results"],
)
def test_a_missing_right_is_said_and_costs_no_more_than_it_must(
    step_pod: StepPod, rules: tuple[dict[str, Any], ...], check: Reason, capture: Reason
):
    step_pod.config_map(data={"hello-1": entry()})
    step_pod.may(*rules)
    assert step_pod.run("check") is check
    assert step_pod.decision == (names.DECISION_HIT if check is Reason.HIT else names.DECISION_RUN)
    step_pod.step = step_pod.step._replace(node_id="wf-124")
    step_pod.reports()
    assert step_pod.run("capture") is capture


@directly
def test_without_the_right_to_create_config_maps_no_cache_is_made(step_pod: StepPod):
    step_pod.may(RESULTS, without(CONFIG_MAPS, "create"))
    step_pod.reports()
    assert step_pod.run("capture") is Reason.FORBIDDEN


@pytest.mark.parametrize(
    "spoil",
    [
        lambda outputs: {**outputs, "result": 7},
        lambda outputs: {"parameters": [{"name": "out", "value": ["x"]}]},
    ],
)
def test_an_entry_of_wrong_types_never_reaches_the_controller(
    step_pod: StepPod, spoil: Callable[[dict[str, Any]], dict[str, Any]]
):
    step_pod.config_map(data={"hello-1": entry(outputs=spoil(OUTPUTS))})
    assert step_pod.run("check") is Reason.BROKEN_ENTRY
    assert not step_pod.result()


def test_a_step_without_outputs_is_stored_and_answered(step_pod: StepPod):
    step_pod.step = step_pod.step._replace(declared=Declared())
    step_pod.reports(outputs={})
    assert step_pod.run("capture") is Reason.STORED
    assert json.loads(step_pod.data()["hello-1"])["outputs"] == {"exitCode": "0"}
    step_pod.step = step_pod.step._replace(node_id="wf-124")
    assert step_pod.run("check") is Reason.HIT
