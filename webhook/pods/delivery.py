"""How the entrypoint gets into a step Pod, and before which containers it can stand then."""

from enum import StrEnum

from argo.layout import ContainerRef, Layout


class Delivery(StrEnum):
    """The words of `--injection`.

    With an init container the word `hit` or `run` is there before anything of the step starts. With our image
    as a volume no container more has to end first: the look-up runs beside the step's own containers, and
    their entrypoints wait for its decision.
    """

    INIT_CONTAINER = "init-container"
    IMAGE_VOLUME = "image-volume"


def for_check(wanted: Delivery, shape: Layout) -> tuple[Delivery, str | None]:
    """How the entrypoint gets into a Pod that may be answered; why it is not as `wanted`, None where it is.

    The image volume's look-up begins when the init containers have ended. Argo's own may run on a hit, a
    template's may have effects that a hit must not. And its entrypoints take a second start of their
    container for one that nobody asked for.
    """
    if wanted is Delivery.IMAGE_VOLUME and shape.template_inits:
        return Delivery.INIT_CONTAINER, f"{Delivery.INIT_CONTAINER}: the template has init containers"
    if wanted is Delivery.IMAGE_VOLUME and shape.restarts:
        return Delivery.INIT_CONTAINER, f"{Delivery.INIT_CONTAINER}: the Pod's restartPolicy is not Never"
    return wanted, None


def to_wrap(way: Delivery, shape: Layout) -> tuple[ContainerRef, ...]:
    """The containers that a hit must keep from running."""
    if way is Delivery.INIT_CONTAINER:
        return shape.managed
    return tuple(m for m in shape.managed if m.kind == "containers")
