"""What a Pod must be: the parts of its spec that an injection could break, and what may change in it later.

The rules on changes are those of ValidatePodUpdate (kubernetes, pkg/apis/core/validation/validation.go). Left
out of them: which tolerations, node selectors and affinities may be added, deadlines that are made longer,
and that a container's status does not go back from terminated.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from devcluster.api import podspec
from devcluster.api.errors import Cause, duplicate, forbidden_value, invalid_value, required
from devcluster.api.kinds import POD, POD_TEMPLATE, Object

_NAME_PART = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_NAME_PART_TEXT = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
    f"alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    f"'{_NAME_PART}')"
)
_CHANGEABLE = ("activeDeadlineSeconds", "schedulingGates", "terminationGracePeriodSeconds", "tolerations")
_CHANGEABLE_WHILE_GATED = ("affinity", "nodeSelector")
_UNCHANGEABLE_TEXT = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def check_pod(obj: Object) -> Iterable[Cause]:
    """What is wrong with a Pod by itself."""
    spec = podspec.of(POD, obj) or {}
    yield from _check_spec(spec, "spec")
    if spec.get("nodeName") and spec.get("schedulingGates"):
        yield forbidden_value("spec.nodeName", "cannot be set until all schedulingGates have been cleared")


def check_pod_template(obj: Object) -> Iterable[Cause]:
    """What is wrong with a PodTemplate."""
    return _check_spec(podspec.of(POD_TEMPLATE, obj) or {}, "template.spec")


def check_pod_update(new: Object, old: Object) -> Iterable[Cause]:
    """What is wrong with a change of a Pod's spec; the server adds a diff to the last of these."""
    spec, before = podspec.of(POD, new) or {}, podspec.of(POD, old) or {}
    gates = {gate.get("name") for gate in before.get("schedulingGates") or []}
    for index, gate in enumerate(spec.get("schedulingGates") or []):
        if gate.get("name") not in gates:
            why = f"only deletion is allowed, but found new scheduling gate '{gate.get('name')}'"
            yield forbidden_value(f"spec.schedulingGates[{index}].name", why)
    free = _CHANGEABLE + (_CHANGEABLE_WHILE_GATED if gates else ())
    if _fixed(spec, free) != _fixed(before, free):
        yield forbidden_value("spec", _UNCHANGEABLE_TEXT)


def _fixed(spec: Object, free: Sequence[str]) -> dict[str, Any]:
    """What of a spec stays as it is for good; a field that is empty is as good as one that is not there."""
    fixed = {name: value for name, value in spec.items() if name not in free and value not in (None, [], {})}
    for field in ("containers", "initContainers"):
        if field in fixed:
            fixed[field] = [{**container, "image": ""} for container in fixed[field]]
    return fixed


def _check_spec(spec: Object, path: str) -> Iterable[Cause]:
    volumes = {volume.get("name") for volume in spec.get("volumes") or []}
    seen: set[str] = set()
    if not spec.get("containers"):
        yield required(f"{path}.containers")
    for field in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(field) or []):
            where = f"{path}.{field}[{index}]"
            name = container.get("name", "")
            if not name:
                yield required(f"{where}.name")
            elif name in seen:
                yield duplicate(f"{where}.name", name)
            seen.add(name)
            for number, mount in enumerate(container.get("volumeMounts") or []):
                if mount.get("name") not in volumes:
                    text = f'Not found: "{mount.get("name")}"'
                    yield Cause(f"{where}.volumeMounts[{number}].name", "FieldValueNotFound", text)
    yield from _check_gates(spec, path)


def _check_gates(spec: Object, path: str) -> Iterable[Cause]:
    """Each gate is named as a label is, and once (validateSchedulingGates)."""
    seen: set[str] = set()
    for index, gate in enumerate(spec.get("schedulingGates") or []):
        where, name = f"{path}.schedulingGates[{index}]", gate.get("name", "")
        part = name.rpartition("/")[2]
        if not part:
            yield invalid_value(where, name, "name part must be non-empty")
        if not re.fullmatch(_NAME_PART, part):
            yield invalid_value(where, name, _NAME_PART_TEXT)
        if name in seen:
            yield duplicate(where, name)
        seen.add(name)
