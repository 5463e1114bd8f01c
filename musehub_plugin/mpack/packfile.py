"""The file of a pack: where its frames are, and what is in them, decompressed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from musehub_plugin.mpack.layout import (
    MAGIC,
    OPTIONAL_KIND,
    TRAILER_SIZE,
    Codec,
    Frame,
    Kind,
    Toc,
    decode_frame,
    decode_frame_pieces,
    parse_toc,
    parse_trailer,
)
from musehub_plugin.mpack.limits import Limits, MPackError
from musehub_plugin.mpack.thin import FEATURE, BaseProvider, BaseReader, Bases, unpack_entries

if TYPE_CHECKING:
    from musehub_plugin.mpack.widebases import WideBases

# The end of the file is read in one piece: it holds the trailer and, but for the largest packs, the whole table.
_TAIL_BYTES = 1 << 16
# Of a frame that is wanted in pieces, so many bytes are read at once: most frames are stored in fewer.
_PART_BYTES = 4 << 20


class Source(Protocol):
    """What a pack is read from: a seekable binary file."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a place, counted from the start (0) or the end (2), and return it from the start."""
        ...

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes; none at the end only."""
        ...


class PackFile:
    """A pack's file, opened for reading.

    Args:
        source: the file.
        limits: what is accepted.
        bases: what the receiver holds, to read a thin pack.
        folder: where a file is made of bases that memory has no room for; None: where the system has such files.

    Attributes:
        size_bytes: size of the file.
        needs: the features without which the pack cannot be read.
        frames: the frames, as the table of contents has them.

    Raises:
        MPackError: here and wherever frames are read: the pack is malformed, or exceeds a limit.
    """

    def __init__(self, source: Source, limits: Limits, bases: BaseProvider | None, folder: Path | None = None) -> None:
        self._source = source
        self._limits = limits
        self.size_bytes = source.seek(0, os.SEEK_END)
        if self.size_bytes > limits.max_file_size:
            raise MPackError(f"file: {self.size_bytes} bytes are over the limit of {limits.max_file_size}")
        if self.size_bytes < len(MAGIC) + TRAILER_SIZE:
            raise MPackError(f"file: {self.size_bytes} bytes are too few for an mpack")
        if self._read(0, len(MAGIC), "magic") != MAGIC:
            raise MPackError("magic: the file is no mpack, or one of a version that this reader does not know")
        toc = self._read_toc()
        self.needs = toc.needs
        self.frames = toc.frames
        self._thin: BaseReader | None = None
        if FEATURE in toc.needs:
            if bases is None:
                raise MPackError(
                    "the pack needs 'thin', which this reader cannot do: it was not given what the pack starts from"
                )
            self._thin = BaseReader(toc.bases, bases, limits, self.size_bytes, folder)

    def _read(self, position: int, size: int, where: str) -> bytes:
        self._source.seek(position)
        data = self._source.read(size)
        if len(data) < size:
            parts = [data]
            while data and sum(map(len, parts)) < size:
                data = self._source.read(size - sum(map(len, parts)))
                parts.append(data)
            data = b"".join(parts)
        if len(data) != size:
            raise MPackError(f"{where}: the file is cut off")
        return data

    def _read_toc(self) -> Toc:
        tail_size = min(_TAIL_BYTES, self.size_bytes - len(MAGIC))
        tail = self._read(self.size_bytes - tail_size, tail_size, "trailer")
        stored_size, raw_size = parse_trailer(tail[-TRAILER_SIZE:], self.size_bytes, self._limits)
        start = self.size_bytes - TRAILER_SIZE - stored_size
        if stored_size + TRAILER_SIZE <= tail_size:
            stored = tail[tail_size - TRAILER_SIZE - stored_size : tail_size - TRAILER_SIZE]
        else:
            stored = self._read(start, stored_size, "table of contents")
        return parse_toc(stored, raw_size, start, self._limits)

    def of_kind(self, kind: Kind) -> list[tuple[int, Frame]]:
        """Return the frames of a kind, each with its ordinal in the file."""
        return [(ordinal, frame) for ordinal, frame in enumerate(self.frames) if frame.kind == kind]

    def count(self, kind: Kind) -> int:
        """Return how many entities the frames of a kind hold."""
        return sum(frame.count for frame in self.frames if frame.kind == kind)

    def stored(self, ordinal: int) -> bytes:
        """Return a frame's bytes as they are in the file."""
        frame = self.frames[ordinal]
        return self._read(frame.position, frame.stored, self._name(ordinal))

    def _name(self, ordinal: int) -> str:
        kind = self.frames[ordinal].kind
        return f"frame {ordinal} ({Kind(kind).name.lower()})" if kind < OPTIONAL_KIND else f"frame {ordinal}"

    def _packed(self, ordinal: int) -> tuple[bytes, bytes | None]:
        """Return what a frame decompresses from, and against which prefix."""
        stored = self.stored(ordinal)
        if self.frames[ordinal].codec != Codec.PREFIXED or self._thin is None:
            return stored, None
        where = self._name(ordinal)
        entries, end = unpack_entries(stored, where)
        return stored[end:], self._thin.prefix(ordinal, entries, where)

    def decode(self, ordinal: int) -> tuple[bytes, str]:
        """Return a frame's raw bytes, and its name for errors."""
        frame, where = self.frames[ordinal], self._name(ordinal)
        stored, prefix = self._packed(ordinal)
        window_log = self._limits.max_window_log
        raw = decode_frame(frame.codec, stored, frame.raw, where=where, window_log=window_log, prefix=prefix)
        return raw, where

    def pieces(self, ordinal: int) -> Iterator[bytes]:
        """Yield a frame's raw bytes in pieces."""
        frame, where = self.frames[ordinal], self._name(ordinal)
        prefix = None
        if frame.codec == Codec.PREFIXED:
            stored, prefix = self._packed(ordinal)
            parts: Iterable[bytes] = [stored]
        else:
            parts = self._parts(ordinal)
        window_log = self._limits.max_window_log
        return decode_frame_pieces(frame.codec, parts, frame.raw, where=where, window_log=window_log, prefix=prefix)

    def _parts(self, ordinal: int) -> Iterator[bytes]:
        """Yield a frame's bytes as they are in the file, in parts."""
        frame = self.frames[ordinal]
        for start in range(0, frame.stored, _PART_BYTES):
            size = min(_PART_BYTES, frame.stored - start)
            yield self._read(frame.position + start, size, self._name(ordinal))

    def bases(self) -> Bases | WideBases | None:
        """Return the manifests that a thin pack starts from; None where the pack is no thin one."""
        return self._thin.bases if self._thin else None
