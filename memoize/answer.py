"""What answers a step: its outputs as this very step would have reported them.

A run posts the whole declared object of its template with the value, or the location, set into it
(ReportOutputs, SaveParameters and saveArtifactFromFile in workflow/executor/executor.go, 3.5 to 4.1). So what
is posted are the *reader's* objects; from the entry comes only what the run would have found out.
"""

from collections.abc import Mapping
from typing import Any

from argo import artifact_gc
from argo.shape import DRIVERS
from memoize.outputs import Declared, Outputs, found_artifacts, log_names, own_value, values

_OF_THE_ENTRY = DRIVERS | {"archive", "mode"}
"""Fields that belong to the stored object: where it lies, how it is packed, its mode bits."""
_NEVER_POSTED = frozenset({"deleted", "from", "fromExpression", "subPath"})
"""Fields of an artifact that have no meaning in what a step with a Pod reports."""


def answer(outputs: Mapping[str, Any] | None, declared: Declared) -> Outputs:
    """Return what to post for a step that declares `declared`, from an entry's sound outputs.

    Nothing may be missing (outputs.missing). Every artifact gets artifactGC `Never`, whatever the reader
    says: other entries and other workflows point to the same object, which his must not delete. Undeclared
    are only the archived logs, where the reader archives his own. `exitCode` is no part of it: Argo's
    controller takes it from the Pod (getExitCode in workflow/controller/operator.go).
    """
    given, stored = values(outputs), found_artifacts(outputs)
    parameters = []
    for parameter in declared.parameters:
        own = own_value(parameter, declared)
        parameters.append({**parameter, "value": given[parameter["name"]] if own is None else own})
    logs = [{"name": name} for name in log_names(declared)] if declared.archives_logs else []
    artifacts = [
        _placed(artifact, stored[artifact["name"]])
        for artifact in (*declared.artifacts, *logs)
        if artifact["name"] in stored
    ]
    posted: Outputs = {}
    if parameters:
        posted["parameters"] = parameters
    if artifacts:
        posted["artifacts"] = artifacts
    if declared.result:
        posted["result"] = (outputs or {})["result"]
    return posted


def _placed(declared: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """The reader's artifact, where the stored one lies."""
    kept = {k: v for k, v in declared.items() if k not in _OF_THE_ENTRY | _NEVER_POSTED}
    # Argo takes the first driver that is there, an empty one as well (ArtifactLocation.Get).
    taken = {k: v for k, v in stored.items() if k in _OF_THE_ENTRY and (v if k in DRIVERS else v is not None)}
    return {**kept, **taken, "artifactGC": {"strategy": artifact_gc.NEVER}}
