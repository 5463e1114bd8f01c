"""Snapshots as rows of changes: each manifest is written as what differs from the one before it.

A frame of snapshots stands by itself: its first row starts from the empty manifest. Only a manifest that is too big
for one frame is continued in the next, in rows that name no snapshot until the last.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from musehub_plugin.ids import PREFIX
from musehub_plugin.mpack.bounded import Columns
from musehub_plugin.mpack.limits import Limits, MPackError
from musehub_plugin.mpack.thin import MAX_BASES, Bases

if TYPE_CHECKING:
    from musehub_plugin.mpack.pages import PageFile, PageHasher
    from musehub_plugin.mpack.wide import WideManifest, WidePaths, WideRefs
    from musehub_plugin.mpack.widebases import WideBases

FROM_PREVIOUS = 1
FROM_OUTSIDE = 2
UNFINISHED = 4

COLUMNS = 9
BASE_SHIFT = 3
_MAX_REF = 1 << 40
_ENTRIES_PER_STATE = 128
_MAX_CODE = (MAX_BASES << BASE_SHIFT) - 1
# A manifest of more paths, or of paths of more bytes, is wide: it is in a file. In memory a path takes some 500 bytes
# where a pack is read, and 1,300 where it is written out as files.
WIDE_PATHS: Final = 1 << 15
WIDE_BYTES: Final = 1 << 22
# A manifest of more paths, and those after it, are in a file where packs are planned and written. In memory a path
# takes some 500 bytes there, and in a file each snapshot some milliseconds.
WIDE_TO_WRITE: Final = 1 << 17


class ManifestHasher:
    """Computes the ids of a run of snapshots whose manifests differ little, without sorting each anew.

    Entries before the first that changed are not hashed again: the state of the hash is kept after every so many. What
    is hashed between two states is kept too, for as long as none of it changes: of 2,000 paths that is most of it.

    Args:
        folder: where a file is made of wide manifests; None: where the system has such files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._wide: WideManifest | None = None
        self._page_hasher: PageHasher | None = None
        self._entries: dict[str, bytes] = {}
        self._sorted: list[bytes] = []
        self._states: list[hashlib._Hash] = []
        # What is hashed of the entries that belong to each state; None where it must be put together anew.
        self._texts: list[bytes | None] = []
        # So many entries, from the first one on, are those that the states have seen.
        self._unchanged = 0

    def change(
        self, removed: Collection[str], changed: Mapping[str, str], *, full: bool, is_wide: bool = False
    ) -> None:
        """Move to the next manifest.

        Args:
            removed: paths that it lacks; they are there now.
            changed: `{path: object_id}` that it adds or replaces.
            full: start from the empty manifest.
            is_wide: it is too wide for memory.
        """
        if is_wide:
            self._become_wide(full=full).follow(removed, changed, full=full)
            return
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
        self._wide = self._page_hasher = None
        entries, in_order, unchanged = self._entries, self._sorted, self._unchanged
        if full:
            entries.clear()
            in_order.clear()
            self._texts.clear()
            unchanged = 0
        if len(removed) + count > 32 + len(entries) // 16:
            for path in removed:
                del entries[path]
            entries.update(changed)
            self._sorted = sorted(entries.values())
            self._texts.clear()
            self._unchanged = 0
            return
        texts = self._texts
        for path in removed:
            at = bisect_left(in_order, entries.pop(path))
            del in_order[at]
            del texts[at // _ENTRIES_PER_STATE :]
            unchanged = min(unchanged, at)
        for path, entry in changed:
            old = entries.get(path)
            entries[path] = entry
            at = bisect_left(in_order, old or entry)
            # A path ends with a NUL, which is in no path: its entry stays where it is, whatever its object.
            if old is None:
                in_order.insert(at, entry)
                del texts[at // _ENTRIES_PER_STATE :]
            else:
                in_order[at] = entry
                if at < _ENTRIES_PER_STATE * len(texts):
                    texts[at // _ENTRIES_PER_STATE] = None
            unchanged = min(unchanged, at)
        self._unchanged = unchanged

    def _become_wide(self, *, full: bool) -> WideManifest:
        """Return the manifest in a file that is hashed from now on; `full`: what it has does not matter."""
        if self._wide is None:
            # Here and not above: hardly any manifest is wide.
            from musehub_plugin.mpack.pages import PageFile, PageHasher
            from musehub_plugin.mpack.wide import WideManifest

            entries = {} if full else {path: PREFIX + entry[-64:].decode() for path, entry in self._entries.items()}
            self._wide = WideManifest.of(entries, PageFile(self._folder))
            self._page_hasher = PageHasher()
            self._entries, self._sorted, self._states, self._texts, self._unchanged = {}, [], [], [], 0
        return self._wide

    def digest(self) -> bytes:
        """Return the 32 bytes of the snapshot id (the contract's section 1)."""
        if self._wide is not None and self._page_hasher is not None:
            return self._page_hasher.digest(self._wide.pages)
        entries, states = self._sorted, self._states
        # A state has the NUL after its entries, and so is of use only where more of them follow.
        del states[min(self._unchanged, max(0, len(entries) - 1)) // _ENTRIES_PER_STATE :]
        digest = states[-1].copy() if states else hashlib.sha256()
        start = len(states) * _ENTRIES_PER_STATE
        while len(entries) - start > _ENTRIES_PER_STATE:
            digest.update(self._text_of(len(states)))
            states.append(digest.copy())
            start += _ENTRIES_PER_STATE
        digest.update(b"\0".join(entries[start:]))
        self._unchanged = len(entries)
        return digest.digest()

    def _text_of(self, number: int) -> bytes:
        """Return what is hashed between a state and the next."""
        texts = self._texts
        text = texts[number] if number < len(texts) else None
        if text is None:
            start = number * _ENTRIES_PER_STATE
            text = b"\0".join([*self._sorted[start : start + _ENTRIES_PER_STATE], b""])
            texts[number : number + 1] = [text]
        return text


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
        is_wide: the whole manifest is too wide for memory; what changed may be so too, and is then no list and dict.
    """

    full: bool
    removed: list[str] | WidePaths
    changed: dict[str, int] | WideRefs
    stored: bytes | None
    entry_count: int
    base: int | None = None
    is_wide: bool = False


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
        folder: where a file is made of wide manifests; None: where the system has such files.
        wide_in_file: there is such a file; otherwise they are in memory.
    """

    def __init__(
        self,
        object_count: int,
        limits: Limits,
        bases: Bases | WideBases | None = None,
        folder: Path | None = None,
        *,
        wide_in_file: bool = True,
    ) -> None:
        self._wide_in_file = wide_in_file
        self._object_count = object_count
        self._bases = bases
        self._limits = limits
        self._folder = folder
        self._refs: dict[str, int] | WideRefs = {}
        self._page_file: PageFile | None = None
        self._unfinished: Change | None = None
        self._snapshots = 0
        self._changes = 0
        self._entries = 0

    @property
    def changes(self) -> int:
        """Paths set or removed by what was decoded."""
        return self._changes

    @property
    def entries(self) -> int:
        """Sum of the sizes of the manifests that were decoded."""
        return self._entries

    def whole(self, change: Change) -> Change:
        """Return the change that was given last as one from the empty manifest.

        Raises:
            TypeError: it is wide.
        """
        if not isinstance(self._refs, dict):
            raise TypeError("a wide manifest is not given whole")
        return change._replace(full=True, removed=[], changed=self._refs.copy())

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
        most_entries = self._limits.max_manifest_entries
        most = len(raw) + most_entries
        if self._wide_in_file:
            most = min(WIDE_PATHS, WIDE_BYTES // (max(map(len, paths), default=1) or 1))
        for row, code in enumerate(codes):
            change = self._begin(row, code, where)
            gone, now, refs = change.removed, change.changed, self._refs
            if removed_counts[row] and (now or (change.full and refs)):
                raise MPackError(f"{where}: snapshot {self._snapshots} removes paths after it has set some")
            if (
                not (isinstance(refs, dict) and isinstance(gone, list) and isinstance(now, dict))
                or len(refs) + changed_counts[row] > most
            ):
                numbers = islice(removed_codes, removed_counts[row]), islice(changed_codes, changed_counts[row])
                named = [
                    (paths[number - 1] if number else self._new_path(new_paths, where) for number in some)
                    for some in numbers
                ]
                change, last_ref = self._wide_row(change, named[0], named[1], ref_steps, last_ref, lowest, where)
                refs = self._refs
            else:
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
            if len(refs) > most_entries:
                self._require_bound(len(refs), where)
            if code & UNFINISHED:
                self._unfinished = change
                continue
            self._entries += len(refs)
            if self._entries > self._limits.max_total_entries:
                raise MPackError(f"{where}: over the limit of {self._limits.max_total_entries} manifest entries in all")
            self._snapshots += 1
            # Who reads need not know of bases: such a snapshot is given whole.
            is_wide = not isinstance(refs, dict)
            full, removed_paths, changed_refs, _, _, base, _ = change
            if is_wide and (full or base is not None):
                full, removed_paths, changed_refs = True, [], refs.copy()
            elif base is not None:
                full, removed_paths, changed_refs = True, [], refs
            yield Change(full, removed_paths, changed_refs, ids.get(in_frame), len(refs), base, is_wide)
            in_frame += 1
        if next(new_paths, None) is not None:
            raise MPackError(f"{where}: a path is listed that no snapshot uses")

    def _wide_row(
        self,
        change: Change,
        gone: Iterator[str],
        now: Iterator[str],
        steps: Iterator[int],
        last_ref: int,
        lowest: int,
        where: str,
    ) -> tuple[Change, int]:
        """Do what a row says of a wide manifest: the same as above, for many paths at a time.

        Args:
            change: what the row adds to.
            gone: paths that it removes.
            now: paths that it sets.
            steps: what it sets them to.
            last_ref: the ordinal that was set last.
            lowest: the lowest ordinal that there is.
            where: which frame it is, for errors.

        Returns:
            The change with what the row adds, and the ordinal that was set last.
        """
        from musehub_plugin.mpack.pages import PageFile
        from musehub_plugin.mpack.wide import PIECE, WideRefs, with_paths, with_refs

        if self._page_file is None:
            self._page_file = PageFile(self._folder)
        file = self._page_file
        refs = self._refs = WideRefs.of(self._refs, file) if isinstance(self._refs, dict) else self._refs
        removed, changed = change.removed, change.changed
        snapshot = f"{where}: snapshot {self._snapshots}"
        while some := list(islice(gone, PIECE)):
            if len(refs.get_many(some)) < len(some):
                raise MPackError(f"{snapshot} removes a path that is not there")
            refs.remove(some)
            removed = with_paths(removed, some, file)
        while some := list(islice(now, PIECE)):
            known = refs.get_many(some)
            found: dict[str, int] = {}
            for path in some:
                was = known.get(path, -1)
                last_ref = (was if was >= 0 else last_ref) + next(steps)
                if not lowest <= last_ref < self._object_count:
                    raise MPackError(f"{snapshot} refers to object {last_ref}")
                found[path] = last_ref
            if change.full:
                twice = bool(known)
            elif isinstance(changed, dict):
                twice = not changed.keys().isdisjoint(found)
            else:
                twice = bool(changed.get_many(found))
            if twice or len(found) < len(some):
                raise MPackError(f"{snapshot} sets a path twice")
            try:
                refs.set(found.items())
                # What changes all is in `refs`, and given as a copy of that.
                if not change.full:
                    changed = with_refs(changed, found, file)
            except ValueError as error:
                raise MPackError(f"{snapshot}: {error}") from None
            self._require_bound(len(refs), where)
        return change._replace(removed=removed, changed=changed), last_ref

    def _require_bound(self, count: int, where: str) -> None:
        bound = self._limits.max_manifest_entries
        if count > bound:
            raise MPackError(f"{where}: snapshot {self._snapshots} is over the limit of {bound} paths")

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
