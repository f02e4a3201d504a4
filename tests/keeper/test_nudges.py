"""When a Workflow is nudged, and all that keeps it from being so, by a clock that counts work."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any, cast

import pytest

from argo import names as argo
from argo.steppod import Owner
from devcluster.api.kinds import Object
from keeper import nudges
from keeper.nudges import NudgeResult, Nudges
from keeper.requests import Requests, SpareRequests
from keeper.steppods import GatedStep
from kube.rate_limiter import RateLimiter
from memoize import names
from server.lookups import Lookups
from tests.beside import beside
from tests.cluster import Cluster
from tests.keeper.gatedsteps import gated_step
from tests.keeper.keepers import Running, decided, keeping
from tests.keeper.site import Site
from tests.virtual import Loop, Server, run
from tests.waiting import until

Json = dict[str, Any]

SERVICE = 0.01
"""Seconds for a request."""
PER_CALLBACK = 0.00001
CONTROLLER = ("argo", "workflow-controller-configmap")
BEFORE = {"workflows.argoproj.io/pod-name-format": "v2", "theirs.test/x": "y"}
"""Annotations of the Workflow: Argo writes the first one when it begins."""


class Faulty(Server):
    """Answers patches with `status`, if there is one; `on_patch` is called at the next one."""

    status = 0
    on_patch: Callable[[], object] | None = None
    busy = 0.0
    """Seconds for which each Workflow that is read keeps the event loop."""

    async def answer(
        self, method: str, path: str, query: Mapping[str, str], content_type: str, body: bytes
    ) -> tuple[int, Object]:
        if method == "PATCH" and self.on_patch:
            once, self.on_patch = self.on_patch, None
            once()
        if self.busy and method == "GET" and "/workflows/" in path:
            cast("Loop", asyncio.get_running_loop()).now += self.busy
        if self.status and method == "PATCH":
            return self.status, {"kind": "Status", "message": "a fault"}
        return await super().answer(method, path, query, content_type, body)


class Scene:
    """A controller's ConfigMap, a Workflow that runs, and the nudges of a keeper that acts."""

    def __init__(self, rate: float = 200.0) -> None:
        self.server = Faulty(SERVICE)
        self.cluster = self.server.cluster
        self.clock = asyncio.get_running_loop().time
        begun, start = datetime(2026, 1, 1, tzinfo=UTC), self.clock()
        limiter = RateLimiter(rate, self.clock)
        self.of_steps = Requests(self.server.api, limiter)
        self.requests = SpareRequests(self.server.api, limiter)
        self.results: list[NudgeResult] = []
        self.acts = True
        self.nudges = Nudges(
            self.requests,
            Lookups(self.server.api, lambda resource: None, clock=self.clock),
            [CONTROLLER],
            lambda: self.acts,
            self.results.append,
            clock=self.clock,
            now=lambda: begun + timedelta(seconds=self.clock() - start),
        )
        self.cluster.create({"kind": "Namespace", "metadata": {"name": CONTROLLER[0]}})
        self.configure({})
        self.site = self.running()

    def configure(self, data: Json) -> None:
        self.cluster.delete("ConfigMap", *CONTROLLER)
        metadata = {"namespace": CONTROLLER[0], "name": CONTROLLER[1]}
        assert self.cluster.create({"kind": "ConfigMap", "metadata": metadata, "data": data})[0] == 201

    def running(self) -> Site:
        site = Site.new(self.cluster)
        change = {"labels": {argo.PHASE: argo.RUNNING}, "annotations": BEFORE}
        assert site.cluster.patch("Workflow", site.namespace, "wf", {"metadata": change})[0] == 200
        return site

    def hit(self, site: Site | None = None, **changes: Any) -> None:
        self.nudges.on_hit(step(site or self.site, **changes))

    def change(self, **fields: Any) -> None:
        assert self.cluster.patch("Workflow", self.site.namespace, "wf", fields)[0] == 200

    def workflow(self) -> Json:
        status, found = self.cluster.get("Workflow", self.site.namespace, "wf")
        assert status == 200
        return dict(found)

    def sent(self, method: str = "PATCH") -> int:
        """Requests for Workflows."""
        return sum(called == method and "/workflows/" in path for called, path in self.server.calls)


def step(site: Site, **changes: Any) -> GatedStep:
    owner = Owner(site.namespace, "wf", site.workflow["metadata"]["uid"])
    return replace(gated_step("a", namespace=site.namespace), owner=owner, **{"may_nudge": True, **changes})


@asynccontextmanager
async def nudging(scene: Scene) -> AsyncIterator[Scene]:
    async with beside(scene.nudges.run()):
        yield scene


def of_scene(play: Callable[[Scene], Coroutine[Any, Any, None]], rate: float = 200.0) -> Scene:
    """The scene after the play, and half a minute's rest."""

    async def played() -> Scene:
        async with nudging(Scene(rate)) as scene:
            await play(scene)
            await asyncio.sleep(30)
            return scene

    return run(played(), PER_CALLBACK)


def after_a_hit(prepare: Callable[[Scene], None] = lambda scene: None) -> Scene:
    async def play(scene: Scene) -> None:
        prepare(scene)
        scene.hit()

    return of_scene(play)


# --- What is sent ---------------------------------------------------------------------------------------


def test_a_hit_is_followed_by_one_annotation_and_nothing_else_changes() -> None:
    async def play(scene: Scene) -> None:
        scene.before = scene.workflow()  # type: ignore[attr-defined]
        scene.hit()

    scene = of_scene(play)
    before, after = scene.before, scene.workflow()  # type: ignore[attr-defined]
    assert (scene.results, scene.sent()) == ([NudgeResult.SENT], 1)
    time = after["metadata"]["annotations"].pop(names.NUDGED)
    assert datetime.fromisoformat(time).tzinfo
    for fields in (before["metadata"], after["metadata"]):
        fields.pop("resourceVersion")
    assert after == before


def test_hits_of_a_moment_share_a_nudge_which_comes_after_them() -> None:
    async def play(scene: Scene) -> None:
        for _ in range(20):
            scene.hit()
            await asyncio.sleep(nudges.GATHER / 25)
        assert scene.sent() == 0

    assert of_scene(play).sent() == 1


def test_a_hit_while_a_nudge_is_under_way_gets_another_one() -> None:
    async def play(scene: Scene) -> None:
        scene.server.on_patch = scene.hit
        scene.hit()

    assert of_scene(play).results == [NudgeResult.SENT] * 2


@pytest.mark.parametrize("service", [SERVICE, 10 * SERVICE])
def test_a_workflow_is_nudged_ten_times_a_second_and_less_where_that_takes_long(service: float) -> None:
    hits, times = 1000, 10.0

    async def play(scene: Scene) -> None:
        scene.server._seconds = service
        for _ in range(hits):
            scene.hit()
            await asyncio.sleep(times / hits)

    spacing = max(nudges.SPACING, nudges.SPACING_BY_TIME * service)
    assert times / spacing * 0.6 <= of_scene(play).sent() <= times / spacing + 2


def test_a_workflow_is_read_once_for_all_its_hits() -> None:
    async def play(scene: Scene) -> None:
        for _ in range(20):
            scene.hit()
            await asyncio.sleep(1)

    scene = of_scene(play)
    assert (scene.sent(), scene.sent("GET")) == (20, 1)


# --- What keeps it from being sent ------------------------------------------------------------------------


def uses_annotations(scene: Scene) -> None:
    scene.change(spec={"templates": [{"name": "a", "script": {"source": "{{workflow.annotations}}"}}]})


def refers(scene: Scene) -> None:
    ref = {"name": "shared", "template": "a"}
    scene.change(spec={"templates": [{"name": "a", "steps": [[{"name": "s", "templateRef": ref}]]}]})


def is_another(scene: Scene) -> None:
    scene.cluster.delete("Workflow", scene.site.namespace, "wf")
    made = {"metadata": {"name": "wf", "namespace": scene.site.namespace, "labels": {argo.PHASE: "Running"}}}
    assert (
        scene.cluster.create({"kind": "Workflow", "apiVersion": argo.API_VERSION, "spec": {}, **made})[0]
        == 201
    )


def limited(scene: Scene) -> None:
    labels = {"metadata": {"labels": {argo.PARALLELISM_LIMIT: "5"}}}
    assert scene.cluster.patch("Namespace", "", scene.site.namespace, labels)[0] == 200


NOT_SENT: dict[str, tuple[Callable[[Scene], object], NudgeResult]] = {
    "the Workflow is over": (
        lambda scene: scene.change(metadata={"labels": {argo.PHASE: "Succeeded"}}),
        NudgeResult.NOT_RUNNING,
    ),
    "the Workflow has not begun": (
        lambda scene: scene.change(metadata={"labels": {argo.PHASE: "Pending"}}),
        NudgeResult.NOT_RUNNING,
    ),
    "it has no annotations, which Argo's always has": (
        lambda scene: scene.change(metadata={"annotations": None}),
        NudgeResult.NOT_RUNNING,
    ),
    "the Workflow is gone": (
        lambda scene: scene.cluster.delete("Workflow", scene.site.namespace, "wf"),
        NudgeResult.NOT_RUNNING,
    ),
    "another one has its name": (is_another, NudgeResult.NOT_RUNNING),
    "its spec uses annotations": (uses_annotations, NudgeResult.ANNOTATIONS_USED),
    "a template was not seen": (refers, NudgeResult.NOT_SEEN),
    "the controller has a limit": (
        lambda scene: scene.configure({"parallelism": "10"}),
        NudgeResult.PARALLELISM,
    ),
    "the Namespace has one": (limited, NudgeResult.PARALLELISM),
    "the controller's ConfigMap has another name": (
        lambda scene: scene.cluster.delete("ConfigMap", *CONTROLLER),
        NudgeResult.CONTROLLER_UNKNOWN,
    ),
}


@pytest.mark.parametrize("case", NOT_SENT)
def test_no_workflow_is_changed_where(case: str) -> None:
    prepare, result = NOT_SENT[case]

    async def play(scene: Scene) -> None:
        prepare(scene)
        scene.before = scene.cluster.get("Workflow", scene.site.namespace, "wf")  # type: ignore[attr-defined]
        scene.hit()

    scene = of_scene(play)
    assert scene.results == [result]
    assert scene.cluster.get("Workflow", scene.site.namespace, "wf") == scene.before  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("status", "result"),
    [
        (403, NudgeResult.FORBIDDEN),
        (404, NudgeResult.NOT_RUNNING),
        (409, NudgeResult.CONFLICT),
        (413, NudgeResult.FAILED),
        (422, NudgeResult.NOT_RUNNING),
        (429, NudgeResult.FAILED),
        (500, NudgeResult.FAILED),
        (503, NudgeResult.FAILED),
    ],
)
def test_what_is_refused_is_not_sent_again(status: int, result: NudgeResult) -> None:
    def refuse(scene: Scene) -> None:
        scene.server.status = status

    scene = after_a_hit(refuse)
    assert (scene.results, scene.sent()) == ([result], 1)


def test_where_it_is_forbidden_nothing_is_sent_for_minutes_and_elsewhere_all_the_same() -> None:
    async def play(scene: Scene) -> None:
        scene.server.status = 403
        scene.hit()
        await asyncio.sleep(1)
        scene.server.status = 0
        scene.hit()
        scene.hit(scene.running())
        await asyncio.sleep(nudges.REST_OF_A_NAMESPACE)
        scene.hit()

    scene = of_scene(play)
    assert sorted(scene.results) == ["forbidden", "forbidden", "sent", "sent"]
    assert scene.sent() == 3


def test_a_namespace_that_an_api_server_was_in_trouble_for_rests_and_others_do_not() -> None:
    async def play(scene: Scene) -> None:
        scene.server.status = 503
        scene.hit()
        await asyncio.sleep(1)
        scene.server.status = 0
        scene.hit()
        scene.hit(scene.running())
        await asyncio.sleep(nudges.REST)
        scene.hit()

    scene = of_scene(play)
    assert sorted(scene.results) == ["failed", "failed", "sent", "sent"]
    assert scene.sent() == 3


def test_one_that_was_in_trouble_for_several_is_left_alone() -> None:
    async def play(scene: Scene) -> None:
        sites = [scene.running() for _ in range(nudges.SEVERAL)]
        scene.server.status = 503
        for site in sites:
            scene.hit(site)
        await asyncio.sleep(1)
        scene.server.status = 0
        scene.hit()
        await asyncio.sleep(nudges.REST)
        scene.hit()

    scene = of_scene(play)
    assert scene.results == [*[NudgeResult.FAILED] * (nudges.SEVERAL + 1), NudgeResult.SENT]
    assert scene.sent() == nudges.SEVERAL + 1


def of_instance(instance_id: str) -> Callable[[Scene], Coroutine[Any, Any, None]]:
    async def play(scene: Scene) -> None:
        scene.hit(step=step(scene.site).step._replace(instance_id=instance_id))

    return play


def test_the_workflow_of_a_controller_that_is_not_known_is_left_alone() -> None:
    def configured(instance_id: str) -> Scene:
        async def play(scene: Scene) -> None:
            scene.configure({"instanceID": "blue"})
            await of_instance(instance_id)(scene)

        return of_scene(play)

    assert of_scene(of_instance("blue")).results == [NudgeResult.CONTROLLER_UNKNOWN]
    assert configured("").results == [NudgeResult.CONTROLLER_UNKNOWN]
    assert configured("blue").results == [NudgeResult.SENT]


def test_no_workflow_is_nudged_while_argo_may_not_have_seen_a_hits_outputs() -> None:
    """Nor for another hit of it."""

    async def play(scene: Scene) -> None:
        for at in (0.0, 1.0):
            await asyncio.sleep(at)
            scene.hit()
            scene.hit(needs_pause=True)
            await asyncio.sleep(nudges.SETTLE - 0.1 - 0.5)
            scene.hit()
            await asyncio.sleep(0.5)
            assert scene.sent() == (at > 0)

    assert of_scene(play).results == [NudgeResult.SENT] * 2


def grow(scene: Scene) -> None:
    scene.change(status={"message": "x" * nudges.LARGEST})


def test_a_large_workflow_is_read_once_as_far_as_need_be_and_left_alone() -> None:
    async def play(scene: Scene) -> None:
        grow(scene)
        for _ in range(20):
            scene.hit()
            await asyncio.sleep(1)

    scene = of_scene(play)
    assert scene.results == [NudgeResult.TOO_LARGE] * 20
    assert (scene.sent(), scene.sent("GET")) == (0, 1)


def test_one_that_has_become_large_is_nudged_once() -> None:
    async def play(scene: Scene) -> None:
        for _ in range(4):
            scene.hit()
            await asyncio.sleep(1)
            grow(scene)

    assert of_scene(play).results == [NudgeResult.SENT] * 2 + [NudgeResult.TOO_LARGE] * 2


def test_argo_that_does_not_look_at_once_is_not_nudged() -> None:
    async def play(scene: Scene) -> None:
        scene.hit(may_nudge=False)

    scene = of_scene(play)
    assert (scene.results, scene.server.calls) == ([], [])


def test_a_keeper_that_does_not_act_nudges_nobody() -> None:
    def stand_by(scene: Scene) -> None:
        scene.acts = False

    scene = after_a_hit(stand_by)
    assert (scene.results, scene.server.calls) == ([], [])


def test_a_template_that_is_seen_a_moment_later_lets_the_nudge_go() -> None:
    async def play(scene: Scene) -> None:
        refers(scene)
        scene.hit()
        await asyncio.sleep(nudges.GATHER + 5 * SERVICE)
        scene.change(status={"storedTemplates": {"namespaced/shared/a": {"name": "a"}}})

    assert of_scene(play).results == [NudgeResult.SENT]


# --- Whom it may cost --------------------------------------------------------------------------------------


def test_a_nudge_waits_until_steps_leave_requests() -> None:
    async def play(scene: Scene) -> None:
        async def of_steps() -> None:
            await asyncio.gather(*(scene.of_steps.get("/api/v1/namespaces/argo") for _ in range(30)))

        first = asyncio.create_task(of_steps())
        await asyncio.sleep(0)
        scene.hit()
        await asyncio.sleep(1)
        await asyncio.gather(first, of_steps())
        assert [path for _, path in scene.server.calls if not path.endswith("namespaces/argo")] == []

    assert of_scene(play, rate=10).results == [NudgeResult.SENT]


def test_each_request_of_a_nudge_waits_until_one_is_left() -> None:
    rate = 2

    async def play(scene: Scene) -> None:
        scene.hit()  # two requests are left, and it takes three
        await asyncio.sleep(0.2)
        begun = scene.clock()
        await scene.of_steps.get("/api/v1/namespaces/argo")
        assert scene.clock() - begun <= 1 / rate + 2 * SERVICE
        assert scene.sent() == 0

    assert of_scene(play, rate=rate).results == [NudgeResult.SENT]


@pytest.mark.parametrize(("workflows", "most"), [(1, 1), (8, nudges.SLOTS)])
def test_nudges_have_so_many_bytes_of_workflows_written_a_second(workflows: int, most: int) -> None:
    size, times = 100_000, 5

    async def play(scene: Scene) -> None:
        sites = [scene.running() for _ in range(workflows)]
        for site in sites:
            large = {"status": {"message": "x" * size}}
            assert scene.cluster.patch("Workflow", site.namespace, "wf", large)[0] == 200
        for _ in range(times * 50):
            for site in sites:
                scene.hit(site)
            await asyncio.sleep(1 / 50)
        written = scene.sent() * size
        assert nudges.BYTES_PER_SECOND * most * times / 2 < written
        assert written < nudges.BYTES_PER_SECOND * most * times + nudges.LARGEST * most

    of_scene(play)


def test_workflows_that_are_dear_to_read_leave_the_event_loop_to_others() -> None:
    """Each is read at its first hit; in every Namespace there is always a new one."""
    busy, times = 0.1, 30

    async def play(scene: Scene) -> None:
        scene.server.busy = busy
        sites = [scene.running() for _ in range(8)]
        for second in range(times):
            for site, name in product(sites, "ab"):
                one = step(site)
                owner = replace(one.owner, name=name, uid=f"{site.namespace}-{name}-{second}")
                scene.nudges.on_hit(replace(one, owner=owner))
            await asyncio.sleep(1)
        assert 0 < scene.sent("GET") * busy <= (times / nudges.LOOP_REST + 2 * busy) * nudges.SLOTS

    of_scene(play)


def test_a_workflow_whose_template_never_begins_is_read_ever_less() -> None:
    async def play(scene: Scene) -> None:
        refers(scene)
        for _ in range(100):
            scene.hit()
            await asyncio.sleep(1)

    scene = of_scene(play)
    assert set(scene.results) == {NudgeResult.NOT_SEEN}
    assert scene.sent("GET") <= 8


def test_a_nudge_that_would_come_too_late_is_dropped() -> None:
    async def play(scene: Scene) -> None:
        steps = [asyncio.create_task(scene.of_steps.get("/api/v1/namespaces/argo")) for _ in range(20)]
        await asyncio.sleep(0)
        scene.hit()
        await asyncio.gather(*steps)

    scene = of_scene(play, rate=1)
    assert (scene.results, scene.sent()) == ([NudgeResult.DROPPED], 0)


def test_a_namespace_has_so_many_nudges_waiting_and_no_more() -> None:
    async def play(scene: Scene) -> None:
        many = step(scene.site)
        for number in range(nudges.MOST_OF_ONE + 1):
            scene.nudges.on_hit(replace(many, owner=replace(many.owner, uid=f"uid-{number}")))
        assert scene.results == [NudgeResult.DROPPED]
        scene.hit(scene.running())

    scene = of_scene(play)
    assert scene.results.count(NudgeResult.SENT) == 1
    assert scene.results.count(NudgeResult.DROPPED) == 1


def test_another_namespaces_nudges_are_waited_for_by_turns() -> None:
    async def play(scene: Scene) -> None:
        many, other = step(scene.site), scene.running()
        for number in range(100):
            scene.nudges.on_hit(replace(many, owner=replace(many.owner, uid=f"uid-{number}")))
        scene.hit(other)
        await asyncio.sleep(nudges.GATHER + 30 * SERVICE)
        assert NudgeResult.SENT in scene.results

    of_scene(play)


# --- In a keeper --------------------------------------------------------------------------------------

NUDGED = "v3.6.19-legacy/container"


@pytest.fixture
def site(cluster: Cluster) -> Site:
    site = Site.new(cluster)
    change = {"metadata": {"labels": {argo.PHASE: argo.RUNNING}, "annotations": BEFORE}}
    assert cluster.patch("Workflow", site.namespace, "wf", change)[0] == 200
    made = {"kind": "ConfigMap", "metadata": {"name": CONTROLLER[1], "namespace": site.namespace}}
    assert cluster.create(made)[0] == 201
    site.store()
    return site


def nudged(site: Site) -> str | None:
    status, found = site.cluster.get("Workflow", site.namespace, "wf")
    assert status == 200
    assert found["metadata"]["annotations"].items() >= BEFORE.items()
    value: str | None = found["metadata"]["annotations"].get(names.NUDGED)
    return value


def counted(running: Running, result: NudgeResult) -> bool:
    """Whether this became of one nudge, and nothing of another one."""
    lines = running.metrics.render().decode().splitlines()
    counts = [line for line in lines if line.startswith("stepmemo_nudges_total{")]
    return counts == [f'stepmemo_nudges_total{{result="{result}"}} 1.0']


@pytest.mark.contract
async def test_a_keeper_nudges_the_workflow_after_the_hit(site: Site) -> None:
    async with keeping(site, controllers=[(site.namespace, CONTROLLER[1])]) as running:
        name = site.pod(case=NUDGED)
        await until(lambda: counted(running, NudgeResult.SENT))
    assert nudged(site)
    assert site.label(name) == names.RESULT_HIT
    calls = [call.says.split("/")[0] for call in running.proxy.calls]
    assert calls.index("PATCH workflows") > calls.index("PATCH pods"), "never before the step's own"


@pytest.mark.contract
async def test_a_workflow_that_ended_meanwhile_is_not_touched(site: Site) -> None:
    over = {"metadata": {"labels": {argo.PHASE: "Succeeded"}}}
    assert site.cluster.patch("Workflow", site.namespace, "wf", over)[0] == 200
    async with keeping(site, controllers=[(site.namespace, CONTROLLER[1])]) as running:
        await decided(site, site.pod(case=NUDGED))
        await until(lambda: counted(running, NudgeResult.NOT_RUNNING))
    assert nudged(site) is None


async def test_misses_are_not_nudged_for(site: Site) -> None:
    async with keeping(site, controllers=[(site.namespace, CONTROLLER[1])]) as running:
        miss = site.pod(0, case=NUDGED, key="another")
        await decided(site, miss)
        await decided(site, site.pod(1, case=NUDGED))
        await until(lambda: counted(running, NudgeResult.SENT))
