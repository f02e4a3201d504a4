"""`caches`, `entries`, `show`, `rm` and `why` where the keeper is asked, through the API server's proxy."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from cli import asking, installation, kept
from keeper.api import people
from keeper.api.people import People
from memoize import names
from memoize.key import data_key
from memoize.reasons import Reason
from server.rate_limit import RateLimits
from tests.cli.caches import argos, data, entry, make
from tests.cli.conftest import NOW, Stepmemo
from tests.cli.test_installation import POSTGRES
from tests.cli.test_why import COMPUTED, NODE, POD, computed, node, step_pod, workflow
from tests.cluster import Cluster, wait_for
from tests.keeper.program import running
from tests.keeper.store.backing import Postgres
from tests.keeper.stores import config_maps
from tests.postgresql import Server
from tests.proxied import behind_a_service, reachable_address, tell
from tests.webhook.serving import api_client, certify

LONG_KEY = "a key that Argo does not take: with spaces, and öther letters"
MOON = entry(key="greet-moon", created=NOW - timedelta(hours=5), last_hit=None, max_age="", took=0)
RIGHTS = {
    "services/proxy": asking.SERVICE,
    "serviceaccounts/token": "default",
}


class Installed:
    """The namespace of a keeper that is reached by the proxy, and one of workflows."""

    def __init__(self, cluster: Cluster, stepmemo: Stepmemo, home: str, store: Any) -> None:
        self.cluster, self.stepmemo, self.home, self.store = cluster, stepmemo, home, store
        self.namespace = cluster.namespace()

    async def run(self, *args: str, keeper: str = "--keeper") -> tuple[int, str, str]:
        """The command, which asks the keeper."""
        where = ["--stepmemo-namespace", self.home, *([keeper] if keeper else [])]
        where += [] if "-A" in args else ["-n", self.namespace]
        return await asyncio.to_thread(self.stepmemo, *args, *where)

    async def put(self, key: str, text: str, cache: str = "greetings", namespace: str = "") -> None:
        kept_in = namespace or self.namespace
        assert (await self.store.put(kept_in, cache, key, text, NOW)).reason is Reason.STORED


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The keeper rests after each answer, and longer where the machine is busy."""
    monkeypatch.setattr(asking, "SECONDS", 60.0)


@pytest_asyncio.fixture
async def installed(
    cluster: Cluster, stepmemo: Stepmemo, postgresql: Server, tmp_path: Path
) -> AsyncIterator[Installed]:
    """With entries in PostgreSQL."""
    name, home = await postgresql.create_database(), cluster.namespace()
    dsn_file = tmp_path / "dsn"
    dsn_file.write_text(f"{postgresql.dsn(name)}\n")
    async with Postgres(cluster, dsn_file).keeper() as store, api_client(cluster) as api:
        app = web.Application()
        People(api, store, "postgresql").add_to(app)
        async with behind_a_service(cluster, app, tmp_path / "tls", home, "stepmemo-keeper"):
            yield Installed(cluster, stepmemo, home, store)
    await postgresql.drop_database(name)


@pytest_asyncio.fixture
async def without_database(
    cluster: Cluster, stepmemo: Stepmemo, tmp_path: Path
) -> AsyncIterator[tuple[Installed, web.Application]]:
    """With another store behind the same routes; the app is what answers for the keeper."""
    home = cluster.namespace()
    async with api_client(cluster) as api:
        store = config_maps(api)
        app = web.Application()
        People(api, store, "configmap", limits=RateLimits(0.001, 1)).add_to(app)
        async with behind_a_service(cluster, app, tmp_path / "tls", home, "stepmemo-keeper"):
            yield Installed(cluster, stepmemo, home, store), app
        await store.close()


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The keeper's Deployment says --store postgresql."""

    async def found(*_: Any) -> Any:
        return POSTGRES

    monkeypatch.setattr(installation, "deployment", found)


@pytest.mark.contract
async def test_people_look_into_a_database_and_remove_from_it(installed: Installed) -> None:
    await installed.put("greet-world", entry().dump())
    await installed.put(data_key(LONG_KEY), entry(key=LONG_KEY, last_hit=NOW, template="say").dump())
    code, out, err = await installed.run("caches", "-o", "json")
    assert (code, err) == (0, "")
    assert json.loads(out)["items"] == [
        {
            "namespace": installed.namespace,
            "cache": "greetings",
            "store": "PostgreSQL",
            "entries": 2,
            "notEntries": None,
            "bytes": json.loads(out)["items"][0]["bytes"],
            "limitBytes": None,
            "lastHit": None,
            "oldest": None,
        }
    ]
    code, out, err = await installed.run("entries", "greetings")
    assert (code, err) == (0, "")
    assert [line.split() for line in out.splitlines()] == [
        ["KEY", "AGE", "LAST", "HIT", "EXPIRES", "TOOK", "SIZE", "TEMPLATE", "FROM"],
        [data_key(LONG_KEY), "3h", "0s", "21h", "383", "say"],
        ["greet-world", "3h", "1h", "21h", "311"],
    ]
    code, out, err = await installed.run("show", "greetings", LONG_KEY)
    assert (code, err) == (0, "")
    assert out.startswith(f"Key:            {LONG_KEY}\n")
    assert out.endswith("parameter  greeting  hello\n")
    code, out, err = await installed.run("rm", "greetings", LONG_KEY, "gone", "greet-world", "greet-world")
    assert (code, err) == (1, "stepmemo rm: gone: no such entry\n")
    assert out == f"{LONG_KEY}: removed\ngreet-world: removed\n"
    assert await installed.store.read(installed.namespace, "greetings", "greet-world") == ""
    empty = "stepmemo entries: the cache greetings is empty, or there is none\n"
    assert await installed.run("entries", "greetings") == (0, "", empty)
    code, _, err = await installed.run("show", "greetings", "greet-world")
    assert (code, err) == (1, "stepmemo show: the cache greetings has no entry of the key 'greet-world'\n")


async def test_without_a_flag_the_deployment_says_whom_to_ask(installed: Installed, deployed: None) -> None:
    await installed.put("k", entry().dump())
    make(installed.cluster, installed.namespace, "greetings", {"k": argos(), "old": argos()})
    code, out, err = await installed.run("caches", keeper="")
    assert (code, err) == (0, "")
    assert [line.split()[1:4] for line in out.splitlines()[1:]] == [
        ["greetings", "PostgreSQL", "1"],
        ["greetings", "ConfigMap", "2"],
    ]
    code, out, err = await installed.run("entries", "greetings", keeper="")
    assert len(out.splitlines()) == 2
    said = (
        "a ConfigMap greetings holds 2 more values, which count where the database has none, or an older one"
    )
    assert (code, err) == (0, f"stepmemo entries: {said}: see --no-keeper\n")
    code, out, err = await installed.run("entries", "greetings", keeper="--no-keeper")
    assert len(out.splitlines()) == 3
    said = "the keeper keeps its entries in PostgreSQL; this is about ConfigMaps alone"
    assert (code, err) == (0, f"stepmemo entries: {said}\n")
    # What is removed does not come back from the ConfigMap.
    assert (await installed.run("rm", "greetings", "k", "old", keeper=""))[0] == 0
    assert data(installed.cluster, installed.namespace, "greetings").keys() == {"k", "old"}
    assert (await installed.run("rm", "greetings", "k", "old", keeper=""))[0] == 1


async def test_nothing_is_to_be_cleaned_up_by_hand_where_the_keeper_does_it(
    installed: Installed, deployed: None
) -> None:
    code, out, err = await installed.run("gc", "--dry-run", keeper="")
    assert (code, out) == (1, "")
    assert err.startswith(
        "stepmemo gc: the keeper keeps its entries in PostgreSQL, and removes there by itself"
    )


async def test_why_says_what_the_database_has(installed: Installed, deployed: None) -> None:
    pod = step_pod(names.RESULT_MISS, "Miss")
    pod["metadata"]["namespace"] = installed.namespace
    assert installed.cluster.create(pod)[0] == 201
    _, out, _ = await installed.run("why", POD, keeper="")
    assert "There is no entry for it now." in out
    await installed.put("greet-world", entry().dump())
    _, out, _ = await installed.run("why", POD, keeper="")
    assert "There is an entry for it now, made 3h ago by workflow greet-x2k9f." in out
    _, out, _ = await installed.run("why", POD, "--account", "nobody", keeper="")
    assert f"Not seen: no ServiceAccount nobody in the Namespace {installed.namespace}, say --account." in out


async def test_why_says_which_part_of_a_computed_key_changed(installed: Installed, deployed: None) -> None:
    pod = computed(names.RESULT_MISS, "Miss")
    pod["metadata"]["namespace"] = installed.namespace
    assert installed.cluster.create(pod)[0] == 201
    made = workflow(installed.namespace, {NODE: node("2718281828", "say")})
    assert installed.cluster.create(made)[0] == 201
    _, out, _ = await installed.run("why", POD, keeper="")
    assert "its cache has no earlier entry of the template say." in out
    other = COMPUTED.replace("0", "1")
    await installed.put(other, entry(template="say", parts={"args": "0" * 8}).dump())
    _, out, _ = await installed.run("why", POD, keeper="")
    assert "made 3h ago by workflow greet-x2k9f: args changed." in out


async def test_more_than_a_page(installed: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people, "ENTRIES_OF_A_PAGE", 3)
    monkeypatch.setattr(people, "CACHES_OF_A_PAGE", 3)
    for number in range(8):
        await installed.put(f"k{number}", entry().dump())
        await installed.put("k", entry().dump(), cache=f"cache-{number}")
    items = json.loads((await installed.run("entries", "greetings", "-o", "json"))[1])["items"]
    assert {item["dataKey"] for item in items} == {f"k{number}" for number in range(8)}
    items = json.loads((await installed.run("caches", "-o", "json"))[1])["items"]
    assert {item["cache"] for item in items} == {"greetings", *(f"cache-{number}" for number in range(8))}


async def test_all_namespaces_one_after_the_other_and_what_cannot_be_asked_about_in_a_line(
    installed: Installed,
) -> None:
    cluster, others = installed.cluster, sorted(installed.cluster.namespace() for _ in range(6))
    for name in others:
        await installed.put("k", entry().dump(), namespace=name)
    bare = f"{others[0]}-bare"  # without the account `default`
    assert cluster.create({"kind": "Namespace", "metadata": {"name": bare}})[0] == 201
    cluster.delete("ServiceAccount", bare, "default")
    code, out, err = await installed.run("caches", "-A", "-o", "json")
    found = [item["namespace"] for item in json.loads(out)["items"] if item["store"] == "PostgreSQL"]
    assert [name for name in found if name in others] == others, err
    assert code == 1
    assert f"Namespaces could not be looked into, such as {bare}: no ServiceAccount default in" in err
    assert len(err.splitlines()) == 1


@pytest.mark.contract
@pytest.mark.parametrize("missing", RIGHTS)
async def test_a_right_that_is_missing_is_named_with_its_cure(
    without_database: tuple[Installed, web.Application], missing: str, kubeconfig_of: Any
) -> None:
    installed, _ = without_database
    cluster = installed.cluster
    homes = {"services/proxy": installed.home, "serviceaccounts/token": installed.namespace}
    rules = [
        {"apiGroups": [""], "resources": [resource], "resourceNames": [name], "verbs": ["create"]}
        for resource, name in RIGHTS.items()
        if resource != missing
    ]
    token = cluster.service_account(installed.namespace, "person", rules)
    cluster.service_account(installed.home, "theirs", rules)
    bind(cluster, installed.home, "theirs", installed.namespace)
    command = ["caches", "--kubeconfig", kubeconfig_of(token)]
    code, out, err = await installed.run(*command)
    assert (code, out) == (1, "")
    home, name = homes[missing], RIGHTS[missing]
    assert f'cannot create resource "{missing}" in API group "" in the namespace "{home}"' in err
    role = f"stepmemo-{missing.replace('/', '-')}"
    assert err.endswith(
        f"kubectl -n {home} create role {role} --verb=create --resource={missing} --resource-name={name}; "
        f"kubectl -n {home} create rolebinding {role} --role={role} --user=USER\n"
    )
    assert len(err.splitlines()) == 1
    # With exactly that it works.
    given = {"apiGroups": [""], "resources": [missing], "resourceNames": [name], "verbs": ["create"]}
    cluster.set_rules(installed.namespace, "person", [*rules, given])
    cluster.set_rules(installed.home, "theirs", [*rules, given])
    said = f"stepmemo caches: no cache in the Namespace {installed.namespace}\n"
    code, out, err = await installed.run(*command)
    assert (code, out) == (0, "")
    assert err.splitlines(keepends=True)[-1] == said


def test_who_may_edit_a_namespace_may_create_tokens_there_and_who_may_view_it_may_not(
    kube_apiserver: Cluster,
) -> None:
    """As docs/cli.md says. The roles are those that Kubernetes itself makes `edit` and `view` of."""
    found = {}
    for role in ("edit", "view"):
        path = f"/apis/rbac.authorization.k8s.io/v1/clusterroles/system:aggregate-to-{role}"
        rules = kube_apiserver.request("GET", path).body["rules"]
        given = [rule["verbs"] for rule in rules if "serviceaccounts/token" in rule["resources"]]
        found[role] = any("create" in verbs for verbs in given)
    assert found == {"edit": True, "view": False}


def bind(cluster: Cluster, namespace: str, role: str, of: str) -> None:
    """Give the Role to the account `person` of another Namespace as well."""
    subjects = [
        {"kind": "ServiceAccount", "name": role, "namespace": namespace},
        {"kind": "ServiceAccount", "name": "person", "namespace": of},
    ]
    assert cluster.patch("RoleBinding", namespace, role, {"subjects": subjects})[0] == 200


async def test_where_nobody_can_be_asked_all_namespaces_are_not_tried(
    cluster: Cluster, stepmemo: Stepmemo, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, pages = list[str](), asking.KeeperClient.pages

    def counted(self: Any, path: str, **more: str) -> Any:
        asked.append(self._connected.namespace)
        return pages(self, path, **more)

    monkeypatch.setattr(asking.KeeperClient, "pages", counted)
    home = cluster.namespace()
    args = ["caches", "-A", "--keeper", "--stepmemo-namespace", home, "--account", "default"]

    async def names_of(_: Any) -> list[str]:
        return [cluster.namespace() for _ in range(3)]

    monkeypatch.setattr(kept, "_namespaces", names_of)
    code, out, err = await asyncio.to_thread(stepmemo, *args)
    assert (code, out) == (1, "")
    assert 'services "stepmemo-keeper" not found' in err
    assert (
        f"no keeper of this release with a database in the Namespace {home}, say --stepmemo-namespace" in err
    )
    assert len(asked) == 1


async def test_a_keeper_that_has_too_much_to_do_is_asked_again(
    without_database: tuple[Installed, web.Application], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses, installed = list[float](), without_database[0]

    async def sleep(seconds: float, *_: Any) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asking, "asyncio", SimpleNamespace(sleep=sleep))
    make(installed.cluster, installed.namespace, "greetings", {"k": entry().dump(), "notes": "x"})
    code, out, err = await installed.run("show", "greetings", "k")
    assert (code, err) == (0, "")
    code, out, err = await installed.run("rm", "greetings", "k")
    assert (code, out) == (1, "")
    assert "429 Too Many Requests: too many requests of this namespace" in err
    assert pauses == [asking.LONGEST_PAUSE] * (asking.ATTEMPTS - 1)


async def test_what_is_no_entry_is_left(installed: Installed) -> None:
    await installed.put("k", MOON.dump())
    await installed.put("notes", "x")
    code, out, err = await installed.run("rm", "greetings", "k", "notes")
    assert (code, out) == (1, "k: removed\n")
    assert err == "stepmemo rm: notes: not an entry, so it was left\n"
    assert await installed.store.read(installed.namespace, "greetings", "notes") == "x"


async def test_a_keeper_that_does_not_answer_as_one_is_told(
    cluster: Cluster, stepmemo: Stepmemo, tmp_path: Path
) -> None:
    home, namespace = cluster.namespace(), cluster.namespace()
    args = ["caches", "--keeper", "-n", namespace, "--stepmemo-namespace", home]
    async with behind_a_service(cluster, web.Application(), tmp_path / "tls", home, "stepmemo-keeper"):
        code, _, err = await asyncio.to_thread(stepmemo, *args)
    assert code == 1
    assert err.startswith(
        "stepmemo caches: cannot ask the keeper: 404 Not Found: 404: Not Found: no keeper of"
    )
    code, _, err = await asyncio.to_thread(stepmemo, *args)  # by now nobody listens there
    assert code == 1
    assert "503 Service Unavailable: error trying to reach service" in err
    assert err.endswith(": see `stepmemo doctor`\n")


@pytest.mark.contract
async def test_the_program_answers_people(
    cluster: Cluster, stepmemo: Stepmemo, postgresql: Server, tmp_path: Path
) -> None:
    name, dsn_file = await postgresql.create_database(), tmp_path / "dsn"
    dsn_file.write_text(postgresql.dsn(name))
    await asyncio.to_thread(_answers_people, cluster, stepmemo, dsn_file, tmp_path)
    await postgresql.drop_database(name)


def _answers_people(cluster: Cluster, stepmemo: Stepmemo, dsn_file: Path, tmp_path: Path) -> None:
    namespace, address = cluster.namespace(), reachable_address(cluster)
    certify(tmp_path / "certs")
    make(cluster, namespace, "greetings", {"k": entry().dump()})
    environ = {"KUBECONFIG": str(cluster.kubeconfig), "STEPMEMO_NAMESPACE": namespace}
    argv = ("--certs=files", f"--cert-dir={tmp_path / 'certs'}", f"--namespaces={namespace}")
    argv += ("--store=postgresql", f"--dsn-file={dsn_file}")
    with running(tmp_path, environ, *argv, f"--listen={address}:0") as keeper:

        def port() -> int:
            found = re.search(rf"listening\W+host\W+{re.escape(address)}\W+port\W+(\d+)", keeper.log)
            return int(found[1]) if found else 0

        wait_for(port)
        wait_for(lambda: "\nstepmemo_keeper_ready 1.0" in keeper.metrics)
        tell(cluster, namespace, "stepmemo-keeper", address, port())
        where = ["-n", namespace, "--keeper", "--stepmemo-namespace", namespace]
        code, out, err = stepmemo("show", "greetings", "k", *where)
        assert (code, err) == (0, "")
        assert out.startswith("Key:            greet-world\n")
        assert stepmemo("rm", "greetings", "k", *where) == (0, "k: removed\n", "")
        # A real token, and what a real API server adds, are within what the program takes of headers.
        assert stepmemo("show", "greetings", "k", *where)[0] == 1
        assert data(cluster, namespace, "greetings").keys() == {"k"}
