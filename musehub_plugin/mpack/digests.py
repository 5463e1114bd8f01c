"""Numbers digests in the order in which they come, in some 40 bytes each where they are many.

A dict takes over 200 bytes for each, and a quarter of the time.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence

from musehub_plugin import ids

_SMALLEST = 64
# As a dict they take up to 6 MB.
_FEW = 1 << 15
# Placed at once, so that growing copies no more than these.
_PIECE = 1 << 13


def sorted_ordinals(count: int, part: Callable[[int, int], bytes]) -> Iterator[int]:
    """Yield the ordinals of digests in the order of the digests; sorts the 256th part of them at a time.

    Args:
        count: how many there are.
        part: returns the digests from one ordinal up to another, one after the other.
    """
    buckets = [array("I") for _ in range(256)]
    for start in range(0, count, _PIECE):
        for ordinal, first in enumerate(part(start, min(start + _PIECE, count))[::32], start):
            buckets[first].append(ordinal)
    for bucket in buckets:
        yield from sorted(bucket, key=lambda ordinal: part(ordinal, ordinal + 1))


class DigestTable:
    """Digests, each once, numbered from 0 in the order in which they were added.

    Attributes:
        count: how many there are.
    """

    def __init__(self) -> None:
        self.count = 0
        self._digests = bytearray()
        self._few: dict[bytes, int] | None = {}
        # Past these an open hash table of ordinals plus 1; Python's hash of bytes is keyed, so nobody can make it slow.
        self._slots = array("I")
        self._mask = 0

    def __getitem__(self, ordinal: int) -> bytes:
        return self.part(ordinal, ordinal + 1)

    def part(self, start: int, stop: int) -> bytes:
        """Return the digests from one ordinal up to another, one after the other."""
        return bytes(self._digests[32 * start : 32 * stop])

    def sorted_ordinals(self) -> Iterator[int]:
        """Yield the ordinals in the order of their digests."""
        return sorted_ordinals(self.count, self.part)

    def find(self, digest: bytes) -> int | None:
        """Return the ordinal of a digest, or None where it was not added."""
        if self._few is not None:
            return self._few.get(digest)
        slots, digests, mask = self._slots, self._digests, self._mask
        slot = hash(digest) & mask
        while found := slots[slot]:
            if digests.startswith(digest, 32 * found - 32):
                return found - 1
            slot = (slot + 1) & mask
        return None

    def number(self, digest: bytes) -> int:
        """Return the ordinal of a digest, which is added where it is not there: it then is the length before."""
        if self._few is not None:
            ordinal = self.count
            known = self._few.setdefault(digest, ordinal)
            if known == ordinal:
                self._digests += digest
                self.count += 1
                if ordinal == _FEW:
                    self._make_slots()
                    self._place(0)
            return known
        slots, digests, mask = self._slots, self._digests, self._mask
        slot = hash(digest) & mask
        while found := slots[slot]:
            if digests.startswith(digest, 32 * found - 32):
                return found - 1
            slot = (slot + 1) & mask
        ordinal = self.count
        self.count += 1
        digests += digest
        slots[slot] = ordinal + 1
        if 3 * ordinal > 2 * mask:
            self._grow()
        return ordinal

    def number_all(self, digests: Sequence[bytes]) -> list[int]:
        """Return the ordinals of digests, added as `number` adds them, in a third of its time where they are few."""
        few = self._few
        if few is None or self.count + len(digests) > _FEW:
            return list(map(self.number, digests))
        new = [digest for digest in dict.fromkeys(digests) if digest not in few]
        few.update(zip(new, range(self.count, self.count + len(new)), strict=True))
        self._digests += b"".join(new)
        self.count += len(new)
        return list(map(few.__getitem__, digests))

    def extend(self, digests: bytes) -> None:
        """Add many at once, 32 bytes each.

        Raises:
            ValueError: one is there already.
        """
        start = self.count
        self._digests += digests
        self.count += len(digests) // 32
        if self._few is not None and self.count <= _FEW:
            for ordinal in range(start, self.count):
                digest = digests[32 * (ordinal - start) : 32 * (ordinal - start) + 32]
                if self._few.setdefault(digest, ordinal) != ordinal:
                    raise ValueError(f"{ids.from_digest(digest)} was added before")
            return
        if self._few is not None or 3 * self.count > 2 * len(self._slots):
            start = 0
            self._make_slots()
        self._place(start)

    def _make_slots(self) -> None:
        """Make an empty hash table that has room for all that there are."""
        self._few = None
        size = max(_SMALLEST, len(self._slots))
        while 3 * self.count > 2 * size:
            size *= 2
        self._resize(size)

    def _grow(self) -> None:
        self._resize(4 * len(self._slots))
        self._place(0)

    def _resize(self, size: int) -> None:
        # Not out of bytes, which would be as many again for a moment.
        self._slots = array("I", [0]) * size
        self._mask = size - 1

    def _place(self, start: int) -> None:
        for first in range(start, self.count, _PIECE):
            self._place_some(first, min(first + _PIECE, self.count))

    def _place_some(self, start: int, stop: int) -> None:
        slots, digests, mask, part = self._slots, self._digests, self._mask, self.part(start, stop)
        for ordinal in range(start, stop):
            digest = part[32 * (ordinal - start) : 32 * (ordinal - start) + 32]
            slot = hash(digest) & mask
            while found := slots[slot]:
                if digests.startswith(digest, 32 * found - 32):
                    raise ValueError(f"{ids.from_digest(digest)} was added before")
                slot = (slot + 1) & mask
            slots[slot] = ordinal + 1
