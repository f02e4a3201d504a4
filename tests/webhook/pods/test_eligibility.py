"""What keeps a Pod as it is, beyond what test_pods.py tells of the whole decision."""

from typing import Any

import pytest

from argo import layout
from memoize import names
from memoize.reasons import Reason
from webhook.pods.eligibility import blocker

Json = dict[str, Any]


def why(pod: Json) -> tuple[Reason, str] | None:
    return blocker(pod["spec"], layout.read(pod))


def test_an_ordinary_step_pod_is_fit(pod: Json) -> None:
    assert why(pod) is None


@pytest.mark.parametrize("name", names.VOLUMES)
def test_all_our_volumes_are_kept_free_whatever_the_server_is_told(pod: Json, name: str) -> None:
    pod["spec"]["volumes"].append({"name": name, "emptyDir": {}})
    assert why(pod) == (Reason.NAME_CLASH, f"volume {name}")


@pytest.mark.parametrize("path", [names.SHARED_DIR, names.BIN_DIR, names.IMAGE_DIR, names.TOKEN_DIR])
def test_all_our_places_are_kept_free(pod: Json, path: str) -> None:
    pod["spec"]["containers"][0]["volumeMounts"].append({"name": "theirs", "mountPath": f"{path}/x"})
    found = why(pod)
    assert found is not None
    assert found[0] is Reason.NAME_CLASH


def test_a_place_above_ours_is_theirs(pod: Json) -> None:
    pod["spec"]["containers"][0]["volumeMounts"].append({"name": "theirs", "mountPath": "/var/run/secrets/x"})
    assert why(pod) is None
