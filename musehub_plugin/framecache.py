"""Decompressed frames of mpacks on this machine's disk, for small fetches.

A fetch of one commit needs a few blobs of a few KB, each from a frame of up to 16 MiB that takes some 15 ms to get and
decompress. Here the frame is there for whoever comes next. What is read is checked against the blob's id by the reader
of blobs, so that nothing here has to be right.

Frames of an mpack that would push out most others, or one another, are kept in small parts that are compressed each by
itself: 4 to 16 times as many have room (8 real and synthetic frames). To compress one takes 10 to 30 ms, and each blob
that is read from it some 30 us more. On a history of 100,000 commits, which has 70 frames, 100 commits need nearly all.
"""

from __future__ import annotations

import os
import tempfile
import threading
import weakref
from array import array
from collections.abc import Iterable, Iterator
from typing import IO, NamedTuple

from musehub_plugin.mpack.zstd import ZstdError, compress, decompress

# A frame that takes more than this part of the whole would push all others out.
_LARGEST_PART = 4
# Of a frame that is kept compressed: half of it makes a blob a third cheaper to read, and 1.5 times as large.
_PART_LOG = 16
_PART = 1 << _PART_LOG
_LEVEL = 1


class _Place(NamedTuple):
    """Where a frame is in the file.

    Attributes:
        start: where it begins.
        room: bytes that it may take there.
        size: bytes that it has decompressed.
        ends: where each of its parts ends, where these are compressed.
    """

    start: int
    room: int
    size: int
    ends: array[int] | None


class FrameCache:
    """A ring of frames in a file without a name, which goes with the process. Safe for use by several threads.

    Args:
        max_bytes: of disk; 0: nothing is kept.
        passing: each frame is read by one reader, while it is here: none is worth compressing.

    Attributes:
        passing: likewise; it may be set where that turns out later.
    """

    def __init__(self, max_bytes: int, *, passing: bool = False) -> None:
        self._max_bytes = max_bytes
        self.passing = passing
        self._lock = threading.Lock()
        self._filling = threading.Lock()
        self._file: IO[bytes] | None = None
        self._owner = 0
        self._next = 0
        self._places: dict[tuple[str, int], _Place] = {}

    def read(self, mpack_id: str, frame: int, offset: int, size: int) -> bytes | None:
        """Return bytes of a frame, or None where it is not here, or they are not all in it."""
        # A row may say anything: what is wrong is for the next place to make good.
        if offset < 0 or size < 0:
            return None
        with self._lock:
            place = self._places.get((mpack_id, frame)) if self._owner == os.getpid() else None
            if place is None or self._file is None or offset + size > place.size:
                return None
            if place.ends is None:
                return os.pread(self._file.fileno(), size, place.start + offset)
            first, last = offset >> _PART_LOG, (offset + size - 1) >> _PART_LOG
            start = place.ends[first - 1] if first else place.start
            stored = os.pread(self._file.fileno(), place.ends[last] - start, start)
        parts = []
        at = 0
        for part in range(first, last + 1):
            end = place.ends[part] - start
            try:
                parts.append(_unpacked(stored[at:end], min(_PART, place.size - (part << _PART_LOG))))
            except ZstdError:
                # The disk gave something else back: the frame is as good as not here.
                return None
            at = end
        offset -= first << _PART_LOG
        return b"".join(parts)[offset : offset + size]

    def keep(self, mpack_id: str, frame: int, size: int, pieces: Iterable[bytes], *, mpack_bytes: int = 0) -> None:
        """Keep a frame, over the oldest ones. Where the disk has no room, nothing is kept.

        One thread at a time does so, so that no more than one frame is on its way however many ask.

        Args:
            mpack_id: whose it is.
            frame: its number.
            size: bytes that it has decompressed.
            pieces: these, asked for as they are written.
            mpack_bytes: what all frames of the mpack have decompressed. Where that is more than half of what has room,
                this one is kept compressed.
        """
        if size > self._max_bytes // _LARGEST_PART:
            return
        with self._filling:
            place = self._reserve(mpack_id, frame, size)
            if place is None:
                return
            file, start = place
            ends = array("Q") if 2 * mpack_bytes > self._max_bytes and not self.passing else None
            at, given = start, 0
            for raw in pieces if ends is None else _parts(pieces):
                given += len(raw)
                if given > size:
                    return
                piece = raw if ends is None else _packed(raw)
                try:
                    os.pwrite(file.fileno(), piece, at)
                except OSError:
                    return
                at += len(piece)
                if ends is not None:
                    ends.append(at)
            if given == size:
                with self._lock:
                    self._next = at
                    self._places[mpack_id, frame] = _Place(start, at - start, size, ends)

    def _reserve(self, mpack_id: str, frame: int, size: int) -> tuple[IO[bytes], int] | None:
        with self._lock:
            if self._owner != os.getpid():
                # A fork has the parent's file, and its own idea of what is where.
                if self._file is not None:
                    self._file.close()
                self._file, self._owner, self._next = None, os.getpid(), 0
                self._places.clear()
            if (mpack_id, frame) in self._places:
                return None
            if self._file is None:
                try:
                    self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it is open as long as the cache lives
                except OSError:
                    return None
                weakref.finalize(self, self._file.close)
            start = self._next if self._next + size <= self._max_bytes else 0
            self._forget(start, start + size)
            return self._file, start

    def _forget(self, start: int, end: int) -> None:
        for key in [key for key, at in self._places.items() if at.start < end and start < at.start + at.room]:
            del self._places[key]


def _parts(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in parts of one size."""
    held = b""
    for piece in pieces:
        held += piece
        whole = len(held) - len(held) % _PART
        for start in range(0, whole, _PART):
            yield held[start : start + _PART]
        held = held[whole:]
    if held:
        yield held


def _packed(raw: bytes) -> bytes:
    packed = compress(raw, level=_LEVEL, window_log=_PART_LOG)
    return packed if len(packed) < len(raw) else raw


def _unpacked(stored: bytes, size: int) -> bytes:
    return stored if len(stored) == size else decompress(stored, size, window_log=_PART_LOG)
