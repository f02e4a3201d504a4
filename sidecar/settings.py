"""Settings of the sidecar, from its environment: the step, its Pod, the API server, paths, time limit."""

import os
from collections.abc import Mapping
from typing import NamedTuple

from argo import names as argo
from memoize import names
from memoize.configmap import MOST_BYTES
from memoize.step import Step

_DEFAULT_TIMEOUT_MS = 2000
_PLANNED = 0.9
"""Share of the time until the entrypoint kills us after which everything is said and done."""


class SettingsError(ValueError):
    """The environment is not the one that the webhook writes; the text names the variable, not its value."""


class Server(NamedTuple):
    """The API server or our own, and how to speak to it."""

    host: str
    port: int
    credentials: str
    """Directory with `token`, and with `ca.crt` unless there is …"""
    ca: str = ""
    """… the PEM of the authority."""


class Settings(NamedTuple):
    """One run of the sidecar. `budget` is in seconds, less than what the entrypoint allows."""

    step: Step
    namespace: str
    pod_name: str
    pod_uid: str
    budget: float
    server: Server
    cache_max_bytes: int
    """How much a cache may hold, where the sidecar writes to it itself."""
    service: Server | None
    """Where the entries are kept; None where the sidecar reaches their ConfigMap itself."""
    shared_dir: str
    argo_dir: str
    argo_config_dir: str
    termination_log: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Read the variables of memoize.names; SettingsError when one is missing or not of its form."""

        def required(name: str) -> str:
            if value := environment.get(name):
                return value
            raise SettingsError(f"{name} is not set")

        def path(name: str, default: str) -> str:
            return environment.get(name) or default

        described = required(names.ENV_STEP)
        try:
            step = Step.from_json(described)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise SettingsError(f"{names.ENV_STEP} is not a step: {type(error).__name__}") from None
        timeout_ms = _integer(environment, names.ENV_TIMEOUT_MS, str(_DEFAULT_TIMEOUT_MS))
        return cls(
            step=step,
            namespace=required(names.ENV_NAMESPACE),
            pod_name=required(names.ENV_POD_NAME),
            pod_uid=required(names.ENV_POD_UID),
            budget=_PLANNED * timeout_ms / 1000,
            server=Server(
                host=required("KUBERNETES_SERVICE_HOST").strip("[]"),
                port=_integer(environment, "KUBERNETES_SERVICE_PORT", "443"),
                credentials=path(names.ENV_SERVICEACCOUNT_DIR, argo.SERVICEACCOUNT_DIR),
            ),
            cache_max_bytes=_integer(environment, names.ENV_CACHE_MAX_BYTES, str(MOST_BYTES)),
            service=_service(environment, path(names.ENV_TOKEN_DIR, names.TOKEN_DIR)),
            shared_dir=path(names.ENV_SHARED_DIR, names.SHARED_DIR),
            argo_dir=path(names.ENV_ARGO_DIR, argo.DIR),
            argo_config_dir=path(names.ENV_ARGO_CONFIG_DIR, argo.CONFIG_DIR),
            termination_log=path(names.ENV_TERMINATION_LOG, names.TERMINATION_LOG),
        )


def _service(environment: Mapping[str, str], credentials: str) -> Server | None:
    url = environment.get(names.ENV_SERVICE)
    if not url:
        return None
    ca = environment.get(names.ENV_SERVICE_CA)
    if not ca:
        raise SettingsError(f"{names.ENV_SERVICE_CA} is not set")
    # Not urllib.parse: the step waits for every import.
    authority = url.removeprefix("https://").removesuffix("/")
    host, port = authority, "443"
    if ":" in authority and not authority.endswith("]"):
        host, _, port = authority.rpartition(":")
    if not url.startswith("https://") or not host or "/" in host or not (port.isascii() and port.isdigit()):
        raise SettingsError(f"{names.ENV_SERVICE} is not of the form https://host[:port]")
    return Server(host.strip("[]"), int(port), credentials, ca)


def _integer(environment: Mapping[str, str], name: str, default: str) -> int:
    try:
        return int(environment.get(name) or default)
    except ValueError:
        raise SettingsError(f"{name} is not a number") from None
