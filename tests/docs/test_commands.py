"""Every command in the docs is one that works: its flags are there, and so are the objects that it names.

What `stepmemo` is told is parsed by its own parser. kubectl's commands are held to the manifests: the kinds,
names, labels and containers in them; many of them are run on a real API server where there is a kubectl.
(What commands print in docs/cli.md: tests/cli/test_page.py; leaving: tests/keeper/test_leave.py.)
"""

import argparse
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from argo import names as argo
from argo.version import CONTROLLER
from bench.__main__ import BENCHMARKS
from cli.__main__ import make_parser
from keeper import settings as keeper_settings
from memoize import names
from tests.cluster import Cluster
from tests.docs.commands import ROOT, Command, commands
from tests.manifests.rendering import BASE, COMPONENTS, OF_THE_BASE, PROGRAMS, overlay, render
from webhook import settings as webhook_settings

COMMANDS = commands()
KINDS = {
    "certificate": "Certificate",
    "clusterrole": "ClusterRole",
    "clusterrolebinding": "ClusterRoleBinding",
    "clusterworkflowtemplate": "ClusterWorkflowTemplate",
    "configmap": "ConfigMap",
    "deployment": "Deployment",
    "lease": "Lease",
    "mutatingwebhookconfiguration": "MutatingWebhookConfiguration",
    "namespace": "Namespace",
    "pod": "Pod",
    "role": "Role",
    "rolebinding": "RoleBinding",
    "secret": "Secret",
    "serviceaccount": "ServiceAccount",
    "workflow": "Workflow",
    "workflowtemplate": "WorkflowTemplate",
}
"""What kubectl is told of, in the singular."""
VERBS = {
    "annotate",
    "apply",
    "create",
    "delete",
    "describe",
    "get",
    "kustomize",
    "label",
    "logs",
    "replace",
    "rollout status",
    "rollout undo",
    "scale",
    "set env",
    "wait",
}
FLAGS = {
    *("-A", "-L", "-c", "-f", "-k", "-l", "-n", "-o", "--all", "--field-selector", "--for", "--group"),
    *("--ignore-not-found", "--replicas", "--resource", "--resource-name", "--role", "--serviceaccount"),
    *("--tail", "--timeout", "--verb"),
}
"""Of kubectl, that pages use."""
MADE = {
    ("Secret", webhook_settings.DECLARED["secret"].default),
    ("Secret", webhook_settings.DECLARED["ca-secret"].default),
    ("Lease", webhook_settings.DECLARED["keeper-service"].default),
    ("Deployment", CONTROLLER),
}
"""What the manifests do not hold: our programs make it, or Argo's have it."""
OTHERS = {
    "argo": {"submit", "stop", "retry", "resubmit"},
    "docker": {"build", "push"},
    "helm": {"install", "package", "rollback", "test", "uninstall", "upgrade"},
    "pip": {"install"},
}
"""Programs that are not ours, and what we have people do with them."""
NAMESPACES = {"NAMESPACE", "NS", "argo", "stepmemo", "work"}
SHELL = {"mkdir", "cat", "export", "eval", "source", "grep", "pytest", "psql", "pg_dump", "pg_restore"}


def of(*programs: str) -> list[Command]:
    return [command for command in COMMANDS if command.program in programs]


def stands_for(word: str) -> bool:
    """Whether a word is to be replaced by the reader: `NAMESPACE`, `…`."""
    return bool(re.fullmatch(r"[A-Z][A-Z-]*|.*…", word))


def documents() -> list[dict[str, Any]]:
    """All objects of the manifests, of each component."""
    return [*render(BASE), *(one for component in OF_THE_BASE for one in overlay(component))]


@pytest.fixture(scope="module")
def objects() -> set[tuple[str, str]]:
    """Kind and name of what there is."""
    return {(one["kind"], one["metadata"]["name"]) for one in documents()} | MADE


@pytest.fixture(scope="module")
def labels() -> set[tuple[str, str]]:
    """What Pods of ours and caches are selected by."""
    found = {(argo.CONFIGMAP_TYPE, argo.CONFIGMAP_TYPE_CACHE)}
    for one in documents():
        if one["kind"] == "Deployment":
            found |= set(one["spec"]["template"]["metadata"]["labels"].items())
    words = {value for name, value in vars(names).items() if name.startswith("RESULT_")}
    return found | {(names.RESULT, word) for word in words}


def test_commands_are_found_where_they_stand() -> None:
    told = {str(command) for command in COMMANDS}
    assert "docs/leaving.md: stepmemo leave" in told
    assert "docs/leaving.md: kubectl replace -f -" in told, "behind a pipe"
    assert "README.md: kubectl create -f examples/greet.yaml -o name" in told, "within another command"
    assert "docs/debugging.md: stepmemo why POD" in told, "in a line of text"


def test_each_is_of_a_program_that_this_test_knows() -> None:
    """Who adds another one says here how it is held to what there is."""
    known = {"kubectl", "stepmemo", "make", "python", *OTHERS, *SHELL}
    assert [str(command) for command in COMMANDS if command.program not in known] == []
    assert [str(command) for command in of(*OTHERS) if command.plain[0] not in OTHERS[command.program]] == []


@pytest.mark.parametrize("command", of("stepmemo"), ids=str)
def test_stepmemo_knows_the_subcommand_and_its_flags(command: Command) -> None:
    subcommand, *rest = command.arguments
    (subparsers,) = (a for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction))
    assert subcommand in subparsers.choices
    options = {option for a in subparsers.choices[subcommand]._actions for option in a.option_strings}
    assert {word.partition("=")[0] for word in rest if word.startswith("--")} <= options
    if command.whole:
        assert make_parser().parse_args(["name" if stands_for(word) else word for word in command.arguments])


@pytest.mark.parametrize("command", of("kubectl"), ids=str)
def test_kubectl_is_told_of_what_there_is(
    command: Command, objects: set[tuple[str, str]], labels: set[tuple[str, str]]
) -> None:
    assert {name for name, _ in command.flags} <= FLAGS
    verb, rest = verb_of(command)
    assert verb in VERBS
    kind = ""
    for word in [] if verb in ("label", "annotate") else rest:
        for part in word.split(","):
            kind, name = named(part, kind)
            if name and name.startswith("stepmemo"):
                assert (kind, name) in objects
    for selector in command.values("-l"):
        assert set(map(tuple, (one.split("=") for one in selector.split(",")))) <= labels
    for namespace in command.values("-n"):
        assert namespace in NAMESPACES
    for container in command.values("-c"):
        assert container in names.CONTAINERS
    for word in [*command.values("-L"), *(one.partition("=")[0] for one in rest if "=" in one)]:
        if word.startswith(names.DOMAIN):
            assert word in vars(names).values()
    for path in command.values("-f", "-k"):
        assert path in ("-", "overlay") or stands_for(path) or (ROOT / path).exists()


def verb_of(command: Command) -> tuple[str, list[str]]:
    """`get`, `rollout status`, … and what follows it."""
    first, *rest = command.plain
    return (f"{first} {rest[0]}", rest[1:]) if first in ("rollout", "set") else (first, rest)


def named(word: str, kind: str) -> tuple[str, str]:
    """The kind that counts from this word on, and the name in it; "" for none."""
    before, slash, after = word.partition("/")
    found = KINDS.get(before) or KINDS.get(before.removesuffix("s"))
    if slash and found:
        return found, after
    return (found, "") if found else (kind, word)


@pytest.mark.parametrize("command", of("make"), ids=str)
def test_make_knows_the_target(command: Command) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in command.plain:
        assert "=" in word or re.search(rf"^{word}:", makefile, re.MULTILINE)


@pytest.mark.parametrize("command", of("python"), ids=str)
def test_python_finds_the_module(command: Command) -> None:
    assert command.arguments[0] == "-m"
    module, *rest = command.arguments[1:]
    assert find_spec(module)
    if module == "bench" and rest:
        assert rest[0] in {"report", *(benchmark.NAME for benchmark in BENCHMARKS)}


@pytest.mark.parametrize("command", of("docker", "pip", "pytest"), ids=str)
def test_files_and_extras_that_others_are_told_of_are_there(command: Command) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    for word in command.plain:
        if found := re.fullmatch(r"\.\[(\w+)\]", word):
            assert found[1] in extras
        elif "/" in word and command.program == "pytest":
            assert (ROOT / word).exists()
    for path in command.values("-f"):
        assert (ROOT / path).exists()


YAML = re.compile(r"^( *)```yaml\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


def snippets() -> Iterator[Any]:
    for page in sorted((ROOT / "docs").glob("*.md")):
        for indent, text in YAML.findall(page.read_text(encoding="utf-8")):
            plain = re.sub(f"^{indent}", "", text, flags=re.MULTILINE)
            yield pytest.param(plain, id=f"{page.stem}: {plain.splitlines()[-1].strip()}")


@pytest.mark.parametrize("text", list(snippets()))
def test_a_piece_of_yaml_can_be_read_and_names_components_programs_and_settings_that_are_there(
    text: str, objects: set[tuple[str, str]]
) -> None:
    read = yaml.safe_load(text)
    document = read if isinstance(read, dict) else {}
    for path in [*document.get("resources", ()), *document.get("components", ())]:
        assert (ROOT / path.removeprefix("../")).is_dir()
    for patch in document.get("patches", ()):
        target = patch["target"]
        assert any(target.items() >= {"kind": kind}.items() for kind, _ in objects)
        assert "name" not in target or (target["kind"], target["name"]) in objects
        for op in yaml.safe_load(patch["patch"]):
            if op["path"].endswith("/env/-"):
                declared = keeper_settings if "keeper" in target["name"] else webhook_settings
                assert op["value"]["name"] in {one.variable for one in declared.DECLARED.values()}


def test_every_component_is_in_the_table_of_the_page() -> None:
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([\w-]+)` \|", page.partition("\n## Components\n")[2], re.MULTILINE)
    assert {path.name for path in COMPONENTS.iterdir()} <= set(listed)


DRY_RUN = {
    **{"create": True, "delete": True, "get": False, "describe": False},
    **{"label": False, "annotate": False, "scale": False, "set env": False},
}
"""What an API server without controllers can serve; some as a dry run, so that nothing is made or goes."""
RUN = [
    command
    for command in of("kubectl")
    if (verb := verb_of(command)[0]) in DRY_RUN
    and (verb != "delete" or ("--ignore-not-found", "") in command.flags or "secret" in command.plain)
    and len({*command.plain, *command.values("-f", "-k")}) > 1
    and not {"certificate", "certificates"} & set(command.plain)  # cert-manager has these
]


def named_by_commands() -> list[dict[str, Any]]:
    """The objects that these commands name, as small as they can be."""
    pod = {"containers": [{"name": "main", "image": "x"}]}
    template = {"metadata": {"labels": {"a": "b"}}, "spec": pod}
    deployment = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    secrets = [("Secret", name, {}) for kind, name in sorted(MADE) if kind == "Secret"]
    caches = [("ConfigMap", name, {}) for name in ("greetings", "my-cache", "name")]
    deployments = [("Deployment", name, {"spec": deployment}) for name in (*PROGRAMS, CONTROLLER)]
    others = [
        ("Pod", "name", {"spec": pod}),
        ("Workflow", "name", {"spec": {}}),
        ("Lease", "stepmemo-keeper", {"spec": {}}),
    ]
    versions = {"Deployment": "apps/v1", "Lease": "coordination.k8s.io/v1", "Workflow": argo.API_VERSION}
    return [
        {"apiVersion": versions.get(kind, "v1"), "kind": kind, "metadata": {"name": name}, **rest}
        for kind, name, rest in [*secrets, *caches, *deployments, *others]
    ]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl here to run")
def test_what_kubectl_is_told_works(kube_apiserver: Cluster, tmp_path: Path) -> None:
    space = kube_apiserver.namespace()

    def kubectl(*words: str, **options: Any) -> None:
        connected = ["kubectl", f"--kubeconfig={kube_apiserver.kubeconfig}", f"--cache-dir={tmp_path}"]
        done = subprocess.run([*connected, *words], cwd=ROOT, capture_output=True, text=True, **options)
        assert done.returncode == 0, (words, done.stderr)

    there = {"apiVersion": "v1", "kind": "List", "items": named_by_commands()}
    kubectl("create", "-n", space, "-f", "-", input=json.dumps(there))
    assert RUN
    for command in {command.words: command for command in RUN}.values():
        words = [space if word in NAMESPACES else word for word in command.arguments]
        words = ["name" if stands_for(word) else word for word in words]
        if not {"-n", "-A", "-k"} & set(words):
            words += ["-n", space]
        kubectl(*words, *(["--dry-run=server"] if DRY_RUN[verb_of(command)[0]] else []))
