"""`--injection image-volume`: our image is a volume of the Pod, and the entrypoint is started from there.

There is one container of ours, `stepmemo`. The kubelet starts containers in their order, so it comes first:
it looks the key up beside the step's own containers, whose entrypoints wait for its decision, and stores the
outputs at the end. Kubernetes 1.35 is the first with both features on by default, ImageVolume and
ContainerRestartRules.
"""

from collections.abc import Mapping
from typing import Any

from argo import names as argo
from memoize import names
from webhook.inject import containers
from webhook.inject.containers import InjectSettings, Json, Parts
from webhook.inject.resources import Work
from webhook.pods.decision import InjectionPlan

_IMAGE_MOUNT: Json = {"name": names.IMAGE_VOLUME, "mountPath": names.IMAGE_DIR, "readOnly": True}
_KILLED = 137
"""Exit code of a container that the kernel killed: 128 and SIGKILL."""
_STARTED_AGAIN: Json = {
    "restartPolicy": "Never",
    "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [_KILLED]}}],
}
"""A look-up that is killed with its entrypoint, when memory runs out, may have claimed the word and posted an
answer. Started again, it takes that back and writes `run`. Without a look-up the rule would only bring a
capture that was killed back to be killed again."""


def parts(spec: Mapping[str, Any], plan: InjectionPlan, settings: InjectSettings) -> Parts:
    """What goes into a Pod with this spec. ValueError where a quantity of the Pod's is none."""
    timeout = ("-t", str(settings.check_timeout_ms)) if plan.check else ()
    return Parts(
        entrypoint=(names.VOLUME_ENTRYPOINT, *timeout),
        entrypoint_mounts=(containers.SHARED_MOUNT, _IMAGE_MOUNT),
        volumes=(*containers.volumes(settings), _image_volume(settings)),
        first=(_sidecar(spec, plan, settings),),
    )


def _sidecar(spec: Mapping[str, Any], plan: InjectionPlan, settings: InjectSettings) -> Json:
    """Looks the key up, waits for the step's end and stores its outputs, as far as the plan says so."""
    check = ["-c", str(settings.check_timeout_ms)] if plan.check else []
    capture = ["-t", str(settings.capture_timeout_ms)] if plan.capture else []
    awaited = containers.awaited(plan) if plan.capture else []
    bounds = [*check, *capture, *containers.memory(settings)]
    return {
        "name": names.CAPTURE_CONTAINER,
        **containers.base(spec, settings, Work.BOTH if plan.check else Work.CAPTURE),
        **(_STARTED_AGAIN if plan.check else {}),
        "command": [names.IMAGE_ENTRYPOINT, "capture", *bounds, *awaited, *containers.WORK],
        "env": containers.env(plan, settings),
        "volumeMounts": containers.capture_mounts(plan, settings),
    }


def _image_volume(settings: InjectSettings) -> Json:
    image = {"reference": settings.image, "pullPolicy": settings.image_pull_policy}
    return {"name": names.IMAGE_VOLUME, "image": image}


def specimen(settings: InjectSettings) -> Json:
    """A Pod's spec with every field that this delivery asks more of an API server than the other one."""
    wrapped = {"name": argo.MAIN_CONTAINER, "image": settings.image, "volumeMounts": [_IMAGE_MOUNT]}
    sidecar = {"name": names.CAPTURE_CONTAINER, **containers.base({}, settings, Work.BOTH), **_STARTED_AGAIN}
    return {
        "restartPolicy": "Never",
        "containers": [sidecar, wrapped],
        "volumes": [_image_volume(settings)],
    }
