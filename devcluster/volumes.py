"""A Pod's volumes as directories on this machine: what the kubelet prepares before any container starts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from devcluster.client import CONFIG_MAPS, ApiError, Client
from devcluster.environment import UnsupportedPodError, field
from devcluster.images import Images


class Volumes:
    """Makes volumes; ConfigMaps and service-account tokens come from the API that `client` speaks to.

    Left out: that both are renewed while the Pod runs.
    """

    def __init__(self, client: Client, images: Images) -> None:
        self._client = client
        self._images = images

    async def prepare(self, pod: Mapping[str, Any], directory: Path) -> dict[str, Path]:
        """Every volume of `pod`, by name; below `directory`, except for a hostPath and an image."""
        prepared = {}
        for volume in pod["spec"].get("volumes") or []:
            path = directory / volume["name"]
            if "hostPath" in volume:
                path = Path(volume["hostPath"]["path"])
            elif "image" in volume:
                path = self._images.as_volume(volume["image"]["reference"])
            else:
                path.mkdir(parents=True)
                path.chmod(0o777)
                for name, content in (await self._files(volume, pod)).items():
                    (path / name).parent.mkdir(parents=True, exist_ok=True)
                    (path / name).write_text(content, encoding="utf-8")
            prepared[volume["name"]] = path
        return prepared

    async def _files(self, volume: Mapping[str, Any], pod: Mapping[str, Any]) -> dict[str, str]:
        if "emptyDir" in volume:
            return {}
        if "configMap" in volume:
            return await self._config_map(volume["configMap"], pod)
        if "projected" in volume:
            files: dict[str, str] = {}
            for source in volume["projected"]["sources"]:
                files |= await self._projected(source, pod)
            return files
        kind = next(iter(volume.keys() - {"name"}), "nothing")
        raise UnsupportedPodError(f"volume {volume['name']!r}: the devcluster has no {kind} volumes")

    async def _projected(self, source: Mapping[str, Any], pod: Mapping[str, Any]) -> dict[str, str]:
        match source:
            case {"serviceAccountToken": {"path": path} as wanted}:
                account = pod["spec"].get("serviceAccountName", "default")
                namespace, audience = pod["metadata"]["namespace"], wanted.get("audience", "")
                return {path: await self._client.token(namespace, account, audience, pod)}
            case {"configMap": wanted}:
                return await self._config_map(wanted, pod)
            case {"downwardAPI": {"items": items}}:
                return {item["path"]: field(pod, item["fieldRef"]["fieldPath"]) for item in items}
        raise UnsupportedPodError(f"the devcluster has no projected source {next(iter(source))!r}")

    async def _config_map(self, wanted: Mapping[str, Any], pod: Mapping[str, Any]) -> dict[str, str]:
        try:
            found = await self._client.get(CONFIG_MAPS, pod["metadata"]["namespace"], wanted["name"])
        except ApiError as error:
            if error.code == 404 and wanted.get("optional"):
                return {}
            raise
        data: dict[str, str] = found.get("data") or {}
        if items := wanted.get("items"):
            return {item["path"]: data[item["key"]] for item in items}
        return data
