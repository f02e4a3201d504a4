"""Where an artifact lies: Argo's ArtifactLocation, made whole.

A step reports an artifact with its key alone; the bucket and the rest stand in the archiveLocation of its
template (pkg/apis/workflow/v1alpha1/workflow_types.go, Relocate). A later step resolves that key against its
own template's repository, which need not be the same one: an entry must hold all of it.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

Location = Mapping[str, Any]
"""The driver's object: what stands under `s3`, `gcs`, …"""


class _Driver(NamedTuple):
    """How one artifact driver keeps its key, and when its location is whole."""

    field: str
    """Holds the key; of a URL, the path is the key. Empty where the driver has none."""
    whole: Callable[[Location], bool]


def _filled(*fields: str) -> Callable[[Location], bool]:
    return lambda location: all(location.get(field) for field in fields)


DRIVERS = {
    "artifactory": _Driver("url", _filled("url", "usernameSecret")),
    "azure": _Driver("blob", _filled("endpoint", "container", "blob")),
    "git": _Driver("", _filled("repo")),
    "gcs": _Driver("key", _filled("bucket", "key")),
    "hdfs": _Driver("path", _filled("addresses")),
    "http": _Driver("url", _filled("url")),
    "oss": _Driver("key", _filled("endpoint", "bucket", "key")),
    "raw": _Driver("", lambda _: True),
    "s3": _Driver("key", _filled("endpoint", "bucket", "key")),
    "plugin": _Driver("key", _filled("name", "configuration", "key")),
}
"""In the order in which Argo looks for them (ArtifactLocation.Get), with its own HasLocation of each."""


class NoLocationError(ValueError):
    """An artifact whose place cannot be told; the text says why."""


def repository(archive_location: object) -> dict[str, Any] | None:
    """Return what a template's `archiveLocation` says of every artifact: `{driver: location}`, keyless.

    None where there is none, or one that keys cannot be put into.
    """
    if not isinstance(archive_location, Mapping):
        return None
    name = driver(archive_location)
    if name is None or not DRIVERS[name].field:
        return None
    location = dict(archive_location[name])
    field = DRIVERS[name].field
    if field == "url":
        try:
            location[field] = _with_path(str(location.get(field, "")), "")
        except NoLocationError:
            return None
    else:
        location.pop(field, None)
    return {name: location}


def located(artifact: Mapping[str, Any], repo: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the artifact with its full location, taken from `repo` (see `repository`) unless it has one.

    Raises NoLocationError where neither says enough.
    """
    name = driver(artifact)
    if name is None:
        raise NoLocationError("was reported without a location")
    kind, location = DRIVERS[name], artifact[name]
    if kind.whole(location):
        return dict(artifact)
    key = _key(kind, location)
    if not key:
        raise NoLocationError(f"was reported without its {name} {kind.field or 'location'}")
    if not repo:
        raise NoLocationError("has a key but its template has no archiveLocation")
    target, base = next(iter(repo.items()))
    rest = {field: value for field, value in artifact.items() if field not in DRIVERS}
    full = _with_key(DRIVERS[target], base, key)
    if not DRIVERS[target].whole(full):
        raise NoLocationError(f"has a key but its template's {target} archiveLocation is not whole")
    return {**rest, target: full}


def driver(holder: Mapping[str, Any]) -> str | None:
    """Return the driver that Argo takes for an artifact or an archiveLocation; None where it lies nowhere."""
    return next((name for name in DRIVERS if isinstance(holder.get(name), Mapping)), None)


def _key(driver: _Driver, location: Location) -> str:
    if not driver.field:
        return ""
    value = str(location.get(driver.field, ""))
    return unquote(_path(value)) if driver.field == "url" else value


def _with_key(driver: _Driver, location: Location, key: str) -> dict[str, Any]:
    value = _with_path(str(location.get("url", "")), key) if driver.field == "url" else key
    return {**location, driver.field: value}


def _path(url: str) -> str:
    try:
        return urlsplit(url).path
    except ValueError as error:
        raise NoLocationError(f"has no usable url: {error}") from None


def _with_path(url: str, path: str) -> str:
    """Return `url` with the unescaped `path` in place of its own, escaped as Go's url.URL does it."""
    _path(url)
    escaped = quote(path, safe="/$&+,:;=@~")
    if escaped and not escaped.startswith("/"):
        escaped = "/" + escaped
    return urlsplit(url)._replace(path=escaped).geturl()
