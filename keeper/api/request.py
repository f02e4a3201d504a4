"""What a caller says, held to what its Pod may say. Pure, and a megabyte of it takes some 50 ms."""

import json
import pickle
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Any, NamedTuple

from argo.fields import FieldError, Kind
from keeper.api.errors import ErrorAnswer
from memoize import configmap
from memoize.entry import BrokenEntry, Entry
from memoize.key import belongs
from memoize.spec import Memo
from server.child import headed

IN_CHILD = ("entry_in_child",)
IN_CHILD_FUNCTION = f"{__name__}:entry_in_child"


class Claim(NamedTuple):
    """A live step Pod and what it is about; `data_key` is where the entry of its memoize key lies."""

    namespace: str
    pod: str
    memo: Memo
    data_key: str
    node_id: str
    workflow: str
    looks_up: bool
    """Admission had a container of the Pod look the key up …"""
    stores: bool
    """… and one store the outputs; its mode may ask for one of them alone."""

    @property
    def told(self) -> Mapping[str, str]:
        """Fields of a log line that say who asked."""
        return {"namespace": self.namespace, "pod": self.pod}


_CLAIMED = ("cache", "key")
"""Fields of any body that nobody has to send: the Pod says them."""
_ENTRY = "entry"


def lookup(body: bytes, claim: Claim) -> ErrorAnswer | None:
    """Check the body of a look-up: an empty object will do."""
    found = _object(body, claim, _CLAIMED)
    return found if isinstance(found, ErrorAnswer) else None


def entry(body: bytes, claim: Claim, now: datetime) -> str | ErrorAnswer:
    """Return the entry to store: `{"entry": "<text>"}`.

    It is held to the caller's Pod, since other steps will believe it, and made at `now` by our own clock.
    """
    found = _object(body, claim, (*_CLAIMED, _ENTRY))
    if isinstance(found, ErrorAnswer):
        return found
    text = found.get(_ENTRY)
    if text is None:
        return invalid(FieldError(_ENTRY, Kind.REQUIRED, "the entry's JSON, as a string"))
    if not isinstance(text, str):
        return invalid(FieldError(_ENTRY, Kind.TYPE_INVALID, "must be a string that holds JSON"))
    if refused := configmap.too_large_for(text):
        return ErrorAnswer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, refused.detail)
    try:
        parsed = Entry.parse(text)
    except BrokenEntry as error:
        return invalid(FieldError(_ENTRY, Kind.INVALID, str(error)))
    if errors := list(_forged(parsed, claim)):
        return ErrorAnswer(HTTPStatus.FORBIDDEN, "the entry is not the Pod's", errors)
    text = parsed._replace(created=now, last_hit=now).dump()
    if refused := configmap.too_large_for(text):
        return ErrorAnswer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, refused.detail)
    return text


def entry_in_child(data: bytes) -> bytes:
    """`entry`, as server.child calls it: behind the claim and the time, whose head it is, lies the body."""
    (claim, now), body = headed(data)
    return pickle.dumps(entry(body, claim, now))


def json_object(body: bytes, known: Collection[str]) -> dict[str, Any] | ErrorAnswer:
    """The JSON object that a body is, which has no other fields than these."""
    try:
        found = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        return ErrorAnswer(HTTPStatus.BAD_REQUEST, "the body is not JSON")
    if not isinstance(found, dict):
        return ErrorAnswer(HTTPStatus.BAD_REQUEST, "the body is no JSON object")
    if any(name not in known for name in found):
        # Not told which: a field's name is the caller's text too, and nobody needs it.
        return invalid(FieldError("", Kind.UNKNOWN, f"only {', '.join(known)} are known here"))
    return found


def invalid(*errors: FieldError) -> ErrorAnswer:
    """The refusal of a body with these faults."""
    return ErrorAnswer(HTTPStatus.UNPROCESSABLE_ENTITY, "the body is invalid", errors)


def _object(body: bytes, claim: Claim, known: tuple[str, ...]) -> dict[str, Any] | ErrorAnswer:
    found = json_object(body, known)
    if isinstance(found, ErrorAnswer):
        return found
    said = {"cache": claim.memo.cache, "key": claim.memo.key}
    errors = [
        FieldError(name, Kind.FORBIDDEN, f"not the {name} that the Pod carries")
        for name in _CLAIMED
        if name in found and found[name] != said[name]
    ]
    return ErrorAnswer(HTTPStatus.FORBIDDEN, "the request is not the Pod's", errors) if errors else found


def _forged(entry: Entry, claim: Claim) -> Iterator[FieldError]:
    """What the entry says that the Pod does not."""
    if entry.node_id != claim.node_id:
        yield FieldError("entry.nodeID", Kind.FORBIDDEN, "not the node that the Pod is of")
    if not belongs(entry.key, claim.data_key):
        yield FieldError("entry.stepmemo.key", Kind.FORBIDDEN, "not the key that the Pod carries")
    for name, said, so in (
        ("maxAge", entry.max_age, claim.memo.max_age),
        ("pod", entry.pod, claim.pod),
        ("workflow", entry.workflow, claim.workflow),
    ):
        if said not in ("", so):
            yield FieldError(f"entry.stepmemo.{name}", Kind.FORBIDDEN, "not what the Pod says")
