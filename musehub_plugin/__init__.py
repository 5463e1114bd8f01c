"""Muse hosting for an existing Flask forge."""

from musehub_plugin._version import __version__

__all__ = ["__version__"]
