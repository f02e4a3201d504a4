"""Both steps of the decision on a Pod that is memoized inside of itself."""

from collections.abc import Mapping
from typing import Any

from webhook.pods import decision
from webhook.pods.delivery import Delivery


def decide(
    pod: Mapping[str, Any],
    namespace: str,
    workflow_metadata: Mapping[str, Any] | None,
    namespace_labels: Mapping[str, str] | None,
    injection: Delivery = Delivery.INIT_CONTAINER,
) -> decision.Skip | decision.Inject:
    """What `judge` says, and where the step is memoized, how that is done inside the Pod."""
    wanted = decision.judge(pod, namespace, workflow_metadata, namespace_labels)
    return wanted if isinstance(wanted, decision.Skip) else decision.inside(pod, wanted, injection)
