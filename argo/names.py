"""Argo's own names: labels, annotations, variables, containers, volumes and paths of its Pods.

From workflow/common/common.go and pkg/apis/workflow/register.go of Argo Workflows, v3.5 to v4.1, where no
other source is named. Imported elsewhere as `from argo import names as argo`.
"""

import re

DOMAIN = "workflows.argoproj.io"
"""Of its labels and annotations."""
GROUP = "argoproj.io"
"""API group of its kinds."""
API_VERSION = f"{GROUP}/v1alpha1"

CONFIGMAP_TYPE = f"{DOMAIN}/configmap-type"
"""Label of a cache ConfigMap …"""
CONFIGMAP_TYPE_CACHE = "Cache"
"""… and its value. Argo and stepmemo refuse a ConfigMap without it."""
CACHE_KEY = re.compile(r"[a-zA-Z0-9][-a-zA-Z0-9]*")
"""The keys that Argo itself memoizes under; another fails the step (workflow/controller/cache/cache.go)."""
LONGEST_TEMPLATE = 128
"""Characters of a template's name (workflowFieldMaxLength in workflow/validate/validate.go)."""

WORKFLOW_LABEL = f"{DOMAIN}/workflow"
"""Label of a step Pod and of a WorkflowTaskResult: the Workflow's name."""
NODE_ID = f"{DOMAIN}/node-id"
"""Pod annotation: the node's id, which is the name of its WorkflowTaskResult."""
NODE_NAME = f"{DOMAIN}/node-name"
"""Pod annotation: the node's name; its id is the Workflow's name and a hash of this one."""
INSTANCE_ID = f"{DOMAIN}/controller-instanceid"
"""Label on everything that a controller with an instanceID handles; a result without it is not seen."""
COMPONENT = f"{DOMAIN}/component"
"""Label of the Pods that Argo makes beside steps (workflow/controller/agent.go and artifact_gc.go) …"""
COMPONENT_AGENT = "agent"
"""… and its value on the Pod that runs `http` and `plugin` templates."""
PHASE = f"{DOMAIN}/phase"
"""Label of a Workflow …"""
RUNNING = "Running"
"""… and its value from the first step on until the last one is over (markWorkflowPhase in
workflow/controller/operator.go)."""
PARALLELISM_LIMIT = f"{DOMAIN}/parallelism-limit"
"""Label of a Namespace: how many of its workflows run at once (from 3.7 on)."""
OUTPUTS_COMPLETED = f"{DOMAIN}/report-outputs-completed"
"""WorkflowTaskResult label `"true"` or `"false"`: the controller waits for `"true"`."""
ARTIFACT_GC_FINALIZER = f"{DOMAIN}/artifact-gc"
"""Finalizer of a Workflow some of whose artifacts Argo will delete (workflow/controller/artifact_gc.go)."""

ENV_CONTAINER_NAME = "ARGO_CONTAINER_NAME"
"""Set by Argo on every container that it manages."""
ENV_TEMPLATE = "ARGO_TEMPLATE"
"""The template as JSON: on every container, or on one (version.TEMPLATE_IN_ONE_CONTAINER), which is `init`,
`supervisor` where that is not there, else `main`."""
TEMPLATE_OFFLOADED = "offloaded"
"""Value of ARGO_TEMPLATE above 128 KiB: the template then lies in a ConfigMap mounted at CONFIG_DIR."""
ENV_DEADLINE = "ARGO_DEADLINE"
"""RFC 3339: when Argo's `wait` ends the main containers. Year 1 (Go's zero time) where it never does."""
ENV_INCLUDE_SCRIPT_OUTPUT = "ARGO_INCLUDE_SCRIPT_OUTPUT"
"""`"true"` where some other step uses this one's `outputs.result`."""

MAIN_CONTAINER = "main"
WAIT_CONTAINER = "wait"
SUPERVISOR_CONTAINER = "supervisor"
"""Takes the place of `init` and `wait` in the init-less layout (version.HAS_A_SUPERVISOR)."""
INIT_CONTAINER = "init"

DIR = "/var/run/argo"
"""Mount of VOLUME, which the containers that Argo manages share."""
VOLUME = "var-run-argo"
BIN_DIR = "/argo-bin"
"""Argo's own binaries as an image volume, in the init-less layout."""
CONFIG_DIR = "/argo/config"
"""Mount of the offloaded template's ConfigMap in Argo's `init` or `supervisor`."""
SERVICEACCOUNT_DIR = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where Kubernetes mounts the token with which Argo's executor reports a result."""
EXECUTOR_TOKEN_VOLUME = "exec-sa-token"
"""What Argo mounts there, where the executor has an account of its own (`executor.serviceAccountName`): a
Secret with its token (ServiceAccountTokenVolumeName in workflow/common) …"""
TOKEN_SECRET_SUFFIX = ".service-account-token"
"""… whose name is the account's and this, unless the account says another (util/secrets)."""
