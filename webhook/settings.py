"""The server's settings: every flag has a STEPMEMO_… twin in the environment, and the flag wins.

Everything is checked before anything starts, and everything that is wrong is said at once.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from webhook import values
from webhook.containers import InjectSettings
from webhook.delivery import Delivery
from webhook.qos import quantity


class SettingsError(ValueError):
    """All that is wrong with the settings, one line each in `errors`."""

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = tuple(errors)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the server was told. Empty `host`: every address. `shutdown_delay` is in seconds."""

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
    log_format: str


@dataclass(frozen=True, slots=True)
class _Flag:
    """One setting. `read` turns text into a value, or raises ValueError saying what the text must be."""

    name: str
    read: Callable[[str], Any]
    default: str | None
    placeholder: str
    help: str

    @property
    def env(self) -> str:
        return "STEPMEMO_" + self.name.upper().replace("-", "_")

    @property
    def attribute(self) -> str:
        return self.name.replace("-", "_")

    def __str__(self) -> str:
        return f"--{self.name} ({self.env})"


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
    errors += _beyond_limits(chosen.get("requests"), chosen.get("limits"))
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
            gate=Delivery(chosen["gate"]),
            check_timeout_ms=chosen["check_timeout"],
            capture_timeout_ms=chosen["capture_timeout"],
            cpu_request=chosen["requests"]["cpu"],
            memory_request=chosen["requests"]["memory"],
            cpu_limit=chosen["limits"]["cpu"],
            memory_limit=chosen["limits"]["memory"],
        ),
        log_format=chosen["log_format"],
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m webhook",
        description="The admission webhooks of stepmemo.",
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
    flags = " and ".join(str(flag) for flag in FLAGS if flag.name in ("requests", "limits"))
    return [
        f"{flags}: {name}: the request {amount} is above the limit {limits[name]}"
        for name, amount in (requests or {}).items()
        if limits and quantity(amount) > quantity(limits[name])
    ]


_TIME_OUT = values.milliseconds("100ms", "60s")

FLAGS = (
    _Flag("listen", values.address, ":8443", "HOST:PORT", "where to serve; without a host, on every address"),
    _Flag(
        "shutdown-delay",
        values.milliseconds("0s", "60s"),
        "5s",
        "DURATION",
        "how long to go on serving after SIGTERM, until no endpoint names this Pod any more",
    ),
    _Flag(
        "certs",
        values.one_of("cluster", "files"),
        "cluster",
        "cluster|files",
        "cluster: keep a certificate in a Secret, and caBundle written; files: serve what --cert-dir holds",
    ),
    _Flag(
        "cert-dir",
        values.directory,
        "/run/stepmemo/certs",
        "DIR",
        "where tls.crt and tls.key are, or are written to",
    ),
    _Flag("namespace", values.label, "stepmemo", "NAME", "the Namespace of the Service and the Secret"),
    _Flag("service", values.label, "stepmemo", "NAME", "the Service that the certificate is for"),
    _Flag("secret", values.subdomain, "stepmemo-certs", "NAME", "the Secret that holds the certificate"),
    _Flag(
        "webhook-configuration",
        values.subdomain,
        "stepmemo",
        "NAME",
        "the MutatingWebhookConfiguration whose caBundle is kept",
    ),
    _Flag(
        "image",
        values.image,
        None,
        "IMAGE",
        "the image of the injected containers, which is the server's own",
    ),
    _Flag(
        "image-pull-policy",
        values.one_of("Always", "IfNotPresent", "Never"),
        "IfNotPresent",
        "POLICY",
        "Always, IfNotPresent or Never, for the injected containers",
    ),
    _Flag(
        "image-pull-secrets",
        values.subdomains,
        "",
        "NAME,…",
        "Secrets in the workflows' own namespaces, added to the Pods' imagePullSecrets",
    ),
    _Flag(
        "gate",
        values.one_of(*Delivery),
        "init",
        "init|image-volume",
        "how the gate gets into a Pod: by an init container, or by the image as a volume (Kubernetes 1.35)",
    ),
    _Flag(
        "check-timeout", _TIME_OUT, "2s", "DURATION", "how long a step waits for its look-up before it runs"
    ),
    _Flag("capture-timeout", _TIME_OUT, "2s", "DURATION", "how long storing a step's outputs may take"),
    _Flag(
        "requests",
        values.resources,
        "cpu=10m,memory=32Mi",
        "cpu=…,memory=…",
        "what an injected container requests",
    ),
    _Flag(
        "limits",
        values.limits,
        "cpu=500m,memory=64Mi",
        "cpu=…,memory=…",
        "what an injected container may use",
    ),
    _Flag(
        "validate",
        values.one_of("enforce", "warn", "off"),
        "enforce",
        "enforce|warn|off",
        "what happens to a workflow whose memoize block cannot work; a Namespace label says otherwise",
    ),
    _Flag("log-format", values.one_of("text", "json"), "text", "text|json", "how log lines look"),
)
"""Every setting, in the order of --help."""
