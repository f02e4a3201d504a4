"""`--access direct`: the cache is a ConfigMap, reached as the step's own service account."""

from collections.abc import Mapping
from datetime import datetime

from memoize import configmap, names
from memoize.entry import Entry
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

    def __init__(
        self, client: Client, namespace: str, name: str, most_bytes: int = configmap.MOST_BYTES
    ) -> None:
        self._client, self._name, self._most_bytes = client, name, most_bytes
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

    def store(self, data_key: str, entry: Entry, now: datetime, until: Deadline) -> Outcome:
        """Write one key; see Cache. Repeats what met somebody else's write until the time is over.

        The usual way is one request that says its own condition: the label is tested and the key added as one
        JSON patch. A failed test and a ConfigMap without data get the same bare 422 from the server, so that
        `_write_seen` has to look; as it has where a cache may hold less than the server itself allows.
        """
        text = entry.dump()
        if refused := configmap.too_large_for(text, self._most_bytes):
            return refused
        conflict = None
        while True:
            reply = self._write(data_key, text, now, until)
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

    def _write(self, data_key: str, text: str, now: datetime, until: Deadline) -> RequestResult | Outcome:
        if self._most_bytes < configmap.MOST_BYTES:
            return self._write_seen(data_key, text, now, until)
        reply = self._patch(configmap.added({data_key: text}), until)
        if reply.status == _NOT_FOUND:
            return self._create({data_key: text}, until)
        if reply.ok and names.MAX_BYTES in configmap.annotations(reply.body):
            return self._write_seen(data_key, text, now, until, written=True)
        if reply.status == _INVALID or _too_large(reply):
            return self._write_seen(data_key, text, now, until, reply)
        return reply

    def _write_seen(
        self,
        data_key: str,
        text: str,
        now: datetime,
        until: Deadline,
        refused: RequestResult | None = None,
        *,
        written: bool = False,
    ) -> RequestResult | Outcome:
        """Look at the ConfigMap, then write the key into what was seen, without what makes room; or nothing.

        `refused` was the answer to the key alone. `written`: it is there by now, which may be too much.
        """
        from memoize.capacity import limit  # a cache that has room is written without these
        from memoize.write import write

        found = self._get(until)
        if found.status == _NOT_FOUND and not refused:
            return self._create({data_key: text}, until)
        if not found.ok:
            return found
        if not_written := configmap.refused(found.body):
            return not_written
        most, problem = limit(found.body, self._most_bytes)
        reply = refused
        for full in (False, True):
            plan = write(found.body, {data_key: text}, now, most, written=written, full=full)
            if plan.patch is None:
                return plan.outcome(data_key, problem)
            if plan.evicted or not (reply and _object_too_large(reply)):
                reply = self._patch(plan.patch, until)
                if reply.ok:
                    return plan.outcome(data_key, problem)
                if not _object_too_large(reply):
                    break
        return reply or found

    def _get(self, until: Deadline) -> RequestResult:
        return self._client.insist("GET", self._self, until=until, needs_body=True)

    def _patch(self, patch: object, until: Deadline) -> RequestResult:
        return self._client.insist(
            "PATCH",
            f"{self._self}?{_FIELD_MANAGER}",
            patch,
            content_type=JSON_PATCH if isinstance(patch, list) else MERGE_PATCH,
            accept=METADATA_ONLY,
            until=until,
            is_final=_object_too_large,
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
    return configmap.too_large(reply.status, reply.causes, str(reply.body.get("message")))


def _object_too_large(reply: RequestResult) -> bool:
    return configmap.object_too_large(reply.status, str(reply.body.get("message")))
