"""What an installation is set to, as its Deployments say; the defaults where they cannot be read."""

import contextlib
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import dropwhile
from typing import Any, TypeVar

import keeper.settings
from argo.shape import mapping
from cli.plain import plain
from cli.session import CommandError, Session
from server.settings import SettingsError

T = TypeVar("T")

WEBHOOK, KEEPER = "stepmemo-webhook", "stepmemo-keeper"
"""Deployments of manifests/base; the keeper's Lease has its name."""


async def deployment(connected: Session, namespace: str, name: str) -> dict[str, Any] | None:
    """A Deployment; None where there is none, CommandError where that is not known."""
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}"
    return await connected.find(f"get deployments in {namespace}", path)


async def keepers(connected: Session, namespace: str) -> keeper.settings.Settings | None:
    """The keeper's settings; None where its Deployment, or what that says, cannot be read."""
    try:
        deployed = await deployment(connected, namespace, KEEPER)
    except CommandError:
        return None
    return _parsed(deployed, keeper.settings.parse, {})


def keeps_entries_elsewhere(settings: keeper.settings.Settings | None) -> bool | None:
    """Whether the keeper's store is a database; None where that is not known."""
    return None if settings is None else settings.store != "configmap"


def settings(
    deployed: Mapping[str, Any] | None,
    parse: Callable[[Sequence[str], Mapping[str, str]], T],
    defaults: Mapping[str, str],
) -> T:
    """A program's settings, by its own `parse`, from its Deployment's flags and variables.

    `defaults` are variables that it needs. What comes from other objects (`valueFrom`) counts as not set, and
    settings of another release as none at all, which is told on standard error.
    """
    found = _parsed(deployed, parse, defaults)
    if found is not None:
        return found
    name = mapping((deployed or {}).get("metadata")).get("name") or "a Deployment"
    print(plain(f"stepmemo: the settings of {name} cannot be read, so defaults count"), file=sys.stderr)
    return parse([], defaults)


def _parsed(
    deployed: Mapping[str, Any] | None,
    parse: Callable[[Sequence[str], Mapping[str, str]], T],
    defaults: Mapping[str, str],
) -> T | None:
    container = first_container(deployed or {})
    words = [str(word) for word in (*(container.get("command") or ()), *(container.get("args") or ()))]
    # From the first flag on, not flags alone: a flag's value may be a word of its own.
    flags = dropwhile(lambda word: not word.startswith("--"), words)
    given = map(mapping, container.get("env") or ())
    variables = {str(one.get("name")): str(one["value"]) for one in given if one.get("value") is not None}
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            return parse(list(flags), {**defaults, **variables})
    except (SettingsError, SystemExit):
        return None


def first_container(deployed: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of a Deployment's Pods."""
    spec = mapping(mapping(mapping(deployed.get("spec")).get("template")).get("spec"))
    found = spec.get("containers")
    return mapping(found[0]) if isinstance(found, list) and found else {}
