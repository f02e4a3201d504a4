"""Both steps of the decision on a Pod that is memoized inside of itself."""

from collections.abc import Mapping
from typing import Any

from argo.steppod import StepPod
from webhook.pods import decision
from webhook.pods.delivery import Delivery


def decide(
    pod: Mapping[str, Any],
    namespace: str,
    workflow_metadata: Mapping[str, Any] | None,
    namespace_labels: Mapping[str, str] | None,
    injection: Delivery = Delivery.INIT_CONTAINER,
) -> decision.Skip | decision.Inject:
    """What `classify_pod` says, and where the step is memoized, how that is done inside the Pod."""
    step = classify(pod, namespace, workflow_metadata, namespace_labels)
    return step if isinstance(step, decision.Skip) else decision.plan_injection(step, injection)


def classify(
    pod: Mapping[str, Any],
    namespace: str,
    workflow_metadata: Mapping[str, Any] | None,
    namespace_labels: Mapping[str, str] | None,
) -> decision.Skip | decision.MemoizedStep:
    """What is decided before anything is known of the caches."""
    return decision.classify_pod(StepPod.parse(pod, namespace), workflow_metadata, namespace_labels)
