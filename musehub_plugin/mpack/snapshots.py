"""Writes snapshots as rows of changes; `manifests` reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgpack

from musehub_plugin.mpack.manifests import BASE_SHIFT, FROM_OUTSIDE, FROM_PREVIOUS, UNFINISHED
from musehub_plugin.mpack.thin import Bases

ROWS_PER_FRAME = 4096
# Well under the format's bound, as the estimate below is rough.
_RAW_TARGET = 1 << 20
_CHANGES_PER_ROW = 1 << 14


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

    def add(
        self,
        removed: Sequence[str],
        changed: Mapping[str, int],
        stored: bytes | None,
        entry_count: int,
        start: int | None = None,
    ) -> None:
        """Append a snapshot, given as what changed since the one added before; at first, since the empty manifest.

        Args:
            removed: paths that are gone, in their order; they were there.
            changed: `{path: ordinal}` of what is new or different, in the order of the paths. An ordinal of -1 - *n* is
                the object of entry *n* of the bases.
            stored: the snapshot's digest where the pack states it, None where the manifest determines it.
            entry_count: paths in the whole manifest.
            start: number of the base since which this changed, in place of the snapshot before.
        """
        code = FROM_PREVIOUS
        if start is not None:
            self._refs = self._bases.refs(start)
            code = FROM_OUTSIDE | start << BASE_SHIFT
        if len(removed) + len(changed) > entry_count or (start is None and not self._codes):
            refs = self._refs
            for path in removed:
                del refs[path]
            refs.update(changed)
            code, removed, changed = self._restarted(dict(sorted(refs.items())))
        self.based = self.based or bool(code & FROM_OUTSIDE)
        if len(removed) + len(changed) <= _CHANGES_PER_ROW:
            self._add_row(removed, changed.items(), code)
        else:
            self._add_rows(removed, list(changed.items()), code)
        if stored is not None:
            self._stored_ordinals.append(self._snapshots)
            self._stored += stored
        self._snapshots += 1
        self._flush_if_full()

    def _restarted(self, target: dict[str, int]) -> tuple[int, Sequence[str], Mapping[str, int]]:
        """Return how to write a manifest that does not start from the one before: code, removed and changed paths."""
        self._refs = {}
        best: tuple[int, Sequence[str], Mapping[str, int]] = (0, (), target)
        for number in range(len(self._bases)):
            refs = self._bases.refs(number)
            changed = {path: ref for path, ref in target.items() if refs.get(path) != ref}
            removed = sorted(refs.keys() - target.keys())
            if len(removed) + len(changed) < len(best[1]) + len(best[2]):
                self._refs = refs
                best = (FROM_OUTSIDE | number << BASE_SHIFT, removed, changed)
        return best

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
            before = refs.get(path, -1)
            self._ref_steps.append(ref - (before if before >= 0 else last))
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
        self._raw_estimate += 10 if path in self._bases.by_path else len(path.encode()) + 5
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
