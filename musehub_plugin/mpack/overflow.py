"""A file without a name, for what memory has no room for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO


class Overflow:
    """Bytes that are appended, and read at any place.

    Args:
        folder: where the file is made; None: where the system has such files.
        held: bytes up to which there is none, and all are in memory.

    Attributes:
        size: bytes in it.
    """

    def __init__(self, folder: Path | None = None, *, held: int = 0) -> None:
        self._folder = folder
        self._held = held
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self.size = 0

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def handle(self) -> int | None:
        """The file's descriptor, which a fork must keep open to read it; None where there is no file yet."""
        return None if self._file is None else self._file.fileno()

    def append(self, data: bytes | bytearray) -> int:
        """Add bytes at the end, and return their place."""
        place = self.size
        self.size += len(data)
        if self.size <= self._held:
            self._memory += data
            return place
        if self._file is None:
            # Here and not above: most packs fit in memory.
            from tempfile import TemporaryFile

            # Unbuffered: `read` goes by the descriptor.
            self._file = TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115 - closed with this object
            if self._memory:
                data, self._memory = self._memory + data, bytearray()
        with memoryview(data) as view:
            written = 0
            while written < len(view):
                written += self._file.write(view[written:]) or 0
        return place

    def read(self, place: int, size: int) -> bytes:
        """Return `size` bytes from a place on; less where the file ends before."""
        if size <= 0:
            return b""
        if self._file is None:
            return bytes(self._memory[place : place + size])
        data = os.pread(self._file.fileno(), size, place)
        while len(data) < size and (more := os.pread(self._file.fileno(), size - len(data), place + len(data))):
            data += more
        return data
