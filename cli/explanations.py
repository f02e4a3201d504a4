"""What each reason code means to somebody who has never seen this code, and what to do: `stepmemo why`.

docs/reasons.md is the reference, with every case; here is what one needs to know of the one that was met.
"""

from collections.abc import Mapping
from typing import NamedTuple

from memoize.reasons import Reason


class Text(NamedTuple):
    """Whole sentences."""

    what: str
    """What happened, and why."""
    cure: str = "There is nothing to do."


TEXTS: Mapping[Reason, Text] = {
    # Workflows, at submit
    Reason.ACCEPTED: Text(
        "The memoize blocks of this object are sound, and those of templates that opted in were moved into "
        "annotations, so that stepmemo answers their steps instead of Argo."
    ),
    Reason.NOT_MEMOIZED: Text(
        "Nothing in this object asks for memoization by stepmemo.",
        "If a memoize block in it should be stepmemo's, opt in: write the annotation stepmemo.dev/memoize: "
        '"true" on the template, on the object or as a label on its Namespace, and submit it again.',
    ),
    Reason.INVALID_MEMOIZE: Text(
        "A memoize block or a stepmemo.dev annotation of this object cannot work, so it was refused, or let "
        "through with a warning.",
        "Correct the fields that the message names. `stepmemo lint FILE` checks the file before it is "
        "submitted.",
    ),
    Reason.UNCHANGED: Text(
        "The object was updated without a change that matters to memoization, or is being deleted."
    ),
    # Pods, at admission
    Reason.INJECTED: Text(
        "The cache is looked up inside the step's Pod, by a container that stepmemo added, and the outputs "
        "are stored from there when the step has run."
    ),
    Reason.INJECTED_CAPTURE: Text(
        "The step always runs, and its outputs are stored: either its mode is `refresh`, or one of its "
        "containers is such that its start cannot be delayed for a lookup (it has lifecycle hooks, "
        "restarts by itself, or has no command of its own).",
        "For mode `refresh` there is nothing to do. Otherwise give that container a command, or remove its "
        "hooks, if this step should be answered from the cache.",
    ),
    Reason.INJECTED_CHECK: Text(
        "The cache is looked up inside the step's Pod; if there is no entry the step runs, and nothing is "
        "stored, since its mode is `readonly`."
    ),
    Reason.GATED: Text(
        "The Pod waits for stepmemo's keeper, which looks the cache up, or lets the Pod wait for an equal "
        "step that is running now. It has no node yet and takes no resources.",
        "Wait: while the keeper works, a lookup takes less than a second, and the wait for an equal step "
        "ends after ten minutes by default. If nothing happens, run `stepmemo doctor`; `stepmemo release` "
        "lets the Pod run at once.",
    ),
    Reason.NOT_GATED: Text(
        "The step runs without a lookup: its mode is `refresh`, or the keeper was away when its Pod was "
        "created, or many Pods of the Namespace were created at once. Its outputs are stored when it "
        "succeeds.",
        "If the mode is not `refresh` and this is frequent, run `stepmemo doctor`.",
    ),
    Reason.NOT_A_STEP: Text(
        "The Pod is not one that Argo's controller made for a step of a workflow, as far as its owner, "
        "labels and template show.",
        "If other software makes this Pod, take the stepmemo.dev annotations off it.",
    ),
    Reason.NO_KEY: Text(
        "The step is not memoized by stepmemo: its Pod has no annotation stepmemo.dev/key. Either its "
        "template has no memoize block, or the block did not opt in when the workflow was submitted and is "
        "still Argo's own.",
        'Opt in with stepmemo.dev/memoize: "true" on the template, the workflow or the Namespace, and '
        "submit a new workflow.",
    ),
    Reason.OPTED_OUT: Text(
        'The step is not memoized by stepmemo: the nearest stepmemo.dev/memoize says "false", or the '
        "template still had its memoize block when it ran, which then belongs to Argo.",
        "Change that value if the step should be memoized by stepmemo, and submit a new workflow.",
    ),
    Reason.UNRESOLVED_TAG: Text(
        "Its key, cache name or max-age still contains `{{` after Argo had filled in everything it knows. "
        "All such runs would share one key, so no lookup was made and nothing is stored.",
        "Look for a misspelt tag in the template's key. Braces that are meant literally can be hashed: "
        "{{=sprig.sha256sum(inputs.parameters.x)}}.",
    ),
    Reason.NO_AUTO_KEY: Text(
        "Its key is to be computed (stepmemo.dev/key: auto), and something that it is made of is not known: "
        "the template, or a container's arguments, take more than 128 KiB and are not in the Pod; or the "
        "version of a Secret or ConfigMap counts and was not read. No lookup was made, nothing is stored.",
        "Hand large values over as artifacts, or write a key by hand for this template. The detail says what "
        "to do where a Secret or ConfigMap was not read.",
    ),
    Reason.INVALID_ANNOTATIONS: Text(
        "The Pod's stepmemo.dev annotations cannot be used: an empty key, a cache name that no ConfigMap "
        "can have, or a max-age that is not a duration.",
        "Look at the Pod's annotations: a tag may have been filled in with a value that nobody expected.",
    ),
    Reason.MODE_OFF: Text(
        "The step is not memoized: stepmemo.dev/mode is `off` for this workflow or template.",
        "Remove that annotation or label if the step should be memoized.",
    ),
    Reason.MODE_UNKNOWN: Text(
        "stepmemo.dev/mode has a value that does not exist, or the workflow that says it could not be "
        "read, so the step was left alone.",
        "Use one of `use`, `refresh`, `readonly` and `off`. If the value is right, the webhook may lack "
        "the right to get workflows: see its log.",
    ),
    Reason.ALREADY_INJECTED: Text("The Pod had been prepared for its lookup before, and was left as it is."),
    Reason.UNSUPPORTED_TEMPLATE: Text(
        "stepmemo does not memoize such a step: a daemon, an `http` or `plugin` template, or a Pod for "
        "Windows or another architecture than amd64 and arm64.",
        "Take the memoization off this template.",
    ),
    Reason.OWNED_BY_WORKFLOW: Text(
        "The step creates a Kubernetes object that is deleted together with its workflow. An entry would "
        "later claim that an object exists which is gone, so nothing is looked up or stored.",
        "Let the object outlive the workflow (no setOwnerReference, no uid of the workflow in it), or take "
        "the memoization off.",
    ),
    Reason.NAME_CLASH: Text(
        "The Pod has a container, volume or mount that uses a name or path which stepmemo needs for itself.",
        "Rename it: names that begin with `stepmemo`, and paths that begin with /stepmemo, are taken.",
    ),
    Reason.NO_ROOM: Text(
        "What stepmemo adds would have made the Pod larger than Kubernetes or Linux allow, so it was left "
        "alone.",
        "Shorten the template: most often its annotations are near 256 KiB, or a script in it is very long.",
    ),
    Reason.CANNOT_WRAP_COMMAND: Text(
        "The lookup would have to be made inside the Pod, and cannot be: a container that must wait for it "
        "has no command to put the wait before, or the Pod has a setting that does not allow for it.",
        "Give the container a command in the template; the detail names it.",
    ),
    Reason.IMAGE_BROKEN: Text(
        "stepmemo's own image could not be started in this Namespace, so no container of it is put into "
        "Pods there until it can. The step ran without a lookup.",
        "Make the image available to the nodes: registry, pull secret, architecture. The keeper's log "
        "shows what the kubelet said. `stepmemo doctor` says whether this Namespace is concerned.",
    ),
    Reason.KEEPER_UNAVAILABLE: Text(
        "stepmemo's keeper was not there when the Pod was created, and this Pod could not wait for it: so "
        "the step ran, and its outputs are not stored.",
        "Run `stepmemo doctor` to see what keeps the keeper from working.",
    ),
    Reason.NAMESPACE_NOT_KEPT: Text(
        "The keeper is set up for other Namespaces than this one, so its steps are neither looked up nor "
        "stored.",
        "Add the Namespace to the keeper's --namespaces, or take the opt-in off it.",
    ),
    # Steps: the lookup
    Reason.HIT: Text("The step was not run: its outputs came from the cache."),
    Reason.MISS: Text("There was no entry for its key, so the step ran."),
    Reason.EXPIRED: Text(
        "There was an entry for its key, but an older one than the template's max-age allows, so the step "
        "ran.",
        "There is nothing to do: its outputs replace the entry. A longer max-age gives more hits.",
    ),
    Reason.INCOMPLETE_ENTRY: Text(
        "There was an entry for its key, but without an output that the template declares now, so the step "
        "ran.",
        "There is nothing to do: its outputs replace the entry. If this happens at every run, two "
        "templates with different outputs use the same key.",
    ),
    Reason.BROKEN_ENTRY: Text(
        "What lies under its key in the cache is not an entry that Argo or stepmemo would have written, so "
        "the step ran.",
        "There is nothing to do for this step: its outputs replace what lies there. Find out who else "
        "writes to that ConfigMap.",
    ),
    Reason.KEY_MISMATCH: Text(
        "The entry that lies under the digest of its key was made for another key, so the step ran.",
        "There is nothing to do for this step: its outputs replace the entry. Somebody copied or edited "
        "entries of that ConfigMap.",
    ),
    Reason.ARTIFACT_GONE: Text(
        "There was an entry for its key, but one of its artifacts was deleted from its repository, so the "
        "entry was dropped and the step ran.",
        "There is nothing to do: its outputs make a new entry. If it is frequent, let objects live as long "
        "as entries do (a lifecycle rule of the bucket, the template's max-age).",
    ),
    Reason.ARTIFACT_CHANGED: Text(
        "There was an entry for its key, but one of its artifacts was overwritten since it was stored, so "
        "the step ran.",
        "There is nothing to do: its outputs replace the entry. Find out who overwrites objects of other "
        "workflows.",
    ),
    Reason.UNDECIDED: Text(
        "The lookup did not come to an end in time, or something else had reported outputs for the step "
        "already, so the step ran.",
        "If it is frequent, the API server is slow: see its latency, or give lookups more time (the "
        "webhook's --check-timeout, the keeper's --gate-timeout).",
    ),
    Reason.SHARED_RUN_FAILED: Text(
        "An equal step was running, and this one waited for its outputs. That step failed, was deleted or "
        "stored nothing, or its entry was removed, so this one ran itself.",
        "See what became of the other step: `stepmemo why` on its Pod.",
    ),
    Reason.SHARED_RUN_TIMEOUT: Text(
        "An equal step was running, and this one waited for its outputs, but not for longer than is "
        "allowed: then it ran beside the other.",
        "If such steps take long by nature, raise the keeper's --single-flight-timeout.",
    ),
    Reason.IDENTITY_MISMATCH: Text(
        "The Pod's owner, labels and node id do not belong together, so it may not be the step that it "
        "says it is. Nothing was reported for it, and it runs.",
        "Find out who makes or changes Pods with Argo's labels.",
    ),
    Reason.RELEASED: Text(
        "Somebody ran `stepmemo release`, so the step runs without a lookup, and is not stored."
    ),
    Reason.RECORDS_FULL: Text(
        "The Namespace has more step Pods at once than the keeper remembers of one Namespace (5,000, or 16 "
        "MiB of annotations), so the step runs without a lookup, and is not stored.",
        "Bound the workflow: Argo's `parallelism`, or shorter keys.",
    ),
    # Steps: storing the outputs
    Reason.STORED: Text(
        "The step ran, and its outputs are in the cache: the next step with this key is answered from there."
    ),
    Reason.STEP_FAILED: Text(
        "The step ran and did not succeed, or was stopped, so nothing was stored.",
        "There is nothing to do: only steps that succeed are stored.",
    ),
    Reason.OUTPUTS_FAILED: Text(
        "The step ran, but Argo's own container beside it (`wait` or `supervisor`) did not end well, so it "
        "is not sure that all outputs were saved, and nothing was stored.",
        "See the log of that container in the step's Pod: most often an artifact or the logs could not be "
        "uploaded.",
    ),
    Reason.OUTPUTS_INCOMPLETE: Text(
        "The step ran, but what it reported of its outputs (its WorkflowTaskResult) is missing or not "
        "complete, so nothing was stored.",
        "The service account that the step runs as needs the rights to create and patch workflowtaskresults: "
        "`stepmemo doctor` checks that. If it has them, see the log of the container `wait`.",
    ),
    Reason.ARTIFACT_GC: Text(
        "Argo will delete artifacts of this step, so an entry would soon point at files that are gone. "
        "Nothing was stored.",
        "Give the artifact artifactGC: {strategy: Never}, or take the memoization off.",
    ),
    Reason.EVICTED: Text(
        "Entries were removed from a cache to make room, or to clean it up: expired ones, and those that "
        "were not used for the longest time.",
        "If steps often miss because of this, give their templates a cache (ConfigMap) of their own, or "
        "allow for a larger one.",
    ),
    Reason.INVALID_LIMIT: Text(
        "The annotation stepmemo.dev/max-bytes of a cache is not a number of bytes, or an annotation of the "
        "Namespace is not a limit, so it is ignored.",
        'Write a number such as "512Ki", of "4Ki" at least. `stepmemo doctor` says what is wrong with those '
        "of a Namespace.",
    ),
    Reason.CACHE_FULL: Text(
        "The step ran, but its entry is larger than its cache may be, or too little could be removed to "
        "make room for it: a ConfigMap holds 1 MiB at most. Nothing was stored.",
        "Make the output parameters smaller: large values belong in artifacts. Or raise the limit, if the "
        "ConfigMap's annotation stepmemo.dev/max-bytes sets one. `stepmemo caches` shows how full caches "
        "are.",
    ),
    Reason.NOT_A_CACHE: Text(
        "The ConfigMap that is named as its cache is not one: it has not the label "
        "workflows.argoproj.io/configmap-type: Cache, or it is immutable. It was neither read nor written.",
        "Name another cache in the template. If that ConfigMap really is a cache, add the label.",
    ),
    Reason.CONFLICT: Text(
        "The step ran, but others kept changing its cache while the entry was to be written. Nothing was "
        "stored.",
        "If it is frequent, use several caches for the templates that share this one.",
    ),
    # Anywhere
    Reason.BEYOND_BUDGET: Text(
        "The object is so large, or took so long to look at, that it was let through as it is.",
        "Split the workflow or template if its steps should be memoized.",
    ),
    Reason.OVERLOADED: Text(
        "Too many large objects were submitted at once, so this one was let through without having been "
        "looked at.",
        "If it is frequent, run more replicas of the webhook.",
    ),
    Reason.FORBIDDEN: Text(
        "stepmemo, or the step's service account, lacks a right that was needed. The step runs, or its "
        "outputs are not stored.",
        "Grant the right that the detail names; `stepmemo doctor` checks the usual ones.",
    ),
    Reason.LABEL_REFUSED: Text(
        "The step is over, but the label that tells how it ended could not be written on its Pod.",
        "Find the policy or webhook in the cluster that refuses changes of Pods.",
    ),
    Reason.RESULT_NOT_DELETED: Text(
        "stepmemo was serving the step from the cache when its Pod was deleted, or was let run by somebody "
        "else. The WorkflowTaskResult that stepmemo had written for it could not be deleted for an hour, and "
        "is left there.",
        "See what refuses the deletion, which the message names. Delete the WorkflowTaskResult that has the "
        "name of the node, unless the step has reported into it since.",
    ),
    Reason.RATE_LIMITED: Text(
        "The Namespace asked stepmemo for more than its share, so this step runs without a lookup, or its "
        "outputs are not stored.",
        "If it is frequent, look for a workflow with thousands of short steps, and bound its `parallelism`.",
    ),
    Reason.STOPPED: Text("The Pod was stopped before the lookup, or the storing of its outputs, was done."),
    Reason.API_UNAVAILABLE: Text(
        "The API server did not answer in time, or answered with an error of its own. The step runs, or "
        "its outputs are not stored.",
        "If it is frequent, look at the API server's load.",
    ),
    Reason.STORE_UNAVAILABLE: Text(
        "The database that holds the entries did not answer in time, or answered with an error of its own. "
        "The step runs, or its outputs are not stored.",
        "See the database, and the keeper's log for what it says.",
    ),
    Reason.INTERNAL_ERROR: Text(
        "stepmemo met an error of its own. The step was not touched.",
        "Please report it, with the traceback in the log of the keeper or the webhook.",
    ),
}
"""By code, every one."""
