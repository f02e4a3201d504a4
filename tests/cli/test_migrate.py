import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cli import migration
from keeper.store import Store
from memoize import configmap
from memoize.reasons import Reason
from tests.cli.caches import argos, data, entry, make
from tests.cli.conftest import NOW, Stepmemo
from tests.cli.test_page import EXAMPLE, PAGE
from tests.cluster import Cluster
from tests.keeper.store.backing import Postgres
from tests.postgresql import Server

HOUR = timedelta(hours=1)
OLD, NEW = (entry(created=NOW - age, last_hit=None, max_age="").dump() for age in (2 * HOUR, HOUR))


@pytest_asyncio.fixture
async def database(postgresql: Server, tmp_path: Path) -> AsyncIterator[Path]:
    """The file with the DSN of an empty database."""
    name = await postgresql.create_database()
    dsn_file = tmp_path / "dsn"
    dsn_file.write_text(f"{postgresql.dsn(name)}\n")
    yield dsn_file
    await postgresql.drop_database(name)


@pytest_asyncio.fixture
async def store(database: Path, cluster: Cluster) -> AsyncIterator[Store]:
    """A keeper's store in it, whose schema is made."""
    async with Postgres(cluster, database).keeper() as store:
        yield store


@pytest.fixture
def migrate(stepmemo: Stepmemo, database: Path) -> Any:
    async def run(to: str, *args: str) -> tuple[int, str, str]:
        return await asyncio.to_thread(stepmemo, "migrate", "--to", to, "--dsn-file", str(database), *args)

    return run


async def put(store: Store, namespace: str, cache: str, data_key: str, text: str) -> None:
    assert (await store.put(namespace, cache, data_key, text, NOW)).reason is Reason.STORED


async def kept(store: Store, namespace: str, cache: str) -> set[str]:
    """The data keys of the rows."""
    page = await store.entries(namespace, cache)
    assert not isinstance(page, tuple) or hasattr(page, "items")
    return {info.data_key for info in page.items}  # type: ignore[union-attr]


@pytest.mark.contract
async def test_configmaps_are_copied_into_the_database_and_may_be_again(
    cluster: Cluster, store: Store, migrate: Any
) -> None:
    name = cluster.namespace()
    make(cluster, name, "greetings", {"a": OLD, "b": argos(), "sha256-" + "0" * 64: NEW})
    make(cluster, name, "others", {"a": NEW, "notes": "no entry"})
    make(cluster, name, "settings", {"a": "b"}, labelled=False)
    code, out, err = await migrate("postgresql", "-n", name)
    assert out == "caches: 2, entries copied: 4, there already: 0, removed: 0\n"
    assert (code, err) == (1, f"stepmemo migrate: {name}/others: 1 are no entries, or met one that is none\n")
    assert await kept(store, name, "greetings") == {"a", "b", "sha256-" + "0" * 64}
    assert await store.read(name, "greetings", "a") == OLD
    assert (await migrate("postgresql", "-n", name))[1].startswith(
        "caches: 2, entries copied: 0, there already: 4"
    )
    assert data(cluster, name, "greetings")["a"] == OLD


@pytest.mark.contract
async def test_of_two_entries_the_newer_one_stays_in_either_direction(
    cluster: Cluster, store: Store, migrate: Any
) -> None:
    name = cluster.namespace()
    make(cluster, name, "one", {"a": OLD, "b": NEW})
    await put(store, name, "one", "a", NEW)
    await put(store, name, "one", "b", OLD)
    assert (await migrate("postgresql", "-n", name))[0] == 0
    assert [await store.read(name, "one", key) for key in "ab"] == [NEW, NEW]
    assert (await migrate("configmap", "-n", name))[0] == 0
    assert data(cluster, name, "one") == {"a": NEW, "b": NEW}


@pytest.mark.contract
async def test_the_database_is_copied_into_configmaps_and_may_be_again(
    cluster: Cluster, store: Store, migrate: Any
) -> None:
    name = cluster.namespace()
    for key in "abc":
        await put(store, name, "one", key, NEW)
    make(cluster, name, "one", {"a": OLD, "mine": OLD})
    await put(store, name, "two", "a", OLD)
    code, out, err = await migrate("configmap", "-n", name)
    assert (code, out, err) == (0, "caches: 2, entries copied: 4, there already: 0, removed: 0\n", "")
    assert data(cluster, name, "one") == {"a": NEW, "b": NEW, "c": NEW, "mine": OLD}
    assert configmap.not_a_cache(cluster.get("ConfigMap", name, "two")[1]) is None
    assert (await migrate("configmap", "-n", name, "two"))[1].startswith(
        "caches: 1, entries copied: 0, there"
    )


async def test_what_was_removed_in_the_database_does_not_come_back(
    cluster: Cluster, store: Store, migrate: Any
) -> None:
    name = cluster.namespace()
    make(cluster, name, "one", {"a": OLD, "b": OLD})
    await migrate("postgresql", "-n", name)
    assert await store.delete(name, "one", "a") is True
    assert data(cluster, name, "one").keys() == {"a", "b"}
    # Neither there …
    assert (await migrate("postgresql", "-n", name))[1].startswith(
        "caches: 1, entries copied: 0, there already: 2"
    )
    assert await store.read(name, "one", "a") == ""
    # … nor here, where a keeper would find it after a change back.
    assert (await migrate("configmap", "-n", name))[1].endswith("removed: 1\n")
    assert data(cluster, name, "one").keys() == {"b"}


async def test_what_is_no_entry_is_not_removed_from_a_configmap_whatever_was_removed_in_the_database(
    cluster: Cluster, store: Store, migrate: Any
) -> None:
    name = cluster.namespace()
    make(cluster, name, "one", {"a": OLD, "b": OLD})
    await migrate("postgresql", "-n", name)
    for key in "ab":
        assert await store.delete(name, "one", key) is True
    cluster.patch("ConfigMap", name, "one", {"data": {"a": "what a person wrote"}})
    assert (await migrate("configmap", "-n", name))[1].endswith("removed: 1\n")
    assert data(cluster, name, "one") == {"a": "what a person wrote"}


async def test_a_configmap_gets_what_was_used_last_and_the_rest_is_told(
    cluster: Cluster, store: Store, migrate: Any
) -> None:
    name = cluster.namespace()
    outputs = {"parameters": [{"name": "x", "value": "x" * 300_000}]}
    for number in range(5):
        text = entry(created=NOW - number * HOUR, last_hit=None, max_age="", outputs=outputs).dump()
        await put(store, name, "big", f"e{number}", text)
    code, _, err = await migrate("configmap", "-n", name)
    assert (code, err) == (1, f"stepmemo migrate: {name}/big: 2 find no room in the ConfigMap\n")
    assert data(cluster, name, "big").keys() == {"e0", "e1", "e2"}


async def test_more_entries_than_a_page(
    cluster: Cluster, store: Store, migrate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migration, "PAGE", 3)
    name = cluster.namespace()
    for number in range(10):
        await put(store, name, "one", f"e{number}", NEW)
    await migrate("configmap", "-n", name)
    assert len(data(cluster, name, "one")) == 10


async def test_what_is_not_a_cache_is_left_alone_and_the_others_are_copied(
    cluster: Cluster, store: Store, migrate: Any
) -> None:
    name = cluster.namespace()
    make(cluster, name, "a-settings", {"a": "b"}, labelled=False)
    await put(store, name, "a-settings", "k", NEW)
    await put(store, name, "one", "k", NEW)
    code, out, err = await migrate("configmap", "-n", name)
    assert (code, out.partition(",")[0]) == (1, "caches: 2")
    assert "lacks the label workflows.argoproj.io/configmap-type: Cache" in err
    assert data(cluster, name, "a-settings") == {"a": "b"}
    assert data(cluster, name, "one") == {"k": NEW}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mysql://x", "--dsn-file: holds no DSN: postgresql://USER:PASSWORD@HOST:5432/DATABASE"),
        ("postgresql://u:swordfish@127.0.0.1:1/x", "no database to talk to: "),
    ],
)
async def test_a_database_that_cannot_be_had_is_told_without_the_password(
    text: str, said: str, cluster: Cluster, stepmemo: Stepmemo, tmp_path: Path
) -> None:
    dsn_file = tmp_path / "other"
    dsn_file.write_text(text)
    args = ["migrate", "--to", "postgresql", "--dsn-file", str(dsn_file), "-n", cluster.namespace()]
    code, out, err = await asyncio.to_thread(stepmemo, *args)
    assert (code, out) == (2, "")
    assert err.startswith(f"stepmemo migrate: {said}")
    assert "swordfish" not in err


async def test_a_database_without_the_schema_is_told_and_left_as_it_is(
    cluster: Cluster, migrate: Any
) -> None:
    code, _, err = await migrate("postgresql", "-n", cluster.namespace())
    assert code == 2
    assert "the database's schema is of version 0, and 1 is wanted: start a keeper" in err


def test_a_file_that_is_not_there_is_told(stepmemo: Stepmemo) -> None:
    code, _, err = stepmemo("migrate", "--to", "configmap", "--dsn-file", "/no/such", "-n", "work")
    assert (code, err) == (2, "stepmemo migrate: --dsn-file: /no/such: No such file or directory\n")


async def test_the_example_of_the_page(cluster: Cluster, store: Store, migrate: Any) -> None:
    (shown,) = (
        found[2] for found in EXAMPLE.finditer(PAGE.read_text(encoding="utf-8")) if "migrate" in found[1]
    )
    name = cluster.namespace()
    make(cluster, name, "greetings", {"a": OLD, "b": NEW, "c": argos()})
    make(cluster, name, "reports", dict.fromkeys("abcd", NEW))
    assert await migrate("postgresql", "-n", name) == (0, shown, "")
