"""Muse hosting for an existing Flask forge.

    from musehub_plugin import MuseHub, Identity, InvalidCredentials

    musehub = MuseHub()
    musehub.init_app(app, db)

The names are loaded when they are first used: `musehub_plugin.client`, `musehub_plugin.mpack` and
`musehub_plugin.ids` work where Flask and SQLAlchemy are not installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from musehub_plugin._version import __version__

if TYPE_CHECKING:
    from musehub_plugin.access import Identity, InvalidCredentials
    from musehub_plugin.extension import MuseHub

__all__ = ["Identity", "InvalidCredentials", "MuseHub", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "MuseHub":
        from musehub_plugin.extension import MuseHub

        return MuseHub
    if name in {"Identity", "InvalidCredentials"}:
        from musehub_plugin import access

        return getattr(access, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
