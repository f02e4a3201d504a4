"""`--injection init-container`: an init container copies the entrypoint to an emptyDir, looks the key up.

`stepmemo-check` comes before all init containers, `stepmemo`, which stores the outputs, after all containers.
"""

from collections.abc import Mapping
from typing import Any

from memoize import names
from webhook.inject import containers
from webhook.inject.containers import InjectSettings, Json, Parts
from webhook.inject.resources import Work
from webhook.pods.decision import InjectionPlan


def parts(spec: Mapping[str, Any], plan: InjectionPlan, settings: InjectSettings) -> Parts:
    """What goes into a Pod with this spec. ValueError where a quantity of the Pod's is none."""
    check = containers.base(spec, settings, Work.LOOK_UP)
    capture = containers.base(spec, settings, Work.CAPTURE)
    return Parts(
        entrypoint=(names.ENTRYPOINT,),
        entrypoint_mounts=(containers.SHARED_MOUNT, {**containers.BIN_MOUNT, "readOnly": True}),
        volumes=(*containers.volumes(settings), containers.BIN_VOLUME),
        init=(_check(check, plan, settings),),
        last=(_capture(capture, plan, settings),) if plan.capture else (),
    )


def _check(base: Json, plan: InjectionPlan, settings: InjectSettings) -> Json:
    """Delivers the entrypoint, and looks the key up where the plan says so."""
    if not plan.check:
        return {
            "name": names.CHECK_CONTAINER,
            **base,
            "command": [names.IMAGE_ENTRYPOINT, "check"],
            "volumeMounts": [containers.SHARED_MOUNT, containers.BIN_MOUNT],
        }
    bounds = ["-t", str(settings.check_timeout_ms), *containers.memory(settings)]
    return {
        "name": names.CHECK_CONTAINER,
        **base,
        "command": [names.IMAGE_ENTRYPOINT, "check", *bounds, *containers.WORK],
        "env": containers.env(plan, settings),
        "volumeMounts": [
            *containers.mounts(settings, plan.layout.token_mount, plan.layout.config_mount),
            containers.BIN_MOUNT,
        ],
    }


def _capture(base: Json, plan: InjectionPlan, settings: InjectSettings) -> Json:
    """Waits for the step's end, then stores its outputs."""
    bounds = ["-t", str(settings.capture_timeout_ms), *containers.memory(settings)]
    return {
        "name": names.CAPTURE_CONTAINER,
        **base,
        "command": [names.IMAGE_ENTRYPOINT, "capture", *bounds, *containers.awaited(plan), *containers.WORK],
        "env": containers.env(plan, settings),
        "volumeMounts": containers.capture_mounts(plan, settings),
    }
