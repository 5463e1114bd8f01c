"""The commits of a pack that is being pushed, however many: their shape in memory, their records in a file.

A record of a commit takes over a kilobyte as Python has it. What checks and plans ask for is who its parents are, and
its snapshot; that is some hundred bytes.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgpack

from musehub_plugin import graph
from musehub_plugin.ids import from_digest, to_digest
from musehub_plugin.mpack.digests import DigestTable
from musehub_plugin.mpack.overflow import Overflow

_NOWHERE = 0xFFFF_FFFF_FFFF_FFFF
# Bytes of records that are held in memory: small pushes need no file.
_HELD = 1 << 20


class CommitSpool(Mapping[str, Mapping[str, Any]]):
    """Commits by their ids; what is found there has `parent_ids` and `snapshot_id`.

    Ids are numbered in the order in which they were first named, be it as a commit's or as a parent's.
    """

    def __init__(self) -> None:
        self._stored = Overflow()
        self._tail = bytearray()
        self._known = DigestTable()
        self._snapshots = DigestTable()
        # By number: where its record is and how long, its snapshot, and where its parents are among all.
        self._offsets = array("Q")
        self._sizes = array("I")
        self._snapshot_of = array("I")
        self._parents_from = array("I")
        self._parents = array("I")
        # The commits, in the order in which they came; each one's parents end where the next one's begin.
        self._order = array("I")

    def add(self, record: Mapping[str, Any]) -> None:
        """Append a commit that is not there yet."""
        number = self.number(record["commit_id"])
        parents = [self.number(parent_id) for parent_id in record["parent_ids"]]
        packed: bytes = msgpack.packb(record)
        self._offsets[number] = self._stored.size + len(self._tail)
        self._sizes[number] = len(packed)
        self._snapshot_of[number] = self._snapshots.number(to_digest(record["snapshot_id"]))
        self._parents_from[number] = len(self._parents)
        self._parents.append(len(parents))
        self._parents.extend(parents)
        self._order.append(number)
        self._tail += packed
        if len(self._tail) > _HELD:
            self._stored.append(self._tail)
            self._tail = bytearray()

    @property
    def named(self) -> int:
        """How many ids have a number."""
        return self._known.count

    def number(self, commit_id: str) -> int:
        """Return the number of an id, which is given one where it has none."""
        number = self._known.number(to_digest(commit_id))
        if number == len(self._offsets):
            self._offsets.append(_NOWHERE)
            self._sizes.append(0)
            self._snapshot_of.append(0)
            self._parents_from.append(0)
        return number

    def _is_here(self, number: int) -> bool:
        return self._offsets[number] != _NOWHERE

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[str]:
        return map(self.commit_id, self._order)

    def __contains__(self, commit_id: object) -> bool:
        number = self._known.find(to_digest(commit_id)) if isinstance(commit_id, str) else None
        return number is not None and self._is_here(number)

    def __getitem__(self, commit_id: str) -> Mapping[str, Any]:
        number = self._known.find(to_digest(commit_id))
        if number is None or not self._is_here(number):
            raise KeyError(commit_id)
        return {
            "parent_ids": list(map(self.commit_id, self.parents(number))),
            "snapshot_id": self.snapshot_id(number),
        }

    def commit_id(self, number: int) -> str:
        """Return the id with a number."""
        return from_digest(self._known[number])

    def snapshot_id(self, number: int) -> str:
        """Return the id of a commit's snapshot."""
        return from_digest(self._snapshots[self._snapshot_of[number]])

    def parents(self, number: int) -> Sequence[int]:
        """Return the numbers of a commit's parents, in their order; not all of them are commits that came."""
        start = self._parents_from[number]
        return self._parents[start + 1 : start + 1 + self._parents[start]]

    def outside_parents(self) -> dict[str, str]:
        """Return the parents that did not come, each with a commit that names it."""
        found: dict[int, int] = {}
        for number in self._order:
            for parent in self.parents(number):
                if not self._is_here(parent):
                    found.setdefault(parent, number)
        return {self.commit_id(parent): self.commit_id(child) for parent, child in found.items()}

    def outside_snapshots(self, inside: DigestTable) -> dict[str, str]:
        """Return the snapshots that are not `inside`, each with a commit that names it."""
        lacking = {
            snapshot: from_digest(self._snapshots[snapshot])
            for snapshot in range(self._snapshots.count)
            if inside.find(self._snapshots[snapshot]) is None
        }
        found: dict[str, str] = {}
        if lacking:
            for number in self._order:
                snapshot = self._snapshot_of[number]
                if snapshot in lacking:
                    found.setdefault(lacking[snapshot], self.commit_id(number))
        return found

    def history_order(self) -> Sequence[int]:
        """Return the numbers of the commits, parents before children: as they came, where that is such an order."""
        seen = bytearray(self._known.count)
        for number in self._order:
            if any(self._is_here(parent) and not seen[parent] for parent in self.parents(number)):
                return graph.history_order(set(self._order), self.parents, self._order, key=self._known.__getitem__)
            seen[number] = 1
        return self._order

    def in_order_of_ids(self) -> Iterator[int]:
        """Yield the numbers of the commits in the order of their ids."""
        return filter(self._is_here, self._known.sorted_ordinals())

    def record(self, number: int) -> dict[str, Any]:
        """Return a commit's record as it came."""
        place, size = self._offsets[number], self._sizes[number]
        start = place - self._stored.size
        packed = bytes(self._tail[start : start + size]) if start >= 0 else self._stored.read(place, size)
        found: dict[str, Any] = msgpack.unpackb(packed)
        return found
