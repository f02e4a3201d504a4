"""The key that writes itself: what a step would execute, and with what, as its Pod and its template show it.

Pure. `docs/keys.md` is the manual of the form. A step is taken apart into named parts; the key is a digest
over the digests of all of them. What belongs to one run, to scheduling, or to Argo itself is no part. What is
not known to be harmless is one: a part too many costs a run, one too few gives a step the outputs of another.

Input parameters are no part: Argo has filled them into whatever uses them, and leaves them out of the Pod
(version.WITHOUT_INPUT_PARAMETERS).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from argo import additions, artifacts
from argo import names as argo
from argo.layout import ContainerRef, Layout
from argo.shape import DRIVERS, mapping
from argo.steppod import StepPod
from argo.templates import objects
from memoize import keyparts, names

FORM = "v1"
"""The form of what is digested. Another form is another key: never the same text for two forms."""
_KEY = f"{names.AUTO_KEY}-{FORM}-"
_COMPUTED = re.compile(rf"{names.AUTO_KEY}-v[0-9]+-[0-9a-f]{{64}}")

IGNORABLE = ("env", "artifact")
"""What names.KEY_IGNORE can leave out: `env/NAME`, and `artifact/NAME`."""


MOST_REFERENCES = 20
"""Secrets and ConfigMaps of one step whose versions can count."""
Version = tuple[str, ...]
"""The uid and the resourceVersion of an object; empty for one that is not there."""


class ObjectReference(NamedTuple):
    """An object in the Pod's Namespace that a step reads variables or files from."""

    kind: str
    """`Secret` or `ConfigMap`."""
    name: str

    @property
    def part(self) -> str:
        """The name of the part that its version is."""
        return f"{_REFERENCE}/{self.kind.lower()}/{keyparts.flat(self.name)}"


_REFERENCE = "ref"


@dataclass(frozen=True)
class AutoKey:
    """The parts of one step by name, in their order, and what is made of them.

    A value may hold what is secret (an argument, a variable's value): only digests are stored or logged.
    """

    parts: Mapping[str, Any]

    @cached_property
    def digests(self) -> Mapping[str, str]:
        """The SHA-256 of each part, in hex."""
        return {name: keyparts.digest(value) for name, value in self.parts.items()}

    @cached_property
    def digest(self) -> str:
        """The SHA-256 over all of them, in hex."""
        return keyparts.digest([FORM, sorted(self.digests.items())])

    @property
    def key(self) -> str:
        """The memoize key: `auto-v1-` and the digest. Argo allows it, so it is its own data key."""
        return _KEY + self.digest

    @cached_property
    def short(self) -> Mapping[str, str]:
        """The short digests of the parts."""
        return keyparts.short(self.digests)

    @property
    def annotations(self) -> dict[str, str]:
        """What is written on the Pod: the key in the place of names.AUTO_KEY, and the parts it is made of."""
        return {names.KEY: self.key, names.KEY_PARTS: keyparts.encode(self.short)}

    @property
    def shown(self) -> Mapping[str, Any]:
        """The parts for people: values of variables, and credentials in an artifact's URL, are digests."""
        return {name: _shown(name, value) for name, value in self.parts.items()}


def is_computed(key: object) -> bool:
    """Whether a key looks like one that was computed, of whatever form."""
    return isinstance(key, str) and _COMPUTED.fullmatch(key) is not None


def ignored(text: object) -> list[str]:
    """The names in a value of names.KEY_IGNORE: separated by commas or white space."""
    return [name for name in re.split(r"[\s,]+", text) if name] if isinstance(text, str) else []


def of_pod(pod: StepPod, versions: Mapping[ObjectReference, Version] | None = None) -> AutoKey | str:
    """The key of the step that a Pod stands for, or why it cannot be known.

    It is the same before and after containers of ours came into the Pod. With `versions` those of
    `references` count too; one that is missing there could not be read.
    """
    found = _found(pod)
    if isinstance(found, str):
        return found
    if versions is not None:
        referred = _references(found)
        if len(referred) > MOST_REFERENCES:
            return f"it refers to more than {MOST_REFERENCES} Secrets and ConfigMaps: {_INSTEAD}"
        for one in referred:
            if one not in versions:
                return f"a {one.kind} that it refers to could not be read: {_INSTEAD}"
            found[one.part] = versions[one]
    key = AutoKey(found)
    try:
        key.digest  # noqa: B018 - here a value that cannot be written shows
    except RecursionError:
        return _TOO_DEEP
    return key


def references(pod: StepPod) -> tuple[ObjectReference, ...]:
    """The Secrets and ConfigMaps that count by name in the key, each once; none where there is no key.

    Those that fill variables of the step's containers, and the files of volumes that these mount; not what
    only says how something is got at. One more than MOST_REFERENCES at most.
    """
    found = _found(pod)
    return () if isinstance(found, str) else tuple(_references(found)[: MOST_REFERENCES + 1])


_TOO_DEEP = "its template is nested too deeply"
_INSTEAD = "write a key for this template, or have --auto-key-references set to name"


def _found(pod: StepPod) -> dict[str, Any] | str:
    """The parts that the Pod shows, or why they are not all there."""
    shape = pod.layout
    template = shape.template
    if shape.offloaded:
        return "its template takes more than 128 KiB and is not in the Pod"
    if template is None:
        return "it has no readable template"
    try:
        leave_out = frozenset(ignored(pod.annotations.get(names.KEY_IGNORE)))
        found: dict[str, Any] = {}
        for name, value in _parts(pod, shape, template, leave_out):
            # Neither Kubernetes nor Argo lets a name be there twice.
            found[name] = [found[name], value] if name in found else value
        if salt := pod.annotations.get(names.SALT):
            found["salt"] = salt
    except _UnknownError as error:
        return str(error)
    except RecursionError:
        return _TOO_DEEP
    return found


def _references(parts: Mapping[str, Any]) -> list[ObjectReference]:
    """The objects that variables and volumes among the parts are from, in order."""
    return sorted(
        {
            reference
            for name, value in parts.items()
            if _of_container(name).partition("/")[0] in ("env", "envFrom", "volumes")
            for reference in _referred(value)
        }
    )


def _referred(value: Any) -> Iterator[ObjectReference]:
    """Those of a variable (EnvVarSource), of an EnvFromSource, or of what `_volume` makes; or of many."""
    if isinstance(value, (list, tuple)):
        for one in value:
            yield from _referred(one)
    elif isinstance(value, dict):
        for field, kind in _REFERRING.items():
            if holder := mapping(value.get(field)):
                yield ObjectReference(kind, str(holder.get("secretName") or holder.get("name") or ""))
        yield from _referred(mapping(value.get("projected")).get("sources"))


_REFERRING = {
    "secretKeyRef": "Secret",
    "configMapKeyRef": "ConfigMap",
    "secretRef": "Secret",
    "configMapRef": "ConfigMap",
    "secret": "Secret",
    "configMap": "ConfigMap",
}
"""Fields of these that name an object whose data they bring."""


def parts_of(annotations: Mapping[str, Any]) -> Mapping[str, str]:
    """The short digests beside a computed key on a Pod (names.KEY_PARTS); none for anything else there."""
    if not is_computed(annotations.get(names.KEY)):
        return {}
    return keyparts.parsed(annotations.get(names.KEY_PARTS))


def without_versions(parts: Mapping[str, str]) -> dict[str, str]:
    """Of such short digests those of parts that the Pod itself shows."""
    return {name: one for name, one in parts.items() if name.partition("/")[0] != _REFERENCE}


class _UnknownError(Exception):
    """Something that counts is not in the Pod; the text says what."""


def _parts(
    pod: StepPod, shape: Layout, template: Mapping[str, Any], leave_out: frozenset[str]
) -> Iterator[tuple[str, Any]]:
    volumes = {
        str(volume.get("name")): _with_metadata(volume, pod) for volume in objects(pod.spec.get("volumes"))
    }
    executors_alone = any(template.get(kind) is not None for kind in ("resource", "data"))
    mounted: dict[str, Any] = {}
    for at, ref, declared in _containers(shape, template):
        if additions.has_offloaded_arguments(ref):
            raise _UnknownError(f"the arguments of container {ref.name} take more than 128 KiB")
        executors = at == "" and executors_alone
        if not executors:
            for name, value in _own(ref, volumes):
                yield f"{at}{name}", value
        for name, value in _variables(ref, declared, leave_out, pod):
            yield f"{at}{name}", value
        for field in _OF_ARGO:
            if declared.get(field):
                yield f"{at}{field}", declared[field]
        for mount in () if executors else _mounts(ref, volumes):
            name = str(mount.get("name"))
            mounted[name] = _volume(volumes.get(name, {}))
    for name in sorted(mounted):
        yield f"volumes/{name}", mounted[name]
    if len(shape.template_inits) > 1:  # they run one after the other
        yield "initOrder", [ref.name for ref in shape.template_inits]
    if platform := {} if executors_alone else _platform(pod.spec):
        yield "platform", platform
    repository = artifacts.repository(template.get("archiveLocation"))
    if script := mapping(template.get("script")).get("source"):
        yield "script", script
    for kind in ("resource", "data"):
        if template.get(kind) is not None:
            yield kind, _located_within(template[kind], repository)
    for artifact in objects(mapping(template.get("inputs")).get("artifacts")):
        name = str(artifact.get("name"))
        if f"artifact/{name}" not in leave_out:
            yield f"artifact/{keyparts.flat(name)}", _artifact(_located(artifact, repository))
    outputs = mapping(template.get("outputs"))
    for parameter in objects(outputs.get("parameters")):
        yield (
            f"output/parameter/{keyparts.flat(parameter.get('name'))}",
            _without(parameter, _BESIDE_A_PARAMETER),
        )
    for artifact in objects(outputs.get("artifacts")):
        name = str(artifact.get("name"))
        unplaced = DRIVERS if f"artifact/{name}" in leave_out else frozenset[str]()
        yield f"output/artifact/{keyparts.flat(name)}", _artifact(_without(artifact, unplaced))


def _containers(
    shape: Layout, template: Mapping[str, Any]
) -> Iterator[tuple[str, ContainerRef, Mapping[str, Any]]]:
    """The containers that do the step's work: a prefix for their parts, where they are, what is declared."""
    of_set = {str(c.get("name")): c for c in objects(mapping(template.get("containerSet")).get("containers"))}
    sidecars = {str(c.get("name")): c for c in objects(template.get("sidecars"))}
    inits = {str(c.get("name")): c for c in objects(template.get("initContainers"))}
    workers = set(shape.workers)
    for ref in shape.recorded:
        if ref.name not in workers:
            continue
        if ref.name in of_set:
            yield f"containers/{ref.name}/", ref, of_set[ref.name]
        elif ref.name == argo.MAIN_CONTAINER:
            yield "", ref, mapping(template.get("container") or template.get("script"))
        else:
            yield f"sidecars/{ref.name}/", ref, mapping(sidecars.get(ref.name))
    for ref in shape.template_inits:
        yield f"initContainers/{ref.name}/", ref, mapping(inits.get(ref.name))


def _own(ref: ContainerRef, volumes: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What a container executes, and in what surroundings: as the Pod has it, since it may be patched."""
    container = ref.container
    yield "image", _image(str(container.get("image", "")))
    if command := additions.own_command(_without_ours(container.get("command") or ())):
        yield "command", command
    for field in sorted(container.keys() - _READ_APART - NO_PART):
        if container[field]:
            yield field, container[field]
    if mounts := _mounts(ref, volumes):
        yield "mounts", [_without(mount, _BESIDE_A_MOUNT) for mount in mounts]
    if devices := objects(container.get("volumeDevices")):
        yield (
            "devices",
            [[d.get("devicePath"), _volume(volumes.get(str(d.get("name")), {}))] for d in devices],
        )


def _variables(
    ref: ContainerRef, declared: Mapping[str, Any], leave_out: frozenset[str], pod: StepPod
) -> Iterator[tuple[str, Any]]:
    """One part for each variable; one for all where their order counts.

    That is where a value may refer to another variable, `$(NAME)`: it must stand before it.
    """
    of_template = {str(entry.get("name")) for entry in objects(declared.get("env"))}
    entries = [
        (name, _with_metadata(mapping(entry.get("valueFrom")), pod) or str(entry.get("value") or ""))
        for entry in ref.container.get("env") or ()
        if not additions.is_argos_variable(name := str(entry.get("name", "")), of_template)
        and f"env/{name}" not in leave_out
    ]
    if any(isinstance(value, str) and "$(" in value for _, value in entries):
        yield "env", entries
    else:
        yield from ((f"env/{keyparts.flat(name)}", value) for name, value in sorted(dict(entries).items()))
    if ref.container.get("envFrom"):
        yield "envFrom", ref.container["envFrom"]


def _platform(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The processor and system that the Pod's node must have, empty for any.

    Another one runs another image under the same name, and what it builds is for another machine.
    """
    found: dict[str, Any] = {
        name: value for name, value in mapping(spec.get("nodeSelector")).items() if name in _PLATFORM
    }
    required = mapping(mapping(spec.get("affinity")).get("nodeAffinity")).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    terms = [
        [one for one in objects(term.get("matchExpressions")) if one.get("key") in _PLATFORM]
        for term in objects(mapping(required).get("nodeSelectorTerms"))
    ]
    return {**found, "terms": terms} if any(terms) else found


_PLATFORM = frozenset(
    f"{prefix}kubernetes.io/{label}" for prefix in ("", "beta.") for label in ("arch", "os")
)
"""Labels of a node that decide which image of an index (a multi-platform one) it runs."""


def _with_metadata(source: Mapping[str, Any], pod: StepPod) -> dict[str, Any]:
    """A variable's source or a volume, with the texts of the labels and annotations that it names.

    Who writes a parameter into an annotation, and reads that, hands it over in this way. Those of Argo and
    ours are of one run.
    """
    found = dict(source)
    path = str(mapping(found.get("fieldRef")).get("fieldPath"))
    field, _, name = path.removesuffix("']").partition("['")
    of = {"metadata.annotations": pod.annotations, "metadata.labels": pod.labels}.get(field)
    if of is not None and name and name.partition("/")[0] not in (argo.DOMAIN, names.DOMAIN):
        found["value"] = str(of.get(name) or "")
    for inner, several in (("downwardAPI", "items"), ("projected", "sources")):
        if holder := mapping(found.get(inner)):
            each = [_with_metadata(one, pod) for one in objects(holder.get(several))]
            found[inner] = {**holder, several: each}
    return found


def _mounts(ref: ContainerRef, volumes: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those that are neither Argo's nor ours, nor of a token; in the order of their paths."""
    found = []
    for path, mount in sorted(ref.mounts.items()):
        volume = volumes.get(str(mount.get("name")), {})
        ours = mount.get("name") == names.MOUNTS.get(path)
        if not ours and not additions.is_argos_mount(mount, volume) and _volume(volume) is not None:
            found.append(mount)
    return found


NO_PART = frozenset(
    {"imagePullPolicy", "livenessProbe", "name", "ports", "readinessProbe", "resizePolicy", "resources"}
    | {"restartPolicyRules", "securityContext", "startupProbe"}
    | {"terminationMessagePath", "terminationMessagePolicy"}
)
"""Fields of a container that are no part of the key; each other one is, should Kubernetes get new ones."""
_OF_ARGO = ("dependencies", "mirrorVolumeMounts")
"""Fields of a declared container that the Pod's has not: the latter brings mounts of Argo's too."""
_READ_APART = frozenset({"image", "command", "env", "envFrom", "volumeMounts", "volumeDevices"})
_BESIDE_A_MOUNT = frozenset({"mountPropagation", "recursiveReadOnly"})
_BESIDE_A_PARAMETER = frozenset({"name", "globalName", "description", "enum"})
_BESIDE_AN_ARTIFACT = frozenset(
    {"name", "globalName", "description", "artifactGC", "archiveLogs", "deleted", "from", "fromExpression"}
)
_BESIDE_A_LOCATION = frozenset(
    {"auth", "createBucketIfNotPresent", "encryptionOptions", "lifecycleRule", "connectionTimeoutSeconds"}
    | {"useSDKCreds", "roleARN", "securityToken"}
)
"""How an object is got at, or put there, and not which one it is; what names a Secret is left out as well."""


def _volume(volume: Mapping[str, Any]) -> Any:
    """Where a volume's content is from; None for one that holds nothing but a token for the Pod."""
    if "emptyDir" in volume:
        return {"emptyDir": {}}
    if "image" in volume:
        return {"image": _image(str(mapping(volume["image"]).get("reference", "")))}
    if "projected" in volume:
        projected = mapping(volume["projected"])
        sources = objects(projected.get("sources"))
        kept = [source for source in sources if "serviceAccountToken" not in source]
        return {"projected": {**projected, "sources": kept}} if kept else None
    return _without(volume, {"name"})


def _image(reference: str) -> str:
    """The image without a tag beside a digest: such a tag is a comment."""
    tagged, at, digest = reference.partition("@")
    where, slash, name = tagged.rpartition("/")
    return f"{where}{slash}{name.partition(':')[0]}@{digest}" if at else reference


def _without_ours(command: Iterable[Any]) -> list[Any]:
    """A command without the entrypoint that we put before it."""
    words = list(command)
    if words[:1] in ([names.ENTRYPOINT], [names.VOLUME_ENTRYPOINT]) and "--" in words:
        return words[words.index("--") + 1 :]
    return words


def _located_within(value: Any, repository: Mapping[str, Any] | None) -> Any:
    """What a `resource` or `data` template says, the artifact that it reads with its whole location."""
    for outer, inner in (("source", "artifactPaths"), ("manifestFrom", "artifact")):
        holder = mapping(mapping(value).get(outer))
        if inner in holder:
            artifact = _artifact(_located(mapping(holder[inner]), repository))
            value = {**value, outer: {**holder, inner: artifact}}
    return value


def _located(artifact: Mapping[str, Any], repository: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The artifact with the bucket that its key is in, as far as the Pod says it."""
    try:
        return artifacts.located(artifact, repository)
    except artifacts.NoLocationError:
        return artifact


def _artifact(artifact: Mapping[str, Any]) -> dict[str, Any]:
    """What an artifact is to a step: its place in the container, and which object it is."""
    return {
        field: _location(mapping(value)) if field in DRIVERS else value
        for field, value in _without(artifact, _BESIDE_AN_ARTIFACT).items()
    }


def _location(location: Mapping[str, Any]) -> dict[str, Any]:
    return {
        field: value
        for field, value in _without(location, _BESIDE_A_LOCATION).items()
        if not field.endswith("Secret")
    }


def _without(value: Mapping[str, Any], fields: Iterable[str]) -> dict[str, Any]:
    """The object without these fields, and without what is empty: absent and empty are the same to Go."""
    left_out = frozenset(fields)
    return {
        k: v for k, v in value.items() if k not in left_out and not (v is None or v is False or v in _EMPTY)
    }


_EMPTY: tuple[Any, ...] = ("", [], {})


def _of_container(name: str) -> str:
    """A part's name without the container that it is of."""
    head, _, rest = name.partition("/")
    return rest.partition("/")[2] if head in ("containers", "sidecars", "initContainers") else name


def _shown(name: str, value: Any) -> Any:
    kind = _of_container(name).partition("/")[0]
    if kind in ("artifact", "output", "resource", "data"):
        return _without_credentials(value)
    if kind != "env":
        return value
    if isinstance(value, str):
        return _hidden(value)
    if isinstance(value, dict) and "value" in value:  # from a label or an annotation
        return {**value, "value": _shown("env", value["value"])}
    return [[one, _shown("env", text)] for one, text in value] if isinstance(value, list) else value


_USERINFO = re.compile(r"(?<=://)[^/?#@\s]+(?=@)")


def _without_credentials(value: Any) -> Any:
    """What is said of an artifact with digests for the user in a URL, and for the values of HTTP headers."""
    if isinstance(value, str):
        return _USERINFO.sub(lambda found: _hidden(found.group()), value)
    if isinstance(value, list):
        return [_without_credentials(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        field: [{**header, "value": _hidden(header.get("value"))} for header in objects(one)]
        if field == "headers"
        else _without_credentials(one)
        for field, one in value.items()
    }


def _hidden(value: object) -> str:
    return f"sha256:{keyparts.digest(value)[: keyparts.LENGTH]}"
