"""The server's settings: every flag has a STEPMEMO_… twin in the environment, and the flag wins.

Everything is checked before anything starts, and everything that is wrong is said at once.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kube.quantity import quantity
from webhook.flags import FLAGS
from webhook.inject.containers import InjectSettings
from webhook.pods.delivery import Delivery


class SettingsError(ValueError):
    """All that is wrong with the settings, one line each in `errors`."""

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = tuple(errors)


@dataclass(frozen=True, slots=True)
class ServiceMode:
    """How the server keeps the caches and decides steps. `namespaces`: whose; none means all. In seconds."""

    service_url: str
    namespaces: tuple[str, ...]
    hold_timeout: float
    follow_timeout: float
    followers: int
    hit_interval: float


@dataclass(frozen=True, slots=True)
class Settings:
    """What the server was told. Empty `host`: every address. Times are in seconds.

    `keeping` is None where each step reaches its own ConfigMaps (`--access direct`).
    """

    host: str
    port: int
    shutdown_delay: float
    certs: str
    cert_dir: Path
    namespace: str
    service: str
    secret: str
    webhook_configuration: str
    validate: str
    inject: InjectSettings
    keeping: ServiceMode | None
    log_format: str


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Settings from the command line, else the environment (where empty means unset), else the defaults.

    SettingsError with everything that is wrong. --help and an unknown flag end the program, as argparse does.
    """
    given = vars(_parser().parse_args(argv))
    chosen: dict[str, Any] = {}
    errors: list[str] = []
    for flag in FLAGS:
        text = given[flag.attribute]
        if text is None:
            text = environ.get(flag.env) or flag.default
        if text is None:
            errors.append(f"{flag} is required: {flag.help}")
            continue
        try:
            chosen[flag.attribute] = flag.read(text)
        except ValueError as error:
            errors.append(f"{flag}: {json.dumps(text, ensure_ascii=False)} {error}")
    errors += _beyond_limits(chosen.get("sidecar_requests"), chosen.get("sidecar_limits"))
    if errors:
        raise SettingsError(errors)
    return _settings(chosen)


def _settings(chosen: Mapping[str, Any]) -> Settings:
    host, port = chosen["listen"]
    return Settings(
        host=host,
        port=port,
        shutdown_delay=chosen["shutdown_delay"] / 1000,
        certs=chosen["certs"],
        cert_dir=chosen["cert_dir"],
        namespace=chosen["namespace"],
        service=chosen["service"],
        secret=chosen["secret"],
        webhook_configuration=chosen["webhook_configuration"],
        validate=chosen["validate"],
        inject=InjectSettings(
            image=chosen["image"],
            image_pull_policy=chosen["image_pull_policy"],
            pull_secrets=chosen["image_pull_secrets"],
            gate=Delivery(chosen["injection"]),
            check_timeout_ms=chosen["check_timeout"],
            capture_timeout_ms=chosen["capture_timeout"],
            cpu_request=chosen["sidecar_requests"]["cpu"],
            memory_request=chosen["sidecar_requests"]["memory"],
            cpu_limit=chosen["sidecar_limits"]["cpu"],
            memory_limit=chosen["sidecar_limits"]["memory"],
        ),
        keeping=_keeping(chosen) if chosen["access"] == "service" else None,
        log_format=chosen["log_format"],
    )


def _keeping(chosen: Mapping[str, Any]) -> ServiceMode:
    return ServiceMode(
        service_url=chosen["service_url"] or f"https://{chosen['service']}.{chosen['namespace']}.svc",
        namespaces=chosen["namespaces"],
        hold_timeout=chosen["gate_timeout"] / 1000,
        follow_timeout=chosen["single_flight_timeout"] / 1000,
        followers=chosen["single_flight_waiters"],
        hit_interval=chosen["hit_interval"] / 1000,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m webhook",
        description="The server of stepmemo: admission webhooks, keeper and cache service.",
        epilog="Cluster access is kubectl's: $KUBECONFIG or ~/.kube/config, else the Pod's service account.",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for flag in FLAGS:
        default = "required" if flag.default is None else f"default {flag.default or 'none'}"
        parser.add_argument(
            f"--{flag.name}", metavar=flag.placeholder, help=f"{flag.help} [{flag.env}; {default}]"
        )
    return parser


def _beyond_limits(requests: Mapping[str, str] | None, limits: Mapping[str, str] | None) -> list[str]:
    """The API server refuses a container that requests more than its limit: every injected Pod, that is."""
    flags = " and ".join(str(flag) for flag in FLAGS if flag.name in ("sidecar-requests", "sidecar-limits"))
    return [
        f"{flags}: {name}: the request {amount} is above the limit {limits[name]}"
        for name, amount in (requests or {}).items()
        if limits and quantity(amount) > quantity(limits[name])
    ]
