"""stepmemo without cluster-wide rights: manifests/components/namespaces, with Roles in what it keeps."""

from pathlib import Path

from devcluster.client import CLUSTER_ROLES
from devcluster.cluster import start
from devcluster.installation import KEEPER, NAMESPACES_ONLY, WEBHOOK
from memoize import names
from tests.devcluster.playground import Space, container, out, result

KEPT = "kept"


async def test_a_step_hits_in_a_kept_namespace_by_the_rights_that_its_roles_give(tmp_path: Path) -> None:
    directory = tmp_path / "cluster"
    directory.mkdir()
    settings = {"STEPMEMO_NAMESPACES": KEPT}
    async with start(
        directory, components=[NAMESPACES_ONLY], settings=settings, namespaces=[KEPT]
    ) as cluster:
        rules = (await cluster.client.get(CLUSTER_ROLES, None, KEEPER))["rules"]
        assert [rule["resources"] for rule in rules] == [["tokenreviews"]]
        kept = Space(cluster, KEPT, tmp_path)
        first, second = [await kept.run(container()) for _ in range(2)]
        assert out(first) == out(second)
        assert [result(pod) for pod in await kept.settled(second)] == [names.RESULT_HIT]
        assert kept.times_ran() == 1
        logs = [(directory / program / "log").read_text() for program in (WEBHOOK, KEEPER)]
        assert "Forbidden" not in "".join(logs), "each has every right that it uses"
