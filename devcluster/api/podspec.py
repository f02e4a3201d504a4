"""What the API server makes of a Pod's spec, in a Pod or in a PodTemplate, before it looks at it.

Fields that it does not know are dropped, as everywhere in its own kinds; here that is done for volumes and
containers alone. A volume for which no known source is left is an empty directory (SetDefaults_Volume in
kubernetes, pkg/apis/core/v1/defaults.go).
"""

from typing import Any

from devcluster.api import kinds
from devcluster.api.kinds import Kind, Object


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SOURCES = _words(
    "awsElasticBlockStore azureDisk azureFile cephfs cinder configMap csi downwardAPI emptyDir ephemeral fc "
    "flexVolume flocker gcePersistentDisk gitRepo glusterfs hostPath image iscsi nfs persistentVolumeClaim "
    "photonPersistentDisk portworxVolume projected quobyte rbd scaleIO secret storageos vsphereVolume"
)
_CONTAINER = _words(
    "args command env envFrom image imagePullPolicy lifecycle livenessProbe name ports readinessProbe "
    "resizePolicy resources restartPolicy restartPolicyRules securityContext startupProbe stdin stdinOnce "
    "terminationMessagePath terminationMessagePolicy tty volumeDevices volumeMounts workingDir"
)


def of(kind: Kind, obj: Object) -> Object | None:
    """The Pod's spec in an object of this kind, None where there is none."""
    holder = obj.get("template") or {} if kind is kinds.POD_TEMPLATE else obj
    spec = holder.get("spec") if kind in (kinds.POD, kinds.POD_TEMPLATE) else None
    return spec if isinstance(spec, dict) else None


def normal(spec: Object) -> Object:
    """The spec as it survives the server's decoding and defaulting."""
    changed: dict[str, Any] = {}
    if volumes := spec.get("volumes"):
        changed["volumes"] = [_volume(volume) for volume in volumes]
    for field in ("containers", "initContainers"):
        if containers := spec.get(field):
            changed[field] = [_known(container, _CONTAINER) for container in containers]
    left = {name: value for name, value in spec.items() if name != "schedulingGates" or value}
    return {**left, **changed}


def _volume(volume: Object) -> Object:
    known = _known(volume, _SOURCES | {"name"})
    return known if known.keys() & _SOURCES else {**known, "emptyDir": {}}


def _known(obj: Object, fields: frozenset[str]) -> Object:
    return {name: value for name, value in obj.items() if name in fields}
