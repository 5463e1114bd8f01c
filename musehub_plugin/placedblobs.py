"""The ids of a large plan, in some 40 bytes each, and its blobs in the order of solid frames, in some 60.

As ids in lists they take 120 and over 300.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

from musehub_plugin.changespool import PlannedChange
from musehub_plugin.ids import from_digest, to_digest
from musehub_plugin.mpack.digests import DigestTable

_NONE = 0xFFFF_FFFF


class IdSequence(Sequence[str]):
    """Ids by their place in an order.

    Args:
        digests: the ids' bytes.
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


def placed_blobs(blob_digests: Iterable[bytes], changes: Iterable[PlannedChange]) -> IdSequence:
    """Return blobs by path, then by history, as `mpack.solid_order` does.

    Args:
        blob_digests: the 32 bytes of each blob's id, each once.
        changes: the snapshots that have them, in the order of history. All are read.

    Raises:
        KeyError: no snapshot has a blob; it is what the error is about.
    """
    digests = DigestTable()
    for digest in blob_digests:
        digests.number(digest)
    positions = array("I", [_NONE]) * digests.count
    path_of = array("I", [0]) * digests.count
    paths: dict[str, int] = {}
    for position, planned in enumerate(changes):
        for path, object_id in sorted(planned.change.changed.items()):
            ordinal = digests.find(to_digest(object_id))
            if ordinal is not None and positions[ordinal] == _NONE:
                positions[ordinal] = position
                path_of[ordinal] = paths.setdefault(path, len(paths))
    if _NONE in positions:
        raise KeyError(from_digest(digests[positions.index(_NONE)]))
    at_path = [array("I") for _ in paths]
    for ordinal, path_number in enumerate(path_of):
        at_path[path_number].append(ordinal)
    order = array("I")
    for _, path_number in sorted(paths.items()):
        order.extend(sorted(at_path[path_number], key=positions.__getitem__))
    return IdSequence(digests, order)
