"""What the snapshots of a large plan change, read once and kept in a file until they are written."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, overload

import msgpack

from musehub_plugin.ids import from_digest, to_digest
from musehub_plugin.manifestlog import Difference
from musehub_plugin.mpack.digests import DigestTable
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


class NumberedChange(NamedTuple):
    """The same with objects by their numbers in a spool.

    Attributes:
        digest: the 32 bytes of the snapshot's id.
        removed: paths that are gone.
        paths: those that are new or different, sorted.
        numbers: of their objects.
        derivable: whether the id is known to be the manifest's hash.
    """

    digest: bytes
    removed: list[str]
    paths: list[str]
    numbers: array[int]
    derivable: bool


class ChangeSpool(Sequence[PlannedChange]):
    """Changes in the order in which they are appended.

    Args:
        blobs: the 32 bytes of the id of each blob of the plan, each once: they are numbered first.

    Attributes:
        objects: these, and what else the changes name, by their numbers.
        blob_count: how many blobs the plan has.
        is_wide: whether memory has no room for some of the manifests.
    """

    def __init__(self, blobs: Iterable[bytes] = ()) -> None:
        self.objects = DigestTable()
        for digest in blobs:
            self.objects.number(digest)
        self.blob_count = self.objects.count
        self.is_wide = False
        self._ends = array("Q", [0])
        # Those that are in files of their own.
        self._wide: dict[int, PlannedChange] = {}
        self._stored = Overflow()
        self._tail = bytearray()

    def append(self, planned: PlannedChange) -> Iterable[tuple[str, int | None]]:
        """Add a change; return its paths, sorted, with the numbers of their objects.

        What is in a file of its own stays there; its objects have numbers where others named them before.
        """
        snapshot_id, (removed, changed), derivable = planned
        self.is_wide = self.is_wide or isinstance(planned.change, WideDifference)
        if not (isinstance(removed, list) and isinstance(changed, dict)):
            self._wide[len(self)] = planned
            self._ends.append(self._ends[-1])
            return ((path, self.objects.find(to_digest(object_id))) for path, object_id in changed.items())
        paths = sorted(changed)
        numbers = array("I", map(self.objects.number, map(to_digest, map(changed.__getitem__, paths))))
        self._tail += msgpack.packb((to_digest(snapshot_id), removed, paths, numbers.tobytes(), derivable))
        self._ends.append(self._stored.size + len(self._tail))
        if len(self._tail) > _HELD:
            self._stored.append(self._tail)
            self._tail = bytearray()
        return zip(paths, numbers, strict=True)

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
        return self._wide.get(place) or self._named(_unpacked(self._bytes(self._ends[place], self._ends[place + 1])))

    def __iter__(self) -> Iterator[PlannedChange]:
        for place, packed in enumerate(self._packed()):
            yield self._wide.get(place) or self._named(_unpacked(packed))

    def numbered(self) -> Iterator[NumberedChange]:
        """Yield the changes with the numbers of objects in place of their ids.

        Raises:
            ValueError: some are in files of their own.
        """
        if self._wide:
            raise ValueError("changes that are in files of their own are not numbered")
        return map(_unpacked, self._packed())

    def _packed(self) -> Iterator[memoryview]:
        first, ends = 0, self._ends
        while first < len(self):
            last = first + 1
            while last < len(self) and ends[last + 1] - ends[first] <= _HELD:
                last += 1
            piece, start = memoryview(self._bytes(ends[first], ends[last])), ends[first]
            for place in range(first, last):
                yield piece[ends[place] - start : ends[place + 1] - start]
            first = last

    def _named(self, change: NumberedChange) -> PlannedChange:
        object_ids = (from_digest(self.objects[number]) for number in change.numbers)
        return PlannedChange(
            from_digest(change.digest),
            Difference(change.removed, dict(zip(change.paths, object_ids, strict=True))),
            change.derivable,
        )

    def _bytes(self, start: int, end: int) -> bytes:
        split = min(max(start, self._stored.size), end)
        stored = self._stored.size
        return self._stored.read(start, split - start) + bytes(self._tail[split - stored : end - stored])


def _unpacked(packed: bytes | memoryview) -> NumberedChange:
    digest, removed, paths, packed_numbers, derivable = msgpack.unpackb(packed)
    numbers = array("I")
    numbers.frombytes(packed_numbers)
    return NumberedChange(digest, removed, paths, numbers, derivable)
