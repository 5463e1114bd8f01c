"""A long history that is pushed, or whose rows are packed, a stretch at a time: its memory is that of a stretch.

A stretch is a run of commits, parents before children, with those of the pack's snapshots that it needs and that no
stretch before it had.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from musehub_plugin.commitgraph import NewCommit
from musehub_plugin.commitspool import CommitSpool
from musehub_plugin.ids import from_digest, to_digest
from musehub_plugin.mpack.digests import DigestTable
from musehub_plugin.mpack.overflow import Overflow

# Commits in a stretch. Each takes some three kilobytes while it is being laid out.
STRETCH = 4_096
# Snapshots of a stretch for each of its commits: where there are more, the pack has its snapshots in an order of its
# own, and is one stretch.
_MOST_SNAPSHOTS = 2
# Bytes of paths that are held in memory.
_HELD = 1 << 20


class Stretch(NamedTuple):
    """A run of commits and of a pack's snapshots.

    Attributes:
        records: `parent_ids` and `snapshot_id` of the commits, by id, parents before children.
        positions: where in the pack each of the snapshots is.
        commits: all commits of the pack.
    """

    records: Mapping[str, Mapping[str, Any]]
    positions: Mapping[str, int]
    commits: CommitSpool

    def parent_snapshots(self, stored: Mapping[str, str]) -> dict[str, str]:
        """Return the snapshots of parents that are in no stretch yet to come, nor in this one, by the parents' ids.

        Args:
            stored: those of parents that are not in the pack.
        """
        found: dict[str, str] = {}
        for record in self.records.values():
            for parent_id in record["parent_ids"][:1]:
                if parent_id not in self.records:
                    known = self.commits.get(parent_id)
                    found[parent_id] = stored[parent_id] if known is None else known["snapshot_id"]
        return found


def stretches(commits: CommitSpool, order: Sequence[int], snapshots: DigestTable) -> Iterator[Stretch]:
    """Yield the stretches of a pack.

    Args:
        commits: its commits.
        order: their numbers, parents before children.
        snapshots: the ids of its snapshots, in its order.
    """
    start = first = 0
    for end, last in _cuts(commits, order, snapshots):
        records = {}
        for number in order[start:end]:
            commit_id = commits.commit_id(number)
            records[commit_id] = commits[commit_id]
        positions = {from_digest(snapshots[position]): position for position in range(first, last)}
        yield Stretch(records, positions, commits)
        start, first = end, last


def _cuts(commits: CommitSpool, order: Sequence[int], snapshots: DigestTable) -> list[tuple[int, int]]:
    """Return where each stretch ends: after so many commits, and so many snapshots."""
    cuts: list[tuple[int, int]] = []
    needed = before = 0
    whole = (len(order), snapshots.count)
    for place, number in enumerate(order, 1):
        position = snapshots.find(to_digest(commits.snapshot_id(number)))
        if position is not None and position >= needed:
            needed = position + 1
        if place % STRETCH == 0 and place < len(order):
            if needed - before > _MOST_SNAPSHOTS * STRETCH:
                return [whole]
            cuts.append((place, needed))
            before = needed
    if snapshots.count - before > _MOST_SNAPSHOTS * STRETCH:
        return [whole]
    return [*cuts, whole]


class Introduced:
    """The blobs that each commit introduces, in the order of the commits, in a few bytes each.

    Args:
        objects: numbers the blobs.
    """

    def __init__(self, objects: DigestTable) -> None:
        self._objects = objects
        self._numbers = array("I")
        self._ends = array("I", [0])

    def extend(self, commits: Iterable[Collection[str]]) -> None:
        """Add what further commits introduce."""
        for object_ids in commits:
            self._numbers.extend(self._objects.number(to_digest(object_id)) for object_id in object_ids)
            self._ends.append(len(self._numbers))

    def commits(self, commits: CommitSpool, order: Sequence[int]) -> Iterator[NewCommit]:
        """Yield the commits as the packed graph takes them.

        Args:
            commits: they, and perhaps others.
            order: their numbers, in the order in which they were added here.
        """
        for place, number in enumerate(order):
            parent_ids = list(map(commits.commit_id, commits.parents(number)))
            yield NewCommit(commits.commit_id(number), commits.snapshot_id(number), parent_ids, self[place])

    def __getitem__(self, place: int) -> Collection[str]:
        return _Blobs(self._objects, self._numbers[self._ends[place] : self._ends[place + 1]])


class _Blobs(Collection[str]):
    def __init__(self, objects: DigestTable, numbers: Collection[int]) -> None:
        self._objects = objects
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[str]:
        return (from_digest(self._objects[number]) for number in self._numbers)

    def __contains__(self, object_id: object) -> bool:
        return isinstance(object_id, str) and self._objects.find(to_digest(object_id)) in self._numbers


class FirstPaths:
    """For each of many objects, by number, the first path that was noted for it: in a file, but for some bytes each."""

    def __init__(self) -> None:
        self._stored = Overflow()
        self._tail = bytearray()
        self._places = array("Q")
        self._sizes = array("H")

    def note(self, number: int, path: str) -> None:
        """Note where an object is, unless that is known; a path has no more than 65,535 bytes."""
        sizes = self._sizes
        if number >= len(sizes):
            more = number + 1 - len(sizes)
            sizes.extend([0] * more)
            self._places.extend([0] * more)
        if sizes[number] == 0:
            text = path.encode()
            self._places[number] = self._stored.size + len(self._tail)
            sizes[number] = len(text)
            self._tail += text
            if len(self._tail) > _HELD:
                self._stored.append(self._tail)
                self._tail = bytearray()

    def first(self, number: int) -> str:
        """Return an object's first path; empty where none was noted."""
        if number >= len(self._sizes):
            return ""
        place, size = self._places[number], self._sizes[number]
        start = place - self._stored.size
        return (self._tail[start : start + size] if start >= 0 else self._stored.read(place, size)).decode()
