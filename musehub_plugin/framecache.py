"""Decompressed frames of mpacks on this machine's disk, for small fetches.

A fetch of one commit needs a few blobs of a few KB, each from a frame of up to 16 MiB that takes some 15 ms to get and
decompress. Here the frame is there for whoever comes next. What is read is checked against the blob's id by the reader
of blobs, so that nothing here has to be right.
"""

from __future__ import annotations

import os
import tempfile
import threading
import weakref
from collections.abc import Iterable
from typing import IO

# A frame that takes more than this part of the whole would push all others out.
_LARGEST_PART = 4


class FrameCache:
    """A ring of frames in a file without a name, which goes with the process. Safe for use by several threads.

    Args:
        max_bytes: of disk; 0: nothing is kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._filling = threading.Lock()
        self._file: IO[bytes] | None = None
        self._owner = 0
        self._next = 0
        self._places: dict[tuple[str, int], tuple[int, int]] = {}

    def read(self, mpack_id: str, frame: int, offset: int, size: int) -> bytes | None:
        """Return bytes of a frame, or None where it is not here or they run on into the next one."""
        with self._lock:
            place = self._places.get((mpack_id, frame)) if self._owner == os.getpid() else None
            if place is None or self._file is None or offset + size > place[1]:
                return None
            return os.pread(self._file.fileno(), size, place[0] + offset)

    def keep(self, mpack_id: str, frame: int, size: int, pieces: Iterable[bytes]) -> None:
        """Keep a frame, over the oldest ones. Where the disk has no room, nothing is kept.

        One thread at a time does so, so that no more than one frame is on its way however many ask.

        Args:
            mpack_id: whose it is.
            frame: its number.
            size: bytes that it has decompressed.
            pieces: these, asked for as they are written.
        """
        if size > self._max_bytes // _LARGEST_PART:
            return
        with self._filling:
            place = self._reserve(mpack_id, frame, size)
            if place is None:
                return
            file, start = place
            at = start
            for piece in pieces:
                try:
                    os.pwrite(file.fileno(), piece, at)
                except OSError:
                    return
                at += len(piece)
            if at == start + size:
                with self._lock:
                    self._places[mpack_id, frame] = (start, size)

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
            self._next = start + size
            return self._file, start

    def _forget(self, start: int, end: int) -> None:
        for key in [key for key, (at, size) in self._places.items() if at < end and start < at + size]:
            del self._places[key]
