"""The testing kit: fixtures (`plugin`), factories, real servers, and the tests that any storage backend must pass.

`pip install 'musehub-plugin[testing]'` brings the servers. The fixtures are there in every pytest run of the
environment; nothing starts until one is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from musehub_plugin.storage.memory import MemoryStorage
    from musehub_plugin.testing.factories import History, create_repo, make_commit, store_object

__all__ = ["History", "MemoryStorage", "create_repo", "make_commit", "store_object"]


def __getattr__(name: str) -> Any:
    # Loaded when first used: every pytest run of the environment imports this package for its plugin.
    if name == "MemoryStorage":
        from musehub_plugin.storage.memory import MemoryStorage

        return MemoryStorage
    if name in __all__:
        from musehub_plugin.testing import factories

        return getattr(factories, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
