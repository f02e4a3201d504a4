"""Every setting of the server: its flag, its variable, what it may be, what it is for."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from server import values
from webhook.pods.delivery import Delivery


@dataclass(frozen=True, slots=True)
class Flag:
    """One setting. `read` turns text into a value, or raises ValueError saying what the text must be."""

    name: str
    read: Callable[[str], Any]
    default: str | None
    placeholder: str
    help: str

    @property
    def env(self) -> str:
        """Its variable in the environment."""
        return "STEPMEMO_" + self.name.upper().replace("-", "_")

    @property
    def attribute(self) -> str:
        """Its name among parsed arguments."""
        return self.name.replace("-", "_")

    def __str__(self) -> str:
        return f"--{self.name} ({self.env})"


_TIME_OUT = values.milliseconds("100ms", "60s")

FLAGS = (
    Flag("listen", values.address, ":8443", "HOST:PORT", "where to serve; without a host, on every address"),
    Flag(
        "shutdown-delay",
        values.milliseconds("0s", "60s"),
        "5s",
        "DURATION",
        "how long to go on serving after SIGTERM, until no endpoint names this Pod any more",
    ),
    Flag(
        "certs",
        values.one_of("cluster", "files"),
        "cluster",
        "cluster|files",
        "cluster: keep a certificate in a Secret, and caBundle written; files: serve what --cert-dir holds",
    ),
    Flag(
        "cert-dir",
        values.directory,
        "/run/stepmemo/certs",
        "DIR",
        "where tls.crt, tls.key and ca.crt are, or are written to",
    ),
    Flag("namespace", values.label, "stepmemo", "NAME", "the Namespace of the Service and the Secret"),
    Flag("service", values.label, "stepmemo", "NAME", "the Service that the certificate is for"),
    Flag("secret", values.subdomain, "stepmemo-certs", "NAME", "the Secret that holds the certificate"),
    Flag(
        "webhook-configuration",
        values.subdomain,
        "stepmemo",
        "NAME",
        "the MutatingWebhookConfiguration whose caBundle is kept",
    ),
    Flag(
        "image",
        values.image,
        None,
        "IMAGE",
        "the image of the injected containers, which is the server's own",
    ),
    Flag(
        "image-pull-policy",
        values.one_of("Always", "IfNotPresent", "Never"),
        "IfNotPresent",
        "POLICY",
        "Always, IfNotPresent or Never, for the injected containers",
    ),
    Flag(
        "image-pull-secrets",
        values.subdomains,
        "",
        "NAME,…",
        "Secrets in the workflows' own namespaces, added to the Pods' imagePullSecrets",
    ),
    Flag(
        "injection",
        values.one_of(*Delivery),
        "init-container",
        "init-container|image-volume",
        "how the entrypoint gets into a Pod: by an init container or an image volume (Kubernetes 1.35)",
    ),
    Flag(
        "check-timeout", _TIME_OUT, "2s", "DURATION", "how long a step waits for its look-up before it runs"
    ),
    Flag("capture-timeout", _TIME_OUT, "2s", "DURATION", "how long storing a step's outputs may take"),
    Flag(
        "sidecar-requests",
        values.resources,
        "cpu=10m,memory=32Mi",
        "cpu=…,memory=…",
        "what an injected container requests",
    ),
    Flag(
        "sidecar-limits",
        values.limits,
        "cpu=500m,memory=64Mi",
        "cpu=…,memory=…",
        "what an injected container may use",
    ),
    Flag(
        "access",
        values.one_of("service", "direct"),
        "service",
        "service|direct",
        "service: the server keeps the caches; direct: each step reaches its own ConfigMaps",
    ),
    Flag(
        "service-url",
        values.https_url,
        "",
        "https://…",
        "where steps reach the server, if not at https://SERVICE.NAMESPACE.svc",
    ),
    Flag(
        "namespaces",
        values.labels,
        "",
        "NAME,…",
        "whose caches and steps the server keeps; none means all; others decide inside their Pods",
    ),
    Flag(
        "gate-timeout",
        values.milliseconds("1s", "5m"),
        "30s",
        "DURATION",
        "how long a Pod is held that cannot be decided, before it runs",
    ),
    Flag(
        "single-flight-timeout",
        values.milliseconds("0s", "24h"),
        "10m",
        "DURATION",
        "how long a step may wait for an equal one that runs; 0s: none waits",
    ),
    Flag(
        "single-flight-waiters",
        values.count(1, 100_000),
        "1000",
        "NUMBER",
        "how many steps of one Namespace may wait for others at once",
    ),
    Flag(
        "hit-interval",
        values.milliseconds("1s", "24h"),
        "10m",
        "DURATION",
        "how often at most the lastHitTimestamp of an entry is written",
    ),
    Flag(
        "validate",
        values.one_of("enforce", "warn", "off"),
        "enforce",
        "enforce|warn|off",
        "what happens to a workflow whose memoize block cannot work; a Namespace label says otherwise",
    ),
    Flag("log-format", values.one_of("text", "json"), "text", "text|json", "how log lines look"),
)
"""Every setting, in the order of --help."""
