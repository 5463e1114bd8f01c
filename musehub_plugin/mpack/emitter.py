"""Puts frames into the file, in their order, compressed by as many threads as are given."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

from musehub_plugin.mpack.layout import (
    BLOB_FRAME_BYTES,
    MAGIC,
    METADATA_FRAME_BYTES,
    Codec,
    Frame,
    Kind,
    decode_frame,
    encode_frame,
    encode_toc,
)
from musehub_plugin.mpack.limits import Limits
from musehub_plugin.mpack.thin import Prefix, pack_entries
from musehub_plugin.mpack.zstd import compress

# Level 12 takes 0.1 % fewer bytes of a real pack, and five times as long for the one manifest of a small fetch.
METADATA_LEVEL = 6
# Of less than this no level takes long.
_SMALL_METADATA = 1 << 14
# Nothing makes ids smaller, which the first level finds in a tenth of the time.
_IDS_LEVEL = 1
# On one-commit fetches of a real history level 9 takes 1 to 3 % fewer bytes, and half as long again.
_PREFIXED_LEVEL = 6
_METADATA_WINDOW_LOG = 22
_BLOB_WINDOW_LOG = 24
_PART_BYTES = 1 << 18
# Bytes of frames, all together, that are worth keeping while they are compressed beside what follows them.
SMALL_BESIDE = 4 << 20


class Sink(Protocol):
    """What a pack is written to: a binary file whose `write` takes all of what it is given."""

    def write(self, data: bytes, /) -> object:
        """Append `data`."""
        ...


@dataclass(frozen=True, slots=True)
class _Blobs:
    """A frame of blobs."""

    raw: bytes | bytearray
    count: int
    level: int
    prefix: Prefix | None

    def compress(self) -> tuple[Codec, bytes | bytearray]:
        """Return the codec that suits it, and how it is stored in it."""
        if self.prefix:
            level = max(self.level, _PREFIXED_LEVEL)
            content = b"".join(self.prefix.contents)
            stored = pack_entries(self.prefix.entries)
            stored += compress(self.raw, level=level, window_log=_BLOB_WINDOW_LOG, prefix=content)
            if len(stored) < len(self.raw):
                return Codec.PREFIXED, stored
        return self.compress_alone()

    def compress_alone(self) -> tuple[Codec, bytes | bytearray]:
        """Return the same, with nothing that the receiver must hold."""
        return encode_frame(self.raw, level=self.level, window_log=_BLOB_WINDOW_LOG)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A frame that is being compressed: its raw bytes, and what it holds: blobs, or a number of some kind."""

    raw: bytes | bytearray
    content: _Blobs | tuple[Kind, int]
    result: Future[tuple[Codec, bytes | bytearray]]


class FrameEmitter:
    """Writes frames one after the other and remembers where they are.

    Args:
        out: where the pack goes.
        limits: the ratio that the file must keep to.
        threads: how many compress frames beside the one that calls, which else does it; a frame of blobs for each is
            kept in memory. Small ones of blobs go on beside what follows them. The bytes are the same for any number.
        level: zstd level for large frames of anything but blobs.
        largest: a frame of blobs of more bytes is compressed by the one that calls all the same.
    """

    def __init__(
        self, out: Sink, limits: Limits, threads: int, level: int = METADATA_LEVEL, largest: int = BLOB_FRAME_BYTES
    ) -> None:
        self._out = out
        self._limits = limits
        self._level = level
        self._frames: list[Frame] = []
        self._raw_total = 0
        self._to_come = 0
        self._prefix_total = 0
        self._threads = threads
        self._largest = largest
        self._have_blobs_ended = False
        self._pool: ThreadPoolExecutor | None = None
        self._waiting: deque[_Waiting] = deque()
        self._spare = bytearray()
        self.position = 0
        self._write(MAGIC)

    def _write(self, data: bytes | bytearray) -> None:
        if isinstance(data, bytes):
            self._out.write(data)
        else:
            # A frame that is stored as it is: a copy of a part at a time is what a sink gets.
            with memoryview(data) as view:
                for start in range(0, len(view), _PART_BYTES):
                    self._out.write(bytes(view[start : start + _PART_BYTES]))
        self.position += len(data)

    def expect(self, stored: int, raw: int) -> None:
        """Count frames that `copy` will bring: what they hold, and what they take, bears on all that come before."""
        self._to_come += stored
        self._raw_total += raw

    def copy(self, frame: Frame, stored: bytes) -> None:
        """Write a frame of another pack as it is."""
        self.drain()
        self._frames.append(replace(frame, position=self.position))
        self._write(stored)
        self._to_come -= len(stored)

    def emit(self, kind: Kind, raw: bytes, count: int) -> None:
        """Write a frame of anything but blobs.

        Args:
            kind: what it holds.
            raw: its raw bytes.
            count: entities in it.

        Raises:
            ValueError: it is over the format's bound.
        """
        if len(raw) > METADATA_FRAME_BYTES:
            raise ValueError(f"{len(raw)} bytes of {kind.name.lower()} do not fit in a frame")
        level = METADATA_LEVEL if len(raw) < _SMALL_METADATA else self._level
        if kind == Kind.OUTSIDE:
            level = _IDS_LEVEL
        if self._pool is not None and self._waiting and self._bytes_waiting + len(raw) <= SMALL_BESIDE:
            # Behind the last blobs, which may take longer than all that follows.
            result = self._pool.submit(encode_frame, raw, level=level, window_log=_METADATA_WINDOW_LOG)
            self._waiting.append(_Waiting(raw, (kind, count), result))
            return
        self.drain()
        self._append(kind, raw, count, *encode_frame(raw, level=level, window_log=_METADATA_WINDOW_LOG))

    def emit_compressed(self, frame: Frame, stored: bytes) -> None:
        """Write a frame of anything but blobs that another emitter has compressed, as `emit` writes it.

        Raises:
            MPackError: it is damaged.
        """
        self.drain()
        where = f"a frame of {frame.kind}"
        raw = decode_frame(frame.codec, stored, frame.raw, where=where, window_log=_METADATA_WINDOW_LOG)
        self._append(Kind(frame.kind), raw, frame.count, Codec(frame.codec), stored)

    def emit_blobs(self, raw: bytes | bytearray, count: int, level: int, prefix: Prefix | None = None) -> None:
        """Write a frame of blobs, now or when it is compressed; `raw` must not be changed any more."""
        blobs = _Blobs(raw, count, level, prefix)
        if self._threads == 0 or len(raw) > self._largest:
            self._leave_waiting(0)
            self._append_blobs(blobs, *blobs.compress())
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="mpack")
        # So that no frame waits for its turn: it would be in memory for nothing.
        self._leave_waiting(self._threads - 1)
        self._waiting.append(_Waiting(raw, blobs, self._pool.submit(blobs.compress)))

    def _leave_waiting(self, most: int) -> None:
        """Write the first of the frames that are being compressed, until no more than so many are left."""
        while len(self._waiting) > most:
            first = self._waiting.popleft()
            if isinstance(first.content, _Blobs):
                self._append_blobs(first.content, *first.result.result())
            else:
                kind, count = first.content
                self._append(kind, first.raw, count, *first.result.result())

    def _append_blobs(self, blobs: _Blobs, codec: Codec, stored: bytes | bytearray) -> None:
        if codec == Codec.PREFIXED and blobs.prefix:
            # A reader accepts no more of prefixes than of raw bytes.
            prefixes = self._prefix_total + blobs.prefix.cost
            allowed = self._allowed(len(stored))
            if prefixes > allowed or self._raw_total + len(blobs.raw) > allowed:
                codec, stored = blobs.compress_alone()
            else:
                self._prefix_total = prefixes
        self._append(Kind.BLOBS, blobs.raw, blobs.count, codec, stored)
        if isinstance(blobs.raw, bytearray) and not self._have_blobs_ended:
            self._spare = blobs.raw

    def spare(self) -> bytearray:
        """Return what a frame of blobs may be filled into: one that was written, since its memory is there already.

        To have the system map as much anew for each frame takes longer than to fill it.
        """
        spare, self._spare = self._spare, bytearray()
        return spare

    def end_blobs(self) -> None:
        """Keep no more memory for frames of blobs: none will come."""
        self._have_blobs_ended = True
        self._spare = bytearray()
        if self._bytes_waiting > SMALL_BESIDE:
            self.drain()

    @property
    def _bytes_waiting(self) -> int:
        return sum(len(each.raw) for each in self._waiting)

    def drain(self) -> None:
        """Write the frames that are still being compressed."""
        self._leave_waiting(0)

    def _append(self, kind: Kind, raw: bytes | bytearray, count: int, codec: Codec, stored: bytes | bytearray) -> None:
        self._raw_total += len(raw)
        # A reader takes a file that decompresses to far more than its size for a bomb; what would look like one is
        # stored plain, which pays for many frames to come.
        if codec == Codec.ZSTD and self._raw_total > self._allowed(len(stored)):
            codec, stored = Codec.PLAIN, raw
        self._frames.append(Frame(kind, codec, self.position, len(stored), len(raw), count))
        self._write(stored)

    def _allowed(self, size: int) -> int:
        """Return how many raw bytes the file may hold once `size` bytes more are written."""
        file_size = self.position + self._to_come + size
        return self._limits.ratio_allowance + self._limits.max_ratio * file_size

    @property
    def prefixed(self) -> bool:
        """Whether a frame was written that the receiver cannot read alone."""
        return self._prefix_total > 0

    def finish(self, bases: Sequence[bytes]) -> None:
        """Write the table of contents.

        Args:
            bases: digests of the snapshots that the pack starts from, none where it does not need them.
        """
        self.drain()
        self._write(encode_toc(self._frames, bases, level=METADATA_LEVEL))
        self.abandon()

    def abandon(self) -> None:
        """End the threads; frames that are not written are lost."""
        self._waiting.clear()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
