"""The settings of the keeper."""

from dataclasses import dataclass

from server import values
from server.settings import setting


@dataclass(frozen=True, slots=True)
class ServiceMode:
    """How steps are decided from outside of their Pods (`--access service`). Times are in seconds."""

    namespaces: tuple[str, ...] = setting(
        "namespaces",
        values.LABELS,
        "",
        "the Namespaces whose steps the server decides from outside of their Pods; empty: all of them",
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
