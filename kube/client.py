"""Requests to the API server, as plain JSON.

kubernetes_asyncio gives the connection, the credentials (with a token that is read anew) and the time-outs;
its models are left out, since they know neither Argo's kinds nor an object's metadata alone.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes_asyncio import config
from kubernetes_asyncio.client import ApiClient, Configuration
from kubernetes_asyncio.client.exceptions import ApiException

from memoize.outcome import Outcome
from memoize.reasons import Reason

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
    # Two watches for each Namespace that is kept would take all of the 100 connections that are the default;
    # whoever sends many requests bounds them himself.
    configuration.connection_pool_maxsize = 0
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

    See `retry_after` for what an ApiException asks for. `path` is taken as it is: whoever puts a
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


def retry_after(error: Exception, most: float) -> float:
    """The seconds that the API server asks to be left alone for, `most` of them at most.

    0 where it names none, or a date, and for what is no answer of its.
    """
    headers: Mapping[str, str] = (isinstance(error, ApiException) and error.headers) or {}
    text = headers.get("Retry-After", "")
    return min(float(text), most) if text.isascii() and text.isdigit() else 0.0


def refusal(error: Exception) -> Outcome:
    """One of FAILURES as an outcome."""
    forbidden = isinstance(error, ApiException) and error.status in (401, 403)
    return Outcome(Reason.FORBIDDEN if forbidden else Reason.API_UNAVAILABLE, explain(error))


def explain(error: Exception) -> str:
    """One of FAILURES in a few words, for a log line."""
    if isinstance(error, ApiException):
        return f"{error.status} {error.reason}"
    return f"{type(error).__name__} {error}".rstrip()
