"""What the snapshots of a large plan change, read once and kept in a file until they are written."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple, overload

import msgpack

from musehub_plugin.ids import from_digest, to_digest
from musehub_plugin.manifestlog import Difference
from musehub_plugin.mpack.overflow import Overflow
from musehub_plugin.widelog import WideDifference

# Bytes that are held in memory before a file is made, and that are read from it at once.
_HELD = 1 << 20


class PlannedChange(NamedTuple):
    """A snapshot of a plan as what it changes from the one before it in the plan.

    Attributes:
        change: what it changes; where that is much, it is in a file.
        derivable: whether the id is known to be the manifest's hash.
    """

    snapshot_id: str
    change: Difference | WideDifference
    derivable: bool


class ChangeSpool(Sequence[PlannedChange]):
    """Changes in the order in which they are appended."""

    def __init__(self) -> None:
        self._ends = array("Q", [0])
        # Those that are in files of their own.
        self._wide: dict[int, PlannedChange] = {}
        self._stored = Overflow()
        self._tail = bytearray()

    def append(self, planned: PlannedChange) -> None:
        """Add a change."""
        snapshot_id, (removed, changed), derivable = planned
        if isinstance(removed, list) and isinstance(changed, dict):
            digests = b"".join(map(to_digest, changed.values()))
            self._tail += msgpack.packb((to_digest(snapshot_id), removed, list(changed), digests, derivable))
        else:
            self._wide[len(self)] = planned
        self._ends.append(self._stored.size + len(self._tail))
        if len(self._tail) > _HELD:
            self._stored.append(self._tail)
            self._tail = bytearray()

    @property
    def handles(self) -> Sequence[int] | None:
        """The descriptors of its files, which a fork must keep open to read it; None where a fork cannot."""
        if self._wide:
            return None
        return [] if self._stored.handle is None else [self._stored.handle]

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, place: int) -> PlannedChange: ...
    @overload
    def __getitem__(self, place: slice) -> list[PlannedChange]: ...
    def __getitem__(self, place: int | slice) -> PlannedChange | list[PlannedChange]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        place %= len(self)
        return self._wide.get(place) or _unpacked(self._bytes(self._ends[place], self._ends[place + 1]))

    def __iter__(self) -> Iterator[PlannedChange]:
        first, ends = 0, self._ends
        while first < len(self):
            last = first + 1
            while last < len(self) and ends[last + 1] - ends[first] <= _HELD:
                last += 1
            piece, start = memoryview(self._bytes(ends[first], ends[last])), ends[first]
            for place in range(first, last):
                yield self._wide.get(place) or _unpacked(piece[ends[place] - start : ends[place + 1] - start])
            first = last

    def _bytes(self, start: int, end: int) -> bytes:
        split = min(max(start, self._stored.size), end)
        stored = self._stored.size
        return self._stored.read(start, split - start) + bytes(self._tail[split - stored : end - stored])


def _unpacked(packed: bytes | memoryview) -> PlannedChange:
    snapshot, removed, paths, digests, derivable = msgpack.unpackb(packed)
    object_ids = (from_digest(digests[at : at + 32]) for at in range(0, len(digests), 32))
    return PlannedChange(
        from_digest(snapshot), Difference(removed, dict(zip(paths, object_ids, strict=True))), derivable
    )
