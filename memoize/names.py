"""Every name that more than one program, a user or Argo must agree on.

This module is the manual of stepmemo's contract: annotations and labels, the files that the containers
of one Pod share, and the variables they read. Argo's own names are in argo/names.py.
"""

# --- What a person writes, on metadata ---------------------------------------------------------------

DOMAIN = "stepmemo.dev"

MEMOIZE = f"{DOMAIN}/memoize"
"""`"true"` or `"false"`: opt in or out. Namespace label; annotation or label of a Workflow, WorkflowTemplate,
or ClusterWorkflowTemplate; annotation of a template. The nearest to the template wins."""

KEY = f"{DOMAIN}/key"
"""The memoize key. On a template (with Argo's `{{…}}` tags), and on the Pod (tags resolved by Argo)."""

AUTO_KEY = "auto"
"""The value of KEY for which the Pod webhook computes one, from what the step would run (autokey.py)."""

KEY_IGNORE = f"{DOMAIN}/key-ignore"
"""On a template with `key: auto`: what its key leaves out, as `env/NAME, artifact/NAME`."""

SALT = f"{DOMAIN}/salt"
"""On a template with `key: auto`: any text, which is a part of the key. Another one disowns old entries."""

GATED = f"{DOMAIN}/gate"
"""`"false"` on a template: its Pods are never gated, so that each has a node; a hit is then answered inside
the Pod."""

CACHE = f"{DOMAIN}/cache"
"""Name of the ConfigMap, in the workflow's own namespace, that holds the entries."""

MAX_AGE = f"{DOMAIN}/max-age"
"""A Go duration (`90s`, `24h`); an older entry does not answer. Absent or empty: entries never expire."""

MODE = f"{DOMAIN}/mode"
"""`use`, `refresh`, `readonly` or `off`: annotation or label of a Workflow, annotation of a template.
The Workflow's value beats the template's."""

SINGLE_FLIGHT = f"{DOMAIN}/single-flight"
"""`"false"` on a template: its steps do not wait for an equal step that runs already."""

VALIDATE = f"{DOMAIN}/validate"
"""Namespace label `enforce`, `warn` or `off`: overrides the server's `--validate`."""

MAX_BYTES = f"{DOMAIN}/max-bytes"
"""Annotation of a cache's ConfigMap: how many bytes of values it may hold (`512Ki`), where that is less than
the programs' own limit."""

GC = f"{DOMAIN}/gc"
"""`"true"` or `"false"`: whether the keeper cleans caches up, if it does that at all. Label of a Namespace;
annotation of a cache's ConfigMap, which wins. Anything else counts as `"false"`."""

# --- What stepmemo writes ----------------------------------------------------------------------------

MANAGED = f"{DOMAIN}/managed"
"""Template annotation beside annotations that the webhook made: a digest over them, so that an author's
own edit is told from ours."""

CONFIG_MAP = f"{DOMAIN}/config-map"
"""Template annotation that the webhook made: JSON of what the block's `cache.configMap` said beside `name`,
which means nothing and which some of Argo's CRDs require."""

GATED_FOR = f"{DOMAIN}/gate-for"
"""Template annotation beside GATED where the webhook wrote that: the reference that needs the Pod's node,
such as `steps.prepare.hostNodeName`."""

NUDGED = f"{DOMAIN}/nudged"
"""Annotation of a Workflow: when the keeper last had Argo's controller look at it at once, RFC 3339. Nothing
reads it: it is there to be changed."""

POSTED_FOR = f"{DOMAIN}/posted-for"
"""Annotation of a WorkflowTaskResult that stepmemo posted: the UID of the Pod it answers. Capture never
stores such a result again, and only a Pod of the same node retracts it."""

PLACEHOLDER_FOR = f"{DOMAIN}/placeholder-for"
"""Annotation of an empty WorkflowTaskResult: the UID of a Pod that runs. An answer of ours, which may
still be on its way, must not reach it. The step reports into it; if it never does, the keeper closes it."""

RESULT = f"{DOMAIN}/result"
"""Pod label: how far the step's memoization is, one of the RESULT_ words; `kubectl get pods -L` shows it."""
RESULT_GATED = "gated"
"""Not scheduled yet: its answer, or an equal step's end, is waited for."""
RESULT_HIT = "hit"
"""Answered from the cache."""
RESULT_MISS = "miss"
"""It runs, and the keeper will store its outputs."""
RESULT_IN_POD = "in-pod"
"""Its look-up is done inside the Pod, by containers of ours."""
RESULT_STORED = "stored"
"""It ran, and its outputs are in the cache."""
RESULT_SKIPPED = "skipped"
"""It runs or ran, and nothing is stored; REASON says why."""

KEY_DIGEST = f"{DOMAIN}/key-digest"
"""Pod annotation in the place of KEY, where the Pod has no room for that: the data key that it has."""
KEY_PARTS = f"{DOMAIN}/key-parts"
"""Pod annotation beside a KEY that the Pod webhook computed: JSON of short digests of its parts, by name."""
KEEPER_STATUS = f"{DOMAIN}/keeper-status"
"""On the keeper's Lease: see keeper_status.py."""
PLAN = f"{DOMAIN}/plan"
"""Pod annotation: what admission decided, for the keeper. JSON of memoize.plan.Plan."""
REASON = f"{DOMAIN}/reason"
"""Pod annotation beside RESULT: the reason code of the outcome, and what there is to know besides."""
LONGEST_REASON = 1024
"""Bytes of that annotation at most: whoever writes one keeps to it, and admission leaves room for it."""
SCHEDULING_GATE = f"{DOMAIN}/gated"
"""Scheduling gate of a gated Pod: only the keeper, or `stepmemo release`, takes it away."""

# --- Containers, volumes and paths inside a step Pod -------------------------------------------------

CHECK_CONTAINER = "stepmemo-check"
"""Init container: puts the entrypoint in place and looks the key up."""
CAPTURE_CONTAINER = "stepmemo"
"""Sidecar: stores the outputs of a step that ran and succeeded. With the image volume it looks the key up
first, beside the step's own containers, and there is no CHECK_CONTAINER."""
CONTAINERS = (CHECK_CONTAINER, CAPTURE_CONTAINER)
VOLUME = "stepmemo"
"""emptyDir shared by the Pod's containers, mounted at SHARED_DIR."""
SHARED_DIR = "/stepmemo"
BIN_VOLUME = "stepmemo-bin"
"""emptyDir that holds the entrypoint, mounted at BIN_DIR: read-only but in CHECK_CONTAINER, so that nothing a
template runs can put another program where Argo's own containers start."""
BIN_DIR = "/stepmemo-bin"
IMAGE_VOLUME = "stepmemo-image"
"""Our image as a volume, mounted read-only at IMAGE_DIR in the containers that Argo manages."""
IMAGE_DIR = "/stepmemo-image"
TOKEN_VOLUME = "stepmemo-token"
"""Projected volume of CAPTURE_CONTAINER and CHECK_CONTAINER: a token for our service alone."""
TOKEN_DIR = "/var/run/secrets/stepmemo"
"""Mount of TOKEN_VOLUME; its file is `token`."""
TOKEN_AUDIENCE = "stepmemo"
"""Whom that token is for: no API server takes it, and our service takes no other."""
PEOPLES_TOKEN = "Stepmemo-Token"
"""Header of the token by which a person asks the keeper through the API server, which hands no Authorization
on. It is for the same audience, and bound to no Pod."""
VOLUMES = (VOLUME, BIN_VOLUME, IMAGE_VOLUME, TOKEN_VOLUME)
"""Every volume of ours."""
MOUNTS = {SHARED_DIR: VOLUME, BIN_DIR: BIN_VOLUME, IMAGE_DIR: IMAGE_VOLUME}
"""Where the containers that Argo manages have which of them."""
TERMINATION_LOG = "/dev/termination-log"
"""Where the kubelet looks for a container's last word."""

ENTRYPOINT_FILE = "entrypoint"
ENTRYPOINT = f"{BIN_DIR}/{ENTRYPOINT_FILE}"
"""The static binary, once `stepmemo-check` has put it there."""
IMAGE_ENTRYPOINT = "/opt/stepmemo/entrypoint"
"""The static binary inside our image."""
VOLUME_ENTRYPOINT = f"{IMAGE_DIR}{IMAGE_ENTRYPOINT}"
"""The same, where our image is a volume."""
SIDECAR_COMMAND = ("python3", "-S", "-E", "-B", "-m", "sidecar")
"""What the entrypoint runs, with the verb `check`, `retract` or `capture` appended; the image's working
directory is where the packages lie. `-S`: site-packages are not needed and cost start-up time."""

# --- Files in SHARED_DIR (sidecar/entrypoint/names.h has the same) -----------------------------------

CLAIM_FILE = "claim"
"""Created exclusively by whoever is about to decide: the checker before it posts anything, or an entrypoint
that has waited long enough. Who creates it owns the word."""
DECISION_FILE = "decision"
"""Holds DECISION_HIT or DECISION_RUN; created whole and once (written aside, then linked)."""
DECISION_HIT = "hit"
"""The step was answered from the cache: no command of it runs."""
DECISION_RUN = "run"
START_FILE_PREFIX = "started-"
"""`started-1`, `started-2`: left by CAPTURE_CONTAINER as it starts, where it looks the key up: one that was
killed whole and started again knows itself by them (sidecar/entrypoint/starts.c)."""
EXIT_FILE_PREFIX = "exit-"
"""`exit-main`, `exit-wait`, …: the exit code of that container in decimal, with ` stopped` after it where it
was told to stop before it ended; written whole by its entrypoint (sidecar/entrypoint/record.c)."""
LOCK_FILE_PREFIX = "lock-"
"""`lock-main`, `lock-wait`, …: locked (flock) by that container's entrypoint while it lives; free without an
exit file means that the container was killed."""

# --- Variables the sidecar reads ---------------------------------------------------------------------

ENV_STEP = "STEPMEMO_STEP"
"""JSON of memoize.step.Step: what the webhook knows of the step. `$` is written `\\u0024`, since the
kubelet expands `$(NAME)` in values."""
ENV_POD_NAME = "STEPMEMO_POD_NAME"
ENV_POD_UID = "STEPMEMO_POD_UID"
ENV_NAMESPACE = "STEPMEMO_NAMESPACE"
ENV_SERVICE = "STEPMEMO_SERVICE"
"""`https://host[:port]` of the cache service; unset where the step reaches its ConfigMap itself."""
ENV_SERVICE_CA = "STEPMEMO_SERVICE_CA"
"""PEM of the authority that the service's certificate is from."""
ENV_CACHE_MAX_BYTES = "STEPMEMO_CACHE_MAX_BYTES"
"""How many bytes of values a cache may hold, where that is less than a ConfigMap may."""
ENV_TOKEN_DIR = "STEPMEMO_TOKEN_DIR"
"""Stands in for TOKEN_DIR, as ENV_SHARED_DIR does for SHARED_DIR."""
ENV_TIMEOUT_MS = "STEPMEMO_TIMEOUT_MS"
"""Set by the entrypoint for the process it runs: milliseconds until that process is killed."""
ENV_SHARED_DIR = "STEPMEMO_SHARED_DIR"
"""Stands in for SHARED_DIR where containers have no mount namespace of their own (the devcluster)."""
ENV_BIN_DIR = "STEPMEMO_BIN_DIR"
"""Likewise for BIN_DIR."""
ENV_ARGO_DIR = "STEPMEMO_ARGO_DIR"
"""Likewise for argo.DIR."""
ENV_ARGO_CONFIG_DIR = "STEPMEMO_ARGO_CONFIG_DIR"
"""Likewise for argo.CONFIG_DIR."""
ENV_SERVICEACCOUNT_DIR = "STEPMEMO_SERVICEACCOUNT_DIR"
"""Likewise for argo.SERVICEACCOUNT_DIR."""
ENV_TERMINATION_LOG = "STEPMEMO_TERMINATION_LOG"
"""Likewise for TERMINATION_LOG."""
