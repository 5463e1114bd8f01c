"""What a pack holds, as a reader gives it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple


class BlobEntry(NamedTuple):
    """Where a blob is.

    Attributes:
        object_id: its id, as the pack claims it.
        ordinal: its number among the pack's blobs.
        frame: ordinal, in the file, of the frame in which it begins.
        offset: where in that frame's raw bytes.
        size: bytes; a blob that is longer than its frame goes on in the next.
    """

    object_id: str
    ordinal: int
    frame: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class SnapshotDelta:
    """A snapshot as what it changes.

    Attributes:
        ordinal: its number among the pack's snapshots.
        snapshot_id: its id.
        full: `changed` is the whole manifest; otherwise this is against the snapshot before, by ordinal.
        removed: paths that are gone; apply them first.
        changed: `{path: object_id}` of what is new or different.
        entry_count: paths in the whole manifest.
        id_is_stored: the pack states the id, which may be false; otherwise it was computed from the manifest.
        is_wide: the whole manifest is too wide for memory. `changed` may be so too: it is then a mapping that is sorted
            by path and read from a file.
    """

    ordinal: int
    snapshot_id: str
    full: bool
    removed: Collection[str]
    changed: Mapping[str, str]
    entry_count: int
    id_is_stored: bool
    is_wide: bool = False
