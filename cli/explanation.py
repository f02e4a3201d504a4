"""Why a step was answered from the cache or not, in one paragraph, from what the cluster still shows; pure.

Nothing that was read is trusted to be of any type, and whatever is not recorded is said to be so.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from argo import names as argo
from argo.shape import mapping
from argo.steppod import NotAStep, StepPod
from cli import inventory, keychange
from cli.explanations import TEXTS
from cli.inventory import ago, read
from cli.keychange import Earlier
from memoize import autokey, configmap, names
from memoize.earlier import earlier
from memoize.entry import Entry
from memoize.key import data_key
from memoize.outcome import Outcome
from memoize.reasons import Reason
from memoize.taskresult import posted_by_us
from webhook.pods.decision import Skip, classify_pod
from webhook.pods.room import ANNOTATIONS

LOOKED_UP = frozenset(
    {
        Reason.HIT,
        Reason.MISS,
        Reason.EXPIRED,
        Reason.INCOMPLETE_ENTRY,
        Reason.BROKEN_ENTRY,
        Reason.KEY_MISMATCH,
        Reason.ARTIFACT_GONE,
        Reason.ARTIFACT_CHANGED,
        Reason.SHARED_RUN_FAILED,
        Reason.SHARED_RUN_TIMEOUT,
    }
)
"""What only a lookup can say."""
RAN = frozenset(
    {
        Reason.STORED,
        Reason.STEP_FAILED,
        Reason.OUTPUTS_FAILED,
        Reason.OUTPUTS_INCOMPLETE,
        Reason.ARTIFACT_GC,
        Reason.CACHE_FULL,
        Reason.NOT_A_CACHE,
        Reason.CONFLICT,
    }
)
"""What is said at the end of a step that ran, in the place of what the lookup had said."""
_BY_EVENT_ALONE = ", ".join(
    (
        Reason.NAME_CLASH,
        Reason.NO_ROOM,
        Reason.CANNOT_WRAP_COMMAND,
        Reason.IMAGE_BROKEN,
        Reason.KEEPER_UNAVAILABLE,
        Reason.NAMESPACE_NOT_KEPT,
        Reason.NO_AUTO_KEY,
    )
)
"""Why admission left a Pod alone, as far as the Pod, its Workflow and its Namespace do not show it."""
_UNRECORDED = {
    names.RESULT_MISS: "The step was not answered from the cache: it runs, or ran, and its outputs are to be "
    "stored.",
    names.RESULT_SKIPPED: "The step runs, or ran, and its outputs are not stored.",
}
"""By the Pod's label, where no annotation says why: there is none where the Pod has no room for it."""
_ABOUT = re.compile(r"step (\S+?) (?:was served|were stored|is not memoized)(?:[^:]*)(?:: (.*))?", re.DOTALL)
"""How an Event names the step, and what more it says (server/events.py)."""


class Told(NamedTuple):
    """What an Event of ours says of a step."""

    node_id: str
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a step. None is what is not there, or could not be read: `unseen` says which."""

    namespace: str
    workflow_name: str
    pod: Mapping[str, Any] | None = None
    workflow: Mapping[str, Any] | None = None
    node: Mapping[str, Any] | None = None
    """Of the Workflow's status."""
    told: Sequence[Outcome] = ()
    """By Events, oldest first."""
    result: Mapping[str, Any] | None = None
    """The WorkflowTaskResult."""
    namespace_labels: Mapping[str, str] | None = None
    config_map: Mapping[str, Any] | None = None
    elsewhere: bool | None = False
    """Entries are kept in a database, and the keeper is asked; None where that is not known."""
    kept: str | None = None
    """What the keeper has for the step then, "" for no entry; None where it could not be asked."""
    compared: bool = False
    """Its cache was looked through for an `earlier` entry of its template, since its key is `auto`."""
    earlier: Earlier | None = None
    unseen: Sequence[str] = ()
    """What could not be read, and why."""

    @property
    def annotations(self) -> Mapping[str, Any]:
        """The Pod's."""
        return mapping(mapping(mapping(self.pod).get("metadata")).get("annotations"))

    @property
    def label(self) -> str:
        """How far its memoization is."""
        labels = mapping(mapping(mapping(self.pod).get("metadata")).get("labels"))
        return str(labels.get(names.RESULT) or "")

    @property
    def cache(self) -> str:
        """The ConfigMap's name, "" where no Pod says it."""
        return str(self.annotations.get(names.CACHE) or "")

    @property
    def place(self) -> str:
        """The data key, "" where no Pod says it."""
        if key := self.annotations.get(names.KEY):
            return data_key(str(key))
        return str(self.annotations.get(names.KEY_DIGEST) or "")

    @property
    def template(self) -> str:
        """The template's name, "" where neither node nor Pod says it."""
        node, step = mapping(self.node), StepPod.parse(self.pod or {}, self.namespace)
        template = mapping(step.layout.template) if isinstance(step, StepPod) else {}
        referred = mapping(node.get("templateRef")).get("template")
        return str(template.get("name") or node.get("templateName") or referred or "")

    @property
    def key_parts(self) -> Mapping[str, str]:
        """The short digests of the parts of a key that is `auto`, by name; empty for any other."""
        return autokey.parts_of(self.annotations)

    @property
    def created(self) -> datetime | None:
        """When the Pod was, None where that is not known."""
        metadata = mapping(mapping(self.pod).get("metadata"))
        return inventory.read_time(metadata.get("creationTimestamp"))

    @property
    def pod_name(self) -> str:
        """Its name, "" where there is none."""
        return str(mapping(mapping(self.pod).get("metadata")).get("name") or "")

    @property
    def step(self) -> str:
        """As a person knows it: the node's display name, or the end of its name."""
        name = self.annotations.get(argo.NODE_NAME) or mapping(self.node).get("name") or ""
        return str(mapping(self.node).get("displayName") or str(name).rpartition(".")[2] or self.pod_name)


def earlier_in(data: Mapping[str, str], facts: Facts) -> Earlier | None:
    """The entry of a cache that the step is compared with, None where there is none."""
    found = earlier(data, facts.template, facts.place, facts.created)
    entry = read(data.get(found, ""))
    return Earlier(found, entry) if isinstance(entry, Entry) else None


class Explanation(NamedTuple):
    """What became of a step."""

    outcome: Outcome | None
    """None where nothing of ours decided it."""
    text: str
    """The paragraph."""
    changed: Sequence[str] | None = None
    """The parts in which its key differs from the one that it is compared with; None for none told."""


def explain(facts: Facts, now: datetime) -> Explanation:
    """Say what became of the step, where that was decided, and what to do."""
    outcome, text = _decided(facts)
    compared = False  # where its author wrote the key, or it was found
    if outcome is None:
        sentences = [text]
    else:
        sentences = [f"{outcome.reason}.", text or TEXTS[outcome.reason].what]
        sentences += [f"stepmemo noted: {_ended(outcome.detail)}"] if outcome.detail else []
        sentences += _where(facts, outcome.reason)
        sentences += [entry] if (entry := _entry(facts, outcome.reason, now)) else []
        if compared := facts.compared and outcome.reason in RAN | {Reason.MISS}:
            sentences.append(
                keychange.difference(facts.place, facts.key_parts, facts.template, facts.earlier, now)
            )
        sentences.append(TEXTS[outcome.reason].cure)
    if facts.unseen:
        sentences.append(f"Not seen: {'; '.join(facts.unseen)}.")
    changed = keychange.changed(facts.place, facts.key_parts, facts.earlier) if compared else None
    return Explanation(outcome, f"{_subject(facts)}: {' '.join(sentences)}", changed)


def _subject(facts: Facts) -> str:
    pod = f"Pod {facts.pod_name}" if facts.pod_name else "its Pod is gone"
    workflow = f" of workflow {facts.workflow_name}" if facts.workflow_name else ""
    return f"Step {facts.step}{workflow} ({pod})"


def _decided(facts: Facts) -> tuple[Outcome | None, str]:
    """The outcome, and a text in place of the usual one; where nothing of ours decided, the text alone."""
    if facts.pod is not None:
        return _by_pod(facts, facts.pod)
    if facts.told:
        return facts.told[-1], ""
    if facts.result is not None and posted_by_us(facts.result):
        return Outcome(Reason.HIT), ""
    return None, _by_node(facts)


def _by_pod(facts: Facts, pod: Mapping[str, Any]) -> tuple[Outcome | None, str]:
    """What the label says, what our containers say, or else what admission says of such a Pod."""
    said = parse(str(facts.annotations.get(names.REASON) or ""))
    hits = [one for one in facts.told if one.reason is Reason.HIT]
    match facts.label:
        case names.RESULT_HIT:
            return (hits[-1] if hits else Outcome(Reason.HIT, said.detail if said else "")), ""
        case names.RESULT_GATED:
            return Outcome(Reason.GATED), ""
        case names.RESULT_STORED:
            return said or Outcome(Reason.STORED), ""
        case names.RESULT_MISS | names.RESULT_SKIPPED as label:
            if said := said or next(reversed(facts.told), None):
                return said, ""
            # Admission writes the label miss alone, and the keeper more, where there is room for it.
            if label == names.RESULT_MISS and _has_room(facts.annotations):
                return Outcome(Reason.NOT_GATED), ""
            return None, f"{_UNRECORDED[label]} Why is not recorded on its Pod."
    if inside := list(_inside(pod)):
        return inside[0], ""
    if facts.label == names.RESULT_IN_POD or _has_ours(pod):
        return said or Outcome(Reason.INJECTED), ""
    if facts.told:
        return facts.told[-1], ""
    return _admission(facts, pod)


def _has_room(annotations: Mapping[str, Any]) -> bool:
    """Whether names.REASON could be written beside these."""
    taken = sum(len(name) + len(str(text).encode(errors="replace")) for name, text in annotations.items())
    return taken + len(names.REASON) + names.LONGEST_REASON <= ANNOTATIONS


def _admission(facts: Facts, pod: Mapping[str, Any]) -> tuple[Outcome | None, str]:
    """What the webhook decides of such a Pod, by the same code; no outcome where we see less than it did."""
    metadata = mapping(mapping(facts.workflow).get("metadata")) if facts.workflow is not None else None
    parsed = StepPod.parse(pod, facts.namespace)
    decided = classify_pod(parsed, metadata, facts.namespace_labels)
    if isinstance(decided, Skip):
        if decided.reason is Reason.MODE_UNKNOWN and not _is_owner(metadata, parsed):
            return None, _untold("its Workflow, which is gone, or may not be read here")
        if decided.reason is Reason.API_UNAVAILABLE:
            return None, _untold("the right to get the Namespace")
        return Outcome(decided.reason, decided.detail), ""
    return None, (
        "The step is to be memoized, but its Pod was left alone when it was created: stepmemo's webhook "
        "was not reached, had too much to do, or has other Namespaces than this one; or for a reason whose "
        f"Event is gone ({_BY_EVENT_ALONE}). It ran without a lookup, and is not stored. Run `stepmemo "
        "doctor`, which says whether the webhook can be reached now."
    )


def _is_owner(metadata: Mapping[str, Any] | None, pod: StepPod | NotAStep) -> bool:
    """Whether this is the Workflow's own metadata, not missing, and not that of a later one of its name."""
    return (
        metadata is not None
        and isinstance(pod, StepPod)
        and metadata.get("uid", pod.owner.uid) == pod.owner.uid
    )


def _untold(without: str) -> str:
    return (
        "stepmemo left its Pod alone when it was created, and no Event says why any more. The reason cannot "
        f"be told without {without}."
    )


def _by_node(facts: Facts) -> str:
    node = mapping(facts.node)
    if argos := mapping(node.get("memoizationStatus")):
        found = "answered it from" if argos.get("hit") is True else "looked for it, in vain, in"
        where = f"the cache {argos.get('cacheName')} under the key {argos.get('key')!r}"
        return (
            f"Argo's own memoization {found} {where}: the template had a memoize block that was not "
            "stepmemo's when the workflow ran. To have stepmemo answer it, opt in (stepmemo.dev/memoize) and "
            "submit a new workflow."
        )
    if (kind := node.get("type")) not in (None, "Pod"):
        return f"It is a node of type {kind}, which has no Pod: stepmemo memoizes steps that run in one."
    return (
        "Neither its Pod nor an Event about it is there any more, so nothing says what stepmemo did with "
        "it. Events are kept for an hour by default, and Pods until the workflow's podGC. The keeper's log "
        "may still tell."
    )


def _where(facts: Facts, reason: Reason) -> Iterator[str]:
    """Where it was looked up, or would have been."""
    if not facts.cache:
        return
    key = facts.annotations.get(names.KEY)
    under = f"the key {key!r}" if key else f"the data key {facts.place}"
    place = f"in the cache {facts.cache}, under {under}"
    by = "inside its Pod" if _has_ours(mapping(facts.pod)) else "by the keeper, outside of its Pod"
    if reason in LOOKED_UP:
        yield f"It was looked up {by}, {place}."
    elif reason in RAN:
        yield (
            f"Its place is {place}. Why it ran, and was not answered from there, is no longer recorded: "
            "most often there was no entry."
        )
    else:
        yield f"Its place is {place}."


def _entry(facts: Facts, reason: Reason, now: datetime) -> str:
    """What lies there now; "" where that says nothing, or is not known."""
    if not facts.cache or not facts.place:
        return ""
    if facts.elsewhere:
        return "" if facts.kept is None else _said(facts.kept, now)
    if any("configmaps" in one for one in facts.unseen):
        return ""
    found = _in_config_map(facts, now)
    if facts.elsewhere is None:
        return (
            f"{found} If the keeper keeps entries in PostgreSQL, that says little: it is not looked at here."
        )
    return found


def _in_config_map(facts: Facts, now: datetime) -> str:
    if facts.config_map is None:
        return f"There is no ConfigMap {facts.cache} now."
    if configmap.not_a_cache(facts.config_map):
        return f"The ConfigMap {facts.cache} is not a cache."
    return _said(configmap.data(facts.config_map).get(facts.place, ""), now)


def _said(text: str, now: datetime) -> str:
    """What is said of an entry with this text, "" for none."""
    if not text:
        return "There is no entry for it now."
    entry = read(text)
    if not isinstance(entry, Entry):
        return "What lies there now is not an entry."
    maker = f" by workflow {entry.workflow}" if entry.workflow else ""
    age = f"{ago(entry.created, now)} ago" if entry.created else "at an unknown time"
    return f"There is an entry for it now, made {age}{maker}."


def _inside(pod: Mapping[str, Any]) -> Iterator[Outcome]:
    """What our containers in the Pod said at their end: a hit first, else what came last."""
    status = mapping(pod.get("status"))
    found = {}
    for kind in ("initContainerStatuses", "containerStatuses"):
        statuses = status.get(kind)
        for one in map(mapping, statuses if isinstance(statuses, list) else ()):
            ended = mapping(mapping(one.get("state")).get("terminated"))
            if one.get("name") in names.CONTAINERS and (outcome := _message(ended.get("message"))):
                found[one["name"]] = outcome
    checked, captured = found.get(names.CHECK_CONTAINER), found.get(names.CAPTURE_CONTAINER)
    if checked is not None and checked.reason is Reason.HIT:
        yield checked
    yield from filter(None, (captured, checked))


def _message(text: object) -> Outcome | None:
    """A termination message of ours (sidecar/report.py)."""
    try:
        said = json.loads(str(text))
        return Outcome(Reason(said["reason"]), str(said.get("detail") or ""))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _has_ours(pod: Mapping[str, Any]) -> bool:
    spec = mapping(pod.get("spec"))
    lists = [spec.get("initContainers"), spec.get("containers")]
    return any(
        mapping(one).get("name") in names.CONTAINERS
        for found in lists
        if isinstance(found, list)
        for one in found
    )


def parse(text: str) -> Outcome | None:
    """What names.REASON and an Event's message say: `Code: detail`; None for anything else."""
    code, _, detail = text.partition(": ")
    try:
        return Outcome(Reason(code), detail)
    except ValueError:
        return None


def told(message: str) -> Told | None:
    """What an Event of ours says, and of which step; None for what is none."""
    outcome = parse(message)
    found = _ABOUT.search(outcome.detail) if outcome else None
    if outcome is None or found is None:
        return None
    return Told(found[1], Outcome(outcome.reason, found[2] or ""))


def _ended(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
