"""What the webhook tells the sidecar of a step, and how it travels: one JSON variable."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from argo import artifact_gc
from memoize.key import HASHED, data_key, digest, is_hashed
from memoize.outputs import Declared


class Step(NamedTuple):
    """One step Pod's memoization, all tags resolved.

    `declared` is None where Argo offloaded the template: the sidecar then reads it from the Pod's files.
    `deadline` is when Argo ends the step (RFC 3339), "" without such a time.
    `gc` says that Argo may delete artifacts of this workflow that do not say `Never` themselves.
    `digest` is the data key where the key itself is too long to be handed on, and empty then.
    `parts` are the short digests of what the key was computed from (memoize.keyparts), and `template` is its
    template's name; empty for a key that somebody wrote.
    """

    key: str
    cache: str
    max_age: str
    node_id: str
    workflow: str
    workflow_uid: str
    instance_id: str
    include_result: bool
    gc: bool
    declared: Declared | None
    deadline: str = ""
    digest: str = ""
    template: str = ""
    parts: Mapping[str, str] = MappingProxyType({})

    @property
    def data_key(self) -> str:
        """The data key under which the step's entry lies."""
        return self.digest or data_key(self.key)

    @property
    def entry_key(self) -> str:
        """What the step's entry says of its key (see memoize.key.belongs)."""
        return self.digest or (self.key if is_hashed(self.data_key) else "")

    @property
    def key_hash(self) -> str:
        """The SHA-256 of the key in hex: what a log may say of it."""
        return self.digest.removeprefix(HASHED) if self.digest else digest(self.key)

    @property
    def artifacts_follow_workflow(self) -> bool:
        """Whether an output artifact, or the archived log, leaves it to the workflow if Argo deletes it.

        Unknown is yes: the template is offloaded, and the step may have such artifacts.
        """
        if self.declared is None or self.declared.archive is not None:
            return True
        return not all(artifact_gc.strategy(artifact) for artifact in self.declared.artifacts)

    def without_key(self) -> "Step":
        """The same step, with no more of its key than says where its entry lies."""
        return self._replace(key="", digest=self.data_key) if is_hashed(self.data_key) else self

    def to_json(self) -> str:
        """The value of names.ENV_STEP: compact, and safe from the kubelet's `$(NAME)` expansion."""
        fields: dict[str, Any] = {
            "key": self.key,
            "cache": self.cache,
            "maxAge": self.max_age,
            "nodeID": self.node_id,
            "workflow": self.workflow,
            "workflowUID": self.workflow_uid,
            "instanceID": self.instance_id,
            "includeResult": self.include_result,
            "gc": self.gc,
            "declared": self.declared.to_dict() if self.declared is not None else None,
            "deadline": self.deadline,
        }
        optional = {"digest": self.digest, "template": self.template, "parts": dict(self.parts)}
        fields |= {name: value for name, value in optional.items() if value}
        return json.dumps(fields, separators=(",", ":"), sort_keys=True).replace("$", "\\u0024")

    @classmethod
    def from_json(cls, text: str) -> "Step":
        """The inverse of to_json; KeyError, TypeError or ValueError for anything else."""
        fields: Mapping[str, Any] = json.loads(text)
        declared = fields["declared"]
        return cls(
            key=fields["key"],
            cache=fields["cache"],
            max_age=fields["maxAge"],
            node_id=fields["nodeID"],
            workflow=fields["workflow"],
            workflow_uid=fields["workflowUID"],
            instance_id=fields["instanceID"],
            include_result=fields["includeResult"],
            gc=fields["gc"],
            declared=Declared.from_dict(declared) if declared is not None else None,
            deadline=fields["deadline"],
            digest=fields.get("digest", ""),
            template=fields.get("template", ""),
            parts=fields.get("parts", {}),
        )
