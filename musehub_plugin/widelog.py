"""A run of manifests that are too wide for memory: what `manifestlog` does, by way of a file.

Manifests share the pages that they have in common, so that those passed a while ago are kept whole.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping
from itertools import islice
from typing import NamedTuple

from musehub_plugin.ids import PREFIX
from musehub_plugin.manifestlog import ManifestLog
from musehub_plugin.mpack.pages import PageFile
from musehub_plugin.mpack.wide import PIECE, WideManifest, WidePaths, with_paths
from musehub_plugin.mpack.widewriting import differing

# Manifests that can be reached; each has a list of its pages in memory, 8 bytes for every 32 KiB.
_KEPT_MANIFESTS = 64
# Past so many bytes of file only the last ones stay.
_KEPT_BYTES = 512 << 20
_LAST_MANIFESTS = 4


class WideDifference(NamedTuple):
    """What one manifest changes from another.

    Attributes:
        removed: paths that are gone, sorted.
        changed: `{path: object_id}` of what is new or different, sorted by path; where it is much, it is in a file.
    """

    removed: Collection[str]
    changed: dict[str, str] | WideManifest


class WideLog:
    """Manifests in the order in which they are passed.

    Args:
        log: those passed before.

    Attributes:
        manifest: the one passed last; not to be changed by others.
    """

    def __init__(self, log: ManifestLog) -> None:
        self._file = PageFile()
        self._kept: OrderedDict[str, WideManifest] = OrderedDict()
        self.manifest = WideManifest.of(log.manifest, self._file)
        self._last: str | None = None
        for snapshot_id in log.in_reach()[-_KEPT_MANIFESTS:]:
            earlier = self._kept[snapshot_id] = self.manifest.copy()
            earlier.follow(*log.difference_to(snapshot_id), full=False)
            self._last = snapshot_id

    def reaches(self, snapshot_id: str) -> bool:
        """Say whether a manifest is still there."""
        return snapshot_id in self._kept

    def is_last(self, snapshot_id: str) -> bool:
        """Say whether it is the manifest passed last."""
        return snapshot_id == self._last

    def pass_change(self, snapshot_id: str, removed: Collection[str], changed: Mapping[str, str]) -> None:
        """Go on to a manifest that is given by what it changes from the one before."""
        self.manifest.follow(removed, changed, full=False)
        self._note(snapshot_id)

    def pass_whole(self, snapshot_id: str, manifest: Mapping[str, str]) -> None:
        """Go on to a manifest that is given whole, or made of one that was passed."""
        # What they have in common stays on the pages that it is on.
        rest = differing(self.manifest.pages, self.as_wide(manifest).pages)
        while some := list(islice(rest, PIECE)):
            self.manifest.pages.update({path: now for path, _, now in some})
        self._note(snapshot_id)

    def manifest_of(self, snapshot_id: str) -> WideManifest:
        """Return a manifest that must be in reach, to be changed by the caller."""
        return self._kept[snapshot_id].copy()

    def difference_from(self, base_id: str) -> WideDifference:
        """Return what the manifest passed last changes from an earlier one, which must be in reach."""
        return self.between(self._kept[base_id], self.manifest)

    def difference_to(self, snapshot_id: str) -> WideDifference:
        """Return what an earlier manifest, which must be in reach, changes from the one passed last."""
        return self.between(self.manifest, self._kept[snapshot_id])

    def between(self, before: Mapping[str, str], after: Mapping[str, str]) -> WideDifference:
        """Return what one manifest changes from another; neither needs to have been passed."""
        removed: list[str] | WidePaths = []
        changed: dict[str, str] | WideManifest = {}
        rest = differing(self.as_wide(before).pages, self.as_wide(after).pages)
        while some := list(islice(rest, PIECE)):
            removed = with_paths(removed, [path.decode() for path, _, now in some if now is None], self._file)
            new = {path.decode(): PREFIX + now.decode() for path, _, now in some if now is not None}
            if isinstance(changed, dict) and len(changed) + len(new) <= PIECE:
                changed.update(new)
            else:
                changed = self.as_wide(changed)
                changed.set(new.items())
        return WideDifference(removed, changed)

    def as_wide(self, manifest: Mapping[str, str]) -> WideManifest:
        """Return a manifest as one in a file, which it may be already."""
        return manifest if isinstance(manifest, WideManifest) else WideManifest.of(manifest, self._file)

    def _note(self, snapshot_id: str) -> None:
        self._last = snapshot_id
        self._kept[snapshot_id] = self.manifest.copy()
        self._kept.move_to_end(snapshot_id)
        most = _KEPT_MANIFESTS if self._file.size < _KEPT_BYTES else _LAST_MANIFESTS
        while len(self._kept) > most:
            self._kept.popitem(last=False)
