"""Asks a repository about one object: the only module that sends anything to one, or imports what does.

Each request is a HEAD that is tried once. Where it says that there is nothing, the repository is asked to
list what lies below that key. Only a list that is there, and empty, shows that the object is gone: a
directory that was not packed is no object of its own (`archive: none`), and a bucket that does not exist, or
anything else that listens there, answers a HEAD by 404 as well.
"""

import asyncio
import base64
import re
import ssl
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import aiohttp
import obstore
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store
from yarl import URL

from keeper.artifacts.repositories import GCS, HTTP, S3, Azure, ConfigError, Kind
from keeper.artifacts.verifier import ObjectGone, Probe, There, Unknown
from server.program import user_agent

if TYPE_CHECKING:
    from obstore.store import AzureConfig, ClientConfig, GCSConfig, RetryConfig, S3Config

SECONDS = 1.0
"""For one request, its connection included."""
LONGEST_ETAG = 200
"""Characters of one that is of use: AWS' are 34 to 40, of what else speaks S3 not much more."""
_ONCE: "RetryConfig" = {"max_retries": 0, "retry_timeout": timedelta(0)}
_CONNECTIONS = 64
"""Of all HTTP repositories."""
_STATUS = re.compile(r"status code: ([0-9]{3})")
_NO_ANSWER = "HTTP error"
"""How the library's text goes on where a request failed that was not answered, or in time."""

ReadFile = Callable[[str], str]
"""The content of a file that the configuration names; ConfigError."""


class Web:
    """The connections to HTTP repositories; close it."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        """Made when it is first needed. It keeps nothing of an answer, and heeds no proxy variables."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=_CONNECTIONS),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(),  # none for the whole: kube.client says why
            )
        return self._session

    async def close(self) -> None:
        """Close them."""
        if self._session is not None:
            await self._session.close()


def probe(kind: Kind, read: ReadFile, web: Web) -> Probe:
    """What asks this repository; ConfigError where a file, or what the library makes of it, is no good."""
    try:
        if isinstance(kind, HTTP):
            return _HttpProbe(kind, read, web)
        return _ObjectProbe(_STORES[type(kind)](kind, read))
    except (BaseError, ValueError, TypeError) as error:
        if isinstance(error, ConfigError):
            raise
        # Never its text: it may hold what a file does.
        raise ConfigError(f"cannot be used as it is: {type(error).__name__}") from None


class _ObjectProbe:
    def __init__(self, store: Any) -> None:
        self._store = store

    async def __call__(self, key: str) -> There | ObjectGone | Unknown:
        try:
            found = await obstore.head_async(self._store, key)
        except FileNotFoundError:
            return await self._below(key)
        except (BaseError, OSError, ValueError) as error:
            return _unknown(error)
        return There(_strong(found.get("e_tag") or ""))

    async def _below(self, key: str) -> There | ObjectGone | Unknown:
        try:
            async for some in obstore.list(self._store, prefix=key, chunk_size=1):
                if some:
                    return There()
        except (BaseError, OSError, ValueError) as error:
            return _unknown(error)
        return ObjectGone()


class _HttpProbe:
    def __init__(self, kind: HTTP, read: ReadFile, web: Web) -> None:
        self._web, self._tls = web, _tls(kind, read)
        self._headers = dict[str, str]()
        if kind.username_file:
            both = f"{read(kind.username_file)}:{read(kind.password_file)}".encode()
            self._headers["Authorization"] = f"Basic {base64.b64encode(both).decode()}"

    async def __call__(self, key: str) -> There | ObjectGone | Unknown:
        try:
            # No redirect is followed: only what is configured is contacted.
            async with (
                asyncio.timeout(SECONDS),
                self._web.session.head(
                    URL(key), allow_redirects=False, headers=self._headers, ssl=self._tls
                ) as answer,
            ):
                if 200 <= answer.status < 300:
                    return There(_strong(answer.headers.get("ETag", "")))
                if answer.status in (404, 410):
                    return ObjectGone()
                return Unknown(f"status {answer.status}", down=answer.status >= 500)
        except (aiohttp.ClientError, OSError, ValueError):
            return Unknown("no answer", down=True)


def _unknown(error: Exception) -> Unknown:
    """The library's texts hold keys, and requests."""
    found = _STATUS.search(str(error))
    if found:
        return Unknown(f"status {found[1]}", down=found[1].startswith("5"))
    if isinstance(error, ValueError):
        return Unknown("it has a key that cannot be asked for")
    if _NO_ANSWER not in str(error):
        return Unknown("an answer that makes no sense")
    return Unknown("no answer", down=True)


def _strong(etag: str) -> str:
    """The ETag if it stands for the content byte by byte (RFC 9110, 8.8.1), else ""."""
    return etag if len(etag) <= LONGEST_ETAG and not etag.startswith("W/") and etag.isascii() else ""


def _tls(kind: HTTP, read: ReadFile) -> ssl.SSLContext | bool:
    if not kind.ca_file:
        return True
    try:
        return ssl.create_default_context(cadata=read(kind.ca_file))
    except ssl.SSLError:
        raise ConfigError("http.caFile: holds no certificate in PEM") from None


def _options(kind: S3 | GCS | Azure, read: ReadFile, *, plain: bool) -> "ClientConfig":
    options: ClientConfig = {
        "timeout": timedelta(seconds=SECONDS),
        "connect_timeout": timedelta(seconds=SECONDS),
        "allow_http": plain,
        "user_agent": user_agent("keeper"),
    }
    if kind.ca_file:
        options["root_certificate"] = read(kind.ca_file)
    return options


def _s3(kind: S3, read: ReadFile) -> S3Store:
    config: S3Config = {"region": kind.region or "us-east-1"}
    if not kind.is_aws:
        config["endpoint"] = f"{'http' if kind.insecure else 'https'}://{kind.endpoint}"
    if kind.access_key_file:
        config["access_key_id"] = read(kind.access_key_file)
        config["secret_access_key"] = read(kind.secret_key_file)
    elif not kind.use_sdk_creds:
        config["skip_signature"] = True
    options = _options(kind, read, plain=kind.insecure)
    return S3Store(kind.bucket, config=config, client_options=options, retry_config=_ONCE)


def _gcs(kind: GCS, read: ReadFile) -> GCSStore:
    config: GCSConfig = {"base_url": kind.endpoint}
    if kind.service_account_key_file:
        config["service_account_key"] = read(kind.service_account_key_file)
    elif not kind.use_sdk_creds:
        config["skip_signature"] = True
    options = _options(kind, read, plain=kind.endpoint.startswith("http:"))
    return GCSStore(kind.bucket, config=config, client_options=options, retry_config=_ONCE)


def _azure(kind: Azure, read: ReadFile) -> AzureStore:
    config: AzureConfig = {"account_name": kind.account, "endpoint": kind.endpoint.rstrip("/")}
    if kind.account_key_file:
        config["account_key"] = read(kind.account_key_file)
    elif not kind.use_sdk_creds:
        config["skip_signature"] = True
    options = _options(kind, read, plain=kind.endpoint.startswith("http:"))
    return AzureStore(kind.container, config=config, client_options=options, retry_config=_ONCE)


_STORES: dict[type, Callable[[Any, ReadFile], Any]] = {S3: _s3, GCS: _gcs, Azure: _azure}
