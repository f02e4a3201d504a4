"""What a setting may be: readers turn its text into a value, or raise ValueError saying what it must be."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Generic, TypeVar

from kube.quantity import quantity
from memoize import capacity, duration, spec
from memoize.configmap import MOST_BYTES

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)

_LEAST_MEMORY = "32Mi"
"""Less than this does not start Python; the step would run, and nothing would ever be looked up or stored."""
_LEAST_BYTES, _MOST_BYTES = quantity("1Mi"), quantity("1Ei")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_MILLISECOND = 1_000_000


@dataclass(frozen=True, slots=True)
class Reader(Generic[T]):
    """Reads the text of a setting.

    `placeholder` stands for the text in --help, `allowed` says in docs/configuration.md what it may be.
    """

    placeholder: str
    allowed: str
    read: Callable[[str], T]

    def __call__(self, text: str) -> T:
        """The value; ValueError whose text goes on after the setting's own."""
        return self.read(text)


def one_of(*words: str) -> Reader[str]:
    """One of a few words."""

    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return text

    return Reader("|".join(words), "one of " + ", ".join(f"`{word}`" for word in words), read)


def member(kind: type[E]) -> Reader[E]:
    """One of the words of an enumeration."""
    words = one_of(*kind)
    return Reader(words.placeholder, words.allowed, lambda text: kind(words(text)))


def milliseconds(least: str, most: str) -> Reader[int]:
    """A Go duration within these two, as whole milliseconds."""

    def read(text: str) -> int:
        nanoseconds = duration.parse(text)
        if not duration.parse(least) <= nanoseconds <= duration.parse(most):
            raise ValueError(f"must be between {least} and {most}")
        return nanoseconds // _MILLISECOND

    return Reader("DURATION", f"a Go duration from {least} to {most}", read)


def seconds(least: str, most: str) -> Reader[float]:
    """A Go duration within these two, as seconds."""
    whole = milliseconds(least, most)
    return Reader(whole.placeholder, whole.allowed, lambda text: whole(text) / 1000)


def optional_seconds(least: str, most: str) -> Reader[float]:
    """The same, or empty, which is 0."""
    some = seconds(least, most)
    return Reader(some.placeholder, f"{some.allowed}, or empty", lambda text: some(text) if text else 0.0)


def count(least: int, most: int) -> Reader[int]:
    """A whole number within these two."""

    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
            raise ValueError(f"must be a number between {least} and {most}")
        return int(text)

    return Reader("NUMBER", f"a whole number from {least} to {most}", read)


def _bytes(text: str) -> int:
    number = capacity.parse(text)
    if number > MOST_BYTES:
        raise ValueError('must be at most "1Mi", which is what a ConfigMap can hold')
    return number


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError('must be an address and a port, such as ":8443", "127.0.0.1:8443" or "[::1]:8443"')
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError('must have an IPv6 address in brackets, such as "[::1]:8443"')
    return host, int(port)


def _address_or_off(text: str) -> tuple[str, int] | None:
    if text == "off":
        return None
    try:
        return _address(text)
    except ValueError as error:
        raise ValueError(f'{error}, or "off"') from None


def _image(text: str) -> str:
    if re.search(r"\s", text):
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


def _names(name: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    """Reads such names with commas between them, each once; none are allowed too."""

    def read(text: str) -> tuple[T, ...]:
        return tuple(dict.fromkeys(name(one.strip()) for one in text.split(",") if one.strip()))

    return read


def _object(text: str) -> tuple[str, str]:
    namespace, slash, name = text.partition("/")
    if not slash:
        raise ValueError('must be like "argo/workflow-controller-configmap": a Namespace, "/" and a name')
    return _label(namespace), _subdomain(name)


def _https_url(text: str) -> str:
    if text and not re.fullmatch(r"https://([A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?", text):
        raise ValueError('must be like "https://stepmemo.stepmemo.svc", with a port where it is not 443')
    return text


def _directory(text: str) -> Path:
    if not text.strip():
        raise ValueError("must be a directory")
    return Path(text)


def _file(text: str) -> Path:
    if not text.strip():
        raise ValueError("must be a file")
    return Path(text)


def _amount(text: str) -> int:
    try:
        number = quantity(text)
    except ValueError:
        number = Fraction(0)
    if not _LEAST_BYTES <= number <= _MOST_BYTES:
        raise ValueError('must be between "1Mi" and "1Ei", such as "512Mi" or "10Gi"')
    return int(number)


def _resources(text: str) -> Mapping[str, str]:
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


def _limits(text: str) -> Mapping[str, str]:
    pairs = _resources(text)
    if quantity(pairs["memory"]) < quantity(_LEAST_MEMORY):
        raise ValueError(f"must leave Python at least memory={_LEAST_MEMORY}")
    return pairs


ADDRESS = Reader("HOST:PORT", "an address and a port, IPv6 in brackets", _address)
"""A host, "" for every one, and a port."""
ADDRESS_OR_OFF = Reader("HOST:PORT|off", f"{ADDRESS.allowed}, or `off`", _address_or_off)
"""The same, or None."""
IMAGE = Reader("IMAGE", "an image's name, or empty", _image)
"""Left to the container runtime to understand; may be empty."""
LABEL = Reader("NAME", "a DNS-1123 label", _label)
"""The name of a Namespace or a Service."""
CACHE_BYTES = Reader("BYTES", "bytes, such as `512Ki`, from 4Ki to 1Mi", _bytes)
"""What a cache may hold."""
SUBDOMAIN = Reader("NAME", "a DNS-1123 subdomain", _subdomain)
"""The name of most other objects."""
OPTIONAL_SUBDOMAIN = Reader("NAME", "a DNS-1123 subdomain, or empty", lambda text: text and _subdomain(text))
LABELS = Reader("NAME,…", "DNS-1123 labels with commas between them, or empty", _names(_label))
SUBDOMAINS = Reader("NAME,…", "DNS-1123 subdomains with commas between them, or empty", _names(_subdomain))
OBJECTS = Reader(
    "NAMESPACE/NAME,…",
    "Namespaces and names with `/` between them and commas after, or empty",
    _names(_object),
)
"""Objects of one kind, each in a Namespace."""
HTTPS_URL = Reader("https://…", "`https://` with a host and perhaps a port, or empty", _https_url)
DIRECTORY = Reader("DIR", "a directory, which need not be there", _directory)
FILE = Reader("FILE", "a file, which need not be there yet", _file)
OPTIONAL_FILE = Reader("FILE", "a file, or empty", lambda text: _file(text) if text else None)
"""The same, or None."""
BYTES = Reader("BYTES", "bytes as a Kubernetes quantity, such as `512Mi`, from 1Mi on", _amount)
RESOURCES = Reader("cpu=…,memory=…", "both, above 0, as Kubernetes' quantities", _resources)
"""A mapping of exactly these two."""
LIMITS = Reader("cpu=…,memory=…", f"both, as Kubernetes' quantities, memory from {_LEAST_MEMORY} on", _limits)
"""The same, with enough memory to start Python in."""
