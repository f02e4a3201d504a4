"""`--access direct`: the cache is a ConfigMap, reached as the step's own service account."""

from collections.abc import Mapping
from datetime import datetime

from memoize import configmap
from memoize.entry import Entry, expired
from memoize.outcome import Outcome
from memoize.reasons import Reason
from sidecar.deadline import Deadline
from sidecar.kube import JSON_PATCH, MERGE_PATCH, METADATA_ONLY, Client, RequestResult
from sidecar.report import failure

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
        reply = self._get(until)
        if reply.status == _NOT_FOUND:
            return {}
        if not reply.ok:
            return failure(reply)
        return configmap.not_a_cache(reply.body) or configmap.data(reply.body)

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
            reply = self._write(place, text, now, until)
            if isinstance(reply, Outcome):
                return reply
            if reply.ok:
                return configmap.stored(text)
            if _too_large(reply):
                return configmap.full(text)
            if reply.status == _CONFLICT:
                conflict = Outcome(Reason.CONFLICT, "the ConfigMap kept changing")
            elif reply.status or not conflict:
                return failure(reply)
            if not until.pause(_BETWEEN_CONFLICTS):
                return conflict

    def _write(self, place: str, text: str, now: datetime, until: Deadline) -> RequestResult | Outcome:
        reply = self._patch(JSON_PATCH, configmap.added({place: text}), until)
        if reply.status == _NOT_FOUND:
            return self._create({place: text}, until)
        if reply.status == _INVALID:
            return self._write_seen(place, text, now if _too_large(reply) else None, until)
        return reply

    def _write_seen(
        self, place: str, text: str, full_at: datetime | None, until: Deadline
    ) -> RequestResult | Outcome:
        """Look at the ConfigMap, then write the key into what was seen, or nothing.

        With `full_at`, the present time, entries that expired by then go in the same request.
        """
        reply = self._get(until)
        if not reply.ok:
            return reply
        if refused := configmap.refused(reply.body):
            return refused
        gone = expired(configmap.data(reply.body), full_at) if full_at is not None else ()
        return self._patch(MERGE_PATCH, configmap.seen(reply.body, {place: text}, gone), until)

    def _get(self, until: Deadline) -> RequestResult:
        return self._client.insist("GET", self._self, until=until, needs_body=True)

    def _patch(self, content_type: str, patch: object, until: Deadline) -> RequestResult:
        return self._client.insist(
            "PATCH",
            f"{self._self}?{_FIELD_MANAGER}",
            patch,
            content_type=content_type,
            accept=METADATA_ONLY,
            until=until,
        )

    def _create(self, data: dict[str, str], until: Deadline) -> RequestResult:
        return self._client.insist(
            "POST",
            f"{self._list}?{_FIELD_MANAGER}",
            configmap.new(self._name, data),
            accept=METADATA_ONLY,
            until=until,
        )


def _too_large(reply: RequestResult) -> bool:
    return configmap.too_large(reply.status, reply.causes)
