"""Whether the API server takes what `--injection image-volume` puts into Pods; asked before serving.

An API server drops a field that it does not know, or whose feature is off, without an error. A volume without
its `image` is then an empty directory, in which no step finds its entrypoint: every step would fail. So a
PodTemplate with these very fields is created by a dry run, which stores and runs nothing and is validated
as a Pod is; what comes back is compared with what was sent.
"""

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kubernetes_asyncio.client import ApiClient

from kube import client
from kube.errors import ApiError
from server.logs import fields
from server.settings import SettingsError
from webhook.inject import image_volume
from webhook.inject.containers import InjectSettings

_log = logging.getLogger(__name__)

PREFLIGHT_TIMEOUT = 15.0
"""Seconds to go on asking an API server that gives no answer. The liveness probe ends a server that does not
listen after 20 to 30: our error should be the last thing in its log."""
PAUSE = 1.0
"""Seconds between two attempts."""
_REQUEST_SECONDS = 5.0
_LATER = (401, 408, 409, 429)
"""Answers that say nothing about the fields: a token being renewed, a name just taken, too much to do."""
_SETTING = '--injection (STEPMEMO_INJECTION): "image-volume"'
_INSTEAD = "or use --injection=init-container"


class UnansweredError(OSError):
    """Nobody knows: the API server did not answer in time."""


@dataclass(frozen=True, slots=True)
class Taken:
    """The API server knows every field."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """It does not, or we may not ask; `why` is for the operator."""

    why: str


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """No answer to the question; ask again."""

    why: str


def pod_template(settings: InjectSettings) -> dict[str, Any]:
    """The object whose creation is tried."""
    return {
        "apiVersion": "v1",
        "kind": "PodTemplate",
        "metadata": {"generateName": "stepmemo-preflight-"},
        "template": {"spec": image_volume.specimen(settings)},
    }


def evaluate_preflight(sent: dict[str, Any], code: int, answer: object) -> Taken | Unusable | NoAnswer:
    """What the API server's answer to creating `sent` means: its HTTP status and its JSON, if it is any."""
    if 200 <= code < 300:
        if not isinstance(answer, dict) or answer.get("kind") != sent["kind"]:
            return NoAnswer(f"{code}, and what comes back is no {sent['kind']}")
        lost = list(_lost(sent["template"], answer.get("template"), ""))
        if not lost:
            return Taken()
        return Unusable(
            f"cannot be used on this API server, which drops {', '.join(lost)}: Kubernetes 1.35 or newer is "
            f"needed, with the features ImageVolume and ContainerRestartRules on; {_INSTEAD}"
        )
    message = answer.get("message") if isinstance(answer, dict) else None
    said = f"{code} {message}" if message else str(code)
    if code in _LATER or code >= 500:
        return NoAnswer(said)
    if code == 403 and 'cannot create resource "podtemplates"' in said:  # others: a quota, a policy
        return Unusable(
            f"may not be tried: {said}; apply manifests/components/image-volume, which allows to create "
            f"podtemplates in the server's own namespace, {_INSTEAD}"
        )
    return Unusable(f"cannot be used on this API server, which refuses it: {said}; {_INSTEAD}")


def _lost(sent: object, back: object, path: str) -> Iterator[str]:
    """The paths of fields that were sent and did not come back. Values may differ: policies change them."""
    if isinstance(sent, dict):
        found = back if isinstance(back, dict) else {}
        for name, value in sent.items():
            where = f"{path}.{name}" if path else name
            if name in found:
                yield from _lost(value, found[name], where)
            else:
                yield where
    elif isinstance(sent, list):
        items = back if isinstance(back, list) else []
        for index, value in enumerate(sent):
            name = value.get("name", index) if isinstance(value, dict) else index
            other = _counterpart(items, name)
            if other is None:
                yield f"{path}[{name}]"
            else:
                yield from _lost(value, other, f"{path}[{name}]")


def _counterpart(items: list[Any], name: str | int) -> object:
    """The item with this name, or at this place; None where there is none."""
    if isinstance(name, int):
        return items[name] if name < len(items) else None
    return next((item for item in items if isinstance(item, dict) and item.get("name") == name), None)


async def require_image_volumes(
    api: ApiClient,
    namespace: str,
    settings: InjectSettings,
    *,
    seconds: float = PREFLIGHT_TIMEOUT,
    pause: float = PAUSE,
) -> None:
    """Return once the API server has taken the preflight in this namespace.

    SettingsError where it cannot be used with this setting, UnansweredError where it did not answer in time.
    """
    sent = pod_template(settings)
    path = f"/api/v1/namespaces/{namespace}/podtemplates?dryRun=All"
    problem = "no answer"
    try:
        async with asyncio.timeout(seconds):
            while isinstance(verdict := await _ask(api, path, sent), NoAnswer):
                problem = verdict.why
                _log.warning("cannot try image volumes yet", extra=fields(error=problem))
                await asyncio.sleep(pause)
    except TimeoutError:
        raise UnansweredError(f"{_SETTING} could not be tried in {seconds:g} s: {problem}") from None
    if isinstance(verdict, Unusable):
        raise SettingsError([f"{_SETTING} {verdict.why}"])
    _log.info("the API server takes image volumes")


async def _ask(api: ApiClient, path: str, sent: dict[str, Any]) -> Taken | Unusable | NoAnswer:
    try:
        answer = await client.request(api, "POST", path, seconds=_REQUEST_SECONDS, body=sent)
    except ApiError as error:
        if not error.status:
            return NoAnswer(str(error))
        return evaluate_preflight(sent, error.status, {"message": error.message})
    return evaluate_preflight(sent, 201, answer)
