"""Digests by number, each once, however many: past some memory they are in a file that has no name."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from struct import iter_unpack

from musehub_plugin.mpack.overflow import Overflow

# 8 MiB of digests.
_HELD = 1 << 18
_PIECE = 1 << 13
# So many are compared as they come, which takes some 130 bytes for each.
_EXACT = 1 << 15
_BUCKETS = 256


class DigestList:
    """Digests in the order in which they come.

    Which of them come twice is known at once for the first some ten thousand. Of the others 8 bytes each are kept
    until all have come: Python's hash of bytes, which is keyed, so that nobody can make two of them the same on
    purpose; where two are, the digests themselves are compared.

    Args:
        folder: where the file is made, if one is needed; None: where the system has such files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._overflow = Overflow(folder)
        self._stored = 0
        self._tail = bytearray()
        self._recent: set[bytes] = set()
        self._prints: list[array[int]] = []

    def __len__(self) -> int:
        return self._stored + len(self._tail) // 32

    def __getitem__(self, ordinal: int) -> bytes:
        start = 32 * (ordinal - self._stored)
        return bytes(self._tail[start : start + 32]) if start >= 0 else self._overflow.read(32 * ordinal, 32)

    def __iter__(self) -> Iterator[bytes]:
        return self.each(0, len(self))

    def each(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the digests from one ordinal up to another."""
        for first in range(start, stop, _PIECE):
            for (digest,) in iter_unpack("32s", self.part(first, min(first + _PIECE, stop))):
                yield digest

    @property
    def handle(self) -> int | None:
        """The descriptor of the file, which a fork must keep open to read this list; None where there is no file."""
        return self._overflow.handle

    def part(self, start: int, stop: int) -> bytes:
        """Return the digests from one ordinal up to another, one after the other."""
        split = min(max(start, self._stored), stop)
        stored = self._overflow.read(32 * start, 32 * (split - start))
        return stored + bytes(self._tail[32 * (split - self._stored) : 32 * (stop - self._stored)])

    def add(self, digest: bytes) -> bool:
        """Add one; say False, and leave it, where it is known already that it was there before."""
        if digest in self._recent:
            return False
        self._recent.add(digest)
        self._tail += digest
        if len(self._recent) >= _EXACT or len(self._tail) >= 32 * _HELD:
            self._make_room()
        return True

    def extend(self, digests: bytes) -> int | None:
        """Add some, 32 bytes each; return the ordinal of one that was there before, as far as that is known already."""
        before = len(self._recent)
        added = [digest for (digest,) in iter_unpack("32s", digests)]
        self._recent.update(added)
        first = len(self)
        self._tail += digests
        if len(self._recent) < before + len(added):
            return self._repeated(set(added), first)
        self._make_room()
        return None

    def first_repeat(self) -> int | None:
        """Return the ordinal of a digest that was there before, None where each is there once; all have come."""
        if self._prints:
            self._take_prints()
            prints, self._prints = self._prints, []
            for bucket in prints:
                if len(set(bucket)) < len(bucket):
                    alike = {value for value, count in Counter(bucket).items() if count > 1}
                    found = self._repeated({digest for digest in self if hash(digest) in alike})
                    if found is not None:
                        return found
        self._recent = set()
        return None

    def _repeated(self, among: set[bytes], start: int = 0) -> int | None:
        """Return the ordinal, from `start` on, of one of these digests that was there before it."""
        seen: set[bytes] = set()
        for ordinal, digest in enumerate(self):
            if digest in among:
                if digest in seen and ordinal >= start:
                    return ordinal
                seen.add(digest)
        return None

    def _make_room(self) -> None:
        if len(self._recent) >= _EXACT:
            self._take_prints()
        if len(self._tail) >= 32 * _HELD:
            self._overflow.append(self._tail)
            self._stored = len(self)
            self._tail = bytearray()

    def _take_prints(self) -> None:
        self._prints = self._prints or [array("q") for _ in range(_BUCKETS)]
        add = [bucket.append for bucket in self._prints]
        for value in map(hash, self._recent):
            add[value % _BUCKETS](value)
        self._recent.clear()
