"""The repositories that are looked into: what an admin says of them, and which one an artifact is in. Pure.

Nothing else is ever contacted. Where an artifact lies is said by entries, and whoever may write a ConfigMap,
or report a step's outputs, says there what he likes. So an entry names no host here: it names one of these
repositories, by saying where that is, or none.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import msgspec
import yaml

from argo import artifacts

MOST = 100
"""Repositories of a file …"""
MOST_BYTES = 1 << 20
"""… and its bytes: what a Secret can hold."""
LONGEST_KEY = 1024
"""Characters of a key: what S3, GCS and Azure take at most, in bytes."""
_HOST = re.compile(r"([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?", re.ASCII)
_AWS = re.compile(r"s3(\.dualstack)?([.-][a-z0-9-]+)?\.amazonaws\.com(\.cn)?(:443)?", re.ASCII)


class ConfigError(ValueError):
    """What is wrong with the file; the text names the field and says what to write instead."""


class _Table(
    msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, omit_defaults=True, rename="camel"
):
    """One object of the file. A field `…File` names a file beside it, or says where one is."""


class S3(_Table, frozen=True):
    """S3, or what speaks it; the fields are those of Argo's `s3`, with files instead of Secrets."""

    endpoint: str
    bucket: str
    region: str = ""
    insecure: bool = False
    access_key_file: str = ""
    secret_key_file: str = ""
    ca_file: str = ""
    use_sdk_creds: bool = msgspec.field(default=False, name="useSDKCreds")

    @property
    def is_aws(self) -> bool:
        """It is Amazon's own, whose host follows from the region."""
        return _AWS.fullmatch(self.endpoint.lower()) is not None

    @property
    def place(self) -> tuple[str, ...]:
        """What of a location says that it is in here."""
        return ("s3", self.endpoint.lower(), self.bucket)

    def check(self) -> None:
        """ConfigError for what cannot be."""
        _need(_HOST.fullmatch(self.endpoint.lower()), "s3.endpoint", 'must be like "minio.argo:9000"')
        _need(self.bucket, "s3.bucket", "must be the name of a bucket")
        _both("s3", self.access_key_file, "accessKeyFile", self.secret_key_file, "secretKeyFile")
        _either("s3.useSDKCreds", self.use_sdk_creds, self.access_key_file, "accessKeyFile")


class GCS(_Table, frozen=True):
    """Google Cloud Storage."""

    bucket: str
    endpoint: str = "https://storage.googleapis.com"
    service_account_key_file: str = ""
    ca_file: str = ""
    use_sdk_creds: bool = msgspec.field(default=False, name="useSDKCreds")

    @property
    def place(self) -> tuple[str, ...]:
        """As of S3."""
        return ("gcs", self.bucket)

    def check(self) -> None:
        """As of S3."""
        _need(self.bucket, "gcs.bucket", "must be the name of a bucket")
        _url("gcs.endpoint", self.endpoint)
        _either("gcs.useSDKCreds", self.use_sdk_creds, self.service_account_key_file, "serviceAccountKeyFile")


class Azure(_Table, frozen=True):
    """A container of Azure Blob Storage."""

    endpoint: str
    container: str
    account_key_file: str = ""
    ca_file: str = ""
    use_sdk_creds: bool = msgspec.field(default=False, name="useSDKCreds")

    @property
    def account(self) -> str:
        """The storage account, found as Argo does it (determineAccountName in artifacts/azure/azure.go)."""
        parts = urlsplit(self.endpoint)
        if parts.hostname in ("127.0.0.1", "localhost"):
            return parts.path.strip("/").partition("/")[0]
        return (parts.hostname or "").partition(".")[0]

    @property
    def place(self) -> tuple[str, ...]:
        """As of S3."""
        return ("azure", self.endpoint.lower().rstrip("/"), self.container)

    def check(self) -> None:
        """As of S3."""
        _url("azure.endpoint", self.endpoint)
        _need(self.container, "azure.container", "must be the name of a container")
        _need(
            self.account,
            "azure.endpoint",
            'must name the account, as "https://ACCOUNT.blob.core.windows.net"',
        )
        _either("azure.useSDKCreds", self.use_sdk_creds, self.account_key_file, "accountKeyFile")


class HTTP(_Table, frozen=True):
    """A web server, for Argo's `http` and `artifactory`: everything whose URL begins with this one."""

    url: str
    username_file: str = ""
    password_file: str = ""
    ca_file: str = ""

    @property
    def base(self) -> str:
        """The URL, which ends with a slash."""
        return self.url.rstrip("/") + "/"

    @property
    def place(self) -> tuple[str, ...]:
        """As of S3."""
        return ("http", self.base)

    def check(self) -> None:
        """As of S3."""
        _url("http.url", self.url)
        _both("http", self.username_file, "usernameFile", self.password_file, "passwordFile")


Kind = S3 | GCS | Azure | HTTP


class Repository(_Table, frozen=True):
    """One repository. `name` is for people."""

    name: str
    namespaces: tuple[str, ...] = ()
    """The Namespaces whose entries are looked for in it; none is all of them."""
    changed: str = "miss"
    """What an artifact is whose content is another one than when it was stored."""
    s3: S3 | None = None
    gcs: GCS | None = None
    azure: Azure | None = None
    http: HTTP | None = None

    @property
    def kind(self) -> Kind:
        """The one that there is."""
        (only,) = self.kinds
        return only

    @property
    def kinds(self) -> list[Kind]:
        """Those that are given: one, if the file is sound."""
        return [one for one in (self.s3, self.gcs, self.azure, self.http) if one is not None]

    @property
    def files(self) -> list[str]:
        """The files that it names."""
        said = msgspec.structs.asdict(self.kind)
        return [value for field, value in said.items() if field.endswith("_file") and value]


class _File(_Table, frozen=True):
    repositories: tuple[Repository, ...] = ()


class ArtifactLocation(NamedTuple):
    """Where an artifact is: its key in a repository, its whole URL in one of HTTP."""

    repository: Repository
    key: str


def parse(text: bytes) -> tuple[Repository, ...]:
    """Read the file, YAML or JSON; ConfigError."""
    try:
        found = msgspec.convert(yaml.safe_load(text) or {}, _File)
    except msgspec.ValidationError as error:
        raise ConfigError(str(error).replace("`$.", "`").replace("`$`", "the whole")) from None
    except Exception as error:  # where a tag does not go with its value: KeyError, IndexError and others
        where = getattr(error, "problem_mark", None)
        # Never its text: a key may stand where it does not belong.
        raise ConfigError("it is no YAML" + (f", line {where.line + 1}" if where else "")) from None
    repositories, seen = found.repositories, dict[tuple[str, ...], str]()
    _need(len(repositories) <= MOST, "repositories", f"must be {MOST} at most")
    for number, one in enumerate(repositories):
        try:
            _check(one, seen)
        except ConfigError as error:
            raise ConfigError(f"repositories[{number}].{error}") from None
    return repositories


def _check(one: Repository, seen: dict[tuple[str, ...], str]) -> None:
    _need(_NAME.fullmatch(one.name), "name", "must be letters, digits, dashes and dots, 63 at most")
    _need(one.changed in ("miss", "serve"), "changed", "must be miss or serve")
    if len(one.kinds) != 1:
        raise ConfigError("s3: exactly one of s3, gcs, azure and http must be given")
    one.kind.check()
    for taken in (("name", one.name), one.kind.place):
        _need(taken not in seen, "name", f"is the same repository as {seen.get(taken)}, or has its name")
        seen[taken] = one.name


class Repositories:
    """Finds the repository of an artifact."""

    def __init__(self, repositories: tuple[Repository, ...] = ()) -> None:
        self._by_place = {one.kind.place: one for one in repositories}
        self._of_http = [one for one in repositories if one.http is not None]

    def find(self, namespace: str, artifact: Mapping[str, Any]) -> ArtifactLocation | str | None:
        """Where the artifact of an entry of this Namespace is looked for.

        A text says why it is not: nobody is to be asked about it. None: what it says is no place but the
        content itself, or it lies nowhere.
        """
        driver = artifacts.driver(artifact)
        if driver in (None, "raw"):
            return None
        location = artifact[driver]
        if driver in ("http", "artifactory"):
            found, key = self._find_http(str(location.get("url", "")))
        else:
            at = _LOCATED[driver](location) if driver in _LOCATED else ()
            found = self._by_place.get((driver, *at))
            key = str(location.get(artifacts.DRIVERS[driver].field, ""))
        if found is None:
            return f"no repository is configured for where it lies ({driver})"
        if found.namespaces and namespace not in found.namespaces:
            return f"repository {found.name} is not for this Namespace"
        if found.http is None and not is_plain(key):
            return f"its key in repository {found.name} is one that cannot be asked for"
        return ArtifactLocation(found, key)

    def _find_http(self, url: str) -> tuple[Repository | None, str]:
        """The one whose URL is the longest beginning; a URL that means something else is in none."""
        try:
            parts = urlsplit(url)
        except ValueError:
            return None, ""
        path = unquote(parts.path)
        plain = not (parts.query or parts.fragment or "\\" in path) and is_plain(path.removeprefix("/"))
        fits = [one for one in self._of_http if one.http is not None and url.startswith(one.http.base)]
        if not plain or not fits:
            return None, ""
        return max(fits, key=lambda one: len(one.http.base if one.http else "")), url


_LOCATED: Mapping[str, Callable[[Mapping[str, Any]], tuple[str, ...]]] = {
    "s3": lambda at: (str(at.get("endpoint", "")).lower(), str(at.get("bucket", ""))),
    "gcs": lambda at: (str(at.get("bucket", "")),),
    "azure": lambda at: (str(at.get("endpoint", "")).lower().rstrip("/"), str(at.get("container", ""))),
}
"""By driver, what of a location a repository's `place` is made of."""


def is_plain(key: str) -> bool:
    """Whether the key means itself in a URL's path; `a//b`, `/a`, `a/` and `a/../b` would mean others."""
    parts = key.split("/")
    return key.isprintable() and len(key) <= LONGEST_KEY and not {"", ".", ".."} & {*parts}


def _need(so: object, field: str, what: str) -> None:
    if not so:
        raise ConfigError(f"{field}: {what}")


def _url(field: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and _HOST.fullmatch(parts.netloc) and parts.port != 0
    except ValueError:
        good, parts = False, urlsplit("")
    _need(
        good and not (parts.query or parts.fragment),
        field,
        'must be like "https://files.example/argo", without a user, a query and a fragment, in lower case',
    )


def _both(kind: str, one: str, name: str, other: str, other_name: str) -> None:
    if bool(one) != bool(other):
        lacks, has = (name, other_name) if other else (other_name, name)
        raise ConfigError(f"{kind}.{lacks}: must be given where {has} is")


def _either(field: str, ambient: bool, file: str, name: str) -> None:
    _need(
        not (ambient and file), field, f"does not go with {name}: credentials are in files or the Pod's own"
    )
