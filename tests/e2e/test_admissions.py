"""Nothing is admitted unseen while our programs are replaced, or their certificate's authority is."""

import json
from datetime import UTC, datetime

import pytest

from certs import bundle, pki
from tests.e2e import server
from tests.e2e.admissions import SECONDS, admitted
from tests.e2e.cluster import Namespace
from tests.e2e.kube import kubectl, wait_for

pytestmark = [server.outages]
_SECRET, _CA_SECRET = "stepmemo-certs", "stepmemo-ca"


@pytest.fixture(autouse=True)
def _service() -> None:
    server.needs(server.SERVICE)


@pytest.mark.timeout(10 * SECONDS)
@pytest.mark.parametrize("program", server.PROGRAMS)
def test_no_pod_is_admitted_unseen_while_a_deployment_is_restarted(ns: Namespace, program: str) -> None:
    with admitted(ns) as told:
        server.restart(program)
        print(told())
        assert not told().wrong, str(told())


@pytest.mark.timeout(10 * SECONDS)
def test_no_pod_is_admitted_unseen_while_the_authority_is_replaced(ns: Namespace) -> None:
    """Somebody writes another one's certificate and key into both Secrets, as a restored backup would."""
    hosts = [host for program in server.PROGRAMS for host in pki.service_names(program, server.NAMESPACE)]
    other = bundle.new(hosts, datetime.now(UTC))
    with admitted(ns) as told:
        _write(_CA_SECRET, other.signers_to_data())
        _write(_SECRET, other.to_data())
        wait_for("another authority", lambda: other.ca_pem.decode().strip() in server.ca() or None)
        print(told())
        assert not told().wrong, str(told())
    served = json.loads(kubectl("-n", server.NAMESPACE, "get", "secret", _SECRET, "-o", "json").stdout)
    assert bundle.Bundle.from_data(served["data"]).issuer == other.issuer, "what is served is of another one"


def _write(secret: str, data: dict[str, str]) -> None:
    merge = json.dumps({"data": data})
    kubectl("-n", server.NAMESPACE, "patch", "secret", secret, "--type=merge", "-p", merge)
