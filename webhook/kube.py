"""Requests to the API server, as plain JSON.

kubernetes_asyncio gives the connection, the credentials (with a token that is read anew) and the time-outs;
its models are left out, since they know neither Argo's kinds nor an object's metadata alone.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes_asyncio import config
from kubernetes_asyncio.client import ApiClient, Configuration
from kubernetes_asyncio.client.exceptions import ApiException

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
"""Accept header that spares us the rest of an object: a Workflow may well weigh a megabyte."""
FAILURES = (ApiException, aiohttp.ClientError, TimeoutError, OSError, ValueError, config.ConfigException)
"""What a request fails with. ValueError: the answer is not JSON; ConfigException: the token file is empty."""


async def connect() -> ApiClient:
    """A client by kubectl's rules: $KUBECONFIG or ~/.kube/config, else the Pod's service account.

    kubernetes_asyncio.config.ConfigException where there is neither. The caller closes it.
    """
    configuration = Configuration()
    if kubeconfig := _kubeconfig():
        await config.load_kube_config(kubeconfig, client_configuration=configuration, persist_config=False)
    else:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    api = ApiClient(configuration)
    api.user_agent = "stepmemo-webhook"
    return api


def _kubeconfig() -> str | None:
    path = Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
    return str(path) if path.exists() else None


async def request(
    api: ApiClient,
    method: str,
    path: str,
    *,
    seconds: float,
    body: object = None,
    accept: str = JSON,
    content_type: str = JSON,
    query: Sequence[tuple[str, str]] = (),
) -> Any:
    """The answer's JSON; one of FAILURES for anything but a 2xx within `seconds`.

    An ApiException's `headers` hold the Retry-After of a 429 or 503. `path` is taken as it is: whoever puts a
    name into it that somebody else wrote has quoted it.
    """
    return await api.call_api(
        path,
        method,
        query_params=list(query),
        header_params={"Accept": accept, "Content-Type": content_type},
        body=body,
        auth_settings=["BearerToken"],
        response_types_map={200: "object", 201: "object", 202: "object"},
        _return_http_data_only=True,
        _request_timeout=seconds,
    )


def explain(error: Exception) -> str:
    """One of FAILURES in a few words, for a log line."""
    if isinstance(error, ApiException):
        return f"{error.status} {error.reason}"
    return f"{type(error).__name__} {error}".rstrip()
