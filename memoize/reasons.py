"""The closed table of reason codes.

One code stands for one outcome wherever it is told: a log line, an Event, a metric's label, an admission
audit annotation. docs/reasons.md explains each to a user; a test holds the two together.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why stepmemo did what it did with a workflow or a step."""

    # Workflows, at submit
    ACCEPTED = "Accepted"
    """Every memoize block is sound; opted-in templates were taken over."""
    NOT_MEMOIZED = "NotMemoized"
    """Nothing here concerns stepmemo."""
    INVALID_MEMOIZE = "InvalidMemoize"
    """A memoize block or annotation cannot work; denied, or warned of under `validate: warn`."""
    UNCHANGED = "Unchanged"
    """An update that touches neither spec nor opt-in metadata, or an object being deleted."""

    # Pods, at admission
    INJECTED = "Injected"
    """Check and capture were injected."""
    INJECTED_CAPTURE = "InjectedCapture"
    """Capture alone was injected: mode refresh, or a container that cannot be gated."""
    INJECTED_CHECK = "InjectedCheck"
    """Check alone was injected: mode readonly."""
    NOT_A_STEP = "NotAStep"
    """The Pod is not one that the Argo controller made for a template."""
    NO_KEY = "NoKey"
    """The Pod carries no key."""
    OPTED_OUT = "OptedOut"
    """The nearest `stepmemo.dev/memoize` says false."""
    UNRESOLVED_TAG = "UnresolvedTag"
    """Key, cache or max-age still hold `{{`: every such run would share one key."""
    INVALID_ANNOTATIONS = "InvalidAnnotations"
    """The annotations do not make a memoize spec."""
    MODE_OFF = "ModeOff"
    """`stepmemo.dev/mode: off`."""
    MODE_UNKNOWN = "ModeUnknown"
    """`stepmemo.dev/mode` holds another word, or the owning Workflow could not be read."""
    ALREADY_INJECTED = "AlreadyInjected"
    """The Pod went through here before."""
    UNSUPPORTED_TEMPLATE = "UnsupportedTemplate"
    """A daemon, an agent Pod, a Windows node."""
    NAME_CLASH = "NameClash"
    """The Pod has a container, volume or mount of ours that is not ours."""
    NOT_GATEABLE = "NotGateable"
    """Neither check nor capture can be put into this Pod without changing what it does."""

    # Steps, inside the Pod: check
    HIT = "Hit"
    """The step was answered from the cache."""
    MISS = "Miss"
    """No entry for the key."""
    EXPIRED = "Expired"
    """The entry is older than max-age."""
    INCOMPLETE_ENTRY = "IncompleteEntry"
    """The entry lacks an output that the template declares."""
    BROKEN_ENTRY = "BrokenEntry"
    """The entry is not one that Argo or stepmemo would have written."""
    KEY_MISMATCH = "KeyMismatch"
    """The entry under the hashed key belongs to another key."""
    UNDECIDED = "Undecided"
    """The look-up did not come to an end in time, or was killed; the step runs."""

    # Steps, inside the Pod: capture
    STORED = "Stored"
    """The outputs were stored."""
    STEP_FAILED = "StepFailed"
    """A main container or a sidecar of the template did not end with 0, or the step was told to stop."""
    OUTPUTS_FAILED = "OutputsFailed"
    """Argo's `wait` or `supervisor` did not end with 0, or its end could not be known."""
    OUTPUTS_INCOMPLETE = "OutputsIncomplete"
    """The step's WorkflowTaskResult is missing or not reported complete."""
    ARTIFACT_GC = "ArtifactGC"
    """Argo will delete the step's artifacts, so an entry would point nowhere."""
    CACHE_FULL = "CacheFull"
    """The ConfigMap cannot take the entry (1 MiB), even without expired entries."""
    NOT_A_CACHE = "NotACache"
    """The ConfigMap exists without the label `workflows.argoproj.io/configmap-type: Cache`."""
    CONFLICT = "Conflict"
    """Others kept changing the ConfigMap until our time was up."""

    # Either
    FORBIDDEN = "Forbidden"
    """The step's service account lacks a right (see manifests/components/direct)."""
    STOPPED = "Stopped"
    """The Pod was told to stop before the work was done."""
    API_UNAVAILABLE = "ApiUnavailable"
    """The API server did not answer in time, or with an error of its own."""
    INTERNAL_ERROR = "InternalError"
    """A bug of ours; the step is not touched."""
