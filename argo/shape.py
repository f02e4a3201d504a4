"""The JSON types of Argo's Outputs (pkg/apis/workflow/v1alpha1/workflow_types.go, v3.5 to v4.1).

The controller decodes every WorkflowTaskResult of a cluster as one list, and where Argo's minimal CRDs are
installed the API server lets any type into one. One wrong type would keep the controller from all of them.
"""

from collections.abc import Mapping
from typing import Any


def mapping(value: object) -> Mapping[str, Any]:
    """The value if it is an object, else an empty one: for JSON that anybody may have written."""
    if isinstance(value, dict):  # as JSON has it; to ask for a Mapping takes five times as long
        return value
    return value if value is not None and isinstance(value, Mapping) else {}


_ANY_NAME = "*"
"""In place of a field's name: every name."""
_INT32 = range(-(1 << 31), 1 << 31)
_UINT64 = range(1 << 64)


def _object(strings: str = "", booleans: str = "", **fields: Any) -> dict[str, Any]:
    """An object with fields of these names, and the `fields` of other types."""
    return {**dict.fromkeys(strings.split(), str), **dict.fromkeys(booleans.split(), bool), **fields}


_KEY = _object("name key", "optional")
"""SecretKeySelector and ConfigMapKeySelector of Kubernetes."""
_USER = _object(usernameSecret=_KEY, passwordSecret=_KEY)
_ACCOUNT = _object(accessKeySecret=_KEY, secretKeySecret=_KEY)
_ANY_STRINGS = {_ANY_NAME: str}

_AUTH = _object(
    basicAuth=_USER,
    clientCert=_object(clientCertSecret=_KEY, clientKeySecret=_KEY),
    oauth2=_object(
        clientIDSecret=_KEY,
        clientSecretSecret=_KEY,
        tokenURLSecret=_KEY,
        scopes=[str],
        endpointParams=[_object("key value")],
    ),
)

_LOCATIONS = _object(
    artifactory=_object("url", **_USER),
    azure=_object("endpoint container blob", "useSDKCreds", accountKeySecret=_KEY),
    gcs=_object("bucket key", serviceAccountKeySecret=_KEY),
    git=_object(
        "repo revision branch",
        "singleBranch disableSubmodules insecureIgnoreHostKey insecureSkipTLS",
        depth=_UINT64,
        fetch=[str],
        sshPrivateKeySecret=_KEY,
        **_USER,
    ),
    hdfs=_object(
        "path hdfsUser dataTransferProtection krbUsername krbRealm krbServicePrincipalName",
        "force",
        addresses=[str],
        krbCCacheSecret=_KEY,
        krbKeytabSecret=_KEY,
        krbConfigConfigMap=_KEY,
    ),
    http=_object("url", "saveStreamViaFile", headers=[_object("name value")], auth=_AUTH),
    oss=_object(
        "endpoint bucket key securityToken",
        "useSDKCreds createBucketIfNotPresent",
        lifecycleRule=_object(markInfrequentAccessAfterDays=_INT32, markDeletionAfterDays=_INT32),
        **_ACCOUNT,
    ),
    plugin=_object("name configuration key", connectionTimeoutSeconds=_INT32),
    raw=_object("data"),
    s3=_object(
        "endpoint bucket key region roleARN addressingStyle",
        "useSDKCreds insecure",
        caSecret=_KEY,
        sessionTokenSecret=_KEY,
        createBucketIfNotPresent=_object("", "objectLocking"),
        encryptionOptions=_object(
            "kmsKeyId kmsEncryptionContext", "enableEncryption", serverSideCustomerKeySecret=_KEY
        ),
        **_ACCOUNT,
    ),
)

DRIVERS = frozenset(_LOCATIONS)
"""The fields of an artifact that say where it lies (ArtifactLocation): one for each artifact driver."""

_PARAMETER = _object(
    "name globalName",
    enum=[],
    valueFrom=_object(
        "path jsonPath jqFilter event parameter expression", supplied=_object(), configMapKeyRef=_KEY
    ),
)
"""Without the fields of type AnyString, which takes anything."""

_ARTIFACT = _object(
    "name path from fromExpression subPath globalName",
    "recurseMode optional deleted archiveLogs",
    mode=_INT32,
    archive=_object(none=_object(), tar=_object(compressionLevel=_INT32), zip=_object()),
    artifactGC=_object(
        "strategy serviceAccountName",
        podMetadata=_object(annotations=_ANY_STRINGS, labels=_ANY_STRINGS),
    ),
    **_LOCATIONS,
)

OUTPUTS = _object("result exitCode", parameters=[_PARAMETER], artifacts=[_ARTIFACT])
"""`str` and `bool` stand for themselves, a range for an integer in it, `[x]` for a list of x, `[]` for one of
anything, a dictionary for an object: with these fields, and others of any type."""


_CONTAINER = _object(
    "name image workingDir",
    command=[str],
    args=[str],
    env=[_object("name value", valueFrom=_object())],
    envFrom=[_object()],
    lifecycle=_object(),
    volumeMounts=[_object("name mountPath")],
    volumeDevices=[_object("name devicePath")],
)
_VOLUMES = [_object("name")]
POD_SPEC = _object(containers=[_CONTAINER], initContainers=[_CONTAINER], volumes=_VOLUMES)
"""What is read of a Pod's spec: for Pods that no API server has seen."""
TEMPLATE = _object(
    container=_CONTAINER,
    script=_CONTAINER | {"source": str},
    containerSet=_object(containers=[_CONTAINER]),
    sidecars=[_CONTAINER],
    initContainers=[_CONTAINER],
    volumes=_VOLUMES,
)
"""The same of a template, with its tags."""


class ShapeError(ValueError):
    """A value of a wrong type; the text names its field, and never repeats it."""


def check(value: object, shape: Any, path: str) -> None:
    """Raise ShapeError unless JSON's `value`, found at `path`, has the shape. As in Go, null has any."""
    if value is None:
        return
    if isinstance(shape, dict):
        if not isinstance(value, Mapping):
            raise ShapeError(f"{path} is not an object")
        for name, item in value.items():
            if name in shape:
                check(item, shape[name], f"{path}.{name}")
            elif _ANY_NAME in shape:
                check(item, shape[_ANY_NAME], f"{path}.{_ANY_NAME}")
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise ShapeError(f"{path} is not a list")
        for item_shape in shape:
            for i, item in enumerate(value):
                check(item, item_shape, f"{path}[{i}]")
    elif isinstance(shape, range):
        if not isinstance(value, int) or isinstance(value, bool) or value not in shape:
            raise ShapeError(f"{path} is not an integer from {shape.start} to {shape.stop - 1}")
    elif not isinstance(value, shape):
        raise ShapeError(f"{path} is not a {'string' if shape is str else 'boolean'}")
