"""A step Pod as the sidecar sees it, and what the API server holds for it."""

import json
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from argo import names as argo
from memoize import names
from memoize.outputs import Declared
from memoize.reasons import Reason
from memoize.step import Step
from sidecar.__main__ import main
from tests.sidecar import faults

STEP = Step(
    key="hello-1",
    cache="my-cache",
    max_age="",
    node_id="wf-123",
    workflow="wf",
    workflow_uid="7c1d7c0c-0000-4000-8000-000000000001",
    instance_id="",
    include_result=False,
    gc=False,
    declared=Declared(parameters=({"name": "out"},)),
)
MADE = datetime.now(UTC) - timedelta(minutes=1)
ENOUGH_MS = 120_000
"""For a sidecar that is to reach its end on any machine, where nothing lasts. A look-up has a third of it."""
POD_UID = "9d1d7c0c-0000-4000-8000-00000000000a"
OUTPUTS = {"parameters": [{"name": "out", "value": "secret-value"}]}
CACHE_LABELS = {"labels": {argo.CONFIGMAP_TYPE: argo.CONFIGMAP_TYPE_CACHE}}


@dataclass(frozen=True)
class Ended:
    """How one run of the sidecar ended."""

    reason: Reason
    log: str
    seconds: float
    code: int


class Files:
    """What the containers of one step Pod find in their file systems and environments."""

    def __init__(self, directory: Path, server: tuple[str, int], credentials: Path) -> None:
        self.shared, self.argo = directory / "stepmemo", directory / "argo"
        self.config, self.termination_log = directory / "config", directory / "termination-log"
        for path in (self.shared, self.argo, self.config):
            path.mkdir()
        self.termination_log.touch()
        self.step = STEP
        self.timeout_ms = ENOUGH_MS
        """A test whose subject is the time-out sets its own."""
        self.environment = {
            names.ENV_NAMESPACE: "ns",
            names.ENV_POD_NAME: "wf-step-123",
            names.ENV_POD_UID: POD_UID,
            names.ENV_SHARED_DIR: str(self.shared),
            names.ENV_BIN_DIR: str(self.shared),
            names.ENV_ARGO_DIR: str(self.argo),
            names.ENV_ARGO_CONFIG_DIR: str(self.config),
            names.ENV_SERVICEACCOUNT_DIR: str(credentials),
            names.ENV_TERMINATION_LOG: str(self.termination_log),
            "KUBERNETES_SERVICE_HOST": server[0],
            "KUBERNETES_SERVICE_PORT": str(server[1]),
        }

    def change(self, **fields: Any) -> None:
        """Make it a Pod of another step."""
        self.step = self.step._replace(**fields)

    def use_service(self) -> None:
        """Have the cache behind our service, which here is the same server."""
        credentials = Path(self.environment[names.ENV_SERVICEACCOUNT_DIR])
        host, port = (self.environment[f"KUBERNETES_SERVICE_{part}"] for part in ("HOST", "PORT"))
        self.environment |= {
            names.ENV_SERVICE: f"https://{host}:{port}",
            names.ENV_SERVICE_CA: (credentials / "ca.crt").read_text(),
            names.ENV_TOKEN_DIR: str(credentials),
        }

    def main_ended(self, code: str = "0", name: str = "main") -> None:
        """Have Argo's executor record a container's exit code."""
        directory = self.argo / "ctr" / name
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "exitcode").write_text(code)

    def variables(self) -> dict[str, str]:
        """The container's whole environment."""
        return {
            **self.environment,
            names.ENV_STEP: self.step.to_json(),
            names.ENV_TIMEOUT_MS: str(self.timeout_ms),
        }

    @property
    def decision(self) -> str:
        """What the entrypoints would read; empty without a decision."""
        path = self.shared / names.DECISION_FILE
        return path.read_text() if path.exists() else ""

    @property
    def last_word(self) -> dict[str, Any]:
        """The termination message."""
        message: dict[str, Any] = json.loads(self.termination_log.read_text())
        return message


class Pod(Files):
    """One step Pod, and the sidecar run in it without an entrypoint."""

    def __init__(
        self,
        directory: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
        server: tuple[str, int],
        credentials: Path,
    ) -> None:
        super().__init__(directory, server, credentials)
        self._monkeypatch, self._capfd = monkeypatch, capfd

    def run(self, verb: str, age: float = 0) -> Ended:
        """Run a verb to its end; `age` is how many seconds of its time are gone already."""
        self._capfd.readouterr()
        with self._monkeypatch.context() as patched:
            for name, value in self.variables().items():
                patched.setenv(name, value)
            start = time.monotonic()
            code = main([verb], age)
            seconds = time.monotonic() - start
        log = self._capfd.readouterr().err
        match = re.match(r"stepmemo: reason=(\w+) ", log)
        assert match, log
        assert log.count("\n") == 1
        assert "secret-value" not in log
        return Ended(Reason(match[1]), log, seconds, code)


def entry(**fields: Any) -> str:
    """An entry as Argo writes it, made before the tests began: the same text each time."""
    made = MADE.strftime("%Y-%m-%dT%H:%M:%SZ")
    return json.dumps(
        {
            "nodeID": "old-1",
            "outputs": OUTPUTS,
            "creationTimestamp": made,
            "lastHitTimestamp": made,
            **fields,
        }
    )


def have_entry(api: faults.Api, key: str = "hello-1", text: str | None = None) -> None:
    """Have a cache with one entry."""
    api.put(faults.CONFIGMAPS, "my-cache", metadata=CACHE_LABELS, data={key: text or entry(), "other": "x"})


def have_result(api: faults.Api, complete: str = "true", **fields: Any) -> None:
    """Have the result that Argo's own container reports for the step."""
    annotations = fields.pop("annotations", {})
    api.put(
        faults.RESULTS,
        "wf-123",
        metadata={"labels": {argo.OUTPUTS_COMPLETED: complete}, "annotations": annotations},
        **{"outputs": OUTPUTS, **fields},
    )


def cached(api: faults.Api) -> dict[str, Any]:
    """The cache's data, entries parsed."""
    data = api.objects[faults.CONFIGMAPS]["my-cache"].get("data", {})
    return {key: json.loads(value) for key, value in data.items() if value.startswith("{")}
