"""Artifacts that change behind the cache's back, with keepers on this host that look for them.

The keeper asks the repository as the entry names it, so that has to be reachable from here; its credentials
are those that Argo's own artifacts name.
"""

import base64
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import S3Store

from memoize import names
from memoize.keeper_status import KeeperStatus
from tests.e2e import processes, server
from tests.e2e.cluster import Namespace
from tests.e2e.kube import get, wait_for
from tests.e2e.processes import HostKeeper
from tests.e2e.run import Run, twice
from tests.e2e.steps import RANDOM, container, parameter

pytestmark = [server.outages]

TEMPLATE = container(
    f"{RANDOM} | tee /tmp/out > /tmp/a",
    outputs={"artifacts": [{"name": "a", "path": "/tmp/a"}], "parameters": [parameter()]},
)
NOBODY = "http://127.0.0.1:1"
"""A proxy that does not answer: so no repository does, to whoever is told to ask by it."""


@pytest.fixture(autouse=True)
def _service() -> None:
    server.needs(server.SERVICE)


class Repository:
    """The one that Argo put the step's artifact into."""

    def __init__(self, ns: Namespace, directory: Path) -> None:
        self._ns, self._directory = ns, directory
        self.at = location(ns)
        host, _, port = self.at["endpoint"].partition(":")
        try:
            socket.create_connection((host, int(port or 443)), timeout=5).close()
        except OSError as error:
            pytest.skip(f"the artifact repository {self.at['endpoint']} cannot be reached from here: {error}")
        self._access, self._secret = (self._credential(f"{one}KeySecret") for one in ("access", "secret"))
        self._keepers = 0

    def _credential(self, field: str) -> str:
        secret = get(self._ns.name, "secret", self.at[field]["name"])
        return base64.b64decode(secret["data"][self.at[field]["key"]]).decode()

    @property
    def store(self) -> S3Store:
        scheme = "http" if self.at.get("insecure") else "https"
        return S3Store(
            self.at["bucket"],
            endpoint=f"{scheme}://{self.at['endpoint']}",
            region=self.at.get("region") or "us-east-1",
            access_key_id=self._access,
            secret_access_key=self._secret,
            client_options={"allow_http": True},
        )

    @contextmanager
    def looked_into(self, **environment: str) -> Iterator[list[HostKeeper]]:
        """Keepers that look into it, until the block ends."""
        self._keepers += 1
        directory = self._directory / f"keepers-{self._keepers}"
        directory.mkdir()
        (directory / "access").write_text(self._access)
        (directory / "secret").write_text(self._secret)
        s3 = {name: self.at[name] for name in ("endpoint", "bucket", "region", "insecure") if name in self.at}
        s3 |= {"accessKeyFile": "access", "secretKeyFile": "secret"}
        file = directory / "repositories.yaml"
        file.write_text(json.dumps({"repositories": [{"name": "argo", "s3": s3}]}))
        with processes.host_keepers(directory, STEPMEMO_VERIFY_ARTIFACTS=str(file), **environment) as keepers:
            until_one_decides(keepers)
            yield keepers


def location(ns: Namespace) -> dict[str, Any]:
    """Where the entry says that the artifact is."""
    (artifact,) = (one for one in ns.entries()["k"]["outputs"]["artifacts"] if one["name"] == "a")
    return artifact["s3"]


def until_one_decides(keepers: list[HostKeeper]) -> None:
    """Until one of these processes says by the Lease that it decides gated Pods: before, none is gated."""

    def decides() -> bool | None:
        lease = get(server.NAMESPACE, "lease", server.KEEPER)
        told = lease["metadata"].get("annotations", {}).get(names.KEEPER_STATUS)
        status = KeeperStatus.from_json(told) if told else None
        ready = status is not None and status.ready
        return (ready and said(keepers, f"identity={lease['spec'].get('holderIdentity')}")) or None

    wait_for("a keeper that decides", decides)


def said(keepers: list[HostKeeper], text: str) -> bool:
    return any(text in keeper.log for keeper in keepers)


def ran(ns: Namespace) -> Run:
    run = ns.run(TEMPLATE)
    assert (run.phase, run.executions()) == ("Succeeded", 1), run.said()
    return run.settled()


def test_what_was_deleted_or_overwritten_runs_again_and_then_hits(ns: Namespace, tmp_path: Path) -> None:
    ran(ns)
    repository = Repository(ns, tmp_path)
    with repository.looked_into() as keepers:
        obstore.delete(repository.store, repository.at["key"])
        again = ran(ns)
        assert said(keepers, "ArtifactGone")
        twice(again, ns.run(TEMPLATE), ran=(1, 0))
        assert set(ns.entries()["k"]["stepmemo"]["etags"]) >= {"a"}
        for keeper in keepers:  # what was found is remembered for seconds
            keeper.kill(new_pod=True)
        until_one_decides(keepers)
        obstore.put(repository.store, location(ns)["key"], b"of somebody else")
        third = ran(ns)
        assert said(keepers, "ArtifactChanged")
        twice(third, ns.run(TEMPLATE), ran=(1, 0))


def test_where_the_repository_is_away_hits_are_served_and_said(ns: Namespace, tmp_path: Path) -> None:
    first = ran(ns)
    repository = Repository(ns, tmp_path)
    if not repository.at.get("insecure"):
        pytest.skip("the API server is asked by HTTPS too")
    with repository.looked_into(HTTP_PROXY=NOBODY) as keepers:
        twice(first, ns.run(TEMPLATE), ran=(1, 0))
        assert said(keepers, "an entry is served whose artifacts are not known to be as they were")
        assert not said(keepers, "ArtifactGone")
