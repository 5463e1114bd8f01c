"""Writes snapshots as rows of changes; `manifests` reads them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import chain
from operator import itemgetter, sub
from typing import TYPE_CHECKING, TypeVar

import msgpack

from musehub_plugin.mpack.manifests import BASE_SHIFT, FROM_OUTSIDE, FROM_PREVIOUS, UNFINISHED
from musehub_plugin.mpack.thin import Bases

if TYPE_CHECKING:
    from musehub_plugin.mpack.pages import PageFile
    from musehub_plugin.mpack.wide import WideRefs

_Entry = TypeVar("_Entry")
ROWS_PER_FRAME = 4096
# Well under the format's bound, as the estimate below is rough.
_RAW_TARGET = 1 << 20
_CHANGES_PER_ROW = 1 << 14
# Of the paths in a row, which begins in a frame that is below the target: together they are below the bound.
_ROW_BYTES = 2 << 20
# Bytes before a path that is written out, at most.
_PATH_HEAD = 5
# The longest that a reader takes are of 4 KiB.
_SURELY_ONE_ROW = 1 << 9


class SnapshotEncoder:
    """Collects snapshots into frames.

    Args:
        emit: called with the raw bytes of a frame and the number of snapshots in it.
        bases: the manifests that a thin pack may start from.

    Attributes:
        based: whether a snapshot was written that starts from a base, or names what is in one.
    """

    def __init__(self, emit: Callable[[bytes, int], None], bases: Bases) -> None:
        self.based = False
        self._emit = emit
        self._bases = bases
        self._refs: dict[str, int] | WideRefs = {}
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

    def add(
        self,
        removed: Collection[str],
        changed: Mapping[str, int],
        stored: bytes | None,
        entry_count: int,
        start: int | None = None,
        file: PageFile | None = None,
    ) -> None:
        """Append a snapshot, given as what changed since the one added before; at first, since the empty manifest.

        Args:
            removed: paths that are gone, in their order; they were there.
            changed: `{path: ordinal}` of what is new or different, in the order of the paths. An ordinal of -1 - *n* is
                the object of entry *n* of the bases.
            stored: the snapshot's digest where the pack states it, None where the manifest determines it.
            entry_count: paths in the whole manifest.
            start: number of the base since which this changed, in place of the snapshot before.
            file: where the manifest is, as memory has no room for it; it then does not start from a base.
        """
        code = FROM_PREVIOUS
        if file is not None and isinstance(self._refs, dict):
            from musehub_plugin.mpack.wide import WideRefs

            self._refs = WideRefs.of(self._refs, file)
        if start is not None:
            self._refs = self._bases.refs(start)
            code = FROM_OUTSIDE | start << BASE_SHIFT
        if len(removed) + len(changed) > entry_count or (start is None and not self._codes):
            code, removed, changed = self._restarted(removed, changed)
        self.based = self.based or bool(code & FROM_OUTSIDE)
        if _fit_in_a_row(removed, changed):
            self._add_row(removed, changed.items(), code)
        else:
            self._add_rows(removed, changed, code)
        if stored is not None:
            self._stored_ordinals.append(self._snapshots)
            self._stored += stored
        self._snapshots += 1
        self._flush_if_full()

    def _restarted(
        self, removed: Collection[str], changed: Mapping[str, int]
    ) -> tuple[int, Collection[str], Mapping[str, int]]:
        """Return how to write a manifest that does not start from the one before: code, removed and changed paths."""
        refs = self._refs
        if not isinstance(refs, dict):
            refs.follow(removed, changed, full=False)
            self._refs = refs.of({}, refs.pages.file)
            return 0, (), refs
        target = changed
        if refs:
            for path in removed:
                del refs[path]
            refs.update(changed)
            target = dict(sorted(refs.items()))
        self._refs = {}
        best: tuple[int, Collection[str], Mapping[str, int]] = (0, (), target)
        for number in range(len(self._bases)):
            refs = self._bases.refs(number)
            different = {path: ref for path, ref in target.items() if refs.get(path) != ref}
            gone = sorted(refs.keys() - target.keys())
            if len(gone) + len(different) < len(best[1]) + len(best[2]):
                self._refs = refs
                best = (FROM_OUTSIDE | number << BASE_SHIFT, gone, different)
        return best

    def _add_rows(self, removed: Collection[str], changed: Mapping[str, int], base: int) -> None:
        """Append a snapshot in rows of a bounded size, which may be in several frames."""
        parts = _parts(removed, changed)
        part = next(parts)
        for following in parts:
            self._add_row(*part, base | UNFINISHED)
            self._flush_if_full()
            base = FROM_PREVIOUS
            part = following
        self._add_row(*part, base)

    def _add_row(self, removed: Collection[str], changed: Collection[tuple[str, int]], code: int) -> None:
        paths, refs, last = self._paths, self._refs, self._last_ref
        known_refs = refs if isinstance(refs, dict) else refs.get_many(path for path, _ in changed)
        removed_before, changed_before = len(self._removed), len(self._changed)
        for path in removed:
            self._removed.append(self._path_code(path))
        if paths or known_refs:
            for path, ref in changed:
                known = paths.get(path)
                self._changed.append(self._path_code(path) if known is None else known + 1)
                before = known_refs.get(path, -1)
                self._ref_steps.append(ref - (before if before >= 0 else last))
                last = ref
        elif changed:
            last = self._add_first(changed)
        if isinstance(refs, dict):
            for path in removed:
                del refs[path]
            refs.update(changed)
        else:
            refs.remove(removed)
            refs.set(changed)
        self._last_ref = last
        removed_count = len(self._removed) - removed_before
        changed_count = len(self._changed) - changed_before
        self._codes.append(code)
        self._removed_counts.append(removed_count)
        self._changed_counts.append(changed_count)
        self._raw_estimate += 40 + 6 * (removed_count + changed_count)

    def _add_first(self, changed: Collection[tuple[str, int]]) -> int:
        """Note what the first row of a frame sets, such as a whole manifest; return the last ordinal."""
        # No tuple of each is kept, as thousands at once have the garbage collector look through all of the process.
        names = [path for path, _ in changed]
        ordinals = [ordinal for _, ordinal in changed]
        self._paths.update(zip(names, range(len(names)), strict=True))
        self._changed.extend([0] * len(names))
        self._ref_steps.extend(map(sub, ordinals, chain((self._last_ref,), ordinals)))
        if self._bases.by_path:
            self._raw_estimate += sum(map(self._path_bytes, names))
        else:
            self._raw_estimate += sum(map(len, map(str.encode, names))) + _PATH_HEAD * len(names)
        return ordinals[-1]

    def _path_bytes(self, path: str) -> int:
        return 10 if path in self._bases.by_path else len(path.encode()) + _PATH_HEAD

    def _path_code(self, path: str) -> int:
        known = self._paths.get(path)
        if known is not None:
            return known + 1
        self._paths[path] = len(self._paths)
        self._raw_estimate += self._path_bytes(path)
        return 0

    def _flush_if_full(self) -> None:
        if len(self._codes) >= ROWS_PER_FRAME or self._raw_estimate >= _RAW_TARGET:
            self.flush()

    def flush(self) -> None:
        """Emit what is collected, if anything."""
        if not self._codes:
            return
        known = self._bases.by_path
        self.based = self.based or not known.keys().isdisjoint(self._paths)
        columns = [
            [known.get(path, path) for path in self._paths] if known else list(self._paths),
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


def are_short(paths: Collection[str], max_bytes: int) -> bool:
    """Say whether paths are surely of no more bytes, without a look at each."""
    # No character takes more than four bytes.
    return set(map(type, paths)) == {str} and 4 * max(map(len, paths)) <= max_bytes


def _fit_in_a_row(removed: Collection[str], changed: Mapping[str, int]) -> bool:
    count = len(removed) + len(changed)
    if count > _CHANGES_PER_ROW or count <= _SURELY_ONE_ROW:
        return count <= _CHANGES_PER_ROW
    # No character takes more than four bytes.
    if 4 * sum(map(len, chain(removed, changed))) <= _ROW_BYTES:
        return True
    return sum(len(path.encode()) for path in chain(removed, changed)) <= _ROW_BYTES


def _parts(
    removed: Collection[str], changed: Mapping[str, int]
) -> Iterator[tuple[Collection[str], Collection[tuple[str, int]]]]:
    """Yield what rows of a bounded size remove and set."""
    return chain(
        ((gone, ()) for gone in _cut(removed, lambda path: path)),
        (((), some) for some in _cut(changed.items(), itemgetter(0))),
    )


def _cut(entries: Iterable[_Entry], path: Callable[[_Entry], str]) -> Iterator[list[_Entry]]:
    row: list[_Entry] = []
    size = 0
    for entry in entries:
        row.append(entry)
        size += len(path(entry).encode())
        if len(row) == _CHANGES_PER_ROW or size >= _ROW_BYTES:
            yield row
            row, size = [], 0
    if row:
        yield row
