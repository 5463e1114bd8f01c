"""The ids of a large plan, in some 40 bytes each, and its blobs in the order of solid frames, in some 60.

As ids in lists they take 120 and over 300.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import overload

from musehub_plugin.changespool import ChangeSpool, PlannedChange
from musehub_plugin.ids import from_digest
from musehub_plugin.mpack.digests import DigestTable
from musehub_plugin.mpack.manifests import WIDE_TO_WRITE
from musehub_plugin.mpack.pages import PageFile, SortedPages
from musehub_plugin.mpack.wide import PIECE

_NONE = 0xFFFF_FFFF


class IdSequence(Sequence[str]):
    """Ids by their place in an order.

    Args:
        digests: the ids' bytes, and perhaps further ones.
        order: for each place, the ordinal of its digest.

    Attributes:
        digests: likewise.
        order: likewise.
    """

    def __init__(self, digests: DigestTable, order: array[int]) -> None:
        self.digests = digests
        self.order = order

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[str]:
        return (from_digest(self.digests[ordinal]) for ordinal in self.order)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [from_digest(self.digests[ordinal]) for ordinal in self.order[place]]
        return from_digest(self.digests[self.order[place]])


def distinct_ids(digests: Iterable[bytes]) -> IdSequence:
    """Return ids in the order in which they come, each once.

    Args:
        digests: the 32 bytes of each.
    """
    table = DigestTable()
    for digest in digests:
        table.number(digest)
    return IdSequence(table, array("I", range(table.count)))


def placed_blobs(spool: ChangeSpool, changes: Iterable[PlannedChange]) -> IdSequence:
    """Return the blobs of a plan by path, then by history, as `mpack.solid_order` does.

    Args:
        spool: an empty one, which the blobs were given to; the changes are put into it.
        changes: the snapshots that have them, in the order of history. All are read.

    Raises:
        KeyError: no snapshot has a blob; it is what the error is about.
    """
    count = spool.blob_count
    positions = array("I", [_NONE]) * count
    path_of = array("I", [0]) * count
    paths = _PathNumbers()
    found: list[int] = []
    found_at: list[str] = []
    snapshots = 0
    for position, planned in enumerate(changes):
        snapshots += 1
        for path, number in spool.append(planned):
            if number is not None and number < count and positions[number] == _NONE:
                positions[number] = position
                found.append(number)
                found_at.append(path)
                if len(found) == PIECE:
                    paths.number(found, found_at, path_of)
                    found, found_at = [], []
    paths.number(found, found_at, path_of)
    if _NONE in positions:
        raise KeyError(from_digest(spool.objects[positions.index(_NONE)]))
    order = _stably_sorted(range(count), positions, snapshots)
    ranks = paths.ranks()
    return IdSequence(spool.objects, _stably_sorted(order, array("I", map(ranks.__getitem__, path_of)), len(ranks)))


def _stably_sorted(order: Iterable[int], keys: Sequence[int], count: int) -> array[int]:
    """Return numbers by their keys, which are below `count`; those with the same one stay in the order given."""
    places = array("I", [0]) * (count + 1)
    for key in keys:
        places[key + 1] += 1
    places = array("I", accumulate(places))
    found = array("I", [0]) * len(keys)
    for number in order:
        key = keys[number]
        found[places[key]] = number
        places[key] += 1
    return found


class _PathNumbers:
    """Numbers paths in the order in which they come; where they are many, they are in a file."""

    def __init__(self) -> None:
        self._held: dict[str, int] = {}
        self._pages: SortedPages | None = None

    def number(self, blobs: list[int], paths: list[str], numbers: array[int]) -> None:
        """Note the number of each blob's path in `numbers`."""
        if self._pages is None:
            held = self._held
            for blob, path in zip(blobs, paths, strict=True):
                numbers[blob] = held.setdefault(path, len(held))
            if len(held) > WIDE_TO_WRITE:
                self._pages = SortedPages(PageFile())
                self._pages.append((path.encode(), b"%d" % number) for path, number in sorted(held.items()))
                self._held = {}
            return
        keys = [path.encode() for path in paths]
        known = self._pages.get_many(keys)
        new: dict[bytes, bytes | None] = {}
        for key in keys:
            if key not in known:
                known[key] = new[key] = b"%d" % (len(self._pages) + len(new))
        self._pages.update(new)
        for blob, key in zip(blobs, keys, strict=True):
            numbers[blob] = int(known[key])

    def ranks(self) -> array[int]:
        """Return for each number which path it has in the order of the paths."""
        if self._pages is None:
            in_order = (number for _, number in sorted(self._held.items()))
        else:
            in_order = (int(text) for _, text in self._pages.items())
        ranks = array("I", [0]) * (len(self._held) if self._pages is None else len(self._pages))
        for rank, number in enumerate(in_order):
            ranks[number] = rank
        return ranks
