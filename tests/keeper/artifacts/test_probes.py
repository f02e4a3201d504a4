from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from keeper.artifacts import probes
from keeper.artifacts.probes import Web, probe
from keeper.artifacts.repositories import GCS, HTTP, S3, Azure, ConfigError, Kind
from keeper.artifacts.verifier import ObjectGone, Probe, There, Unknown
from tests.cancelled import cancelled_as_it_runs_out_of_time
from tests.keeper.artifacts.objects import BUCKET, Objects

FILES = {"user": "user", "password": "c2VjcmV0"}
KINDS = ("s3", "gcs", "azure", "http")
STORES = KINDS[:3]


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of these is about a time-out, and the machine may be busy."""
    monkeypatch.setattr(probes, "SECONDS", 60.0)


def kind(name: str, host: str) -> Kind:
    return {
        "s3": S3(
            endpoint=host, bucket=BUCKET, insecure=True, access_key_file="user", secret_key_file="password"
        ),
        "gcs": GCS(bucket=BUCKET, endpoint=f"http://{host}"),
        # Its account is the first part of the path only on the machine itself, as Azurite's.
        "azure": Azure(endpoint=f"http://{host}/account", container=BUCKET, account_key_file="password"),
        "http": HTTP(url=f"http://{host}/{BUCKET}", username_file="user", password_file="password"),
    }[name]


@asynccontextmanager
async def probing(name: str, objects: Objects) -> AsyncIterator[Probe]:
    web = Web()
    async with objects.serving() as host:
        one = kind(name, host)

        async def ask(key: str) -> There | ObjectGone | Unknown:
            return await found(f"http://{host}/{BUCKET}/{key}" if name == "http" else key)

        found = probe(one, FILES.__getitem__, web)
        try:
            yield ask
        finally:
            await web.close()


@pytest.mark.parametrize("name", KINDS)
async def test_an_object_that_is_there_is_known_by_its_etag(name: str) -> None:
    objects = Objects()
    objects.stored = {"wf/pod/out.tgz": '"abc"', "weak": 'W/"abc"', "long": f'"{"a" * 300}"'}
    async with probing(name, objects) as ask:
        assert await ask("wf/pod/out.tgz") == There('"abc"')
        assert await ask("weak") == There()
        assert await ask("long") == There()
    assert objects.signed == {
        {"s3": "AWS4-HMAC-SHA256", "gcs": "", "azure": "SharedKey", "http": "Basic"}[name]
    }
    assert {one.partition(" ")[0] for one in objects.asked} == {"HEAD"}


@pytest.mark.parametrize("name", KINDS)
async def test_what_is_not_there_is_gone(name: str) -> None:
    async with probing(name, Objects()) as ask:
        assert await ask("out.tgz") == ObjectGone()


@pytest.mark.parametrize("name", STORES)
async def test_a_directory_that_was_not_packed_is_there(name: str) -> None:
    objects = Objects()
    objects.stored = {"out/a": "", "out/b": "", "outer/c": ""}
    async with probing(name, objects) as ask:
        assert await ask("out") == There()
        assert await ask("oute") == ObjectGone()


@pytest.mark.parametrize("name", STORES)
@pytest.mark.parametrize("status", [403, 404, 500])
async def test_without_a_list_nothing_is_gone(name: str, status: int) -> None:
    """A bucket that does not exist, or something else that listens there, answers HEAD by 404 too."""
    objects = Objects()
    objects.lists = status
    async with probing(name, objects) as ask:
        assert await ask("out.tgz") == Unknown(f"status {status}", down=status == 500)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("status", "down"), [(400, False), (403, False), (500, True), (503, True)])
async def test_a_refusal_tells_nothing(name: str, status: int, down: bool) -> None:
    objects = Objects()
    objects.down = status
    async with probing(name, objects) as ask:
        assert await ask("out.tgz") == Unknown(f"status {status}", down)
    assert len(objects.asked) == 1


async def test_an_answer_that_lacks_what_its_kind_always_has_tells_nothing() -> None:
    objects = Objects()
    objects.stored = {"out.tgz": ""}
    async with probing("gcs", objects) as ask:
        assert await ask("out.tgz") == Unknown("an answer that makes no sense")


@pytest.mark.parametrize("name", KINDS)
async def test_where_nobody_listens_nothing_is_known(name: str) -> None:
    web = Web()
    ask = probe(kind(name, "127.0.0.1:1"), FILES.__getitem__, web)
    found = await ask("http://127.0.0.1:1/out.tgz" if name == "http" else "out.tgz")
    await web.close()
    assert found == Unknown("no answer", down=True)


@pytest.mark.parametrize("name", KINDS)
async def test_who_does_not_answer_is_not_waited_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "SECONDS", 0.05)
    objects = Objects()
    objects.hangs = True
    async with probing(name, objects) as ask:
        assert await ask("out.tgz") == Unknown("no answer", down=True)


async def test_a_cancellation_that_comes_with_the_time_out_is_none_the_less() -> None:
    objects = Objects()
    objects.hangs = True
    async with probing("http", objects) as ask:
        await cancelled_as_it_runs_out_of_time(ask("out.tgz"), objects.came, probes.SECONDS)


async def test_a_redirect_of_a_web_server_is_not_followed() -> None:
    objects = Objects()
    objects.statuses = {"out.tgz": 302}
    async with probing("http", objects) as ask:
        assert await ask("out.tgz") == Unknown("status 302")
    assert objects.asked == [f"HEAD /{BUCKET}/out.tgz"]


@pytest.mark.parametrize(
    "key", ["a b/c", "ü", "a#b", "a?b", "a%20b", "a+b~c&d=e@f:g", 'C*["]\\^`{|}<>', ".hidden", "a...b"]
)
@pytest.mark.parametrize("name", ["s3", "gcs"])
async def test_a_key_is_asked_for_as_it_is(name: str, key: str) -> None:
    objects = Objects()
    objects.stored = {key: '"abc"'}
    async with probing(name, objects) as ask:
        assert await ask(key) == There('"abc"')


@pytest.mark.parametrize(
    "one",
    [
        GCS(bucket="b", service_account_key_file="user"),
        HTTP(url="https://files.example", ca_file="user"),
    ],
)
def test_a_file_that_is_no_good_is_said_without_what_it_holds(one: Kind) -> None:
    with pytest.raises(ConfigError) as caught:
        probe(one, {"user": "hunter2"}.__getitem__, Web())
    assert "hunter2" not in str(caught.value)
