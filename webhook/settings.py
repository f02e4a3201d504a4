"""The server's settings: every flag has a STEPMEMO_… twin in the environment, and the flag wins.

Everything is checked before anything starts, and everything that is wrong is said at once.
"""

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memoize import duration, spec
from webhook.inject import InjectSettings
from webhook.qos import quantity

_LEAST_MEMORY = "32Mi"
"""Less than this does not start Python; the step would run, and nothing would ever be looked up or stored."""
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_MILLISECOND = 1_000_000


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
    values: dict[str, Any] = {}
    errors: list[str] = []
    for flag in FLAGS:
        text = given[flag.attribute]
        if text is None:
            text = environ.get(flag.env) or flag.default
        if text is None:
            errors.append(f"{flag} is required: {flag.help}")
            continue
        try:
            values[flag.attribute] = flag.read(text)
        except ValueError as error:
            errors.append(f"{flag}: {json.dumps(text, ensure_ascii=False)} {error}")
    errors += _beyond_limits(values.get("requests"), values.get("limits"))
    if errors:
        raise SettingsError(errors)
    return _settings(values)


def _settings(values: Mapping[str, Any]) -> Settings:
    host, port = values["listen"]
    return Settings(
        host=host,
        port=port,
        shutdown_delay=values["shutdown_delay"] / 1000,
        certs=values["certs"],
        cert_dir=values["cert_dir"],
        namespace=values["namespace"],
        service=values["service"],
        secret=values["secret"],
        webhook_configuration=values["webhook_configuration"],
        validate=values["validate"],
        inject=InjectSettings(
            image=values["image"],
            image_pull_policy=values["image_pull_policy"],
            pull_secrets=values["image_pull_secrets"],
            check_timeout_ms=values["check_timeout"],
            capture_timeout_ms=values["capture_timeout"],
            cpu_request=values["requests"]["cpu"],
            memory_request=values["requests"]["memory"],
            cpu_limit=values["limits"]["cpu"],
            memory_limit=values["limits"]["memory"],
        ),
        log_format=values["log_format"],
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


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return text

    return read


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError('must be an address and a port, such as ":8443", "127.0.0.1:8443" or "[::1]:8443"')
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError('must have an IPv6 address in brackets, such as "[::1]:8443"')
    return host, int(port)


def _milliseconds(least: str, most: str) -> Callable[[str], int]:
    def read(text: str) -> int:
        nanoseconds = duration.parse(text)
        if not duration.parse(least) <= nanoseconds <= duration.parse(most):
            raise ValueError(f"must be between {least} and {most}")
        return nanoseconds // _MILLISECOND

    return read


def _image(text: str) -> str:
    if not re.fullmatch(r"\S+", text):
        raise ValueError("must be the name of an image, without blanks")
    return text


def _label(text: str) -> str:
    if not _LABEL.fullmatch(text):
        raise ValueError("must be lower-case letters, digits and dashes, 63 at most (a DNS-1123 label)")
    return text


def _subdomain(text: str) -> str:
    if not spec.is_dns1123_subdomain(text):
        raise ValueError("must be lower-case letters, digits, dashes and dots (a DNS-1123 subdomain)")
    return text


def _names(text: str) -> tuple[str, ...]:
    return tuple(_subdomain(name.strip()) for name in text.split(",") if name.strip())


def _directory(text: str) -> Path:
    if not text.strip():
        raise ValueError("must be a directory")
    return Path(text)


def _resources(text: str) -> dict[str, str]:
    """`cpu=10m,memory=32Mi` as a mapping of exactly these two."""
    pairs = dict(pair.strip().partition("=")[::2] for pair in text.split(","))
    if sorted(pairs) != ["cpu", "memory"]:
        raise ValueError('must name cpu and memory, such as "cpu=10m,memory=32Mi"')
    try:
        zeros = [name for name, amount in pairs.items() if quantity(amount) <= 0]
    except ValueError as error:
        raise ValueError(f"must hold quantities: {error}") from None
    if zeros:
        raise ValueError(f"must give {' and '.join(zeros)} an amount above 0")
    return pairs


def _limits(text: str) -> dict[str, str]:
    limits = _resources(text)
    if quantity(limits["memory"]) < quantity(_LEAST_MEMORY):
        raise ValueError(f"must leave Python at least memory={_LEAST_MEMORY}")
    return limits


def _beyond_limits(requests: Mapping[str, str] | None, limits: Mapping[str, str] | None) -> list[str]:
    """The API server refuses a container that requests more than its limit: every injected Pod, that is."""
    flags = " and ".join(str(flag) for flag in FLAGS if flag.name in ("requests", "limits"))
    return [
        f"{flags}: {name}: the request {amount} is above the limit {limits[name]}"
        for name, amount in (requests or {}).items()
        if limits and quantity(amount) > quantity(limits[name])
    ]


_TIME_OUT = _milliseconds("100ms", "60s")

FLAGS = (
    _Flag("listen", _address, ":8443", "HOST:PORT", "where to serve; without a host, on every address"),
    _Flag(
        "shutdown-delay",
        _milliseconds("0s", "60s"),
        "5s",
        "DURATION",
        "how long to go on serving after SIGTERM, until no endpoint names this Pod any more",
    ),
    _Flag(
        "certs",
        _one_of("cluster", "files"),
        "cluster",
        "cluster|files",
        "cluster: keep a certificate in a Secret, and caBundle written; files: serve what --cert-dir holds",
    ),
    _Flag(
        "cert-dir",
        _directory,
        "/run/stepmemo/certs",
        "DIR",
        "where tls.crt and tls.key are, or are written to",
    ),
    _Flag("namespace", _label, "stepmemo", "NAME", "the Namespace of the Service and the Secret"),
    _Flag("service", _label, "stepmemo", "NAME", "the Service that the certificate is for"),
    _Flag("secret", _subdomain, "stepmemo-certs", "NAME", "the Secret that holds the certificate"),
    _Flag(
        "webhook-configuration",
        _subdomain,
        "stepmemo",
        "NAME",
        "the MutatingWebhookConfiguration whose caBundle is kept",
    ),
    _Flag("image", _image, None, "IMAGE", "the image of the injected containers, which is the server's own"),
    _Flag(
        "image-pull-policy",
        _one_of("Always", "IfNotPresent", "Never"),
        "IfNotPresent",
        "POLICY",
        "Always, IfNotPresent or Never, for the injected containers",
    ),
    _Flag(
        "image-pull-secrets",
        _names,
        "",
        "NAME,…",
        "Secrets in the workflows' own namespaces, added to the Pods' imagePullSecrets",
    ),
    _Flag("gate", _one_of("init"), "init", "init", "how the gate gets into a Pod: by an init container"),
    _Flag(
        "check-timeout", _TIME_OUT, "2s", "DURATION", "how long a step waits for its look-up before it runs"
    ),
    _Flag("capture-timeout", _TIME_OUT, "2s", "DURATION", "how long storing a step's outputs may take"),
    _Flag(
        "requests", _resources, "cpu=10m,memory=32Mi", "cpu=…,memory=…", "what an injected container requests"
    ),
    _Flag("limits", _limits, "cpu=500m,memory=64Mi", "cpu=…,memory=…", "what an injected container may use"),
    _Flag(
        "validate",
        _one_of("enforce", "warn", "off"),
        "enforce",
        "enforce|warn|off",
        "what happens to a workflow whose memoize block cannot work; a Namespace label says otherwise",
    ),
    _Flag("log-format", _one_of("text", "json"), "text", "text|json", "how log lines look"),
)
"""Every setting, in the order of --help."""
