from datetime import UTC, datetime

import pytest

from certs import bundle as bundles
from certs.bundle import Bundle
from tests.certs.installation import SECRET, Installation, Replica
from tests.waiting import until

pytestmark = pytest.mark.contract

READS = [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": [SECRET], "verbs": ["list", "watch"]}]
"""All that the keeper may do with Secrets."""


@pytest.fixture
def token(bare: Installation) -> str:
    return bare.cluster.service_account(bare.namespace, "reader", READS)


def fresh(installation: Installation) -> Bundle:
    return bundles.new(installation.names, datetime.now(UTC))


def put(installation: Installation, data: dict[str, str]) -> None:
    """Create the Secret, or write it over."""
    metadata = {"name": SECRET, "namespace": installation.namespace}
    secret = {"kind": "Secret", "apiVersion": "v1", "metadata": metadata, "data": data}
    if installation.cluster.create(secret)[0] == 409:
        assert installation.cluster.update(secret)[0] == 200


def serves(replica: Replica, bundle: Bundle) -> bool:
    return (replica.served, replica.ca) == (bundle.server.certificate, bundle.ca_pem)


async def test_it_waits_for_the_secret(bare: Installation, token: str) -> None:
    async with bare.keeper(token) as keeper:
        missing = f"there is no Secret {bare.namespace}/{SECRET} yet, which the webhook makes"
        await until(lambda: keeper.certificates.problem == missing)
        bundle = fresh(bare)
        put(bare, bundle.to_data())
        await keeper.becomes_ready()
        assert serves(keeper, bundle)


async def test_it_follows_the_secret_and_never_loses_what_is_good(bare: Installation, token: str) -> None:
    one, two = fresh(bare), fresh(bare)
    put(bare, one.to_data())
    async with bare.keeper(token) as keeper:
        await keeper.becomes_ready()
        put(bare, two.to_data())
        await until(lambda: serves(keeper, two))
        bare.delete_secret()
        put(bare, one.to_data())
        await until(lambda: serves(keeper, one))
        assert keeper.ready


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"tls.crt": "anVuaw=="}, "the certificate cannot be used"),
        ({"tls.key": ""}, "the certificate cannot be used"),
        ({"ca.crt": "anVuaw=="}, "no CA in ca.crt has signed the certificate"),
        ({"ca.crt": None}, "ca.crt is missing"),
    ],
)
async def test_a_secret_that_cannot_be_served_is_told_and_changes_nothing(
    bare: Installation, token: str, caplog: pytest.LogCaptureFixture, broken: dict[str, str | None], said: str
) -> None:
    good = fresh(bare)
    data = {name: value for name, value in {**good.to_data(), **broken}.items() if value is not None}
    put(bare, data)
    async with bare.keeper(token) as keeper:
        await until(lambda: said in keeper.certificates.problem)
        put(bare, good.to_data())
        await keeper.becomes_ready()
        caplog.clear()
        put(bare, data)
        await until(lambda: said in caplog.text)
        assert serves(keeper, good)
        assert keeper.ready


async def test_without_the_right_it_says_so_until_it_gets_it(bare: Installation) -> None:
    put(bare, fresh(bare).to_data())
    token = bare.cluster.service_account(bare.namespace, "nobody", [])
    async with bare.keeper(token) as keeper:
        await until(lambda: "answered 403" in keeper.certificates.problem)
        assert keeper.certificates.problem.startswith(
            f"Secret {bare.namespace}/{SECRET} has not been read yet"
        )
        bare.cluster.set_rules(bare.namespace, "nobody", READS)
        await keeper.becomes_ready()
