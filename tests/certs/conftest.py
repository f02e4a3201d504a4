from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certs.installation import ACCOUNT, Installation
from tests.cluster import Cluster


@pytest.fixture
def bare(cluster: Cluster, tmp_path: Path) -> Iterator[Installation]:
    """Rights in the Namespace alone, and no configuration."""
    found = Installation(cluster, cluster.namespace(), tmp_path)
    found.token = cluster.service_account(found.namespace, ACCOUNT, found.rules("Role"))
    yield found
    found.unconfigure()


@pytest.fixture
def installation(bare: Installation) -> Installation:
    """Everything that `kubectl apply` brings."""
    bare.grant()
    bare.configure()
    return bare
