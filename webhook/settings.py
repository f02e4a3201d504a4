"""The settings of `python -m webhook`, in the order of --help; docs/configuration.md is made from them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kube.quantity import quantity
from server import settings, values
from server.settings import ServerSettings, group, setting
from webhook.inject.containers import InjectSettings


@dataclass(frozen=True, slots=True)
class Settings(ServerSettings):
    """The settings of one webhook process. Times are in seconds."""

    certs: str = setting(
        "certs",
        values.one_of("cluster", "files"),
        "cluster",
        "cluster: keep a certificate in a Secret, and write the caBundle; files: use what is in --cert-dir, "
        "where ca.crt is what steps trust",
    )
    pod_name: str = setting(
        "pod-name",
        values.OPTIONAL_SUBDOMAIN,
        "",
        "the server's own Pod, which is read for its image where --image is empty",
    )
    service: str = setting(
        "service", values.LABEL, "stepmemo-webhook", "the webhook's Service, which the certificate is for"
    )
    ca_secret: str = setting(
        "ca-secret", values.SUBDOMAIN, "stepmemo-ca", "the Secret that holds the CA's private key"
    )
    webhook_configuration: str = setting(
        "webhook-configuration",
        values.SUBDOMAIN,
        "stepmemo",
        "the MutatingWebhookConfiguration whose caBundle the server writes",
    )
    inject: InjectSettings = group(InjectSettings)
    access: str = setting(
        "access",
        values.one_of("service", "direct"),
        "service",
        "service: the keeper looks up and stores; direct: each step reaches its ConfigMaps itself",
    )
    store: str = setting(
        "store",
        values.one_of("configmap", "postgresql"),
        "configmap",
        "what the keeper's --store is: a step cannot reach a database itself (--access direct)",
    )
    keeper_service: str = setting(
        "keeper-service",
        values.LABEL,
        "stepmemo-keeper",
        "the keeper's Service in the same Namespace, which the certificate is for too",
    )
    keeper_url: str = setting(
        "keeper-url",
        values.HTTPS_URL,
        "",
        "where containers in step Pods reach the keeper, if not at https://KEEPER-SERVICE.NAMESPACE.svc",
    )
    validate: str = setting(
        "validate",
        values.one_of("enforce", "warn", "off"),
        "enforce",
        "what happens to a workflow whose memoize block cannot work; a Namespace's label overrides it",
    )
    auto_key_references: str = setting(
        "auto-key-references",
        values.one_of("name", "resource-version"),
        "name",
        "what of a step's Secrets and ConfigMaps counts in a key that is auto; resource-version: their uid "
        "and resourceVersion too, which takes the right to read them",
    )

    @property
    def count_versions(self) -> bool:
        """Whether the versions of Secrets and ConfigMaps count in computed keys."""
        return self.auto_key_references == "resource-version"

    @property
    def cache_service_url(self) -> str:
        """Where containers in step Pods reach the keeper's cache service."""
        return self.keeper_url or f"https://{self.keeper_service}.{self.namespace}.svc"


DECLARED = {one.flag: one for one in settings.declared(Settings)}
"""Every setting by its flag."""


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """The settings; SettingsError with everything that is wrong with them."""
    return settings.parse(
        Settings,
        argv,
        environ,
        _conflicts,
        program="python -m webhook",
        description="The admission webhooks of stepmemo.",
    )


def _conflicts(read: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with values together, of those that could be read."""
    image, pod, requests, limits = (
        DECLARED[flag] for flag in ("image", "pod-name", "sidecar-requests", "sidecar-limits")
    )
    if read.get(image.flag) == read.get(pod.flag) == "":
        yield f"{image} or {pod} is required: what to inject, or the server's own Pod to read it from"
    access, store = DECLARED["access"], DECLARED["store"]
    if read.get(access.flag) == "direct" and read.get(store.flag) == "postgresql":
        yield (
            f"{access} and {store}: steps that reach their caches themselves know ConfigMaps alone: set"
            " --access service, or --store configmap"
        )
    # The API server refuses a container that requests more than its limit: every injected Pod, that is.
    if requests.flag in read and limits.flag in read:
        most = read[limits.flag]
        for name, amount in read[requests.flag].items():
            if quantity(amount) > quantity(most[name]):
                yield f"{requests} and {limits}: {name}: the request {amount} is above the limit {most[name]}"
