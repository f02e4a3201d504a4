"""The devcluster's node: Pods run as Kubernetes runs them, with namespaces and without."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from devcluster import api, sandbox
from devcluster.client import CONFIG_MAPS, PODS, Client, Object
from devcluster.images import Images
from devcluster.kubelet import Kubelet
from devcluster.process import strongest_isolation
from devcluster.volumes import Volumes
from memoize import names
from tests.beside import beside
from tests.devcluster.node import (
    Node,
    codes,
    ended,
    marked,
    mounted,
    on_host,
    processes_with,
    running,
    shell,
    until_gone,
    volume,
)
from tests.waiting import until

TOKEN_REVIEWS = "apis/authentication.k8s.io/v1", "tokenreviews"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["strongest", sandbox.NO_NAMESPACE])
async def node(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Node]:
    directory = tmp_path_factory.mktemp("node")
    isolation = request.param
    if isolation == "strongest":
        isolation = await strongest_isolation(directory / "trial")
    entrypoint = directory / "entrypoint"
    entrypoint.touch()
    (directory / "api").mkdir()
    async with (
        api.serve(directory / "api") as server,
        Client(server.url, str(server.ca_file), server.admin_token) as client,
    ):
        images = Images(directory / "images", entrypoint)
        variables = {"KUBERNETES_SERVICE_HOST": "127.0.0.1"}
        volumes, services = Volumes(client, images), ["stepmemo.stepmemo.svc"]
        kubelet = Kubelet(client, images, volumes, directory / "node", isolation, variables, services)
        async with beside(kubelet.run()):
            yield Node(client, kubelet, isolation)


@pytest.fixture
def apart(node: Node) -> Node:
    """A node whose containers have namespaces of their own; the test is skipped for the other."""
    if node.isolation == sandbox.NO_NAMESPACE:
        pytest.skip("what only namespaces can do")
    return node


async def test_init_containers_run_in_their_order_and_then_all_others_at_once(node: Node) -> None:
    mounts = mounted("/shared")
    meet = "touch /shared/{0}; until test -e /shared/{1}; do sleep 0.01; done"
    pod = await node.run(
        shell(meet.format("a", "b"), "a", volumeMounts=mounts),
        shell(meet.format("b", "a"), "b", volumeMounts=mounts),
        initContainers=[
            shell("echo one >> /shared/order", "one", volumeMounts=mounts),
            shell("echo two >> /shared/order; cat /shared/order", "two", volumeMounts=mounts),
        ],
        volumes=[volume("shared")],
    )

    assert pod["status"]["phase"] == "Succeeded"
    assert codes(pod) == {"one": 0, "two": 0, "a": 0, "b": 0}
    assert node.log(pod, "two") == "one\ntwo\n"


async def test_a_failing_init_container_is_the_end_of_the_pod(node: Node) -> None:
    pod = await node.run(shell("true"), initContainers=[shell("exit 7", "init"), shell("true", "next")])

    assert pod["status"]["phase"] == "Failed"
    assert codes(pod) == {"init": 7}


async def test_a_failing_container_fails_the_pod_once_the_others_have_ended(node: Node) -> None:
    mounts = mounted("/shared")
    pod = await node.run(
        shell("touch /shared/failed; exit 3", volumeMounts=mounts),
        shell(
            "until test -e /shared/failed; do sleep 0.01; done; sleep 0.1; echo done",
            "other",
            volumeMounts=mounts,
        ),
        volumes=[volume("shared")],
    )

    assert (pod["status"]["phase"], codes(pod)) == ("Failed", {"main": 3, "other": 0})
    assert node.log(pod, "other") == "done\n"


async def test_a_container_that_the_kernel_kills_has_exit_code_137(node: Node) -> None:
    pod = await node.create(shell("echo up; sleep 600"))
    await node.until_printed(pod, "up")

    assert not node.kubelet.kill("default", pod["metadata"]["name"], "another")
    await until(lambda: node.kubelet.kill("default", pod["metadata"]["name"], "main"))

    assert codes(await node.until(pod, ended)) == {"main": 137}
    await until_gone(pod)


async def test_a_command_that_is_not_there_is_a_start_error(node: Node) -> None:
    pod = await node.run({"name": "main", "image": "busybox", "command": ["/no/such/program"]})

    [status] = pod["status"]["containerStatuses"]
    assert (status["state"]["terminated"]["exitCode"], status["state"]["terminated"]["reason"]) == (
        128,
        "StartError",
    )
    assert "No such file" in node.log(pod)


async def test_variables_are_the_kubelets(node: Node) -> None:
    def field(name: str, path: str) -> Object:
        return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}

    env = [
        field("NAME", "metadata.name"),
        field("UID", "metadata.uid"),
        field("NAMESPACE", "metadata.namespace"),
        field("KEY", "metadata.annotations['stepmemo.dev/key']"),
        field("LABEL", "metadata.labels['step']"),
        field("NONE", "metadata.annotations['none']"),
        {"name": "A", "value": "1"},
        {"name": "B", "value": "$(A)$(LATER)$$(A)"},
        {"name": "LATER", "value": "2"},
        {"name": "EMPTY"},
    ]
    text = "$NAME $UID $NAMESPACE $KEY $LABEL [$NONE] [$B] [$EMPTY] $KUBERNETES_SERVICE_HOST"
    pod = await node.run(
        {
            "name": "main",
            "image": "x",
            "env": env,
            "command": ["sh", "-c"],
            "args": [f"echo \"{text}\" '$(A)' $0", "$(B)"],
        }
    )

    metadata = pod["metadata"]
    expected = f"{metadata['name']} {metadata['uid']} default k yes [] [1$(LATER)$(A)] [] 127.0.0.1"
    assert node.log(pod) == f"{expected} 1 1$(LATER)$(A)\n"


async def test_volumes_hold_what_kubernetes_puts_there(node: Node) -> None:
    await node.client.create(
        CONFIG_MAPS, "default", {"metadata": {"name": "settings"}, "data": {"a": "1", "b": "2"}}
    )
    items = [{"key": "b", "path": "deep/b"}]
    pod = await node.run(
        shell(
            "cat /settings/a /settings/b /one/deep/b; cd /var/run/secrets/kubernetes.io/serviceaccount;"
            "echo; cat namespace; echo; grep -c BEGIN ca.crt; test -s token && echo token",
            volumeMounts=mounted("/settings", "settings") + mounted("/one", "one"),
        ),
        volumes=[
            volume("settings", configMap={"name": "settings"}),
            volume("one", configMap={"name": "settings", "items": items}),
        ],
    )

    assert node.log(pod) == "122\ndefault\n1\ntoken\n"


async def test_our_image_is_a_volume_that_shows_the_entrypoint(node: Node) -> None:
    pod = await node.run(
        shell("cd /img/opt/stepmemo; ls", volumeMounts=mounted("/img", "img")),
        volumes=[volume("img", image={"reference": "registry.test/stepmemo:1@sha256:0"})],
    )

    assert node.log(pod) == "entrypoint\n"


async def test_an_image_volume_cannot_be_written_whatever_its_mount_says(apart: Node) -> None:
    pod = await apart.run(
        shell("cd /img; touch x || echo refused", volumeMounts=mounted("/img", "img")),
        volumes=[volume("img", image={"reference": "stepmemo"})],
    )

    assert apart.log(pod).endswith("refused\n")


async def test_another_image_is_no_volume_here(node: Node) -> None:
    pod = await node.run(shell("true"), volumes=[volume("img", image={"reference": "busybox"})])

    assert pod["status"]["reason"] == "UnsupportedPodError"
    assert "busybox" in pod["status"]["message"]


def on(operator: str, *values: int) -> Object:
    return {"action": "Restart", "exitCodes": {"operator": operator, "values": list(values)}}


@pytest.mark.parametrize(
    ("rules", "ends_after"),
    [
        ([on("In", 137)], [1]),
        ([on("In", 7, 137)], [7, 1]),
        ([on("NotIn", 1)], [7, 1]),
        ([on("In", 2), on("In", 7)], [7, 1]),
    ],
)
async def test_a_container_is_started_again_as_its_own_rules_say(
    node: Node, rules: list[Object], ends_after: list[int]
) -> None:
    first = ends_after[0]
    script = f"test -e /shared/again && exit 1; touch /shared/again; echo once; exit {first}"
    pod = await node.run(
        shell(script, volumeMounts=mounted("/shared"), restartPolicy="Never", restartPolicyRules=rules),
        volumes=[volume("shared")],
    )

    [status] = pod["status"]["containerStatuses"]
    assert status["restartCount"] == len(ends_after) - 1
    assert codes(pod) == {"main": ends_after[-1]}
    assert node.log(pod) == "once\n"


async def test_a_sub_path_is_made_where_it_is_missing_and_may_be_a_file(node: Node) -> None:
    pod = await node.run(
        shell(
            "cat /tmp/in; touch /dir/x",
            volumeMounts=[
                {"name": "shared", "mountPath": "/tmp/in", "subPath": "file"},
                {"name": "shared", "mountPath": "/dir", "subPath": "made/here"},
            ],
        ),
        initContainers=[shell("echo content > /shared/file", "init", volumeMounts=mounted("/shared"))],
        volumes=[volume("shared")],
    )

    assert (pod["status"]["phase"], node.log(pod)) == ("Succeeded", "content\n")


async def test_what_a_pod_writes_to_tmp_is_not_on_the_host_nor_in_another_pod(node: Node) -> None:
    name = f"stepmemo-test-{os.getpid()}"
    first = await node.run(shell(f"echo x > /tmp/{name}; ls /tmp"))
    second = await node.run(shell("ls /tmp"))

    assert (name in node.log(first), node.log(second)) == (True, "")
    assert not on_host(f"/tmp/{name}")


async def test_a_termination_message_reaches_the_status(node: Node) -> None:
    pod = await node.run(shell(f"echo why > ${{{names.ENV_TERMINATION_LOG}:-/dev/termination-log}}; exit 1"))

    [status] = pod["status"]["containerStatuses"]
    assert status["state"]["terminated"]["message"] == "why\n"


async def test_the_image_stepmemo_has_the_sidecars_packages(node: Node) -> None:
    ask = "import memoize.names, sidecar; print(memoize.names.DOMAIN)"
    command = ["python3", "-S", "-E", "-c", ask]
    pod = await node.run({"name": "main", "image": "registry:5000/stepmemo:1", "command": command})

    assert node.log(pod) == "stepmemo.dev\n"


async def test_other_images_are_the_host_alone(apart: Node) -> None:
    pod = await apart.run(shell("test ! -e /opt/stepmemo && test ! -e /opt/devcluster"))

    assert pod["status"]["phase"] == "Succeeded"


async def test_deleting_a_pod_asks_its_containers_to_end(node: Node) -> None:
    pod = await node.create(shell("trap 'echo asked; exit 0' TERM; echo up; while :; do sleep 0.01; done"))
    await node.until_printed(pod, "up")
    await node.until(pod, running)

    await node.client.delete(PODS, "default", pod["metadata"]["name"])

    await node.until_printed(pod, "asked")


async def test_a_container_that_does_not_listen_is_killed_after_the_grace_period(node: Node) -> None:
    pod = await node.create(
        shell("trap '' TERM; echo up; sleep 0.01; while :; do sleep 0.01; done"),
        terminationGracePeriodSeconds=0,
    )
    await node.until_printed(pod, "up")
    processes = marked(pod)
    assert processes

    await node.client.delete(PODS, "default", pod["metadata"]["name"])

    await until_gone(pod)


async def test_what_a_container_leaves_in_the_background_ends_with_it(node: Node) -> None:
    pod = await node.run(shell("setsid sleep 600 & echo main is over"))

    assert pod["status"]["phase"] == "Succeeded"
    await until_gone(pod)


async def test_a_pod_with_a_scheduling_gate_is_not_run(node: Node) -> None:
    held = await node.create(shell("true"), schedulingGates=[{"name": "stepmemo.dev/gated"}])
    await node.run(shell("true"))

    found = await node.client.get(PODS, "default", held["metadata"]["name"])
    assert found["status"]["phase"] == "Pending"
    assert "nodeName" not in found["spec"]
    await node.client.patch(PODS, "default", held["metadata"]["name"], {"spec": {"schedulingGates": None}})
    over = await node.until(held, ended)
    assert (over["status"]["phase"], over["spec"]["nodeName"]) == ("Succeeded", "devcluster")


async def test_a_gated_pod_that_is_made_to_succeed_is_over_and_never_runs(node: Node) -> None:
    held = await node.create(shell("echo ran"), schedulingGates=[{"name": "stepmemo.dev/gated"}])
    name = held["metadata"]["name"]
    succeeded = {"status": {"phase": "Succeeded"}}
    await node.client.patch(PODS, "default", name, succeeded, subresource="status")
    await node.client.patch(PODS, "default", name, {"spec": {"schedulingGates": None}})
    await node.run(shell("true"))

    assert "nodeName" not in (await node.client.get(PODS, "default", name))["spec"]
    assert node.log(held) == ""


async def test_a_token_for_another_audience_names_the_pod(node: Node) -> None:
    token = {"serviceAccountToken": {"audience": "stepmemo", "expirationSeconds": 3600, "path": "token"}}
    tokens = volume("tokens", projected={"sources": [token]})
    pod = await node.create(
        shell("cat /tokens/token; sleep 600", volumeMounts=mounted("/tokens", "tokens")), volumes=[tokens]
    )
    await until(lambda: len(node.log(pod)) >= 10)

    asked = {"spec": {"token": node.log(pod), "audiences": ["stepmemo"]}}
    status = (await node.client.create(TOKEN_REVIEWS, None, asked))["status"]
    await node.client.delete(PODS, "default", pod["metadata"]["name"])

    extra = status["user"]["extra"]
    assert extra["authentication.kubernetes.io/pod-uid"] == [pod["metadata"]["uid"]]
    status = (await node.client.create(TOKEN_REVIEWS, None, asked))["status"]
    assert "authenticated" not in status


async def test_containers_find_services_by_their_names(apart: Node) -> None:
    pod = await apart.run(shell("cat /etc/hosts"))

    assert apart.log(pod) == "127.0.0.1 localhost stepmemo.stepmemo.svc\n"


@pytest.mark.parametrize(
    ("containers", "spec", "why"),
    [
        ([shell("true")], {"restartPolicy": "Always"}, "restartPolicy Never"),
        ([shell("true", command=[])], {}, "no command"),
        ([shell("true", lifecycle={"preStop": {}})], {}, "lifecycle"),
        (
            [shell("true")],
            {"initContainers": [shell("true", "i", restartPolicy="Always")]},
            "native sidecars",
        ),
        ([shell("true")], {"volumes": [{"name": "v", "nfs": {}}]}, "no nfs volumes"),
        ([shell("true", env=[{"name": "S", "valueFrom": {"secretKeyRef": {}}}])], {}, "fieldRef alone"),
    ],
)
async def test_what_the_devcluster_cannot_do_is_said_and_not_half_done(
    node: Node, containers: list[Object], spec: Object, why: str
) -> None:
    pod = await node.run(*containers, **spec)

    assert pod["status"]["phase"] == "Failed"
    assert why in pod["status"]["message"]


async def test_a_container_has_its_own_processes_and_read_only_programs(apart: Node) -> None:
    read_only = {"readOnlyRootFilesystem": True}
    strict = shell("touch /x || touch /tmp/x", "strict", securityContext=read_only)
    pod = await apart.run(shell("echo $$$$; touch /usr/x /etc/x /x; touch /y"), strict)

    log = apart.log(pod)
    assert log.startswith("1\n")
    assert "/usr/x" in log
    assert "/etc/x" in log
    assert "'/x'" not in log
    assert codes(pod) == {"main": 0, "strict": 1}


async def test_a_signal_of_the_runtime_comes_from_outside_and_argos_from_inside(apart: Node) -> None:
    """The entrypoint tells `si_pid` 0 (leave at once) from Argo's `argoexec kill` (perhaps stay)."""
    program = """
import signal
expected = {signal.SIGTERM}
signal.pthread_sigmask(signal.SIG_BLOCK, expected)
print("up", flush=True)
for _ in range(2):
    print("from inside:", signal.sigwaitinfo(expected).si_pid != 0, flush=True)
"""
    command = ["python3", "-S", "-c", program]
    pod = await apart.create({"name": "main", "image": "stepmemo", "command": command})
    await apart.until_printed(pod, "up")

    where = ("default", pod["metadata"]["name"], "main")
    await until(lambda: apart.kubelet.signal_inside(*where, signal.SIGTERM))
    await apart.until_printed(pod, "inside: True")
    await apart.client.delete(PODS, "default", pod["metadata"]["name"])

    await apart.until_printed(pod, "inside: False")


async def test_containers_do_not_outlive_a_kubelet_that_was_killed(node: Node, tmp_path: Path) -> None:
    program = f"""
import asyncio, os, sys
from pathlib import Path
from devcluster.process import ContainerProcess
place = Path({str(tmp_path)!r})
(place / "root").mkdir()
env = {{"PATH": os.defpath, "MARK": str(place)}}
plan = dict(kubelet=os.getpid(), isolation={node.isolation!r}, root=str(place / "root"), readOnlyRoot=False,
            mounts=[], argv=["sh", "-c", "echo up; sleep 600"], env=env, cwd="/", pidFile=str(place / "pid"))
async def main():
    await ContainerProcess.start(plan, place / "plan", place / "log")
    await asyncio.sleep(600)
asyncio.run(main())
"""
    kubelet = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    await until(lambda: (tmp_path / "log").exists() and "up" in (tmp_path / "log").read_text())

    kubelet.kill()
    await kubelet.wait()

    await until(lambda: not processes_with(str(tmp_path)))
