"""No Pod is refused for what stepmemo adds: what an API server takes without us it takes with us.

Every recorded Pod is grown to each limit that Kubernetes has for one.
"""

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from argo import names as argo
from devcluster.installation import ACCESS_DIRECT
from memoize import names
from tests.cluster import KUBE_APISERVER, Cluster, Object
from tests.contract.stepmemo import Stepmemo, installed
from tests.recordedpods import PODS
from webhook.pods import room

pytestmark = pytest.mark.contract

RECORDED = PODS
CASES = sorted(p for p in RECORDED.glob("*/*.json") if "golden" not in p.name)
LARGE = [
    RECORDED / f"{case}.json"
    for case in (
        "v3.5.15-legacy/container",
        "v4.1.2-legacy/sidecars-and-init",
        "v4.1.2-initless/large-template",
    )
]
NEAR = 16_384
"""Bytes."""
_numbers = itertools.count()


@pytest.fixture(scope="module", params=["service", "direct", "image-volume"])
def stepmemo(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Stepmemo]:
    components = {
        "service": (),
        "direct": (ACCESS_DIRECT,),
        "image-volume": ("image-volume", ACCESS_DIRECT),
    }[request.param]
    with installed(cluster, tmp_path_factory.mktemp("stepmemo"), *components) as running:
        yield running


class Steps:
    """Creates recorded Pods for a Workflow of one namespace."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster, self._namespace = cluster, namespace
        self._accounts: set[str] = set()
        self.taken: set[str] = set()
        """What is known to be taken here, and need not be asked again."""
        metadata = {"name": "wf", "namespace": namespace}
        owner = {"apiVersion": argo.API_VERSION, "kind": "Workflow", "metadata": metadata, "spec": {}}
        status, self._owner = cluster.create(owner)
        assert status == 201, self._owner

    def create(self, pod: Object, *, dry_run: bool = False) -> tuple[int, Object]:
        """The answer to the creation of the Pod, which gets another name; it is gone again after that."""
        name = f"p-{next(_numbers)}"
        pod["metadata"] |= {"name": name, "namespace": self._namespace}
        pod["metadata"]["labels"][argo.WORKFLOW_LABEL] = "wf"
        (owner,) = pod["metadata"]["ownerReferences"]
        owner |= {"name": "wf", "uid": self._owner["metadata"]["uid"]}
        account = pod["spec"].get("serviceAccountName", "default")
        if account not in self._accounts:
            metadata = {"name": account, "namespace": self._namespace}
            self._cluster.create({"kind": "ServiceAccount", "metadata": metadata})
            self._accounts.add(account)
        status, created = self._cluster.create(pod, dry_run=dry_run)
        if not dry_run:
            self._cluster.delete("Pod", self._namespace, name)
        return status, created


@pytest.fixture(scope="session")
def largest() -> dict[str, int]:
    """How far each Pod could be grown without us: found once, since it takes a while."""
    return {}


@pytest.fixture(scope="module")
def without(cluster: Cluster) -> Steps:
    return Steps(cluster, cluster.namespace())


@pytest.fixture(scope="module")
def with_us(cluster: Cluster, stepmemo: Stepmemo) -> Steps:
    return Steps(cluster, stepmemo.namespace({names.MEMOIZE: "true"}))


def annotated(pod: Object, name: str, free: int) -> Object:
    """The Pod with an annotation that leaves so many bytes of all annotations free."""
    annotations = pod["metadata"]["annotations"]
    annotations[name] = ""
    used = sum(len(f"{name}{text}".encode()) for name, text in annotations.items())
    annotations[name] = "x" * (room.ANNOTATIONS - used - free)
    return pod


@pytest.mark.parametrize("case", CASES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_pod_with_annotations_up_to_the_limit_is_taken(case: Path, without: Steps, with_us: Steps) -> None:
    """Dry run: this limit is one of validation, which comes before storage."""
    for name, free in (("a", 0), (names.KEY, 0), ("a", 500)):
        pod = annotated(json.loads(case.read_text()), name, free)
        if (which := f"{case} {name} {free}") not in without.taken:
            status, answer = without.create(pod, dry_run=True)
            assert status == 201, answer
            without.taken.add(which)
        status, answer = with_us.create(pod, dry_run=True)
        assert status == 201, answer


def test_a_key_that_no_annotation_holds_gives_way_to_its_digest(without: Steps, with_us: Steps) -> None:
    """Without us it would be the key of a block, and none of the Pod's."""
    pod = annotated(json.loads(LARGE[0].read_text()), names.KEY, -100_000)
    assert without.create(pod)[0] == 422
    status, created = with_us.create(pod)
    assert status == 201, created
    annotations = created["metadata"]["annotations"]
    assert annotations[names.KEY_DIGEST].startswith("sha256-")
    assert names.KEY not in annotations


def by_a_variable(pod: Object, size: int) -> Object:
    filling = {"name": "FILLING", "value": "x" * size}
    pod["spec"]["containers"][-1].setdefault("env", []).append(filling)
    return pod


def by_many_variables(pod: Object, size: int) -> Object:
    """`managedFields` says more of each than it takes itself.

    Of 35,000 the API server (1.35) says nothing there, and they alone come to no limit.
    """
    filling = [{"name": f"V{number}"} for number in range(2_000)]
    pod["spec"]["containers"][-1].setdefault("env", []).extend(filling)
    return by_a_variable(pod, size)


def by_annotations(pod: Object, size: int) -> Object:
    """They have a limit of their own: what is beyond it is a variable."""
    return by_a_variable(annotated(pod, "a", 5000), max(0, size - room.ANNOTATIONS))


def limit(takes: Callable[[int], bool]) -> int:
    """The most bytes to fill a Pod with that are taken, or up to NEAR fewer."""
    taken, refused = room.OBJECT - 400_000, room.OBJECT
    assert takes(taken)
    assert not takes(refused)
    while refused - taken > NEAR:
        size = (taken + refused) // 2
        if takes(size):
            taken = size
        else:
            refused = size
    return taken


@pytest.mark.parametrize(
    ("case", "grown"),
    [
        *((case, by_a_variable) for case in LARGE),
        (LARGE[0], by_many_variables),
        (LARGE[1], by_annotations),
    ],
    ids=lambda value: f"{value.parent.name}/{value.stem}" if isinstance(value, Path) else value.__name__,
)
def test_a_pod_as_large_as_an_object_may_be_is_taken(
    case: Path,
    grown: Callable[[Object, int], Object],
    cluster: Cluster,
    without: Steps,
    with_us: Steps,
    largest: dict[str, int],
    request: pytest.FixtureRequest,
) -> None:
    if cluster.tier != KUBE_APISERVER:
        pytest.skip("the devcluster has no such limit")
    if grown is by_many_variables and request.node.callspec.params["stepmemo"] != "service":
        pytest.skip("what is written does not depend on the access, and an API server is slow with it")

    def pod(size: int) -> Object:
        return grown(json.loads(case.read_text()), size)

    which = f"{case} {grown.__name__}"
    if which not in largest:
        largest[which] = limit(lambda size: without.create(pod(size))[0] == 201)
    for less in (0, 4000, 20_000, 100_000):
        status, answer = with_us.create(pod(largest[which] - less))
        assert status == 201, (less, answer)
