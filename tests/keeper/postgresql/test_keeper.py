"""The keeper with its entries in PostgreSQL: what steps see, with the database there and away."""

import asyncio
import signal
from datetime import timedelta
from pathlib import Path

import pytest

from keeper.api.people import CACHES_PATH
from memoize import names
from memoize.entry import Entry
from memoize.key import data_key
from memoize.reasons import Reason
from tests.cluster import Cluster, wait_for
from tests.keeper import program
from tests.keeper.keepers import Running, decided, keeping
from tests.keeper.postgresql.conftest import Own
from tests.keeper.site import CACHE, KEY, OUT, RAN, Site, outputs
from tests.tcp_way import Way, way_to
from tests.waiting import until
from tests.webhook.serving import certify

pytestmark = pytest.mark.contract


@pytest.fixture
def site(cluster: Cluster) -> Site:
    return Site.new(cluster)


async def rows(own: Own) -> list[Entry]:
    found = await own.run("SELECT text FROM stepmemo.entries ORDER BY data_key")
    return [Entry.parse(row["text"]) for row in found]


async def put(running: Running, site: Site) -> None:
    """An entry in the database, as another keeper would put it."""
    text = Entry("wf-0", outputs(OUT), site.now, site.now).dump()
    outcome = await running.keeper._store.put(site.namespace, CACHE, data_key(KEY), text, site.now)
    assert outcome.reason is Reason.STORED


async def test_what_a_step_reported_answers_the_next_one_and_no_config_map_is_written(
    site: Site, own: Own
) -> None:
    async with keeping(site, dsn_file=own.dsn_file):
        first = site.pod(0)
        await decided(site, first)
        assert site.label(first) == names.RESULT_MISS
        site.run(first)
        await until(lambda: site.label(first) == names.RESULT_STORED)
        second = site.pod(1)
        await until(lambda: site.succeeded(second))
    assert site.value(second) == RAN
    assert site.entry() is None
    (entry,) = await rows(own)
    assert entry.pod == first


async def test_an_entry_of_a_config_map_answers_until_there_is_a_newer_one(site: Site, own: Own) -> None:
    site.store(created=site.now - timedelta(hours=1))
    async with keeping(site, dsn_file=own.dsn_file):
        pod = site.pod(0)
        await until(lambda: site.succeeded(pod))
        assert site.value(pod) == OUT
    assert await rows(own) == []


async def test_equal_steps_wait_for_one_whichever_keeper_stores_its_outputs(site: Site, own: Own) -> None:
    async with (
        keeping(site, dsn_file=own.dsn_file),
        keeping(site, dsn_file=own.dsn_file, wait=False) as other,
    ):
        pods = [site.pod(number) for number in range(4)]
        await until(lambda: site.labels(pods) == ["gated", "gated", "gated", "miss"])
        await put(other, site)  # as for a sidecar
        waiting = [name for name in pods if site.held(name)]
        await until(lambda: all(site.succeeded(name) for name in waiting))
    assert {site.value(name) for name in waiting} == {OUT}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keeper.postgresql.database.GRACE", 0.0)


def away(way: Way) -> None:
    way.refuse()
    way.cut()


async def test_while_the_database_is_away_steps_run_at_once_and_nobody_is_gated(
    site: Site, own: Own, quick: None
) -> None:
    async with way_to(own.server.port) as way:
        own.dsn_file.write_text(own.server.dsn(own.name, port=way.port))
        async with keeping(site, dsn_file=own.dsn_file) as running:
            assert running.keeper.status.ready
            away(way)
            await until(lambda: not running.keeper.status.ready)
            pods = [site.pod(number, key=f"k-{number}") for number in range(5)]
            await decided(site, *pods)  # and not after --gate-timeout
            assert {site.reason(name) for name in pods} == {Reason.STORE_UNAVAILABLE}
            assert set(site.labels(pods)) == {names.RESULT_MISS}
            # What they report is stored when it is back.
            site.run(pods[0])
            await way.open()
            await until(lambda: running.keeper.status.ready)
            await until(lambda: site.label(pods[0]) == names.RESULT_STORED)
            again = site.pod(9, key="k-0")
            await until(lambda: site.succeeded(again))


async def test_steps_that_wait_for_an_equal_one_run_once_the_database_is_away(
    site: Site, own: Own, quick: None
) -> None:
    async with way_to(own.server.port) as way:
        own.dsn_file.write_text(own.server.dsn(own.name, port=way.port))
        async with keeping(site, dsn_file=own.dsn_file) as running:
            runner = site.pod(0)
            await until(lambda: site.label(runner) == names.RESULT_MISS)
            waiting = [site.pod(number) for number in range(1, 4)]
            await until(lambda: running.keeper._single_flight._waiters[site.namespace] == 3)
            away(way)
            await decided(site, *waiting)  # the runner runs on
            assert {site.reason(name) for name in waiting} == {Reason.STORE_UNAVAILABLE}
            assert set(site.labels(waiting)) == {names.RESULT_MISS}


async def test_steps_that_wait_for_one_whose_outputs_find_no_room_in_the_database_run(
    site: Site, own: Own
) -> None:
    """It can be read, and not be written to: a standby, a full disk, rights that were taken away."""
    async with keeping(site, dsn_file=own.dsn_file):
        pods = [site.pod(number) for number in range(3)]
        await until(lambda: site.labels(pods) == ["gated", "gated", "miss"])
        waiting = [name for name in pods if site.held(name)]
        (runner,) = set(pods) - set(waiting)
        await own.run(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = '53100'; END $$"
        )
        await own.run(
            "CREATE TRIGGER refuse BEFORE INSERT ON stepmemo.entries"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse()"
        )
        site.run(runner)
        await decided(site, *waiting)
        assert {site.reason(name) for name in waiting} == {Reason.SHARED_RUN_FAILED}
        assert site.label(runner) == names.RESULT_MISS, "what it reported is still tried"
        await own.run("DROP FUNCTION refuse() CASCADE")
        await until(lambda: site.label(runner) == names.RESULT_STORED)


async def test_a_keeper_without_a_database_acts_and_lets_steps_run(site: Site, own: Own, quick: None) -> None:
    right = own.dsn_file.read_text()
    own.dsn_file.write_text("postgresql://nobody@127.0.0.1:1/nothing")
    async with keeping(site, dsn_file=own.dsn_file, wait=False) as running:
        pod = site.pod(0)
        await decided(site, pod)
        assert (site.label(pod), site.reason(pod)) == (names.RESULT_MISS, Reason.STORE_UNAVAILABLE)
        assert not running.keeper.ready
        own.dsn_file.write_text(right)
        await until(lambda: running.keeper.ready)
        await put(running, site)
        hit = site.pod(1)
        await until(lambda: site.succeeded(hit))


async def test_the_program_connects_and_ends_by_a_signal_with_the_database_there_and_away(
    cluster: Cluster, own: Own, tmp_path: Path
) -> None:
    namespace = cluster.namespace()
    certify(tmp_path / "certs")
    environ = {"KUBECONFIG": str(cluster.kubeconfig), "STEPMEMO_NAMESPACE": namespace}
    argv = ("--certs=files", f"--cert-dir={tmp_path / 'certs'}", f"--namespaces={namespace}")
    right = own.dsn_file.read_text()
    own.dsn_file.unlink()
    store = ("--store=postgresql", f"--dsn-file={own.dsn_file}")
    with program.running(tmp_path, environ, *argv, *store) as server:
        await asyncio.to_thread(wait_for, lambda: server.get("/readyz") == (200, "ok\n"))
        await asyncio.to_thread(wait_for, lambda: "cannot be read: FileNotFoundError" in server.log)
        assert "\nstepmemo_keeper_ready 0.0" in server.metrics
        own.dsn_file.write_text(right)
        await asyncio.to_thread(wait_for, lambda: "\nstepmemo_keeper_ready 1.0" in server.metrics)
        assert "\nstepmemo_view_in_sync 1.0" in server.metrics
        assert (await asyncio.to_thread(server.get, CACHES_PATH))[0] == 405, "served, though not by a GET"
        server.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(server.process.wait, 20) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()
