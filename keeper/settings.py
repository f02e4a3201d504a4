"""The settings of `python -m keeper`, in the order of --help; docs/configuration.md is made from them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memoize import plan
from memoize.keeper_status import EVERY, KeeperStatus, Namespaces
from server import settings, values
from server.settings import setting


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one keeper process. Times are in seconds."""

    listen: tuple[str, int] = setting(
        "listen", values.ADDRESS, ":8443", "the address to serve on; without a host, every address"
    )
    shutdown_delay: float = setting(
        "shutdown-delay",
        values.seconds("0s", "60s"),
        "5s",
        "how long to go on serving after SIGTERM, until no endpoint names this Pod any more",
    )
    certs: str = setting(
        "certs",
        values.one_of("cluster", "files"),
        "cluster",
        "cluster: serve the certificate in the Secret, which the webhook keeps; files: what is in --cert-dir",
    )
    cert_dir: Path = setting(
        "cert-dir",
        values.DIRECTORY,
        "/run/stepmemo/certs",
        "where tls.crt, tls.key and ca.crt are (files) or are written to (cluster)",
    )
    state_dir: Path = setting(
        "state-dir",
        values.DIRECTORY,
        "/run/stepmemo/state",
        "where it is written down how the last starts ended; must outlive the container, not the Pod",
    )
    namespace: str = setting(
        "namespace", values.LABEL, "stepmemo", "the server's own Namespace, of the Lease and the Secret too"
    )
    secret: str = setting(
        "secret", values.SUBDOMAIN, "stepmemo-certs", "the Secret that holds the certificate"
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
        "how many steps of a Namespace may wait for equal steps at the same time",
    )
    requests_per_second: int = setting(
        "requests-per-second",
        values.count(1, 10_000),
        "200",
        "the keeper's requests to the API server at most, for all Namespaces; about 6 for each step a second",
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
        "how many bytes a cache may hold before entries make room for others; a ConfigMap may say less",
    )
    gc_unused_for: float = setting(
        "gc-unused-for",
        values.optional_seconds("1h", "8760h"),
        "",
        "clean caches up: entries go that were not used for so long, or have expired; empty: none go",
    )
    log_format: str = setting("log-format", values.one_of("text", "json"), "text", "how log lines look")


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
    kept = Namespaces(frozenset(read.get("namespaces", ())))
    longest = KeeperStatus(  # what to_json comes to at last: the other lists told as all, or left out
        keeps=kept,
        wait_seconds=int(read.get("single-flight-timeout", 0)),
        plans=plan.READS,
        backlogged=EVERY,
        stopped=EVERY,
        trial=EVERY,
    )
    told = KeeperStatus.from_json(longest.to_json())
    if told is None or told.keeps != kept:
        yield f"{DECLARED['namespaces']}: too many to be told to admission, which would gate no Pod"
