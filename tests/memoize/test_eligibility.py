import pytest

from memoize.eligibility import blocker
from memoize.outcome import Outcome
from memoize.reasons import Reason

CLAIM = "kind: PersistentVolumeClaim\nmetadata: {ownerReferences: [{uid: wf-uid}]}"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ({"container": {}}, None),
        ({"container": {}, "memoize": None, "daemon": False}, None),
        ({"container": {}, "daemon": True}, Reason.UNSUPPORTED_TEMPLATE),
        ({"container": {}, "memoize": {"key": "k"}}, Reason.OPTED_OUT),
        ({"container": {}, "memoize": {}}, Reason.OPTED_OUT),
        ({"resource": {"action": "create", "setOwnerReference": True}}, Reason.OWNED_BY_WORKFLOW),
        ({"resource": {"action": "create", "manifest": CLAIM}}, Reason.OWNED_BY_WORKFLOW),
        ({"resource": {"action": "create", "manifest": "kind: Job"}}, None),
    ],
)
def test_what_is_not_memoized_whatever_was_asked_for(template: dict[str, object], reason: Reason | None):
    found = blocker(template, "wf-uid")
    assert (found and found.reason) == reason
    assert found is None or isinstance(found, Outcome)
