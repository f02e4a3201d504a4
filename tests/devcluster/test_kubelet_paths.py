"""What the kubelet does to text on its way into a container: `$(NAME)`, and paths where there is no mount."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argo import names as argo
from devcluster.containers import Rewriter
from devcluster.environment import environment, expand
from memoize import names

ROOT = Path("/pod/root")


@given(st.text(alphabet="$()aA {}", max_size=20))
@settings(max_examples=200)
def test_doubled_dollars_protect_any_text(text: str) -> None:
    assert expand(text.replace("$", "$$"), {"a": "no", "A": "no", "": "no"}) == text


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A) $(A)", "1 1"),
        ("$(B)", "$(B)"),
        ("$A $ $( $(A", "$A $ $( $(A"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
    ],
)
def test_only_names_that_are_set_are_expanded(text: str, expanded: str) -> None:
    assert expand(text, {"A": "1"}) == expanded


def test_a_value_is_not_expanded_again() -> None:
    env = [{"name": "A", "value": "$$(B)"}, {"name": "C", "value": "$(A)"}]

    assert environment({"env": env}, {}, {"B": "x"})["C"] == "$(B)"


def rewriter(*mount_paths: str) -> Rewriter:
    mounts = [{"name": "v", "mountPath": path} for path in mount_paths]
    return Rewriter(ROOT, {"spec": {"containers": [{"volumeMounts": mounts}]}})


@pytest.mark.parametrize(
    ("text", "moved"),
    [
        ("/tmp", "/pod/root/tmp"),
        ("/tmp/x", "/pod/root/tmp/x"),
        ("cp /data/a /tmp/b", "cp /pod/root/data/a /pod/root/tmp/b"),
        ("--out=/tmp/x >/tmp/y '/tmp/z'", "--out=/pod/root/tmp/x >/pod/root/tmp/y '/pod/root/tmp/z'"),
        ("/data/deep/x /data/x", "/pod/root/data/deep/x /pod/root/data/x"),
        ("/tmpfile /usr/tmp/x x/tmp/y /data-2 ./data", "/tmpfile /usr/tmp/x x/tmp/y /data-2 ./data"),
        ("/usr/bin/env", "/usr/bin/env"),
    ],
)
def test_paths_of_the_pod_are_moved_and_no_others(text: str, moved: str) -> None:
    assert rewriter("/data", "/data/deep").text(text) == moved


def test_the_template_is_rewritten_string_by_string() -> None:
    template = {"args": ["echo x\n/tmp/run"], "outputs": {"path": "/tmp/out"}, "n": 1}

    moved = rewriter().variables({argo.ENV_TEMPLATE: json.dumps(template), "PATH": "/bin"}, [])

    expected = {"args": ["echo x\n/pod/root/tmp/run"], "outputs": {"path": "/pod/root/tmp/out"}, "n": 1}
    assert json.loads(moved[argo.ENV_TEMPLATE]) == expected


def test_what_the_webhook_wrote_is_left_alone_and_programs_are_told_where_things_are() -> None:
    given = {names.ENV_STEP: '{"key":"/tmp/x"}', "OWN": "/tmp/x", "PATH": "/bin"}

    moved = rewriter().variables(given, [])

    assert moved[names.ENV_STEP] == given[names.ENV_STEP]
    assert moved["OWN"] == "/pod/root/tmp/x"
    assert moved[names.ENV_SHARED_DIR] == "/pod/root/stepmemo"
