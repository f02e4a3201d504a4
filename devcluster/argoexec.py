"""A stand-in for Argo's executor, `argoexec`, with its files and its order of events.

One file that needs nothing but Python: `init` copies it into the Pod, as the real one does with itself.

* `argoexec init`: puts itself into /var/run/argo, writes the template there, the script's source to
  /argo/staging/script and the input artifacts to /argo/inputs/artifacts.
* `argoexec emissary -- COMMAND…`, in front of each container's command: keeps its standard output in
  ctr/<name>/stdout, leaves outputs in outputs/, and writes ctr/<name>/exitcode at the very end.
* `argoexec wait`: waits for the main container's exitcode, saves artifacts, and reports outputs as the node's
  WorkflowTaskResult: created with the label report-outputs-completed "false", patched with the outputs, then
  labelled "true". Exit code 64 when anything of that failed; the label is set all the same.

Left out: artifact stores (artifacts are files below /argo/artifacts), archives and compression, logs as
artifacts, progress, deadlines, retries of API calls, plugins, containerSet, sidecars.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:  # three containers of each Pod start with this, and wait for every import
    from typing import Any

ROOT = os.environ.get("DEVCLUSTER_ROOT", "")
"""Set where containers have no mount namespace: the directory that stands in for `/`."""
ARGO = Path(f"{ROOT}/var/run/argo")
STAGING = Path(f"{ROOT}/argo/staging")
INPUTS = Path(f"{ROOT}/argo/inputs/artifacts")
ARTIFACTS = Path(f"{ROOT}/argo/artifacts")
SERVICE_ACCOUNT = Path(f"{ROOT}/var/run/secrets/kubernetes.io/serviceaccount")
TERMINATION_LOG = Path(os.environ.get("STEPMEMO_TERMINATION_LOG", "/dev/termination-log"))

EXECUTOR_ERROR = 64
"""Argo's exit code for its own failures (workflow/common)."""
_TICK_SECONDS = 0.01
_API_SECONDS = 10
_RESULT_LIMIT = 256 * 1024
"""Argo keeps the last 256 KiB of a script's output."""


def main(arguments: list[str]) -> int:
    """The verb, then Argo's logging flags, which are ignored."""
    match arguments[:1]:
        case ["init"]:
            return init(json.loads(os.environ["ARGO_TEMPLATE"]))
        case ["emissary"]:
            return emissary(arguments[arguments.index("--") + 1 :])
        case ["wait"]:
            return wait(read_template())
    print("usage: argoexec init|emissary|wait", file=sys.stderr)
    return EXECUTOR_ERROR


def init(template: dict[str, Any]) -> int:
    """Prepare the Pod's shared directories before any other container starts."""
    import shutil

    own = Path(sys.argv[0]).resolve()
    for program in (own, own.with_suffix("")):
        shutil.copy(program, ARGO / program.name)
    (ARGO / "template").write_text(json.dumps(template), encoding="utf-8")
    for directory in ("ctr", "outputs"):
        (ARGO / directory).mkdir()
        (ARGO / directory).chmod(0o777)
    if script := template.get("script"):
        (STAGING / "script").write_text(script["source"], encoding="utf-8")
    for artifact in template.get("inputs", {}).get("artifacts", []):
        load_artifact(artifact, template, INPUTS / artifact["name"])
    return 0


def emissary(command: list[str]) -> int:
    """Run the container's own command; its exit code, and its traces in ctr/<name>."""
    name = os.environ["ARGO_CONTAINER_NAME"]
    traces = ARGO / "ctr" / name
    traces.mkdir(parents=True, exist_ok=True)
    code = EXECUTOR_ERROR
    try:
        code = run(command, traces / "stdout")
        if name == "main":
            save_outputs(read_template())
    finally:
        (traces / "exitcode").write_text(str(code), encoding="ascii")
    return code


def run(command: list[str], stdout: Path) -> int:
    """Run `command` with signals passed on; what it prints goes to our own output and to `stdout`."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writer, 1)
        os.setpgid(0, 0)
        try:
            os.execvp(command[0], command)
        except OSError as error:
            print(f"argoexec: {command[0]}: {error.strerror}", file=sys.stderr, flush=True)
            os._exit(EXECUTOR_ERROR)
    os.close(writer)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda caught, _: pass_on(child, caught))
    with stdout.open("wb") as copy:
        while chunk := os.read(reader, 65536):
            copy.write(chunk)
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if code >= 0 else 128 - code


def pass_on(child: int, number: int) -> None:
    """Signal the whole process group of the container's command."""
    try:
        os.killpg(child, number)
    except ProcessLookupError:
        pass


def save_outputs(template: dict[str, Any]) -> None:
    """In main: copy what the template declares to where `wait` can see it; absent files stay absent."""
    outputs = template.get("outputs", {})
    for parameter in outputs.get("parameters", []):
        if path := parameter.get("valueFrom", {}).get("path"):
            copy(Path(path), kept("parameters", parameter["name"]))
    for artifact in outputs.get("artifacts", []):
        copy(Path(artifact["path"]), kept("artifacts", artifact["name"]))


def kept(kind: str, name: str) -> Path:
    """Where main leaves an output for wait."""
    return ARGO / "outputs" / kind / name


def copy(source: Path, target: Path) -> None:
    """A file or directory, if it is there."""
    import shutil

    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    elif source.exists():
        shutil.copy(source, target)


def wait(template: dict[str, Any]) -> int:
    """Wait for main, save its artifacts, report its outputs."""
    terminated: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: terminated.append(number))
    results = TaskResult()
    results.create()
    errors = [] if ended(ARGO / "ctr/main/exitcode", terminated) else ["main ended without an exit code"]
    outputs: dict[str, Any] = {}
    for step in (script_result, parameters, artifacts):
        try:
            outputs |= step(template)
        except OSError as error:
            errors.append(f"{step.__name__}: {error}")
    results.patch({"outputs": with_own_paths(outputs)} if outputs else {})
    results.patch({"metadata": {"labels": {"workflows.argoproj.io/report-outputs-completed": "true"}}})
    if errors:
        print("argoexec:", "; ".join(errors), file=sys.stderr)
        try:
            TERMINATION_LOG.write_text("; ".join(errors), encoding="utf-8")
        except OSError:
            pass
    return EXECUTOR_ERROR if errors else 0


def with_own_paths(outputs: dict[str, Any]) -> dict[str, Any]:
    """Outputs with the paths of the template's author, where the kubelet had to move them below ROOT."""
    text = json.dumps(outputs)
    moved: dict[str, Any] = json.loads(text.replace(json.dumps(ROOT)[1:-1] + "/", "/") if ROOT else text)
    return moved


def ended(exit_code: Path, terminated: list[int]) -> bool:
    """Whether main's exit code came; the controller's SIGTERM, sent when main is gone, ends the wait."""
    while not terminated:
        try:
            if exit_code.read_text(encoding="ascii"):
                return True
        except FileNotFoundError:
            pass
        time.sleep(_TICK_SECONDS)
    return False


def script_result(template: dict[str, Any]) -> dict[str, Any]:
    """`result`: main's standard output without its last newline, where some other step uses it."""
    if os.environ.get("ARGO_INCLUDE_SCRIPT_OUTPUT") != "true":
        return {}
    text = (ARGO / "ctr/main/stdout").read_text(encoding="utf-8", errors="replace")
    return {"result": text.removesuffix("\n")[-_RESULT_LIMIT:]}


def parameters(template: dict[str, Any]) -> dict[str, Any]:
    """The declared parameters with their values."""
    declared = template.get("outputs", {}).get("parameters", [])
    return {"parameters": [p | {"value": parameter_value(p)} for p in declared]} if declared else {}


def parameter_value(parameter: dict[str, Any]) -> str:
    """What main left in the parameter's file, or its default; FileNotFoundError without either."""
    try:
        return kept("parameters", parameter["name"]).read_text(encoding="utf-8").removesuffix("\n")
    except FileNotFoundError:
        if "default" in parameter["valueFrom"]:
            return str(parameter["valueFrom"]["default"])
        raise


def artifacts(template: dict[str, Any]) -> dict[str, Any]:
    """Store the declared artifacts; each with its key, the rest of the location is the template's."""
    saved = []
    for artifact in template.get("outputs", {}).get("artifacts", []):
        file = kept("artifacts", artifact["name"])
        if not file.exists():
            if artifact.get("optional"):
                continue
            raise FileNotFoundError(f"no file {artifact['path']} for artifact {artifact['name']}")
        location = template["archiveLocation"]["s3"]
        key = f"{location['key']}/{artifact['name']}"
        copy(file, ARTIFACTS / location["bucket"] / key)
        saved.append(artifact | {"s3": {"key": key}})
    return {"artifacts": saved} if saved else {}


def load_artifact(artifact: dict[str, Any], template: dict[str, Any], target: Path) -> None:
    """Put one input artifact where main mounts it; what its location leaves out is the archive's."""
    if "raw" in artifact:
        target.write_text(artifact["raw"]["data"], encoding="utf-8")
    elif "s3" in artifact:
        location = template["archiveLocation"]["s3"] | artifact["s3"]
        copy(ARTIFACTS / location["bucket"] / location["key"], target)
    elif not artifact.get("optional"):
        raise FileNotFoundError(f"input artifact {artifact['name']} has no source")


def read_template() -> dict[str, Any]:
    """The template that `init` wrote."""
    template: dict[str, Any] = json.loads((ARGO / "template").read_text(encoding="utf-8"))
    return template


class TaskResult:
    """The node's WorkflowTaskResult, written with the rights that Argo's executor needs: create and patch."""

    def __init__(self) -> None:
        import http.client
        import ssl

        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        context = ssl.create_default_context(cafile=str(SERVICE_ACCOUNT / "ca.crt"))
        self._connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=_API_SECONDS)
        namespace = (SERVICE_ACCOUNT / "namespace").read_text(encoding="utf-8")
        self._path = f"/apis/argoproj.io/v1alpha1/namespaces/{namespace}/workflowtaskresults"
        self._node_id = os.environ["ARGO_NODE_ID"]

    def create(self) -> None:
        """Create it, not completed; one that is there already is taken over."""
        workflow = os.environ["ARGO_WORKFLOW_NAME"]
        owner = {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Workflow",
            "name": workflow,
            "uid": os.environ["ARGO_WORKFLOW_UID"],
        }
        body = {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "WorkflowTaskResult",
            "metadata": {
                "name": self._node_id,
                "labels": {
                    "workflows.argoproj.io/workflow": workflow,
                    "workflows.argoproj.io/report-outputs-completed": "false",
                },
                "ownerReferences": [owner],
            },
        }
        self._request("POST", self._path, body, "application/json", accepted=(201, 409))

    def patch(self, change: dict[str, Any]) -> None:
        """Merge-patch it."""
        path = f"{self._path}/{self._node_id}"
        self._request("PATCH", path, change, "application/merge-patch+json", accepted=(200,))

    def _request(
        self, method: str, path: str, body: dict[str, Any], content_type: str, accepted: tuple[int, ...]
    ) -> None:
        token = (SERVICE_ACCOUNT / "token").read_text(encoding="utf-8")
        headers = {"Authorization": f"Bearer {token}", "Content-Type": content_type}
        self._connection.request(method, path, json.dumps(body), headers)
        response = self._connection.getresponse()
        text = response.read().decode(errors="replace")
        self._connection.close()
        if response.status not in accepted:
            raise OSError(f"{method} {path}: HTTP {response.status}: {text[:500]}")


if __name__ == "__main__":
    try:
        code = main(sys.argv[1:])
    except (OSError, KeyError, ValueError) as error:
        print(f"argoexec: {error!r}", file=sys.stderr)
        code = EXECUTOR_ERROR
    sys.exit(code)
