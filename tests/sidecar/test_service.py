"""The cache behind our service: what is asked of it, in whose name, and what becomes of its answers."""

import socket
from pathlib import Path

import pytest

from memoize import names
from memoize.key import data_key
from memoize.reasons import Reason
from sidecar.kube import NoCredentialsError
from sidecar.service import ServiceCache
from sidecar.settings import Server, Settings, SettingsError
from tests.sidecar import faults
from tests.sidecar.faults import CONFIGMAPS, ENTRIES, LIMIT, LOOKUP, RESULTS, Fault
from tests.sidecar.steppod import Pod, cached, entry, have_entry, have_result

SHORT = 2000
"""Milliseconds for a run whose fault lasts."""


@pytest.fixture
def access() -> str:
    return "service"


@pytest.fixture
def ended(pod: Pod, api: faults.Api) -> Pod:
    """The Pod of a step that has ended well."""
    pod.main_ended()
    have_result(api)
    return pod


def test_an_entry_that_the_service_has_answers_the_step(pod: Pod, api: faults.Api):
    have_entry(api)
    assert pod.run("check").reason is Reason.HIT
    assert pod.decision == names.DECISION_HIT
    assert api.requests[:2] == [("POST", LOOKUP), ("POST", RESULTS)]


def test_an_entry_that_it_has_not_is_a_miss_for_which_nothing_else_is_asked(pod: Pod, api: faults.Api):
    assert pod.run("check").reason is Reason.MISS
    assert pod.decision == names.DECISION_RUN
    assert api.requests == [("POST", LOOKUP)]


def test_a_key_of_any_characters_is_compared_with_the_one_in_the_entry(pod: Pod, api: faults.Api):
    key = '"quotes"\nand ünicode'
    pod.change(key=key)
    api.place = data_key(key)
    have_entry(api, api.place, entry(stepmemo={"key": key}))
    assert pod.run("check").reason is Reason.HIT
    have_entry(api, api.place, entry(stepmemo={"key": "another"}))
    pod.shared.joinpath(names.DECISION_FILE).unlink()
    pod.shared.joinpath(names.CLAIM_FILE).unlink()
    assert pod.run("check").reason is Reason.KEY_MISMATCH


@pytest.mark.parametrize(
    "text", ["", "{", "[]", entry(outputs=None)], ids=["empty", "no JSON", "no object", "no outputs"]
)
def test_what_the_service_has_is_judged_like_any_entry(pod: Pod, api: faults.Api, text: str):
    api.put(CONFIGMAPS, "my-cache", data={"hello-1": text})
    assert pod.run("check").reason in (Reason.MISS, Reason.BROKEN_ENTRY, Reason.INCOMPLETE_ENTRY)
    assert pod.decision == names.DECISION_RUN


def test_outputs_are_stored_without_any_request_for_a_config_map_or_an_event(ended: Pod, api: faults.Api):
    run = ended.run("capture")
    assert run.reason is Reason.STORED
    assert cached(api)["hello-1"]["nodeID"] == "wf-123"
    assert {resource for _, resource in api.requests} == {RESULTS, ENTRIES}


def test_the_token_is_the_services_own_and_no_other_server_gets_it(
    ended: Pod, api: faults.Api, tmp_path: Path
):
    (tmp_path / "token").write_text("for the service\n")
    ended.environment[names.ENV_TOKEN_DIR] = str(tmp_path)
    ended.run("capture")
    by_resource = zip(api.requests, api.headers, strict=True)
    tokens = {resource: headers["Authorization"] for (_, resource), headers in by_resource}
    assert tokens == {
        RESULTS: "Bearer token",
        ENTRIES: "Bearer for the service",
    }


def test_a_service_with_a_certificate_of_another_authority_gets_no_token(
    pod: Pod, api: faults.Api, tmp_path: Path
):
    pod.timeout_ms = SHORT
    other = faults.make_credentials(tmp_path)
    pod.environment[names.ENV_SERVICE_CA] = (other / "ca.crt").read_text()
    assert pod.run("check").reason is Reason.API_UNAVAILABLE
    assert pod.decision == names.DECISION_RUN
    assert api.requests == []


REFUSALS = [
    (400, Reason.API_UNAVAILABLE),
    (401, Reason.FORBIDDEN),
    (403, Reason.FORBIDDEN),
    (404, Reason.API_UNAVAILABLE),
    (422, Reason.API_UNAVAILABLE),
    (429, Reason.RATE_LIMITED),
    (500, Reason.API_UNAVAILABLE),
    (503, Reason.API_UNAVAILABLE),
]


@pytest.mark.slow
@pytest.mark.parametrize(("status", "reason"), REFUSALS)
def test_a_look_up_that_is_refused_lets_the_step_run_and_says_why(
    pod: Pod, api: faults.Api, status: int, reason: Reason
):
    pod.timeout_ms = SHORT
    have_entry(api)
    api.always("POST", LOOKUP, Fault(status, body={"message": "hello-1 is secret-value"}))
    run = pod.run("check")
    assert run.reason is reason
    assert "the cache service" in run.log
    assert "hello-1" not in run.log
    assert pod.decision == names.DECISION_RUN
    assert api.count("POST", RESULTS) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("status", "reason"), [*REFUSALS, (413, Reason.CACHE_FULL)])
def test_an_entry_that_is_refused_is_lost_and_said_so_once(
    ended: Pod, api: faults.Api, status: int, reason: Reason
):
    ended.timeout_ms = SHORT
    api.always("POST", ENTRIES, Fault(status))
    assert ended.run("capture").reason is reason
    assert ended.last_word["reason"] == reason


@pytest.mark.slow
def test_what_the_service_said_counts_though_the_last_attempt_is_cut_off(ended: Pod, api: faults.Api):
    ended.timeout_ms = SHORT
    api.once("POST", ENTRIES, Fault(429))
    api.always("POST", ENTRIES, Fault("hang"))
    assert ended.run("capture").reason is Reason.RATE_LIMITED


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize(("verb", "resource"), [("check", LOOKUP), ("capture", ENTRIES)])
def test_a_service_that_is_busy_for_a_moment_is_asked_again(
    pod: Pod, api: faults.Api, verb: str, resource: str, status: int
):
    have_entry(api)
    if verb == "capture":
        pod.main_ended()
        have_result(api)
    api.once("POST", resource, Fault(status, headers=(("Retry-After", "0"),)), Fault("reset", applied=True))
    assert pod.run(verb).reason is (Reason.HIT if verb == "check" else Reason.STORED)
    assert api.count("POST", resource) == 3


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["check", "capture"])
def test_a_service_that_nobody_listens_for_costs_a_part_of_the_time(ended: Pod, api: faults.Api, verb: str):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ended.environment[names.ENV_SERVICE] = f"https://127.0.0.1:{silent.getsockname()[1]}"
        ended.timeout_ms = 3000
        run = ended.run(verb)
    assert run.reason is Reason.API_UNAVAILABLE
    assert run.seconds < ended.timeout_ms / 1000
    assert run.code == 0


def test_a_cache_that_the_service_may_not_read_is_told_as_its_own(pod: Pod, api: faults.Api):
    body = {"entry": None, "reason": "NotACache", "detail": "the ConfigMap lacks the label"}
    api.always("POST", LOOKUP, Fault(200, body=body))
    run = pod.run("check")
    assert run.reason is Reason.NOT_A_CACHE
    assert "lacks the label" in run.log
    assert pod.decision == names.DECISION_RUN


@pytest.mark.parametrize(
    "body", [{}, {"entry": 7}, {"entry": []}, {"entry": {}}, {"entry": None, "reason": "No", "detail": ""}]
)
def test_an_answer_without_an_entry_is_not_a_miss(pod: Pod, api: faults.Api, body: dict[str, object]):
    api.always("POST", LOOKUP, Fault(200, body=body))
    assert pod.run("check").reason is Reason.API_UNAVAILABLE


@pytest.mark.parametrize("seen", ["cut", "text"])
@pytest.mark.parametrize(("verb", "resource"), [("check", LOOKUP), ("capture", ENTRIES)])
def test_an_answer_that_cannot_be_read_is_asked_for_again(
    pod: Pod, api: faults.Api, verb: str, resource: str, seen: str
):
    have_entry(api)
    if verb == "capture":
        pod.main_ended()
        have_result(api)
    api.once("POST", resource, Fault(seen, applied=True))
    assert pod.run(verb).reason is (Reason.HIT if verb == "check" else Reason.STORED)
    assert api.count("POST", resource) == 2


@pytest.mark.parametrize("body", [{}, {"reason": "Stored"}, {"reason": "Kept", "detail": ""}, {"reason": []}])
def test_an_answer_without_an_outcome_is_not_a_success(ended: Pod, api: faults.Api, body: dict[str, object]):
    api.always("POST", ENTRIES, Fault(200, body=body))
    assert ended.run("capture").reason is Reason.API_UNAVAILABLE


def test_what_the_service_made_of_the_entry_is_told_as_its_own(ended: Pod, api: faults.Api):
    api.always("POST", ENTRIES, Fault(200, body={"reason": "CacheFull", "detail": "no room" * 500}))
    run = ended.run("capture")
    assert run.reason is Reason.CACHE_FULL
    assert "no room" in run.log
    assert len(run.log) < 1000


def test_an_entry_larger_than_any_cache_is_not_even_sent(ended: Pod, api: faults.Api):
    have_result(api, outputs={"parameters": [{"name": "out", "value": "x" * LIMIT}]})
    assert ended.run("capture").reason is Reason.CACHE_FULL
    assert api.count("POST", ENTRIES) == 0


def test_an_entry_as_large_as_a_cache_is_sent_whole(ended: Pod, api: faults.Api):
    value = '"' * (LIMIT // 2 - 1000)
    have_result(api, outputs={"parameters": [{"name": "out", "value": value}]})
    assert ended.run("capture").reason is Reason.STORED
    assert cached(api)["hello-1"]["outputs"]["parameters"][0]["value"] == value


def test_without_its_token_the_service_is_not_asked(ended: Pod, api: faults.Api, tmp_path: Path):
    ended.environment[names.ENV_TOKEN_DIR] = str(tmp_path)
    assert "no service account credentials" in ended.run("capture").log
    assert api.count("POST", ENTRIES) == 0
    with pytest.raises(NoCredentialsError):
        ServiceCache(Server("127.0.0.1", 1, str(tmp_path), "x"), "k").load(None)


def settings(pod: Pod, url: str) -> Server | None:
    return Settings.from_environment({**pod.variables(), names.ENV_SERVICE: url}).service


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://stepmemo.stepmemo.svc", ("stepmemo.stepmemo.svc", 443)),
        ("https://stepmemo.stepmemo.svc/", ("stepmemo.stepmemo.svc", 443)),
        ("https://10.0.0.1:8443", ("10.0.0.1", 8443)),
        ("https://[fd00::1]:8443/", ("fd00::1", 8443)),
        ("https://[fd00::1]", ("fd00::1", 443)),
    ],
)
def test_the_services_address_is_read(pod: Pod, url: str, place: tuple[str, int]):
    server = settings(pod, url)
    assert server is not None
    assert (server.host, server.port) == place


@pytest.mark.parametrize(
    "url", ["http://a", "a:443", "https://", "https://:443", "https://a:", "https://a:x", "https://a/b"]
)
def test_an_address_of_another_form_is_named_and_leaves_the_word_to_the_entrypoint(pod: Pod, url: str):
    with pytest.raises(SettingsError, match=names.ENV_SERVICE):
        settings(pod, url)
    pod.environment[names.ENV_SERVICE] = url
    assert pod.run("check").reason is Reason.INTERNAL_ERROR
    assert list(pod.shared.iterdir()) == []


def test_an_authority_that_is_missing_is_named(pod: Pod):
    pod.environment[names.ENV_SERVICE_CA] = ""
    assert names.ENV_SERVICE_CA in pod.run("check").log


@pytest.mark.parametrize("pem", ["no certificate", "ünicode"])
def test_an_authority_that_is_none_leaves_the_word_to_the_entrypoint(pod: Pod, pem: str):
    pod.environment[names.ENV_SERVICE_CA] = pem
    assert pod.run("check").reason is Reason.INTERNAL_ERROR
    assert list(pod.shared.iterdir()) == []


def test_without_the_service_the_sidecar_reaches_the_config_map_itself(pod: Pod, api: faults.Api):
    del pod.environment[names.ENV_SERVICE]
    have_entry(api)
    assert pod.run("check").reason is Reason.HIT
    assert api.count("GET", CONFIGMAPS) == 1
