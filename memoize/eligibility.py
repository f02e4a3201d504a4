"""Which templates stepmemo does not memoize, whatever their author asked for; told from a Pod's own template.

The webhook and the sidecar ask the same question: a template above 128 KiB is not in the Pod that admission
sees, and only what runs inside of it can read it.
"""

from collections.abc import Mapping
from typing import Any

from argo.resource import goes_with_workflow
from memoize.outcome import Outcome
from memoize.reasons import Reason


def blocker(template: Mapping[str, Any], workflow_uid: str) -> Outcome | None:
    """Return why a step of this template, its tags resolved, is neither answered nor stored; None: it may be.

    A template that still has its block was not opted in, or Argo merged a default block into it: the key on
    the Pod may then be that of a caller's `templateDefaults`, and the step is Argo's to memoize.
    """
    if template.get("daemon"):
        return Outcome(Reason.UNSUPPORTED_TEMPLATE, "a daemon does not end")
    if template.get("memoize") is not None:
        return Outcome(Reason.OPTED_OUT, "its memoize block is left to Argo")
    if why := goes_with_workflow(template, workflow_uid):
        return Outcome(Reason.OWNED_BY_WORKFLOW, why)
    return None
