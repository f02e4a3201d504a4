"""Caches for the tests of the commands that show them."""

import json
from datetime import timedelta
from typing import Any

from argo import names as argo
from memoize.entry import Entry
from tests.cli.conftest import NOW
from tests.cluster import Cluster

HOUR = timedelta(hours=1)


def entry(**fields: Any) -> Entry:
    """An entry of ours, three hours old."""
    known: dict[str, Any] = {
        "node_id": "greet-x2k9f-2718281828",
        "outputs": {"parameters": [{"name": "greeting", "value": "hello"}]},
        "created": NOW - 3 * HOUR,
        "last_hit": NOW - HOUR,
        "key": "greet-world",
        "max_age": "24h",
        "pod": "greet-x2k9f-say-2718281828",
        "workflow": "greet-x2k9f",
        "took": 312.0,
    }
    return Entry(**{**known, **fields})


def argos() -> str:
    """An entry as Argo's own memoization writes it."""
    return json.dumps(
        {
            "nodeID": "old-7",
            "outputs": {"exitCode": "0"},
            "creationTimestamp": "2026-02-28T12:00:00Z",
            "lastHitTimestamp": None,
        }
    )


def make(
    cluster: Cluster, namespace: str, name: str, data: dict[str, str], *, labelled: bool = True
) -> dict[str, Any]:
    """A ConfigMap, as a cache unless it is not labelled."""
    labels = {argo.CONFIGMAP_TYPE: argo.CONFIGMAP_TYPE_CACHE} if labelled else {}
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    status, made = cluster.create(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
    )
    assert status == 201, made
    return dict(made)


def data(cluster: Cluster, namespace: str, name: str) -> dict[str, str]:
    """What it holds."""
    status, found = cluster.get("ConfigMap", namespace, name)
    assert status == 200, found
    return found.get("data") or {}
