"""Reads the text of a setting into its value, or raises ValueError saying what the text must be."""

import re
from collections.abc import Callable
from pathlib import Path

from kube.quantity import quantity
from memoize import duration, spec

_LEAST_MEMORY = "32Mi"
"""Less than this does not start Python; the step would run, and nothing would ever be looked up or stored."""
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_MILLISECOND = 1_000_000


def one_of(*words: str) -> Callable[[str], str]:
    """One of a few words."""

    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return text

    return read


def address(text: str) -> tuple[str, int]:
    """A host, "" for every one, and a port."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError('must be an address and a port, such as ":8443", "127.0.0.1:8443" or "[::1]:8443"')
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError('must have an IPv6 address in brackets, such as "[::1]:8443"')
    return host, int(port)


def milliseconds(least: str, most: str) -> Callable[[str], int]:
    """A Go duration within these two, as whole milliseconds."""

    def read(text: str) -> int:
        nanoseconds = duration.parse(text)
        if not duration.parse(least) <= nanoseconds <= duration.parse(most):
            raise ValueError(f"must be between {least} and {most}")
        return nanoseconds // _MILLISECOND

    return read


def image(text: str) -> str:
    """An image's name, left to the container runtime to understand."""
    if not re.fullmatch(r"\S+", text):
        raise ValueError("must be the name of an image, without blanks")
    return text


def label(text: str) -> str:
    """The name of a Namespace or a Service."""
    if not _LABEL.fullmatch(text):
        raise ValueError("must be lower-case letters, digits and dashes, 63 at most (a DNS-1123 label)")
    return text


def subdomain(text: str) -> str:
    """The name of most other objects."""
    if not spec.is_dns1123_subdomain(text):
        raise ValueError("must be lower-case letters, digits, dashes and dots (a DNS-1123 subdomain)")
    return text


def subdomains(text: str) -> tuple[str, ...]:
    """Such names with commas between them; none are allowed too."""
    return tuple(subdomain(name.strip()) for name in text.split(",") if name.strip())


def labels(text: str) -> tuple[str, ...]:
    """Names of Namespaces with commas between them; none are allowed too."""
    return tuple(dict.fromkeys(label(name.strip()) for name in text.split(",") if name.strip()))


def https_url(text: str) -> str:
    """`https://` with a host and perhaps a port, and nothing after them; empty is allowed too."""
    if text and not re.fullmatch(r"https://([A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?", text):
        raise ValueError('must be like "https://stepmemo.stepmemo.svc", with a port where it is not 443')
    return text


def count(least: int, most: int) -> Callable[[str], int]:
    """A whole number within these two."""

    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
            raise ValueError(f"must be a number between {least} and {most}")
        return int(text)

    return read


def directory(text: str) -> Path:
    """A directory, which need not be there."""
    if not text.strip():
        raise ValueError("must be a directory")
    return Path(text)


def resources(text: str) -> dict[str, str]:
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


def limits(text: str) -> dict[str, str]:
    """The same, with enough memory to start Python in."""
    pairs = resources(text)
    if quantity(pairs["memory"]) < quantity(_LEAST_MEMORY):
        raise ValueError(f"must leave Python at least memory={_LEAST_MEMORY}")
    return pairs
