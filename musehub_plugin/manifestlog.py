"""A run of manifests, one after the other, with the way back to those before.

The server meets snapshots in two orders that mostly agree: as a pack has them, each against the one before, and as
history has them, each against the snapshot of its commit's first parent. A log turns the one into the other at the
cost of what changed in between, without holding more than one manifest.

Pure: no database, no bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

# Changes that are kept for the way back, some 10 MB of them; what lies before is reached by a whole manifest.
_KEPT_CHANGES = 50_000


class Difference(NamedTuple):
    """What one manifest changes from another.

    Attributes:
        removed: paths that are gone.
        changed: `{path: object_id}` of what is new or different.
    """

    removed: list[str]
    changed: dict[str, str]


def difference(before: Mapping[str, str], after: Mapping[str, str]) -> Difference:
    """Return what `after` changes from `before`."""
    changed = {path: object_id for path, object_id in after.items() if before.get(path) != object_id}
    return Difference([path for path in before if path not in after], changed)


class ManifestLog:
    """Manifests in the order in which they are passed.

    Args:
        kept_changes: how many changes may be remembered.

    Attributes:
        manifest: the one passed last; not to be changed by others.
    """

    def __init__(self, kept_changes: int = _KEPT_CHANGES) -> None:
        self._kept_changes = kept_changes
        self.manifest: dict[str, str] = {}
        self._positions: dict[str, int] = {}
        self._ids: dict[int, str] = {}
        # What it takes to go one back: paths and what they were, by position.
        self._undo: dict[int, list[tuple[str, str | None]]] = {}
        self._first = 0
        self._last = -1
        self._remembered = 0

    def in_reach(self) -> list[str]:
        """Return the manifests to which the way back is known, in the order in which they were passed last."""
        return sorted(self._positions, key=self._positions.__getitem__)

    def reaches(self, snapshot_id: str) -> bool:
        """Say whether the way back to a manifest is still known."""
        return snapshot_id in self._positions

    def pass_change(self, snapshot_id: str, removed: Collection[str], changed: Mapping[str, str]) -> None:
        """Go on to a manifest that is given by what it changes from the one before."""
        manifest = self.manifest
        undo: list[tuple[str, str | None]] = []
        if self._last < 0:
            # Nobody goes back to before the first one.
            manifest.update(changed)
            self._note(snapshot_id, undo)
            return
        for path in removed:
            undo.append((path, manifest.pop(path)))
        for path, object_id in changed.items():
            undo.append((path, manifest.get(path)))
            manifest[path] = object_id
        self._note(snapshot_id, undo)

    def pass_whole(self, snapshot_id: str, manifest: Mapping[str, str]) -> Difference:
        """Go on to a manifest that is given whole; return what it changes from the one before."""
        change = difference(self.manifest, manifest)
        self.pass_change(snapshot_id, change.removed, change.changed)
        return change

    def pass_from(
        self, snapshot_id: str, base_id: str, removed: Collection[str], changed: Mapping[str, str]
    ) -> Difference:
        """Go on to a manifest that is given by what it changes from an earlier one, which must be in reach.

        Returns:
            What it changes from the one before.
        """
        target: dict[str, str | None] = self._back_to(base_id)
        for path in removed:
            target[path] = None
        target.update(changed)
        manifest = self.manifest
        change = Difference(
            [path for path, object_id in target.items() if object_id is None and path in manifest],
            {
                path: object_id
                for path, object_id in target.items()
                if object_id is not None and manifest.get(path) != object_id
            },
        )
        self.pass_change(snapshot_id, change.removed, change.changed)
        return change

    def difference_from(self, base_id: str) -> Difference:
        """Return what the manifest passed last changes from an earlier one, which must be in reach."""
        manifest = self.manifest
        removed: list[str] = []
        changed: dict[str, str] = {}
        for path, before in self._back_to(base_id).items():
            now = manifest.get(path)
            if now is None:
                if before is not None:
                    removed.append(path)
            elif now != before:
                changed[path] = now
        return Difference(removed, changed)

    def is_last(self, snapshot_id: str) -> bool:
        """Say whether it is the manifest passed last."""
        return self._positions.get(snapshot_id) == self._last

    def difference_to(self, snapshot_id: str) -> Difference:
        """Return what an earlier manifest, which must be in reach, changes from the one passed last."""
        manifest = self.manifest
        before = self._back_to(snapshot_id)
        return Difference(
            [path for path, object_id in before.items() if object_id is None and path in manifest],
            {
                path: object_id
                for path, object_id in before.items()
                if object_id is not None and manifest.get(path) != object_id
            },
        )

    def _back_to(self, snapshot_id: str) -> dict[str, str | None]:
        """Return what changed since an earlier manifest, as it was there."""
        before: dict[str, str | None] = {}
        for position in range(self._last, self._positions[snapshot_id], -1):
            before.update(self._undo[position])
        return before

    def _note(self, snapshot_id: str, undo: list[tuple[str, str | None]]) -> None:
        self._last += 1
        self._undo[self._last] = undo
        self._remembered += len(undo)
        known = self._positions.get(snapshot_id)
        if known is not None:
            del self._ids[known]
        self._positions[snapshot_id] = self._last
        self._ids[self._last] = snapshot_id
        while self._remembered > self._kept_changes and self._first < self._last:
            self._remembered -= len(self._undo.pop(self._first))
            # The way to a manifest is what came after it: it is lost together with the one before.
            gone = self._ids.pop(self._first - 1, None)
            if gone is not None and self._positions.get(gone) == self._first - 1:
                del self._positions[gone]
            self._first += 1
