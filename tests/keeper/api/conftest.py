from tests.keeper.store.conftest import backing, store

__all__ = ["backing", "store"]
