"""Both steps of the decision on a Pod that is memoized inside of itself."""

from collections.abc import Mapping
from typing import Any

from webhook import pods
from webhook.delivery import Delivery


def decide(
    pod: Mapping[str, Any],
    namespace: str,
    workflow_metadata: Mapping[str, Any] | None,
    namespace_labels: Mapping[str, str] | None,
    gate: Delivery = Delivery.INIT,
) -> pods.Skip | pods.Inject:
    """What `judge` says, and where the step is memoized, how that is done inside the Pod."""
    wanted = pods.judge(pod, namespace, workflow_metadata, namespace_labels)
    return wanted if isinstance(wanted, pods.Skip) else pods.inside(pod, wanted, gate)
