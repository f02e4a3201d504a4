"""The image that this process runs, as its own Pod says it: the webhook injects the image that it runs."""

import asyncio
import logging

from kubernetes_asyncio.client import ApiClient

from kube import client
from kube.errors import ApiError
from server.logs import fields
from server.settings import SettingsError

_log = logging.getLogger(__name__)

OWN_IMAGE_TIMEOUT = 15.0
"""Seconds to go on asking an API server that gives no answer: well within the two minutes of the startup
probe, so that our error is the last thing in the log."""
PAUSE = 1.0
"""Seconds between two attempts."""
_REQUEST_SECONDS = 5.0
_FINAL = (403, 404)
"""Answers that asking again does not change."""
_ALLOW = "allow the server to get Pods in its own Namespace, as manifests/base/webhook-rbac.yaml does"
_INSTEAD = "or name the image with --image (STEPMEMO_IMAGE)"


async def own_image(
    api: ApiClient,
    namespace: str,
    pod: str,
    container: str,
    *,
    seconds: float = OWN_IMAGE_TIMEOUT,
    pause: float = PAUSE,
) -> str:
    """The image of this container in the spec of this Pod.

    Not the `imageID` of its status, which some runtimes give as a digest that no registry serves.
    SettingsError where the Pod may not be read, is not there, or has no such container; TimeoutError where
    the API server did not answer in time.
    """
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}"
    subject = f"the image that Pod {namespace}/{pod} runs"
    problem = "no answer"
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    found = await client.request(api, "GET", path, seconds=_REQUEST_SECONDS)
                    if isinstance(found, dict) and found.get("kind") == "Pod":
                        break
                    problem = "what comes back is no Pod"
                except ApiError as error:
                    problem = str(error)
                    if error.status in _FINAL:
                        why = f"cannot read {subject}: {problem}; {_ALLOW}, {_INSTEAD}"
                        raise SettingsError([why]) from None
                _log.warning("cannot read the own Pod yet", extra=fields(error=problem))
                await asyncio.sleep(pause)
    except TimeoutError:
        raise TimeoutError(f"could not read {subject} in {seconds:g} s: {problem}") from None
    images: dict[str, str] = {each["name"]: each["image"] for each in found["spec"]["containers"]}
    if container not in images:
        raise SettingsError(
            [f"cannot tell {subject}: it has no container named {container}; name it so, {_INSTEAD}"]
        )
    _log.info("read the own image", extra=fields(image=images[container]))
    return images[container]
