"""What comes before stepmemo is deleted: nothing is gated any more, and whatever was gated runs."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from keeper import leave as leaving
from keeper.leave import LeaveError, leave
from memoize import names
from tests.cluster import Cluster
from tests.keeper.proxy import Proxy, refusing
from tests.keeper.site import Site
from tests.webhook.serving import api_client


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "SETTLE_SECONDS", 0.3)
    monkeypatch.setattr(leaving, "_PAUSE", 0.05)


@pytest.fixture
def site(cluster: Cluster) -> Site:
    return Site.new(cluster)


def configure(site: Site) -> None:
    """A configuration of a name that no other test has, and of no webhooks."""
    made = {"kind": "MutatingWebhookConfiguration", "metadata": {"name": site.namespace}, "webhooks": []}
    status, body = site.cluster.create(made)
    assert status == 201, body


def is_configured(site: Site) -> bool:
    return site.cluster.get("MutatingWebhookConfiguration", "", site.namespace)[0] == 200


async def run(
    site: Site,
    proxy: Proxy | None = None,
    told: Callable[[str], object] = lambda line: None,
    token: str | None = None,
    **options: Any,
) -> list[str]:
    """Leave; what was told."""
    lines: list[str] = []

    def tell(line: str) -> None:
        lines.append(line)
        told(line)

    chosen = {"timeout": 60.0, **options}
    proxy = proxy or Proxy(site.cluster)
    async with proxy.serving() as url, api_client(site.cluster, url=url, token=token) as api:
        await leave(api, tell, configuration=site.namespace, namespaces=[site.namespace], **chosen)
    return lines


@pytest.mark.contract
async def test_the_configuration_goes_and_gated_pods_run(site: Site) -> None:
    configure(site)
    gated, other = [site.pod(number) for number in range(3)], Site.new(site.cluster)
    elsewhere = other.pod()
    lines = await run(site)
    assert lines[0] == f"MutatingWebhookConfiguration {site.namespace}: deleted"
    assert sorted(lines[1:-1]) == sorted(f"{site.namespace}/{name}: released" for name in gated)
    assert lines[-1] == "no Pod is gated, and none will be"
    assert not is_configured(site)
    for name in gated:
        assert not site.held(name)
        assert site.label(name) == names.RESULT_SKIPPED
    assert other.held(elsewhere), "in a Namespace that was not named"


async def test_where_nothing_is_left_to_do_it_says_so(site: Site) -> None:
    assert await run(site) == ["no Pod is gated, and none will be"]


async def test_a_pod_that_was_being_admitted_when_the_configuration_went_runs_too(site: Site) -> None:
    configure(site)
    late: list[str] = []

    def tell(line: str) -> None:
        if line.endswith(": released") and not late:
            late.append(site.pod(1))

    first = site.pod(0)
    lines = await run(site, told=tell)
    assert [line for line in lines if "released" in line] == [
        f"{site.namespace}/{name}: released" for name in (first, *late)
    ]
    assert not site.held(late[0])


async def test_a_configuration_that_others_make_anew_is_deleted_anew(site: Site) -> None:
    configure(site)
    deleted: list[str] = []

    def tell(line: str) -> None:
        if line.endswith(": deleted"):
            deleted.append(line)
            if len(deleted) == 1:
                configure(site)

    await run(site, told=tell)
    assert len(deleted) == 2
    assert not is_configured(site)


@pytest.mark.parametrize("request_", ["GET pods", "PATCH pods/"], ids=["list", "patch"])
@pytest.mark.parametrize("status", [409, 422, 429, 500, 503])
async def test_what_fails_for_a_while_is_tried_again(site: Site, request_: str, status: int) -> None:
    name, proxy = site.pod(), Proxy(site.cluster)
    proxy.fault_all = refusing(status, request_, times=7)
    await run(site, proxy)
    assert not site.held(name)


async def test_what_is_in_the_way_is_told_when_time_is_up_and_nothing_hangs(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaving, "SETTLE_SECONDS", 0.0)
    stuck, free, proxy = site.pod(0), site.pod(1), Proxy(site.cluster)
    proxy.fault_all = refusing(500, f"PATCH pods/{stuck}")
    with pytest.raises(LeaveError) as raised:
        await run(site, proxy, timeout=5.0)
    assert str(raised.value) == (
        f"not done after 5 s: {site.namespace}/{stuck}: not released: 500 Internal Server Error"
    )
    assert not site.held(free), "another Pod's trouble is not its own"


async def test_a_list_that_cannot_be_had_is_not_an_empty_one(site: Site) -> None:
    proxy = Proxy(site.cluster)
    proxy.fault_all = refusing(500, "GET pods")
    with pytest.raises(LeaveError, match=r"^not done after 3 s: cannot list Pods: 500"):
        await run(site, proxy, timeout=3.0)


async def test_as_long_as_a_pod_may_be_gated_yet_it_is_not_done(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaving, "SETTLE_SECONDS", 60.0)
    with pytest.raises(LeaveError, match="a Pod that is being admitted may be gated yet"):
        await run(site, timeout=3.0)


@pytest.mark.contract
async def test_a_permission_that_is_missing_is_told_at_once_and_nothing_is_done(site: Site) -> None:
    configure(site)
    name = site.pod()
    token = await asyncio.to_thread(site.cluster.service_account, site.namespace, "person", [])
    with pytest.raises(LeaveError, match=r"^cannot delete MutatingWebhookConfiguration .*: 403 Forbidden"):
        await run(site, token=token)
    assert is_configured(site)
    assert site.held(name)


@pytest.mark.parametrize(
    ("argv", "environ", "code", "said"),
    [
        (["--timeout=soon"], {}, 2, "--timeout (STEPMEMO_TIMEOUT)"),
        ([], {"STEPMEMO_NAMESPACES": "A"}, 2, "--namespaces (STEPMEMO_NAMESPACES)"),
        ([], {}, 1, "error: no cluster to talk to: ConfigException"),
    ],
)
def test_wrong_settings_and_no_cluster_are_told(
    argv: list[str],
    environ: dict[str, str],
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/no/such/file")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert leaving.main(argv, environ) == code
    assert said in capsys.readouterr().err
