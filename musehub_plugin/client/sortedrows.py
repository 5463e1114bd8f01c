"""Sorts rows of one size that begin with a digest, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from musehub_plugin.mpack.overflow import Overflow

_HELD_BYTES: Final = 1 << 23
_BUCKETS: Final = 256
_ONE_SHARE: Final = 1 << 20


class SortedRows:
    """Rows that come in any order and are given sorted.

    They are kept apart by their first bytes, which digests have in equal shares; each share is sorted by itself.

    Args:
        size: bytes of a row.
        folder: where a file is made of what memory has no room for.
    """

    def __init__(self, size: int, folder: Path) -> None:
        self._size = size
        self._buckets = [bytearray() for _ in range(_BUCKETS)]
        self._held = 0
        self._overflow = Overflow(folder)
        self._places: list[list[tuple[int, int]]] = [[] for _ in range(_BUCKETS)]

    def __len__(self) -> int:
        return (self._held + self._overflow.size) // self._size

    def add(self, row: bytes) -> None:
        """Add a row."""
        self._buckets[row[0]] += row
        self._held += self._size
        if self._held >= _HELD_BYTES:
            for bucket, places in zip(self._buckets, self._places, strict=True):
                if bucket:
                    places.append((self._overflow.append(bucket), len(bucket)))
                    bucket.clear()
            self._held = 0

    def shares(self) -> Iterator[list[bytes]]:
        """Yield the rows, in sorted lists of which each follows on the one before."""
        size = self._size
        if self._held <= _ONE_SHARE and not self._overflow.size:
            rows = b"".join(self._buckets)
            yield sorted([rows[start : start + size] for start in range(0, len(rows), size)])
            return
        for bucket, places in zip(self._buckets, self._places, strict=True):
            if bucket or places:
                rows = b"".join([*(self._overflow.read(*place) for place in places), bucket])
                yield sorted([rows[start : start + size] for start in range(0, len(rows), size)])
