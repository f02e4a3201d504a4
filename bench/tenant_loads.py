"""What a tenant does who is heavy, or means harm: each kind of it a function of a world and a number."""

import asyncio
import json
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from itertools import count as numbers
from typing import Any, NamedTuple

from argo import names as argo
from bench import reviews
from bench.argo import Stand, step_pod
from bench.installed import Installed, parse_metrics
from bench.load import BadAnswerError, Connection, request
from bench.pace import at_rate, side_by_side
from bench.steps import entry
from memoize import configmap, names
from server import lookups
from tests.cluster import MERGE
from tests.keeper.api import steps as service_steps
from webhook.hooks import PODS_PATH, WORKFLOWS_PATH

CACHE = "memo"
ENDS_A_SECOND = 130
ENTRIES_OF_ONE = 5_000
"""In one cache of those with many entries: a megabyte."""
HOSTILE = {
    "parameters": "15,000 default parameters, 15,000 templates",
    "wrong-tags": "16,000 wrong tags",
    "errors": "9,000 templates with three errors",
    "annotations": "40,000 unknown annotations",
    "containers": "16,000 containers",
}
"""Names of loads, and of the reviews of bench.reviews that they are made of."""
_STRANGER = "127.0.0.2"
"""Where attacks on a port come from: an address that is not the API server's."""
_AT_ONCE = 32
_GATED_A_SECOND = 45
"""Admission gates 50 Pods of one Namespace a second and lets those beyond run (webhook/pods)."""
_FULL = 256 * 1024
"""Bytes that the annotations of one object may have (TotalAnnotationSizeLimitB of apimachinery)."""
_FILLING = "tenant.test/x"
_MEGABYTE = 1_000_000
_THREADS = 4
_UPLOADS_OF_ONE = 10
"""Uploads of one Pod."""

Json = dict[str, Any]


class Extra(NamedTuple):
    """What else was measured: a number in a unit, what it is compared with, and the most that it may be."""

    what: str
    unit: str
    value: float
    against: str
    reference: float
    most: float


@dataclass
class World:
    """Both programs, who is measured, and `said`: how far the load has come.

    The tenant's is the load, the neighbour's the hits, and the bystander's one Pod that we have no part in.
    """

    installed: Installed
    tenant: Stand
    neighbour: Stand
    bystander: Stand
    honest: bytes
    """A review of one of the neighbour's Pods, as it goes over the wire."""
    seconds: float
    """How long a load lasts that takes no end by itself; a review that is sent again and again, a quarter."""
    said: str = ""
    done: int = 0

    def did(self, what: str) -> None:
        """One more of what the load is made of."""
        self.done += 1
        self.said = f"{self.done:,} {what}"


Work = Callable[[World, int], Awaitable[Sequence[Extra]]]


async def make_step(stand: Stand, number: int, *, key: str, cache: str = CACHE, **more: str) -> Json:
    """The Pod of a step as the API server made it. `more`: further names of ours, such as `mode`."""
    pod = step_pod(stand.namespace, stand.workflow, stand.uid, number, key=key, cache=cache)
    pod["metadata"]["annotations"] |= {f"{names.DOMAIN}/{name}": value for name, value in more.items()}
    stand.made[pod["metadata"]["name"]] = pod
    return await stand.ask("POST", stand.cluster.path("Pod", stand.namespace), pod)


async def have_cache(stand: Stand, data: Mapping[str, str], name: str = CACHE) -> None:
    """Make the cache."""
    await stand.ask("POST", stand.cluster.path("ConfigMap", stand.namespace), configmap.new(name, data))


# --- Steps, through the API server ---------------------------------------------------------------------


async def gated(world: World, count: int) -> Sequence[Extra]:
    """So many Pods at once, each with a key of its own and no entry: all have to be decided."""
    began = time.perf_counter()
    await side_by_side(count, _AT_ONCE, lambda number: make_step(world.tenant, number, key=f"k{number}"))
    made = time.perf_counter() - began
    world.said = f"made in {made:.0f} s"
    await _none_is_gated(world, count)
    world.said += f", all decided after {time.perf_counter() - began:.0f} s"
    return ()


async def run_without_a_gate(world: World, count: int) -> Sequence[Extra]:
    """Steps that run, and are to be stored: what comes before their ends."""
    await side_by_side(
        count, _AT_ONCE, lambda number: make_step(world.tenant, number, key=f"k{number}", mode="refresh")
    )
    return ()


async def ends(world: World, count: int) -> Sequence[Extra]:
    """The steps end, so many a second; each is stored."""
    stand, began = world.tenant, time.perf_counter()
    running = sorted(stand.made)[:count]

    async def end(number: int) -> None:
        await stand.complete(running[number], f"ended {number}")
        world.did(f"ended in {time.perf_counter() - began:.0f} s")

    try:
        await at_rate(ENDS_A_SECOND, len(running), end)
        await asyncio.sleep(3)
    finally:
        stored = sum(result == names.RESULT_STORED for result in stand.results.values())
        world.said += f", {stored:,} stored meanwhile"
    return ()


async def finished_without_room(world: World, count: int) -> Sequence[Extra]:
    """Pods end whose annotations are full: no mark of ours fits."""
    stand = world.tenant

    async def make(number: int) -> None:
        pod = await make_step(stand, number, key=f"k{number}", mode="refresh")
        await _fill(stand, pod)
        await stand.complete(pod["metadata"]["name"], "x")
        world.did("ended")

    await side_by_side(count, _AT_ONCE // 4, make)
    await asyncio.sleep(3)
    before = await _writes_refused(stand)
    await asyncio.sleep(5)
    refused = (await _writes_refused(stand) - before) / 5
    world.said += f", then {refused:.0f} refused writes a second"
    return ()


async def gated_without_room(world: World, count: int) -> Sequence[Extra]:
    """Pods that wait for an equal step are filled up, and then that step ends."""
    stand = world.tenant
    made: list[Json] = []

    async def make(number: int) -> None:
        made.append(await make_step(stand, number, key="k"))

    await make(count)
    (leader,) = stand.made
    await stand.until(lambda: leader in stand.running)
    await at_rate(_GATED_A_SECOND, count, make)
    waiting = [pod for pod in made[1:] if pod["spec"].get("schedulingGates")]
    await side_by_side(len(waiting), _AT_ONCE // 4, lambda number: _fill(stand, waiting[number]))
    began = time.perf_counter()
    await stand.complete(leader, "x")
    left = {pod["metadata"]["name"] for pod in waiting}
    while left:
        world.said = f"{len(waiting) - len(left)} of {len(waiting)} let run or answered"
        await asyncio.sleep(1)
        known = sorted(left)

        async def look(number: int, known: Sequence[str] = known) -> None:
            path = stand.cluster.path("Pod", stand.namespace, known[number])
            pod = await stand.ask("GET", path)
            if not pod["spec"].get("schedulingGates") or pod["status"]["phase"] == "Succeeded":
                left.discard(known[number])

        await side_by_side(len(known), _AT_ONCE // 4, look)
    world.said = f"all {len(waiting)} let run or answered after {time.perf_counter() - began:.0f} s"
    return ()


async def large_pods(world: World, count: int) -> Sequence[Extra]:
    """Step Pods of 480 KB."""
    stand = world.tenant

    async def make(number: int) -> None:
        pod = step_pod(stand.namespace, stand.workflow, stand.uid, number, key=f"k{number}", cache=CACHE)
        container = pod["spec"]["containers"][-1]
        container["env"] = [*container.get("env", ()), {"name": "X", "value": "x" * 470_000}]
        await stand.ask("POST", stand.cluster.path("Pod", stand.namespace), pod)
        world.did("made")

    await side_by_side(count, _AT_ONCE // 4, make)
    await _none_is_gated(world, count)
    world.said += ", all decided"
    return ()


# --- Caches ----------------------------------------------------------------------------------------------


async def caches(world: World, count: int) -> Sequence[Extra]:
    """So many caches as full as they get, whose entries say endless times; a step asks for each."""
    forged = json.loads(entry(""))
    forged["creationTimestamp"] = f"2025-01-01T00:00:00.{'1' * 900_000}Z"
    await _asked_for(world, count, {"k": json.dumps(forged)})
    return ()


async def many_entries(world: World, count: int) -> Sequence[Extra]:
    """So many entries in caches of 5,000, in each of which a step finds one."""
    of_one = min(count, ENTRIES_OF_ONE)
    data = dict.fromkeys(("k", *(f"k{number}" for number in range(of_one - 1))), entry("x"))
    await _asked_for(world, count // of_one, data)
    return ()


async def changing(world: World, count: int) -> Sequence[Extra]:
    """One key of a cache with so many changes once a second, while some of the tenant's steps wait on it."""
    stand = world.tenant
    await have_cache(stand, {f"k{number}": "x" for number in range(count)}, "large")
    path = stand.cluster.path("ConfigMap", stand.namespace, "large")
    for number in range(20):
        await make_step(stand, number, key="k", cache="large")

    async def change(number: int) -> None:
        await stand.ask("PATCH", path, {"data": {"k0": f"{number:050}"}}, MERGE)
        world.did("changes")

    await at_rate(1, max(1, int(world.seconds)), change)
    return ()


async def uploads(world: World, count: int) -> Sequence[Extra]:
    """So many entries of 1 MB are sent to the keeper at once, by Pods that may."""
    port, cluster = world.installed.keeper.port, world.installed.cluster
    namespace = await asyncio.to_thread(cluster.namespace)  # no admission there, and Pods made to fit

    def message(number: int) -> bytes:
        name, node = f"wf-a-{number}", f"wf-{number}"
        said = {argo.NODE_ID: node, names.CACHE: f"cache-{number}"}
        annotations = service_steps.annotations() | said
        pod = service_steps.make_pod(cluster, namespace, name, annotations=annotations)
        text = service_steps.entry(
            nodeID=node,
            outputs={"result": "x" * (_MEGABYTE - 10_000)},
            stepmemo={"pod": name, "workflow": service_steps.WORKFLOW},
        )
        whole = request("/v1/entries", json.dumps({"entry": text}).encode())
        token = service_steps.token_of(cluster, pod)
        return whole.replace(b"\r\n", f"\r\nAuthorization: Bearer {token}\r\n".encode(), 1)

    messages = [await asyncio.to_thread(message, number) for number in range(-(-count // _UPLOADS_OF_ONE))]
    answers = Counter[str]()

    def send(number: int, together: threading.Barrier) -> None:
        try:
            with closing(Connection(port, _STRANGER)) as connection:
                with suppress(threading.BrokenBarrierError):
                    together.wait(10)  # for all of them
                connection.ask(messages[number // _UPLOADS_OF_ONE])
            answers["200"] += 1
        except BadAnswerError as error:
            answers[" ".join(str(error).split()[1:2]) or str(error)] += 1
        except OSError:
            answers["cut off"] += 1

    def all_at_once() -> None:
        together = threading.Barrier(count)
        threads = [threading.Thread(target=send, args=(number, together)) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    began = time.perf_counter()
    await asyncio.to_thread(all_at_once)
    seconds = time.perf_counter() - began
    told = ", ".join(f"{number} × {what}" for what, number in answers.most_common())
    world.said = f"answers: {told}; in {seconds:.0f} s"
    return ()


async def _asked_for(world: World, count: int, data: Mapping[str, str]) -> None:
    async def make(number: int) -> None:
        await have_cache(world.tenant, data, f"cache-{number}")
        world.did("caches made")

    await side_by_side(count, 4, make)
    await side_by_side(
        count, 4, lambda number: make_step(world.tenant, number, key="k", cache=f"cache-{number}")
    )
    await _none_is_gated(world, count)
    found = sum(result == names.RESULT_HIT for result in world.tenant.results.values())
    world.said += f", a step asked for each, {found} hits"


# --- To the ports ----------------------------------------------------------------------------------------


async def hostile(which: str, world: World, count: int) -> Sequence[Extra]:
    """One review, again and again for some seconds (at least so many times), as the API server sends it."""
    review = reviews.hostile(world.neighbour.namespace)[HOSTILE[which]]
    path = PODS_PATH if review["request"]["kind"]["kind"] == "Pod" else WORKFLOWS_PATH
    message = request(path, json.dumps(review).encode())
    return await asyncio.to_thread(_again_and_again, world, message, count)


def _again_and_again(world: World, message: bytes, count: int) -> Sequence[Extra]:
    port, refused = world.installed.webhook.port, 0
    slowest, largest = 0.0, 0
    ordinary, size = _timed(port, world.honest)
    end = time.perf_counter() + world.seconds / 4
    for sent in numbers(1):
        seconds, length = _timed(port, message)
        slowest, largest, refused = max(slowest, seconds), max(largest, length), refused + (length == 0)
        size_sent = f"{len(message) / _MEGABYTE:.1f} MB"
        world.said = f"{size_sent} sent {sent} times, {refused} not answered by 200"
        if sent >= count and time.perf_counter() > end:
            break
    return (
        Extra("its own slowest answer", "s", slowest, "an honest one", ordinary, 1),
        Extra("its own largest answer", "KiB", largest / 1024, "an honest one", size / 1024, 64),
    )


def _timed(port: int, message: bytes) -> tuple[float, int]:
    """Seconds until the answer, and its bytes: none of one that is no 200."""
    began, answer = time.perf_counter(), b""
    with suppress(OSError, BadAnswerError), closing(Connection(port)) as connection:
        answer = connection.ask(message)
    return time.perf_counter() - began, len(answer)


async def endless(world: World, count: int) -> Sequence[Extra]:
    """So many connections send 6 of 7 MB each, and then nothing; nobody says who he is."""
    port, ended = world.installed.webhook.port, Counter[str]()
    head = f"POST {PODS_PATH} HTTP/1.1\r\nHost: bench\r\nContent-Length: {7 << 20}\r\n\r\n".encode()
    body = head + b" " * (6 << 20)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def send() -> None:
        try:
            with (
                socket.create_connection(
                    ("127.0.0.1", port), timeout=8, source_address=(_STRANGER, 0)
                ) as plain,
                context.wrap_socket(plain) as connection,
            ):
                connection.sendall(body)
                ended["answered" if connection.recv(1) else "cut off"] += 1
        except TimeoutError:
            ended["left alone for 8 s"] += 1
        except OSError:
            ended["cut off"] += 1

    threads = [threading.Thread(target=send) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    world.said = ", ".join(f"{number} {what}" for what, number in ended.most_common())
    return ()


async def forged(world: World, count: int) -> Sequence[Extra]:
    """Reviews of Pods whose Workflow nobody knows, each of another one, in a Namespace of the system's."""
    stand, namespace = world.neighbour, "kube-system"
    before = await _samples(stand, 'resource="workflows"', 'verb="GET"')
    answers, left, lock = Counter[str](), iter(range(count)), threading.Lock()

    def send() -> None:
        for number in _shared(left, lock):
            review = reviews.of_pod(namespace, f"forged-{number}", f"uid-{number}")
            message = request(PODS_PATH, json.dumps(review).encode())
            try:
                with closing(Connection(world.installed.webhook.port, _STRANGER)) as connection:
                    connection.ask(message)
                answers["200"] += 1
            except BadAnswerError as error:
                answers[" ".join(str(error).split()[1:2]) or str(error)] += 1
            except OSError:
                answers["cut off"] += 1

    began = time.perf_counter()
    await asyncio.gather(*(asyncio.to_thread(send) for _ in range(_THREADS)))
    seconds = time.perf_counter() - began
    await asyncio.sleep(2)  # for Events that were to be written
    asked = await _samples(stand, 'resource="workflows"', 'verb="GET"') - before
    told = (await stand.ask("GET", stand.cluster.path("Event", namespace)))["items"]
    ours = [event for event in told if "forged-" in json.dumps(event)]
    said = ", ".join(f"{number} × {what}" for what, number in answers.most_common())
    world.said = f"answers: {said}; in {seconds:.0f} s"
    return (
        Extra("reads of Workflows", "", asked, "one for each", count, lookups.RATE * seconds + lookups.BURST),
        Extra("Events about what was not read", "", len(ours), "one for each", count, 0),
    )


def _shared(left: Iterator[int], lock: threading.Lock) -> Iterator[int]:
    while True:
        with lock:
            number = next(left, None)
        if number is None:
            return
        yield number


# --- What they share -------------------------------------------------------------------------------------


async def _fill(stand: Stand, pod: Json) -> None:
    """Leave no room in the Pod's annotations; the keeper may have written some meanwhile."""
    path = stand.cluster.path("Pod", stand.namespace, pod["metadata"]["name"])
    for attempt in range(3):
        there = pod["metadata"].get("annotations", {})
        room = _FULL - sum(len(name) + len(value) for name, value in there.items()) - len(_FILLING)
        try:
            await stand.ask("PATCH", path, {"metadata": {"annotations": {_FILLING: "x" * room}}}, MERGE)
        except RuntimeError:
            if attempt == 2:
                raise
            pod = await stand.ask("GET", path)
        else:
            return


async def _none_is_gated(world: World, count: int) -> None:
    results = world.tenant.results
    await world.tenant.until(
        lambda: len(results) >= count and names.RESULT_GATED not in results.values(), 600
    )


async def _writes_refused(stand: Stand) -> float:
    return await _samples(stand, 'resource="pods"', 'verb="PATCH"', 'code="4')


async def _samples(stand: Stand, *which: str) -> float:
    """How many requests with these labels the API server has answered."""
    async with stand.session.get(f"{stand.cluster.url}/metrics") as response:
        text = await response.text()
    return sum(
        value
        for name, value in parse_metrics(text).items()
        if name.startswith("apiserver_request_total") and all(one in name for one in which)
    )


HOSTILE_LOADS: Mapping[str, Work] = {which: partial(hostile, which) for which in HOSTILE}
"""By the names of the loads."""
