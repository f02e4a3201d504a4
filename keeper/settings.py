"""The settings of `python -m keeper`, in the order of --help; docs/configuration.md is made from them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from keeper.postgresql.store import LEAST_CONNECTIONS
from memoize import plan
from memoize.keeper_status import EVERY, KeeperStatus, Namespaces
from server import settings, values
from server.settings import ServerSettings, setting


@dataclass(frozen=True, slots=True)
class Settings(ServerSettings):
    """The settings of one keeper process. Times are in seconds."""

    certs: str = setting(
        "certs",
        values.one_of("cluster", "files"),
        "cluster",
        "cluster: serve the certificate in the Secret, which the webhook keeps; files: what is in --cert-dir",
    )
    state_dir: Path = setting(
        "state-dir",
        values.DIRECTORY,
        "/run/stepmemo/state",
        "where it is written down how the last starts ended; must outlive the container, not the Pod",
    )
    namespaces: tuple[str, ...] = setting(
        "namespaces",
        values.LABELS,
        "",
        "the Namespaces whose steps are decided from outside of their Pods; empty: all of them",
    )
    gate_timeout: float = setting(
        "gate-timeout",
        values.seconds("1s", "5m"),
        "30s",
        "how long a Pod that cannot be decided stays gated before it runs",
    )
    single_flight_timeout: float = setting(
        "single-flight-timeout",
        values.seconds("0s", "24h"),
        "10m",
        "how long a step may wait for the outputs of an equal step that runs; 0s: no step waits",
    )
    single_flight_waiters: int = setting(
        "single-flight-waiters",
        values.count(1, 100_000),
        "1000",
        "how many steps of a Namespace may wait for equal steps at the same time, if it says nothing else",
    )
    requests_per_second: int = setting(
        "requests-per-second",
        values.count(1, 10_000),
        "200",
        "the keeper's requests to the API server at most, for all Namespaces, and ten times as many at once "
        "after a rest; 2 for each hit, 4 to 7 for each step that is stored",
    )
    nudge: str = setting(
        "nudge",
        values.one_of("on", "off"),
        "on",
        "whether Workflows are annotated after hits, so that Argo's controller looks at once, where it does",
    )
    controllers: tuple[tuple[str, str], ...] = setting(
        "controller-configmaps",
        values.OBJECTS,
        "argo/workflow-controller-configmap",
        "the ConfigMaps of Argo's controllers: where one limits parallelism or is not known, --nudge is off",
    )
    metrics_namespaces: int = setting(
        "metrics-namespaces",
        values.count(0, 1_000),
        "0",
        "how many Namespaces metrics tell apart, those that come first; the others are `other`; 0: none",
    )
    hit_interval: float = setting(
        "hit-interval",
        values.seconds("1s", "24h"),
        "10m",
        "the shortest time between two updates of an entry's lastHitTimestamp",
    )
    cache_max_bytes: int = setting(
        "cache-max-bytes",
        values.CACHE_BYTES,
        "1Mi",
        "how many bytes a cache may hold before entries make room for others, if its Namespace says nothing "
        "else; a ConfigMap may say less",
    )
    gc_unused_for: float = setting(
        "gc-unused-for",
        values.optional_seconds("1h", "8760h"),
        "",
        "clean caches up: entries go that were not used for so long, or have expired; empty: none go",
    )
    verify_artifacts: Path | None = setting(
        "verify-artifacts",
        values.OPTIONAL_FILE,
        "",
        "look for the artifacts of entries before they are served, in the repositories that this file names",
    )
    store: str = setting(
        "store",
        values.one_of("configmap", "postgresql"),
        "configmap",
        "where entries are kept: in ConfigMaps, as Argo does, or in the database of --dsn-file",
    )
    dsn_file: Path = setting(
        "dsn-file",
        values.FILE,
        "/etc/stepmemo/postgresql/dsn",
        "the file with the DSN of --store postgresql: postgresql://USER:PASSWORD@HOST:5432/DATABASE",
    )
    postgresql_connections: int = setting(
        "postgresql-connections",
        values.count(LEAST_CONNECTIONS, 1_000),
        "16",
        "connections of each replica to the database at most",
    )
    postgresql_max_bytes_per_namespace: int = setting(
        "postgresql-max-bytes-per-namespace",
        values.BYTES,
        "1Gi",
        "how much of the database a Namespace's entries may take before those used longest ago go, if it "
        "says nothing else",
    )


DECLARED = {one.flag: one for one in settings.declared(Settings)}
"""Every setting by its flag."""


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """The settings; SettingsError with everything that is wrong with them."""
    return settings.parse(
        Settings,
        argv,
        environ,
        _conflicts,
        program="python -m keeper",
        description="The keeper of stepmemo: decides gated step Pods, stores outputs, serves sidecars.",
    )


def _conflicts(read: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with values that could be read."""
    interval, unused = read.get("hit-interval", 0.0), read.get("gc-unused-for", 0.0)
    if 0 < unused < 2 * interval:
        yield f"{DECLARED['gc-unused-for']}: must be at least twice {DECLARED['hit-interval']}"
    if read.get("verify-artifacts") and find_spec("obstore") is None:
        yield f"{DECLARED['verify-artifacts']}: obstore is not installed: pip install 'stepmemo[verify]'"
    kept = Namespaces(frozenset(read.get("namespaces", ())))
    longest = KeeperStatus(  # what to_json comes to at last: the other lists shown as all, or left out
        keeps=kept,
        wait_seconds=int(read.get("single-flight-timeout", 0)),
        plans=plan.READS,
        backlogged=EVERY,
        stopped=EVERY,
        trial=EVERY,
    )
    shown = KeeperStatus.from_json(longest.to_json())
    if shown is None or shown.keeps != kept:
        yield f"{DECLARED['namespaces']}: too many names for the keeper's Lease; leave it empty to keep all"
