from collections.abc import Sequence

from kubernetes_asyncio.client import ApiClient

from keeper.cache.last_hit import Hits
from keeper.cache.store import ConfigMapStore
from keeper.cache.view import View
from keeper.cache.writer import Writer


def config_maps(
    api: ApiClient, namespaces: Sequence[str] = (), *, view: View | None = None, writer: Writer | None = None
) -> ConfigMapStore:
    """A store of ConfigMaps, not running."""
    view, writer = view or View(api, namespaces), writer or Writer(api)
    return ConfigMapStore(api, view, writer, Hits(writer, view))
