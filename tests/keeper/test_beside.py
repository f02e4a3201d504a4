"""No step runs beside an answer of ours, whatever happens between the answer and the Pod's end."""

import pytest
from aiohttp import web

from argo import names as argo
from memoize import names
from memoize.key import data_key
from tests.cluster import Cluster
from tests.keeper.keepers import Running, decided, forget_the_lease, keeping
from tests.keeper.proxy import Proxy, refusing
from tests.keeper.site import CACHE, KEY, OUT, PAUSED, Site
from tests.keeper.test_controller import counted
from tests.waiting import until

ANOTHER = {"metadata": {"annotations": {names.KEY: "another"}}}
"""An edit after which the Pod is not what its plan says."""


@pytest.fixture
def site(cluster: Cluster) -> Site:
    return Site.new(cluster)


def edit(site: Site, name: str, patch: object) -> None:
    assert site.cluster.patch("Pod", site.namespace, name, patch)[0] == 200


def forget_the_entry(site: Site) -> None:
    site.cluster.delete("ConfigMap", site.namespace, CACHE)


def completed(site: Site, name: str) -> str:
    """What the controller takes the result for."""
    return str((site.result(name) or {})["metadata"]["labels"][argo.OUTPUTS_COMPLETED])


@pytest.mark.usefixtures("long_pause")
async def test_who_gets_the_lease_back_takes_back_what_another_posted_meanwhile(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with keeping(site) as first:
        runner, waiter = site.pod(0, case=PAUSED), site.pod(1, case=PAUSED)
        await until(lambda: site.labels([runner, waiter]) == ["gated", "miss"])
        if site.label(runner) == names.RESULT_GATED:
            runner, waiter = waiter, runner
        lose_the_lease(first, monkeypatch)
        forget_the_lease(site)
        site.store()
        async with keeping(site) as other:
            await until(lambda: site.value(waiter) == OUT)
            await other.kill()
        assert site.held(waiter)
        forget_the_entry(site)
        store = first.keeper._store

        async def is_forgotten() -> bool:
            return await store.read(site.namespace, CACHE, data_key(KEY)) == ""

        await until(is_forgotten)
        monkeypatch.undo()
        forget_the_lease(site)
        site.delete(runner)
        await decided(site, waiter)
    assert site.label(waiter) == names.RESULT_MISS
    assert not site.value(waiter)


async def test_who_gets_the_lease_back_keeps_out_what_another_may_be_posting(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with keeping(site) as running:
        runner, waiter = site.pod(0), site.pod(1)
        await until(lambda: site.labels([runner, waiter]) == ["gated", "miss"])
        if site.label(runner) == names.RESULT_GATED:
            runner, waiter = waiter, runner
        lose_the_lease(running, monkeypatch)
        await until(lambda: not running.keeper._acted)
        monkeypatch.undo()
        forget_the_lease(site)
        site.delete(runner)
        await decided(site, waiter)
    assert completed(site, waiter) == "false"


def lose_the_lease(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is cut off from it until the change is undone, and lets it go."""
    lease = running.keeper._lease
    monkeypatch.setattr(lease, "_may_lead", lambda: False)
    monkeypatch.setattr(lease, "_renewed", None)


@pytest.mark.usefixtures("long_pause")
async def test_the_nodes_next_pod_does_not_run_beside_the_answer_of_one_that_was_deleted(site: Site) -> None:
    site.store()
    async with keeping(site) as running:
        name = site.pod(case=PAUSED)
        await until(lambda: site.value(name) == OUT)
        await running.kill()
    site.delete(name)
    forget_the_entry(site)
    forget_the_lease(site)
    async with keeping(site):
        assert site.pod(case=PAUSED) == name
        await decided(site, name)
    assert site.label(name) == names.RESULT_MISS
    assert not site.value(name)


@pytest.mark.usefixtures("long_pause")
async def test_a_pod_that_is_deleted_while_it_is_answered_leaves_no_answer(site: Site) -> None:
    site.store()
    async with keeping(site):
        name = site.pod(case=PAUSED)
        await until(lambda: site.value(name) == OUT)
        site.delete(name)
        await until(lambda: site.result(name) is None)


async def ending_while_it_is_answered(site: Site, running: Running, how: str) -> str:
    """A Pod that is deleted, or let run by hand, when its answer is posted, which cannot be taken back."""
    running.proxy.fault = refusing(403, "DELETE workflowtaskresults")
    site.store()
    name = site.pod(case=PAUSED)
    await until(lambda: site.value(name) == OUT)
    if how == "deleted":
        site.delete(name)
    else:
        edit(site, name, [{"op": "remove", "path": "/spec/schedulingGates/0"}])
    return name


@pytest.mark.usefixtures("long_pause")
@pytest.mark.parametrize(("bound", "of"), [("controller.ORPHAN_DEADLINE", 0.5), ("state.MOST_ORPHANS", 0)])
async def test_an_answer_that_cannot_be_taken_back_from_a_pod_that_is_gone_is_told_and_left(
    site: Site, monkeypatch: pytest.MonkeyPatch, bound: str, of: float
) -> None:
    monkeypatch.setattr(f"keeper.{bound}", of)
    async with keeping(site) as running:
        name = await ending_while_it_is_answered(site, running, "deleted")
        await until(lambda: counted(running, "ResultNotDeleted") == 1)
        await until(lambda: any("ResultNotDeleted" in event for event in site.events()))
        assert list(running.keeper._orphans) == []
        tried = len(running.proxy.calls)
        other = site.pod(1)
        await decided(site, other)
        assert not any(name in call.path for call in running.proxy.calls[tried:])


@pytest.mark.usefixtures("long_pause")
async def test_an_answer_that_cannot_be_taken_back_keeps_a_step_from_being_stored_and_not_from_its_label(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keeper.controller.ORPHAN_DEADLINE", 0.5)
    async with keeping(site) as running:
        name = await ending_while_it_is_answered(site, running, "let run")
        await until(lambda: counted(running, "ResultNotDeleted") == 1)
        edit(site, name, {"metadata": {"labels": {names.RESULT: names.RESULT_MISS}}})
        site.run(name)
        await until(lambda: site.label(name) == names.RESULT_SKIPPED)
    entry = site.entry()
    assert entry is not None
    assert entry.workflow == "earlier", "what was posted may be among what is there"


@pytest.mark.usefixtures("long_pause")
async def test_a_pod_that_is_rewritten_while_it_is_answered_runs_without_the_answer(site: Site) -> None:
    site.store()
    async with keeping(site):
        name = site.pod(case=PAUSED)
        await until(lambda: site.value(name) == OUT)
        edit(site, name, ANOTHER)
        await until(lambda: not site.held(name))
    assert not site.value(name)
    assert not site.succeeded(name)


@pytest.mark.usefixtures("long_pause")
async def test_a_pod_that_loses_its_label_for_a_moment_while_it_is_answered_is_decided(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.store()
    async with keeping(site) as running:
        name = site.pod(case=PAUSED)
        await until(lambda: site.value(name) == OUT)
        pod = site.get(name)
        running.keeper.on_deleted(pod["metadata"]["uid"])  # the watch shows both at once
        monkeypatch.setattr("keeper.reconcile.PAUSE", 0.0)
        running.keeper.on_pod(pod, new=True)
        await decided(site, name)
    assert (site.label(name), site.value(name)) == (names.RESULT_HIT, OUT)


@pytest.mark.contract
async def test_a_pod_that_is_rewritten_just_before_its_end_is_not_held_for_ever(site: Site) -> None:
    site.store()
    proxy = Proxy(site.cluster)
    edits: list[str] = []

    def meanwhile(method: str, path: str) -> web.Response | None:
        if path.endswith("/status") and not edits:
            edits.append(path)
            edit(site, path.split("/")[1], ANOTHER)
        return None

    proxy.fault = meanwhile
    async with keeping(site, proxy):
        name = site.pod()
        await until(lambda: not site.held(name))
    assert edits
    assert not site.value(name)
    assert not site.succeeded(name)


async def test_a_pod_whose_deletion_begins_while_it_is_answered_is_left_alone_until_it_is_gone(
    site: Site,
) -> None:
    """Who holds its finalizers may take as long as he likes."""
    site.store()
    proxy, name = Proxy(site.cluster), site.pod()
    edit(site, name, {"metadata": {"finalizers": ["test.stepmemo.dev/kept"]}})
    deleted: list[str] = []

    def meanwhile(method: str, path: str) -> web.Response | None:
        if f"{method} {path}" == "POST workflowtaskresults" and not deleted:
            deleted.append(name)
            site.delete(name)
        return None

    proxy.fault = meanwhile
    async with keeping(site, proxy) as running:
        await until(lambda: site.value(name) == OUT)
        other = site.pod(1)
        await decided(site, other)
        assert (site.held(name), site.value(name)) == (True, OUT)
        assert f"PATCH pods/{name}" not in [call.says for call in running.proxy.calls]
        edit(site, name, {"metadata": {"finalizers": None}})
        await until(lambda: not site.value(name))


async def test_a_pod_that_was_told_to_run_is_let_run_though_there_is_an_entry_by_now(site: Site) -> None:
    """Its keeper was killed between its word and the gate."""
    site.store()
    name = site.pod(change={names.REASON: "SharedRunFailed"})
    async with keeping(site) as running:
        await decided(site, name)
    assert (site.label(name), site.reason(name)) == (names.RESULT_MISS, "SharedRunFailed")
    assert not site.held(name)
    assert not any(call.method == "POST" and not call.says.endswith("empty") for call in running.proxy.calls)


@pytest.mark.usefixtures("long_pause")
async def test_a_pod_that_was_taken_from_the_keeper_and_given_back_is_let_run(site: Site) -> None:
    """The watch may have broken in between: then the keeper sees a held Pod that it was done with."""
    site.store()
    async with keeping(site) as running:
        name = site.pod(case=PAUSED)
        await until(lambda: site.value(name) == OUT)
        for record in running.keeper._records.in_order():
            record.on_finished()
        edit(site, name, {"metadata": {"labels": {"a": "b"}}})
        await until(lambda: not site.held(name))
    assert not site.value(name)


@pytest.mark.contract
@pytest.mark.parametrize("capture", [True, False])
async def test_a_workflow_does_not_wait_for_a_result_that_kept_answers_out_of_a_step_that_fails(
    site: Site, capture: bool
) -> None:
    name = site.pod(capture=capture)
    async with keeping(site):
        await decided(site, name)
        assert completed(site, name) == "false"
        site.end(name, phase="Failed", code=1)
        await until(lambda: site.label(name) == names.RESULT_SKIPPED)
    assert completed(site, name) == "true"
    assert not site.value(name)


async def test_a_result_that_the_step_reported_into_is_stored(site: Site) -> None:
    name = site.pod()
    async with keeping(site):
        await decided(site, name)
        site.run(name)
        await until(lambda: site.label(name) == names.RESULT_STORED)
    assert site.entry() is not None


async def test_a_step_that_runs_costs_a_look_at_its_result_and_a_release(site: Site) -> None:
    async with keeping(site) as running:
        name = site.pod()
        await decided(site, name)
    said = [call.says for call in running.proxy.calls if "configmaps" not in call.says]
    assert said == [f"GET workflowtaskresults/{name}", f"PATCH pods/{name}"]
