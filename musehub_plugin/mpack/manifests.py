"""Snapshots as rows of changes: each manifest is written as what differs from the one before it.

A frame of snapshots stands by itself: its first row starts from the empty manifest. Only a manifest that is too big
for one frame is continued in the next, in rows that name no snapshot until the last.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice, pairwise
from typing import NamedTuple

from musehub_plugin.ids import PREFIX
from musehub_plugin.mpack.bounded import Columns
from musehub_plugin.mpack.limits import Limits, MPackError
from musehub_plugin.mpack.thin import MAX_BASES, Bases

FROM_PREVIOUS = 1
FROM_OUTSIDE = 2
UNFINISHED = 4

COLUMNS = 9
BASE_SHIFT = 3
_MAX_REF = 1 << 40
_ENTRIES_PER_STATE = 128
_MAX_CODE = (MAX_BASES << BASE_SHIFT) - 1


class ManifestHasher:
    """Computes the ids of a run of snapshots whose manifests differ little, without sorting each anew.

    Entries before the first that changed are not hashed again: the state of the hash is kept after every so many.
    """

    def __init__(self) -> None:
        self._entries: dict[str, bytes] = {}
        self._sorted: list[bytes] = []
        self._states: list[hashlib._Hash] = []
        # So many entries, from the first one on, are those that the states have seen.
        self._unchanged = 0

    def change(self, removed: Collection[str], changed: Mapping[str, str], *, full: bool) -> None:
        """Move to the next manifest.

        Args:
            removed: paths that it lacks; they are there now.
            changed: `{path: object_id}` that it adds or replaces.
            full: start from the empty manifest.
        """
        entries = ((path, f"{path}\0{object_id[len(PREFIX) :]}".encode()) for path, object_id in changed.items())
        self.change_entries(removed, entries, len(changed), full=full)

    def change_entries(
        self, removed: Collection[str], changed: Iterable[tuple[str, bytes]], count: int, *, full: bool
    ) -> None:
        """Move to the next manifest, as `change` does.

        Args:
            removed: paths that it lacks; they are there now.
            changed: each path that it adds or replaces, once, with what is hashed of it.
            count: how many these are.
            full: start from the empty manifest.
        """
        entries, in_order, unchanged = self._entries, self._sorted, self._unchanged
        if full:
            entries.clear()
            in_order.clear()
            unchanged = 0
        if len(removed) + count > 32 + len(entries) // 16:
            for path in removed:
                del entries[path]
            entries.update(changed)
            self._sorted = sorted(entries.values())
            self._unchanged = 0
            return
        for path in removed:
            at = bisect_left(in_order, entries.pop(path))
            del in_order[at]
            unchanged = min(unchanged, at)
        for path, entry in changed:
            old = entries.get(path)
            entries[path] = entry
            at = bisect_left(in_order, old or entry)
            # A path ends with a NUL, which is in no path: its entry stays where it is, whatever its object.
            if old is None:
                in_order.insert(at, entry)
            else:
                in_order[at] = entry
            unchanged = min(unchanged, at)
        self._unchanged = unchanged

    def digest(self) -> bytes:
        """Return the 32 bytes of the snapshot id (the contract's section 1)."""
        entries, states = self._sorted, self._states
        # A state has the NUL after its entries, and so is of use only where more of them follow.
        del states[min(self._unchanged, max(0, len(entries) - 1)) // _ENTRIES_PER_STATE :]
        digest = states[-1].copy() if states else hashlib.sha256()
        start = len(states) * _ENTRIES_PER_STATE
        while len(entries) - start > _ENTRIES_PER_STATE:
            digest.update(b"\0".join(entries[start : start + _ENTRIES_PER_STATE]) + b"\0")
            states.append(digest.copy())
            start += _ENTRIES_PER_STATE
        digest.update(b"\0".join(entries[start:]))
        self._unchanged = len(entries)
        return digest.digest()


class Change(NamedTuple):
    """One snapshot as it is read, with objects as ordinals.

    Attributes:
        full: `changed` is the whole manifest; otherwise the change is from the snapshot before.
        removed: paths that are gone.
        changed: `{path: ordinal}` of what is new or different; ordinals count the pack's blobs, then the objects
            outside it. An ordinal of -1 - *n* is the object of entry *n* of the bases.
        stored: the snapshot's digest where the pack states it, None where the manifest determines it.
        entry_count: paths in the whole manifest.
        base: number of the base that it starts from, if any; it is given whole all the same.
    """

    full: bool
    removed: list[str]
    changed: dict[str, int]
    stored: bytes | None
    entry_count: int
    base: int | None = None


def continues(raw: bytes, where: str) -> bool:
    """Say whether a frame of snapshots begins with the rest of one that the frame before began.

    Args:
        raw: the frame's raw bytes.
        where: which frame it is, for errors.

    Raises:
        MPackError: the frame is malformed.
    """
    columns = Columns(raw, where, COLUMNS)
    columns.skip()
    codes = columns.integers("row code", low=0, high=_MAX_CODE)
    return bool(codes) and bool(codes[0] & FROM_PREVIOUS)


class SnapshotDecoder:
    """Turns frames of snapshots back into changes, with every reference checked.

    Args:
        object_count: how many ordinals there are: the pack's blobs and the objects outside it.
        limits: what is accepted.
        bases: the manifests that a thin pack starts from.
    """

    def __init__(self, object_count: int, limits: Limits, bases: Bases | None = None) -> None:
        self._object_count = object_count
        self._bases = bases
        self._limits = limits
        self._refs: dict[str, int] = {}
        self._unfinished: Change | None = None
        self._snapshots = 0
        self._changes = 0
        self._entries = 0

    def decode(self, raw: bytes, count: int, where: str) -> Iterator[Change]:
        """Yield the snapshots of one frame, each to be used before the next; frames must come in the order of the file.

        Args:
            raw: the frame's raw bytes.
            count: snapshots that it must hold.
            where: which frame it is, for errors.

        Raises:
            MPackError: the frame is malformed, refers to what there is not, or exceeds a limit.
        """
        columns = Columns(raw, where, COLUMNS)
        known = self._bases.paths if self._bases else ()
        paths = columns.names("path", known=known, max_bytes=self._limits.max_path_size)
        if len(set(paths)) != len(paths):
            raise MPackError(f"{where}: a path is listed twice")
        codes = columns.integers("row code", low=0, high=_MAX_CODE)
        removed_counts = columns.integers("removed count", count=len(codes), low=0, high=len(raw))
        removed = columns.integers("removed path", count=sum(removed_counts), low=0, high=len(paths))
        changed_counts = columns.integers("changed count", count=len(codes), low=0, high=len(raw))
        changed = columns.integers("changed path", count=sum(changed_counts), low=0, high=len(paths))
        steps = columns.integers("object step", count=len(changed), low=-_MAX_REF, high=_MAX_REF)
        stored_ordinals = columns.integers("stored id ordinal", low=0, high=count - 1)
        stored = columns.digests("stored id", count=len(stored_ordinals))
        columns.finish()
        self._count_changes(len(removed) + len(changed), where)
        if sum(1 for code in codes if not code & UNFINISHED) != count:
            raise MPackError(f"{where}: it does not hold the {count} snapshots that the table of contents says")
        if any(later <= earlier for earlier, later in pairwise(stored_ordinals)):
            raise MPackError(f"{where}: stored id ordinals do not ascend")
        ids = {n: stored[32 * i : 32 * i + 32] for i, n in enumerate(stored_ordinals)}

        new_paths = iter(paths)
        removed_codes, changed_codes = iter(removed), iter(changed)
        ref_steps = iter(steps)
        last_ref = 0
        lowest = -len(known)
        in_frame = 0
        object_count = self._object_count
        for row, code in enumerate(codes):
            change = self._begin(row, code, where)
            gone, now, refs = change.removed, change.changed, self._refs
            if now and removed_counts[row]:
                raise MPackError(f"{where}: snapshot {self._snapshots} removes paths after it has set some")
            for number in islice(removed_codes, removed_counts[row]):
                path = paths[number - 1] if number else self._new_path(new_paths, where)
                if refs.pop(path, None) is None:
                    raise MPackError(f"{where}: snapshot {self._snapshots} removes a path that is not there")
                gone.append(path)
            for number in islice(changed_codes, changed_counts[row]):
                path = paths[number - 1] if number else self._new_path(new_paths, where)
                before = refs.get(path, -1)
                last_ref = (before if before >= 0 else last_ref) + next(ref_steps)
                if not lowest <= last_ref < object_count:
                    raise MPackError(f"{where}: snapshot {self._snapshots} refers to object {last_ref}")
                if path in now:
                    raise MPackError(f"{where}: snapshot {self._snapshots} sets a path twice")
                refs[path] = now[path] = last_ref
            bound = self._limits.max_manifest_entries
            if len(refs) > bound:
                raise MPackError(f"{where}: snapshot {self._snapshots} is over the limit of {bound} paths")
            if code & UNFINISHED:
                self._unfinished = change
                continue
            self._entries += len(refs)
            if self._entries > self._limits.max_total_entries:
                raise MPackError(f"{where}: over the limit of {self._limits.max_total_entries} manifest entries in all")
            self._snapshots += 1
            if change.base is not None:
                # Who reads need not know of bases: such a snapshot is given whole.
                change = change._replace(full=True, removed=[], changed=refs)
            yield Change(change.full, change.removed, change.changed, ids.get(in_frame), len(refs), change.base)
            in_frame += 1
        if next(new_paths, None) is not None:
            raise MPackError(f"{where}: a path is listed that no snapshot uses")

    def _count_changes(self, count: int, where: str) -> None:
        self._changes += count
        if self._changes > self._limits.max_manifest_changes:
            raise MPackError(f"{where}: over the limit of {self._limits.max_manifest_changes} manifest changes")

    def _begin(self, row: int, code: int, where: str) -> Change:
        """Return the change that a row adds to: a new one, or the one that the row before left unfinished."""
        base = code >> BASE_SHIFT
        if base and not code & FROM_OUTSIDE:
            raise MPackError(f"{where}: row {row} names a base that it does not start from")
        unfinished = self._unfinished
        if unfinished is not None:
            if not code & FROM_PREVIOUS or code & FROM_OUTSIDE:
                raise MPackError(f"{where}: row {row} leaves a snapshot unfinished")
            self._unfinished = None
            return unfinished
        if code & FROM_OUTSIDE:
            if code & FROM_PREVIOUS:
                raise MPackError(f"{where}: row {row} starts from two manifests")
            if self._bases is None or base >= len(self._bases):
                raise MPackError(f"{where}: row {row} starts from a base that the pack does not name")
            self._count_changes(len(self._bases.span(base)), where)
            self._refs = self._bases.refs(base)
            return Change(False, [], {}, None, 0, base)
        if code & FROM_PREVIOUS:
            if row == 0:
                raise MPackError(f"{where}: the first row has no snapshot to start from")
            return Change(False, [], {}, None, 0)
        self._refs = {}
        return Change(True, [], {}, None, 0)

    @staticmethod
    def _new_path(new_paths: Iterator[str], where: str) -> str:
        path = next(new_paths, None)
        if path is None:
            raise MPackError(f"{where}: more new paths are used than listed")
        return path

    def finish(self) -> None:
        """Check that the last snapshot was finished.

        Raises:
            MPackError: it was not.
        """
        if self._unfinished is not None:
            raise MPackError("snapshots: the last one is unfinished")
