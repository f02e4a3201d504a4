"""The controller's requeue time set and set back, and its metrics read."""

import shlex
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from bench import controller
from bench.controller import Used, started_by, used
from bench.kube import KubeError

METRICS = """# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total 1.5
# TYPE argo_workflows_k8s_request_total counter
argo_workflows_k8s_request_total{kind="pods",status_code="201",verb="Create"} 5
argo_workflows_k8s_request_total{kind="pods",status_code="409",verb="Create"} 1
argo_workflows_k8s_request_total{kind="pods",status_code="200",verb="Watch"} 7
argo_workflows_k8s_request_total{kind="leases",status_code="200",verb="Update"} 9
argo_workflows_k8s_request_total{kind="workflows",status_code="200",verb="Update"} 2
# TYPE argo_workflows_client_rate_limiter_latency histogram
argo_workflows_client_rate_limiter_latency_bucket{le="+Inf"} 8
argo_workflows_client_rate_limiter_latency_sum 0.25
argo_workflows_client_rate_limiter_latency_count 8
"""
FOUND = Used(1.5, {"Create pods": 6, "Update workflows": 2}, 0.25)


def test_requests_are_counted_without_watches_and_the_leader_election() -> None:
    assert used(METRICS) == FOUND
    assert FOUND.sent == 8


@pytest.mark.parametrize("text", ["", "process_cpu_seconds_total 1\n"])
def test_a_controller_that_does_not_lead_has_used_nothing_that_is_known(text: str) -> None:
    assert used(text) is None


def test_between_two_moments_stands_what_was_used_between_them() -> None:
    later = Used(2, {"Create pods": 6, "Update workflows": 5, "Patch pods": 1}, 1.25)
    assert later - FOUND == Used(0.5, {"Update workflows": 3, "Patch pods": 1}, 1)


def test_before_argo_4_nothing_is_known_of_the_rate_limiter() -> None:
    without = "".join(line + "\n" for line in METRICS.splitlines() if "rate_limiter" not in line)
    found = used(without)
    assert found is not None
    assert (found - found).waited is None


@pytest.fixture
def metrics() -> Iterator[str]:
    """The URL of an endpoint like that of Argo's controller."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/metrics" else 404)
            self.end_headers()
            self.wfile.write(METRICS.encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/metrics"
        server.shutdown()
        thread.join()


def writing(file: Path) -> str:
    """A command that adds a line with the requeue time to the file."""
    program = f"import sys; print(sys.argv[1], file=open({str(file)!r}, 'a'))"
    return shlex.join([sys.executable, "-c", program, "{requeue}"])


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, KubeError])
def test_a_controller_that_a_command_starts_is_set_back_however_it_ends(
    metrics: str, tmp_path: Path, error: type[BaseException] | None
) -> None:
    started = tmp_path / "started"
    ours = started_by(writing(started), "2s", metrics)

    def measure() -> None:
        with ours.restored():
            ours.set("100ms")
            assert ours.used() == FOUND
            if error is not None:
                raise error

    if error is None:
        measure()
    else:
        with pytest.raises(error):
            measure()
    assert started.read_text().split() == ["100ms", "2s"]


def test_a_requeue_time_that_cannot_be_set_back_is_told_and_loses_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with started_by("false {requeue}", "1s", "http://127.0.0.1:1/metrics").restored():
        pass
    assert "THE REQUEUE TIME IS NOT SET BACK: --set-requeue" in capsys.readouterr().err


def test_a_command_that_fails_is_told() -> None:
    with pytest.raises(KubeError, match="--set-requeue"):
        started_by("false {requeue}", "1s", "http://127.0.0.1:1/metrics").set("1s")


def test_a_controller_that_does_not_work_in_time_is_told(
    monkeypatch: pytest.MonkeyPatch, metrics: str
) -> None:
    monkeypatch.setattr(controller, "_START_SECONDS", 0.0)
    with pytest.raises(KubeError, match="does not work after 0 s"):
        started_by("true {requeue}", "1s", metrics.replace("/metrics", "/none")).set("1s")
