"""What Argo Workflows does from which version on: the one table of it, each row with its source.

A fact belongs here if it differs between versions that stepmemo runs with. All were read in Argo's source at
every tag from v3.5.2 to v4.1.2; `source` names file and function.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple


class Version(NamedTuple):
    """A released version."""

    major: int
    minor: int
    patch: int


class Since(NamedTuple):
    """Something that Argo does, and the first version of each line of releases that does it, in order.

    Lines that are not named do it if an earlier one is.
    """

    what: str
    first: tuple[Version, ...]
    source: str
    until: Version | None = None
    """The first version that does not do it any more."""

    def holds_in(self, version: Version | None) -> bool:
        """Whether Argo of this version does it; None, a version that is not known, does not."""
        if version is None or (self.until is not None and version >= self.until):
            return False
        lines = [first for first in self.first if first[:2] <= version[:2]]
        return bool(lines) and version >= lines[-1]


REPORTS_COMPLETION = Since(
    "The executor says by a label when a WorkflowTaskResult is complete; without it nothing is stored.",
    (Version(3, 5, 2),),
    "LabelKeyReportOutputsCompleted in workflow/common/common.go",
)
TEMPLATE_IN_ONE_CONTAINER = Since(
    "ARGO_TEMPLATE is in Argo's init container (and those of the template) alone, before that in every one.",
    (Version(3, 6, 0),),
    "createWorkflowPod in workflow/controller/workflowpod.go",
)
WITHOUT_INPUT_PARAMETERS = Since(
    "The template in a Pod has no input parameters: whatever uses them holds their values already.",
    (Version(3, 6, 0),),
    "createWorkflowPod in workflow/controller/workflowpod.go",
)
GUARDS_DECLARED_OUTPUTS = Since(
    "A node whose Pod succeeded stays as it is while its declared parameters, or artifacts that are not "
    "optional, have not been seen; where a container `main` has ended, and for nothing else.",
    (Version(3, 6, 11), Version(3, 7, 1), Version(4, 0, 0)),
    "assessNodeStatus in workflow/controller/operator.go",
)
GIVES_INCOMPLETE_RESULTS_UP = Since(
    "A node that is over waits ten minutes for a result that is not complete; before that as long as its Pod "
    "is there.",
    (Version(3, 7, 1), Version(4, 0, 0)),
    "taskResultReconciliation in workflow/controller/taskresult.go",
)
HAS_A_SUPERVISOR = Since(
    "A Pod may have no init container of Argo's: `supervisor` takes the place of `init` and `wait`.",
    (Version(4, 1, 0),),
    "workflow/controller/workflowpod_layout.go",
)
HAS_A_PENDING_TIMEOUT = Since(
    "A template may say `pendingTimeout`.",
    (Version(4, 1, 0),),
    "Template in pkg/apis/workflow/v1alpha1/workflow_types.go",
)
TAKES_UPDATES_AT_ONCE = Since(
    "A workflow that runs is looked at as soon as somebody else has updated it, and not DEFAULT_REQUEUE_TIME "
    "later: the throttler queues it anew without a look at whether it runs. But never as it was before the "
    "controller's own last write: earlier versions look at that copy too, since the update's event may come "
    "after that write, and replace it in the controller's memory.",
    (Version(3, 6, 17), Version(3, 7, 8)),
    "newThrottler and isOutdated in workflow/controller/controller.go, Add in workflow/sync/"
    "multi_throttler.go",
    until=Version(4, 0, 0),
)
FACTS = (
    REPORTS_COMPLETION,
    TEMPLATE_IN_ONE_CONTAINER,
    WITHOUT_INPUT_PARAMETERS,
    GUARDS_DECLARED_OUTPUTS,
    GIVES_INCOMPLETE_RESULTS_UP,
    HAS_A_SUPERVISOR,
    HAS_A_PENDING_TIMEOUT,
    TAKES_UPDATES_AT_ONCE,
)

EXECUTOR = "argoexec"
"""Last part of the name of Argo's executor image, in whatever registry it is mirrored."""
CONTROLLER = "workflow-controller"
"""The same of its controller's."""
_RELEASE = re.compile(r"(?:.*/)?([a-z-]+):v?([0-9])\.([0-9]{1,3})\.([0-9]{1,3})")
"""One digit for the major version: `2026.1.0` is somebody's own count."""


def image_version(image: str, name: str = EXECUTOR) -> Version | None:
    """The version that the tag of an image of this name says; None where it says none.

    Nothing is guessed: not from a digest (a tag beside it is a comment), nor from a tag with a suffix, such
    as a release candidate's, nor from an image of another name, whose tags may count something else.
    """
    found = _RELEASE.fullmatch(image)
    return Version(*map(int, found.groups()[1:])) if found is not None and found[1] == name else None


def executor_version(images: Iterable[str]) -> Version | None:
    """The version of Argo whose executor images a Pod names: the oldest of them, None where one says none.

    The controller makes its Pods with the executor of its own version, unless its admin names another image.
    """
    versions = [image_version(image) for image in images]
    known = [version for version in versions if version is not None]
    return min(known) if known and len(known) == len(versions) else None
