"""Settings of a program: fields of a frozen dataclass, declared by `setting` and filled by `parse`.

A setting is a flag and a variable in the environment; the flag wins. Everything is checked before anything
starts, and everything that is wrong is said at once.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, cast

from memoize import __version__
from server import values
from server.values import Reader

T = TypeVar("T")

_SETTING, _GROUP = "setting", "group"
"""Keys of a field's metadata."""


class SettingsError(ValueError):
    """All that is wrong with the settings, one line each in `errors`."""

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = tuple(errors)


@dataclass(frozen=True, slots=True)
class Setting:
    """What is declared of one setting. `default` is text, as an operator would write it."""

    flag: str
    reader: Reader[Any]
    default: str
    help: str

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return "STEPMEMO_" + self.flag.upper().replace("-", "_")

    def __str__(self) -> str:
        return f"--{self.flag} ({self.variable})"


def setting(flag: str, reader: Reader[T], default: str, help: str) -> T:
    """Declare a field of a dataclass to be the setting `--flag`. The field's default is `default`, read."""
    metadata = {_SETTING: Setting(flag, reader, default, help)}
    return field(default_factory=lambda: reader(default), metadata=metadata)


def group(kind: type[T]) -> T:
    """Declare a field to hold a dataclass of settings of its own; which stand here in --help."""
    return field(default_factory=kind, metadata={_GROUP: kind})


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What both programs are told. Times are in seconds."""

    listen: tuple[str, int] = setting(
        "listen", values.ADDRESS, ":8443", "the address to serve on; without a host, every address"
    )
    metrics_listen: tuple[str, int] | None = setting(
        "metrics-listen",
        values.ADDRESS_OR_OFF,
        ":8080",
        "the address to serve metrics on, over plain HTTP; off: nowhere",
    )
    shutdown_delay: float = setting(
        "shutdown-delay",
        values.seconds("0s", "60s"),
        "5s",
        "how long to go on serving after SIGTERM, until no endpoint names this Pod any more",
    )
    cert_dir: Path = setting(
        "cert-dir",
        values.DIRECTORY,
        "/run/stepmemo/certs",
        "where tls.crt, tls.key and ca.crt are (files) or are written to (cluster)",
    )
    namespace: str = setting(
        "namespace",
        values.LABEL,
        "stepmemo",
        "the server's own Namespace, of its Services, Secrets and Lease too",
    )
    secret: str = setting(
        "secret", values.SUBDOMAIN, "stepmemo-certs", "the Secret that holds the certificate"
    )
    log_format: str = setting("log-format", values.one_of("text", "json"), "text", "how log lines look")
    log_level: str = setting(
        "log-level",
        values.one_of("info", "debug"),
        "info",
        "debug: a line for every review and every step too, where all is well",
    )


def declared(kind: type[Any]) -> Iterator[Setting]:
    """The settings of such a dataclass, those of its groups included, in the order of its fields."""
    for each in fields(kind):
        if _GROUP in each.metadata:
            yield from declared(each.metadata[_GROUP])
        elif _SETTING in each.metadata:
            yield each.metadata[_SETTING]


def parse(
    kind: type[T],
    argv: Sequence[str],
    environ: Mapping[str, str],
    conflicts: Callable[[Mapping[str, Any]], Iterable[str]],
    *,
    program: str,
    description: str,
) -> T:
    """Settings from the command line, else the environment (where empty means unset), else the defaults.

    `conflicts` says what is wrong with values together; it gets those that could be read, by flag.
    SettingsError with everything that is wrong. --help, --version and an unknown flag end the program, as
    argparse does.
    """
    parser = argparse.ArgumentParser(
        prog=program,
        description=description,
        epilog="Cluster access is kubectl's: $KUBECONFIG or ~/.kube/config, else the Pod's service account.",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"stepmemo {__version__}")
    for one in declared(kind):
        shown = f"{one.help} [{one.variable}; default {one.default or 'none'}]"
        parser.add_argument(f"--{one.flag}", dest=one.flag, metavar=one.reader.placeholder, help=shown)
    given = vars(parser.parse_args(argv))
    read: dict[str, Any] = {}
    errors: list[str] = []
    for one in declared(kind):
        text = given[one.flag]
        if text is None:
            text = environ.get(one.variable) or one.default
        try:
            read[one.flag] = one.reader(text)
        except ValueError as error:
            errors.append(f"{one}: {json.dumps(text, ensure_ascii=False)} {error}")
    errors += conflicts(read)
    if errors:
        raise SettingsError(errors)
    return _filled(kind, read)


def _filled(kind: type[T], read: Mapping[str, Any]) -> T:
    """An object of this dataclass with what was read, by flag; a field that is no setting has its default."""
    named: dict[str, Any] = {}
    for each in fields(cast("Any", kind)):
        if _GROUP in each.metadata:
            named[each.name] = _filled(each.metadata[_GROUP], read)
        elif _SETTING in each.metadata:
            named[each.name] = read[each.metadata[_SETTING].flag]
    return kind(**named)
