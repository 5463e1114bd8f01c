"""Snapshots as rows of changes: each manifest is written as what differs from the one before it.

A frame of snapshots stands by itself: its first row starts from the empty manifest. Only a manifest that is too big
for one frame is continued in the next, in rows that name no snapshot until the last.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import msgpack

from musehub_plugin.ids import PREFIX
from musehub_plugin.mpack.bounded import Columns
from musehub_plugin.mpack.limits import Limits, MPackError

FROM_PREVIOUS = 1
FROM_OUTSIDE = 2
UNFINISHED = 4

COLUMNS = 9
ROWS_PER_FRAME = 4096
# Well under the format's bound, as the estimate below is rough.
_RAW_TARGET = 1 << 20
_CHANGES_PER_ROW = 1 << 14
_MAX_REF = 1 << 40


class ManifestHasher:
    """Computes the ids of a run of snapshots whose manifests differ little, without sorting each anew."""

    def __init__(self) -> None:
        self._entries: dict[str, bytes] = {}
        self._sorted: list[bytes] = []

    def change(self, removed: Collection[str], changed: Mapping[str, str], *, full: bool) -> None:
        """Move to the next manifest.

        Args:
            removed: paths that it lacks; they are there now.
            changed: `{path: object_id}` that it adds or replaces.
            full: start from the empty manifest.
        """
        entries = self._entries
        if full:
            entries.clear()
            self._sorted.clear()
        wholesale = len(removed) + len(changed) > 32 + len(entries) // 16
        for path in removed:
            self._take(entries.pop(path), wholesale)
        for path, object_id in changed.items():
            entry = f"{path}\0{object_id[len(PREFIX) :]}".encode()
            old = entries.get(path)
            entries[path] = entry
            if not wholesale:
                if old is not None:
                    self._take(old, wholesale)
                insort(self._sorted, entry)
        if wholesale:
            self._sorted = sorted(entries.values())

    def _take(self, entry: bytes, wholesale: bool) -> None:
        if not wholesale:
            del self._sorted[bisect_left(self._sorted, entry)]

    def digest(self) -> bytes:
        """Return the 32 bytes of the snapshot id (the contract's section 1)."""
        return hashlib.sha256(b"\0".join(self._sorted)).digest()


class Change(NamedTuple):
    """One snapshot as it is read, with objects as ordinals.

    Attributes:
        full: `changed` is the whole manifest; otherwise the change is from the snapshot before.
        removed: paths that are gone.
        changed: `{path: ordinal}` of what is new or different; ordinals count the pack's blobs, then the objects
            outside it.
        stored: the snapshot's digest where the pack states it, None where the manifest determines it.
        entry_count: paths in the whole manifest.
    """

    full: bool
    removed: list[str]
    changed: dict[str, int]
    stored: bytes | None
    entry_count: int


class SnapshotEncoder:
    """Collects snapshots into frames.

    Args:
        emit: called with the raw bytes of a frame and the number of snapshots in it.
    """

    def __init__(self, emit: Callable[[bytes, int], None]) -> None:
        self._emit = emit
        self._refs: dict[str, int] = {}
        self._reset()

    def _reset(self) -> None:
        self._paths: dict[str, int] = {}
        self._codes: list[int] = []
        self._removed_counts: list[int] = []
        self._removed: list[int] = []
        self._changed_counts: list[int] = []
        self._changed: list[int] = []
        self._ref_steps: list[int] = []
        self._stored_ordinals: list[int] = []
        self._stored = bytearray()
        self._snapshots = 0
        self._last_ref = 0
        self._raw_estimate = 0

    def add(self, removed: Sequence[str], changed: Mapping[str, int], stored: bytes | None, entry_count: int) -> None:
        """Append a snapshot, given as what changed since the one added before; at first, since the empty manifest.

        Args:
            removed: paths that are gone, in their order; they were there.
            changed: `{path: ordinal}` of what is new or different, in the order of the paths.
            stored: the snapshot's digest where the pack states it, None where the manifest determines it.
            entry_count: paths in the whole manifest.
        """
        base = FROM_PREVIOUS
        if not self._codes or len(removed) + len(changed) > entry_count:
            refs = self._refs
            for path in removed:
                del refs[path]
            refs.update(changed)
            base, removed, changed = 0, (), dict(sorted(refs.items()))
            refs.clear()
        if len(removed) + len(changed) <= _CHANGES_PER_ROW:
            self._add_row(removed, changed.items(), base)
        else:
            self._add_rows(removed, list(changed.items()), base)
        if stored is not None:
            self._stored_ordinals.append(self._snapshots)
            self._stored += stored
        self._snapshots += 1
        self._flush_if_full()

    def _add_rows(self, removed: Sequence[str], changed: Sequence[tuple[str, int]], base: int) -> None:
        """Append a snapshot in rows of a bounded size, which may be in several frames."""
        size = _CHANGES_PER_ROW
        parts: list[tuple[Sequence[str], Sequence[tuple[str, int]]]] = []
        parts += ((removed[start : start + size], ()) for start in range(0, len(removed), size))
        parts += (((), changed[start : start + size]) for start in range(0, len(changed), size))
        for part in parts[:-1]:
            self._add_row(*part, base | UNFINISHED)
            self._flush_if_full()
            base = FROM_PREVIOUS
        self._add_row(*parts[-1], base)

    def _add_row(self, removed: Iterable[str], changed: Iterable[tuple[str, int]], code: int) -> None:
        paths, refs, last = self._paths, self._refs, self._last_ref
        removed_before, changed_before = len(self._removed), len(self._changed)
        for path in removed:
            self._removed.append(self._path_code(path))
            del refs[path]
        for path, ref in changed:
            known = paths.get(path)
            self._changed.append(self._path_code(path) if known is None else known + 1)
            self._ref_steps.append(ref - refs.get(path, last))
            refs[path] = last = ref
        self._last_ref = last
        removed_count = len(self._removed) - removed_before
        changed_count = len(self._changed) - changed_before
        self._codes.append(code)
        self._removed_counts.append(removed_count)
        self._changed_counts.append(changed_count)
        self._raw_estimate += 40 + 6 * (removed_count + changed_count)

    def _path_code(self, path: str) -> int:
        known = self._paths.get(path)
        if known is not None:
            return known + 1
        self._paths[path] = len(self._paths)
        self._raw_estimate += len(path.encode()) + 5
        return 0

    def _flush_if_full(self) -> None:
        if len(self._codes) >= ROWS_PER_FRAME or self._raw_estimate >= _RAW_TARGET:
            self.flush()

    def flush(self) -> None:
        """Emit what is collected, if anything."""
        if not self._codes:
            return
        columns = [
            list(self._paths),
            self._codes,
            self._removed_counts,
            self._removed,
            self._changed_counts,
            self._changed,
            self._ref_steps,
            self._stored_ordinals,
            bytes(self._stored),
        ]
        self._emit(msgpack.packb(columns), self._snapshots)
        self._reset()


class SnapshotDecoder:
    """Turns frames of snapshots back into changes, with every reference checked.

    Args:
        object_count: how many ordinals there are: the pack's blobs and the objects outside it.
        limits: what is accepted.
    """

    def __init__(self, object_count: int, limits: Limits) -> None:
        self._object_count = object_count
        self._limits = limits
        self._refs: dict[str, int] = {}
        self._unfinished: Change | None = None
        self._snapshots = 0
        self._changes = 0
        self._entries = 0

    def decode(self, raw: bytes, count: int, where: str) -> Iterator[Change]:
        """Yield the snapshots of one frame; frames must come in the order of the file.

        Args:
            raw: the frame's raw bytes.
            count: snapshots that it must hold.
            where: which frame it is, for errors.

        Raises:
            MPackError: the frame is malformed, refers to what there is not, or exceeds a limit.
        """
        columns = Columns(raw, where, COLUMNS)
        paths = columns.strings("path", max_bytes=self._limits.max_path_size)
        if len(set(paths)) != len(paths):
            raise MPackError(f"{where}: a path is listed twice")
        codes = columns.integers("row code", low=0, high=FROM_PREVIOUS | FROM_OUTSIDE | UNFINISHED)
        removed_counts = columns.integers("removed count", count=len(codes), low=0, high=len(raw))
        removed = columns.integers("removed path", count=sum(removed_counts), low=0, high=len(paths))
        changed_counts = columns.integers("changed count", count=len(codes), low=0, high=len(raw))
        changed = columns.integers("changed path", count=sum(changed_counts), low=0, high=len(paths))
        steps = columns.integers("object step", count=len(changed), low=-_MAX_REF, high=_MAX_REF)
        stored_ordinals = columns.integers("stored id ordinal", low=0, high=count - 1)
        stored = columns.digests("stored id", count=len(stored_ordinals))
        columns.finish()
        self._changes += len(removed) + len(changed)
        if self._changes > self._limits.max_manifest_changes:
            raise MPackError(f"{where}: over the limit of {self._limits.max_manifest_changes} manifest changes")
        if sum(1 for code in codes if not code & UNFINISHED) != count:
            raise MPackError(f"{where}: it does not hold the {count} snapshots that the table of contents says")
        if any(later <= earlier for earlier, later in pairwise(stored_ordinals)):
            raise MPackError(f"{where}: stored id ordinals do not ascend")
        ids = {n: stored[32 * i : 32 * i + 32] for i, n in enumerate(stored_ordinals)}

        new_paths = iter(paths)
        removed_codes, changed_codes = iter(removed), iter(changed)
        ref_steps = iter(steps)
        last_ref = 0
        in_frame = 0
        for row, code in enumerate(codes):
            change = self._begin(row, code, where)
            gone, now = change.removed, change.changed
            refs = self._refs
            if now and removed_counts[row]:
                raise MPackError(f"{where}: snapshot {self._snapshots} removes paths after it has set some")
            for _ in range(removed_counts[row]):
                path = self._path(next(removed_codes), paths, new_paths, where)
                if refs.pop(path, None) is None:
                    raise MPackError(f"{where}: snapshot {self._snapshots} removes a path that is not there")
                gone.append(path)
            for _ in range(changed_counts[row]):
                path = self._path(next(changed_codes), paths, new_paths, where)
                last_ref = refs.get(path, last_ref) + next(ref_steps)
                if not 0 <= last_ref < self._object_count:
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
            yield change._replace(stored=ids.get(in_frame), entry_count=len(refs))
            in_frame += 1
        if next(new_paths, None) is not None:
            raise MPackError(f"{where}: a path is listed that no snapshot uses")

    def _begin(self, row: int, code: int, where: str) -> Change:
        """Return the change that a row adds to: a new one, or the one that the row before left unfinished."""
        if code & FROM_OUTSIDE:
            raise MPackError(f"{where}: row {row} starts from a snapshot outside the pack, which needs a newer reader")
        unfinished = self._unfinished
        if unfinished is not None:
            if not code & FROM_PREVIOUS:
                raise MPackError(f"{where}: row {row} leaves a snapshot unfinished")
            self._unfinished = None
            return unfinished
        if code & FROM_PREVIOUS:
            if row == 0:
                raise MPackError(f"{where}: the first row has no snapshot to start from")
            return Change(False, [], {}, None, 0)
        self._refs.clear()
        return Change(True, [], {}, None, 0)

    @staticmethod
    def _path(code: int, paths: list[str], new_paths: Iterator[str], where: str) -> str:
        if code:
            return paths[code - 1]
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
