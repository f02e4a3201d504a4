"""`--access direct`: the cache is a ConfigMap, reached with the rights of the step's own service account."""

from collections.abc import Mapping
from datetime import datetime

from memoize import configmap
from memoize.entry import Entry, expired
from memoize.outcome import Outcome
from memoize.reasons import Reason
from sidecar.deadline import Deadline
from sidecar.kube import JSON_PATCH, MERGE_PATCH, METADATA_ONLY, Answer, Client
from sidecar.outcome import refusal

_NOT_FOUND = 404
_CONFLICT = 409
_INVALID = 422
_BETWEEN_CONFLICTS = 0.01
"""Seconds; who wrote in between has finished."""
_FIELD_MANAGER = f"fieldManager={configmap.FIELD_MANAGER}"


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
        return configmap.not_a_cache(answer.body) or configmap.data(answer.body)

    def store(self, place: str, entry: Entry, now: datetime, until: Deadline) -> Outcome:
        """Write one key; see Cache. Repeats what met somebody else's write until the time is over.

        The usual way is one request that says its own condition: the label is tested and the key added as one
        JSON patch. A failed test and a ConfigMap without data get the same bare 422 from the server, so that
        `_write_seen` has to look.
        """
        text = entry.dump()
        if refused := configmap.too_large_for_any(text):
            return refused
        conflict = None
        while True:
            answer = self._write(place, text, now, until)
            if isinstance(answer, Outcome):
                return answer
            if answer.ok:
                return configmap.stored(text)
            if _too_large(answer):
                return configmap.full(text)
            if answer.status == _CONFLICT:
                conflict = Outcome(Reason.CONFLICT, "the ConfigMap kept changing")
            elif answer.status or not conflict:
                return refusal(answer)
            if not until.pause(_BETWEEN_CONFLICTS):
                return conflict

    def _write(self, place: str, text: str, now: datetime, until: Deadline) -> Answer | Outcome:
        answer = self._patch(JSON_PATCH, configmap.added({place: text}), until)
        if answer.status == _NOT_FOUND:
            return self._create({place: text}, until)
        if answer.status == _INVALID:
            return self._write_seen(place, text, now if _too_large(answer) else None, until)
        return answer

    def _write_seen(
        self, place: str, text: str, full_at: datetime | None, until: Deadline
    ) -> Answer | Outcome:
        """Look at the ConfigMap, then write the key into what was seen, or nothing.

        With `full_at`, the present time, entries that expired by then go in the same request.
        """
        answer = self._get(until)
        if not answer.ok:
            return answer
        if refused := configmap.refused(answer.body):
            return refused
        gone = expired(configmap.data(answer.body), full_at) if full_at is not None else ()
        return self._patch(MERGE_PATCH, configmap.seen(answer.body, {place: text}, gone), until)

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
        return self._client.insist(
            "POST",
            f"{self._list}?{_FIELD_MANAGER}",
            configmap.new(self._name, data),
            accept=METADATA_ONLY,
            until=until,
        )


def _too_large(answer: Answer) -> bool:
    return configmap.too_large(answer.status, answer.causes)
