"""A file over range requests: few and large ones for a reader that goes forward, small ones for one that jumps.

While a reader that goes forward works at one piece, the next one is on its way.
"""

from __future__ import annotations

import io
import logging
import os
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)

FIRST_WINDOW = 256 * 1024
MAX_WINDOW = 8 * 1024 * 1024


class _Ahead:
    """A piece that a thread fetches before it is asked for."""

    def __init__(self, fetch: Callable[[int, int], bytes], offset: int, length: int) -> None:
        self.offset = offset
        self._data: bytes | None = None
        self._thread = threading.Thread(target=self._run, args=(fetch, length), name="range-ahead", daemon=True)
        self._thread.start()

    def _run(self, fetch: Callable[[int, int], bytes], length: int) -> None:
        try:
            self._data = fetch(self.offset, length)
        except Exception as error:  # noqa: BLE001 - whoever needs the piece asks again, and is told what is wrong then
            logger.debug("a piece was not fetched ahead: %s", type(error).__name__)

    @property
    def is_done(self) -> bool:
        """Whether the thread has ended."""
        return not self._thread.is_alive()

    def take(self) -> bytes | None:
        """Wait for the piece and return it; None where it could not be fetched."""
        self._thread.join()
        return self._data


class RangeFile(io.BufferedIOBase):
    """A seekable, read-only binary file whose bytes are fetched when they are read.

    What is fetched starts at 256 KiB and doubles up to 8 MiB as long as reads go on where the last fetch ended, so
    that a sequential reader of a large file makes few requests. It holds at most 16 MiB beside what it asked for: the
    piece that it reads, and the one that follows.

    Args:
        fetch: returns exactly the bytes from an offset (first argument) for a length (second argument); may be called
            by another thread.
        size: the file's size in bytes.
    """

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        self._fetch = fetch
        self._size = size
        self._position = 0
        self._start = 0
        self._buffer = b""
        self._window = FIRST_WINDOW
        self._ahead: _Ahead | None = None

    def close(self) -> None:
        """Close the file, once no request of its own is under way."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.take()
        super().close()

    def readable(self) -> bool:
        """Say that the file can be read."""
        return True

    def seekable(self) -> bool:
        """Say that the file can be read in any order."""
        return True

    def tell(self) -> int:
        """Return the position of the next read."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move the next read; nothing is fetched.

        Raises:
            ValueError: the position would be negative, or `whence` is unknown.
        """
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}.get(whence)
        if base is None or base + offset < 0:
            raise ValueError(f"cannot seek to {offset} from {whence}")
        self._position = base + offset
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        """Return `size` bytes, fewer at the end of the file only; all that is left where `size` is negative."""
        if self.closed:
            raise ValueError("read of a closed file")
        left = max(0, self._size - self._position)
        wanted = left if size is None or size < 0 else min(size, left)
        pieces = []
        while wanted:
            piece = self._piece(wanted)
            pieces.append(piece)
            wanted -= len(piece)
            self._position += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read1(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes with at most one request."""
        left = max(0, self._size - self._position)
        wanted = min(left, FIRST_WINDOW if size < 0 else size)
        piece = self._piece(wanted) if wanted else b""
        self._position += len(piece)
        return piece

    def _piece(self, wanted: int) -> bytes:
        """Return 1 to `wanted` bytes from the position on, from the buffer or by one request."""
        at = self._position - self._start
        if 0 <= at < len(self._buffer):
            return self._buffer[at : at + wanted]
        goes_on = at == len(self._buffer) and self._buffer != b""
        # Not beside what takes its place.
        self._buffer = b""
        self._window = min(self._window * 2, MAX_WINDOW) if goes_on else FIRST_WINDOW
        data = self._fetched_ahead()
        if data is None:
            length = min(max(wanted, self._window), self._size - self._position)
            data = self._fetch(self._position, length)
        if goes_on:
            self._look_ahead(self._position + len(data))
        if len(data) > MAX_WINDOW:
            # Too large to keep beside the caller's own copy; only where it ended is remembered.
            self._start, self._buffer = self._position + len(data) - 1, data[-1:]
            return data
        self._start, self._buffer = self._position, data
        return data[:wanted]

    def _fetched_ahead(self) -> bytes | None:
        """Return the piece at the position, if that is what was fetched ahead."""
        ahead = self._ahead
        if ahead is None or ahead.offset != self._position:
            return None
        self._ahead = None
        return ahead.take()

    def _look_ahead(self, offset: int) -> None:
        """Begin to fetch what follows, unless that is the end, or a piece that nobody wanted is still under way."""
        if offset < self._size and (self._ahead is None or self._ahead.is_done):
            length = min(self._window * 2, MAX_WINDOW, self._size - offset)
            self._ahead = _Ahead(self._fetch, offset, length)
