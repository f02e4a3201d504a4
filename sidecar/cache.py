"""The cache as the sidecar reaches it: a ConfigMap, with the rights of the step's own service account."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

from memoize import names
from memoize.entry import Entry, expired
from memoize.key import data_key
from memoize.outcome import Outcome
from memoize.reasons import Reason
from sidecar.deadline import Deadline
from sidecar.kube import JSON_PATCH, MERGE_PATCH, METADATA_ONLY, Answer, Client
from sidecar.outcome import refusal

_NOT_FOUND = 404
_CONFLICT = 409
_TOO_LARGE = 413
_INVALID = 422
_MOST_BYTES = 1 << 20
"""Of all values of a ConfigMap together (MaxSecretSize in k8s.io/api/core/v1)."""
_TOO_LONG = "FieldValueTooLong"
"""The cause that Kubernetes gives when a ConfigMap would be larger than that."""
_BETWEEN_CONFLICTS = 0.01
"""Seconds; who wrote in between has finished."""
_FIELD_MANAGER = "fieldManager=stepmemo"
_LABEL_TEST = {
    "op": "test",
    "path": "/metadata/labels/" + names.CONFIGMAP_TYPE.replace("/", "~1"),
    "value": names.CONFIGMAP_TYPE_CACHE,
}


class Cache(Protocol):
    """Where the entries of one cache are kept."""

    def load(self, until: Deadline) -> Mapping[str, str] | Outcome:
        """Return the data, empty where there is no such cache yet, or why it cannot be read."""

    def store(self, key: str, entry: Entry, now: datetime, until: Deadline) -> Outcome:
        """Keep the entry for a memoize key, and touch no other entry but expired ones."""


class ConfigMapCache:
    """A ConfigMap with the label `workflows.argoproj.io/configmap-type: Cache`."""

    def __init__(self, client: Client, namespace: str, name: str) -> None:
        self._client = client
        self._name = name
        self._list = f"/api/v1/namespaces/{namespace}/configmaps"
        self._self = f"{self._list}/{name}"

    def load(self, until: Deadline) -> Mapping[str, str] | Outcome:
        """Read the ConfigMap; see Cache."""
        answer = self._get(until)
        if answer.status == _NOT_FOUND:
            return {}
        if not answer.ok:
            return refusal(answer)
        return _not_a_cache(answer.body) or _data(answer.body)

    def store(self, key: str, entry: Entry, now: datetime, until: Deadline) -> Outcome:
        """Write one key; see Cache. Repeats what met somebody else's write until the time is over.

        The usual way is one request that says its own condition: the label is tested and the key added as one
        JSON patch. A failed test and a ConfigMap without data get the same bare 422 from the server, so that
        `_write_seen` has to look.
        """
        place, text = data_key(key), entry.dump()
        if len(text) > _MOST_BYTES:
            return Outcome(Reason.CACHE_FULL, f"an entry of {len(text)} bytes fits into no ConfigMap")
        conflict = None
        while True:
            answer = self._write(place, text, now, until)
            if isinstance(answer, Outcome):
                return answer
            if answer.ok:
                return Outcome(Reason.STORED, f"{len(text)} bytes")
            if _too_large(answer):
                return Outcome(Reason.CACHE_FULL, f"no room for {len(text)} bytes in the ConfigMap")
            if answer.status == _CONFLICT:
                conflict = Outcome(Reason.CONFLICT, "the ConfigMap kept changing")
            elif answer.status or not conflict:
                return refusal(answer)
            if not until.pause(_BETWEEN_CONFLICTS):
                return conflict

    def _write(self, place: str, text: str, now: datetime, until: Deadline) -> Answer | Outcome:
        added = [_LABEL_TEST, {"op": "add", "path": f"/data/{place}", "value": text}]
        answer = self._patch(JSON_PATCH, added, until)
        if answer.status == _NOT_FOUND:
            return self._create({place: text}, until)
        if answer.status == _INVALID:
            return self._write_seen(place, text, now if _too_large(answer) else None, until)
        return answer

    def _write_seen(
        self, place: str, text: str, full_at: datetime | None, until: Deadline
    ) -> Answer | Outcome:
        """Look at the ConfigMap, then write the key into what was seen, or nothing.

        With `full_at`, the present time, entries that expired by then go in the same request. The
        resourceVersion makes the server refuse when anybody wrote since; the merge-patch names single keys,
        and works where there is no data yet.
        """
        answer = self._get(until)
        if not answer.ok:
            return answer
        body = answer.body
        if refused := _not_a_cache(body) or _immutable(body):
            return refused
        gone = expired(_data(body), full_at) if full_at is not None else ()
        changes: dict[str, str | None] = dict.fromkeys(gone)
        changes[place] = text
        version = body["metadata"].get("resourceVersion")
        return self._patch(MERGE_PATCH, {"metadata": {"resourceVersion": version}, "data": changes}, until)

    def _get(self, until: Deadline) -> Answer:
        return self._client.insist("GET", self._self, until=until, needs_body=True)

    def _patch(self, content_type: str, patch: object, until: Deadline) -> Answer:
        return self._client.insist(
            "PATCH",
            f"{self._self}?{_FIELD_MANAGER}",
            patch,
            content_type=content_type,
            accept=METADATA_ONLY,
            until=until,
        )

    def _create(self, data: dict[str, str], until: Deadline) -> Answer:
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": self._name,
                "labels": {names.CONFIGMAP_TYPE: names.CONFIGMAP_TYPE_CACHE},
            },
            "data": data,
        }
        return self._client.insist(
            "POST", f"{self._list}?{_FIELD_MANAGER}", body, accept=METADATA_ONLY, until=until
        )


def _too_large(answer: Answer) -> bool:
    return answer.status == _TOO_LARGE or (answer.status == _INVALID and _TOO_LONG in answer.causes)


def _not_a_cache(config_map: Mapping[str, Any]) -> Outcome | None:
    metadata = config_map.get("metadata")
    labels = metadata.get("labels") if isinstance(metadata, Mapping) else None
    if isinstance(labels, Mapping) and labels.get(names.CONFIGMAP_TYPE) == names.CONFIGMAP_TYPE_CACHE:
        return None
    return Outcome(
        Reason.NOT_A_CACHE,
        f"the ConfigMap lacks the label {names.CONFIGMAP_TYPE}: {names.CONFIGMAP_TYPE_CACHE}",
    )


def _immutable(config_map: Mapping[str, Any]) -> Outcome | None:
    if config_map.get("immutable") is True:
        return Outcome(Reason.NOT_A_CACHE, "the ConfigMap is immutable")
    return None


def _data(config_map: Mapping[str, Any]) -> dict[str, str]:
    data = config_map.get("data")
    if not isinstance(data, Mapping):
        return {}
    return {key: value for key, value in data.items() if isinstance(value, str)}
