"""The manifest that a run of deltas leads to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from musehub_plugin.mpack.entities import SnapshotDelta

if TYPE_CHECKING:
    from musehub_plugin.mpack.wide import WideManifest


class FollowedManifest:
    """A manifest that becomes the next one with each delta.

    Args:
        folder: where a file is made of a wide one; None: where the system has such files.

    Attributes:
        entries: `{path: object_id}`: a dict, or where the manifest is too wide for memory, one that is read from a
            file and sorted by path.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self.entries: dict[str, str] | WideManifest = {}

    def follow(self, delta: SnapshotDelta) -> None:
        """Become what a snapshot has; those before it were followed, or it is given whole."""
        if delta.is_wide:
            self._follow_wide(delta)
            return
        if delta.full or not isinstance(self.entries, dict):
            self.entries = {}
        for path in delta.removed:
            del self.entries[path]
        self.entries.update(delta.changed)

    def _follow_wide(self, delta: SnapshotDelta) -> None:
        if isinstance(self.entries, dict):
            from musehub_plugin.mpack.pages import PageFile
            from musehub_plugin.mpack.wide import WideManifest

            self.entries = WideManifest.of({} if delta.full else self.entries, PageFile(self._folder))
        self.entries.follow(delta.removed, delta.changed, full=delta.full)

    def copy(self) -> dict[str, str] | WideManifest:
        """Return the entries as they are now."""
        return self.entries.copy()


def is_wide(manifest: Mapping[str, str]) -> TypeGuard[WideManifest]:
    """Say whether a manifest is read from a file, as memory has no room for it."""
    if isinstance(manifest, dict):
        return False
    from musehub_plugin.mpack.wide import WideManifest

    return isinstance(manifest, WideManifest)
