"""A `DigestTable` that keeps most of its digests in a file: 4 bytes a slot and 2 for each digest are in memory."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Final

from musehub_plugin import ids
from musehub_plugin.mpack.digests import DigestTable
from musehub_plugin.mpack.overflow import Overflow

# 4 MiB of digests.
_HELD: Final = 1 << 17
_PRINT: Final = 0xFFFF


class WideDigestTable(DigestTable):
    """Digests, each once, numbered from 0 in the order in which they were added.

    Args:
        folder: where a file is made, past some hundred thousand.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._make_slots()
        self._overflow = Overflow(folder)
        self._stored = 0
        # A part of each digest's hash, so that hardly any other is read to be told apart.
        self._prints = array("H")

    def part(self, start: int, stop: int) -> bytes:
        """Return the digests from one ordinal up to another, one after the other."""
        stop = min(stop, self.count)
        split = min(max(start, self._stored), stop)
        stored = self._overflow.read(32 * start, 32 * (split - start))
        return stored + bytes(self._digests[32 * (split - self._stored) : 32 * (stop - self._stored)])

    def find(self, digest: bytes) -> int | None:
        """Return the ordinal of a digest, or None where it was not added."""
        found = self._slots[self._slot(digest)]
        return found - 1 if found else None

    def number(self, digest: bytes) -> int:
        """Return the ordinal of a digest, which is added where it is not there: it then is the length before."""
        slot = self._slot(digest)
        found = self._slots[slot]
        if found:
            return found - 1
        ordinal = self.count
        self._append(digest)
        self._slots[slot] = ordinal + 1
        if 3 * ordinal > 2 * self._mask:
            self._grow()
        return ordinal

    def extend(self, digests: bytes) -> None:
        """Add many at once, 32 bytes each.

        Raises:
            ValueError: one is there already.
        """
        for start in range(0, len(digests), 32):
            known = self.count
            digest = digests[start : start + 32]
            if self.number(digest) != known:
                raise ValueError(f"{ids.from_digest(digest)} was added before")

    def _append(self, digest: bytes) -> None:
        self._prints.append(hash(digest) >> 32 & _PRINT)
        self._digests += digest
        self.count += 1
        if len(self._digests) >= 32 * _HELD:
            self._overflow.append(self._digests)
            self._stored = self.count
            self._digests = bytearray()

    def _slot(self, digest: bytes) -> int:
        """Return the slot where a digest is, or may be put."""
        slots, mask, prints = self._slots, self._mask, self._prints
        key = hash(digest)
        slot, mark = key & mask, key >> 32 & _PRINT
        while found := slots[slot]:
            if prints[found - 1] == mark and self[found - 1] == digest:
                break
            slot = (slot + 1) & mask
        return slot

    def _place_some(self, start: int, stop: int) -> None:
        slots, mask, part = self._slots, self._mask, self.part(start, stop)
        for ordinal in range(start, stop):
            # Each is there once: a slot that is taken is another's.
            slot = hash(part[32 * (ordinal - start) : 32 * (ordinal - start) + 32]) & mask
            while slots[slot]:
                slot = (slot + 1) & mask
            slots[slot] = ordinal + 1
