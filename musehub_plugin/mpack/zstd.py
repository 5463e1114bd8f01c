"""Zstandard, as the mpack format uses it: one frame, one shot, its memory known before it is decompressed.

The whole package imports zstd through here: `compression.zstd` is in the standard library from Python 3.14, and
`backports.zstd` is the same module for older versions.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = [
    "FrameHeader",
    "ZstdError",
    "compress",
    "decompress",
    "decompress_pieces",
    "frame_header",
    "keep_memory",
    "zstd",
]

ZstdError = zstd.ZstdError

_MAGIC = b"\x28\xb5\x2f\xfd"
# The tables of zstd's levels up to 9 lose sight of what is further away: 10 MB with 20 small edits took 6 MB.
_FAR = 1 << 20
# Frames up to this size are decompressed at once, which is quicker: what is small.
_AT_ONCE = 1 << 20
# Bytes that the decoder is given at a time: it copies what it does not need yet.
_FED = 1 << 17
# More than a window of 16 MiB with what zstd has beside it, and less than 32 MiB, the largest of which glibc learns
# (mallopt(3), M_MMAP_THRESHOLD).
_LARGEST_KEPT = 24 << 20
# Magic, descriptor, window, dictionary and content size (RFC 8878, section 3.1.1).
_LONGEST_HEADER = 18
_DICTIONARY_ID_SIZE = (0, 1, 2, 4)


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """What a zstd frame says of itself before any of it is decompressed (RFC 8878, section 3.1.1.1).

    Attributes:
        content_size: bytes that the frame decompresses to, or None where the header does not say.
        window_size: bytes of earlier output that the decoder must keep.
        dictionary_id: 0 where the frame names no dictionary.
    """

    content_size: int | None
    window_size: int
    dictionary_id: int


def frame_header(data: bytes) -> FrameHeader:
    """Read the header of a zstd frame (RFC 8878, section 3.1.1.1).

    Raises:
        ZstdError: `data` does not begin with a complete header of a zstd frame.
    """
    if data[:4] != _MAGIC or len(data) < 6:
        raise ZstdError("it does not begin with the header of a zstd frame")
    descriptor = data[4]
    if descriptor & 0x08:
        raise ZstdError("its frame header sets a reserved bit")
    single_segment = bool(descriptor & 0x20)
    window_length = 0 if single_segment else 1
    dictionary_length = _DICTIONARY_ID_SIZE[descriptor & 3]
    size_flag = descriptor >> 6
    size_length = (1 if single_segment else 0) if size_flag == 0 else 1 << size_flag
    size_start = 5 + window_length + dictionary_length
    if len(data) < size_start + size_length:
        raise ZstdError("its frame header is cut off")
    content_size: int | None = None
    if size_length:
        content_size = int.from_bytes(data[size_start : size_start + size_length], "little")
        if size_length == 2:
            content_size += 256
    if single_segment:
        window_size = content_size or 0
    else:
        base = 1 << (10 + (data[5] >> 3))
        window_size = base + (base >> 3) * (data[5] & 7)
    dictionary_start = 5 + window_length
    dictionary_id = int.from_bytes(data[dictionary_start:size_start], "little")
    return FrameHeader(content_size, window_size, dictionary_id)


def _reference(prefix: bytes | None) -> tuple[zstd.ZstdDict, int] | None:
    return zstd.ZstdDict(prefix, is_raw=True).as_prefix if prefix else None


def compress(data: bytes | bytearray, *, level: int, window_log: int, prefix: bytes | None = None) -> bytes:
    """Compress `data` into one zstd frame that states its size and carries no checksum.

    Args:
        data: what to compress.
        level: zstd's level, 1 to 19.
        window_log: log2 of the window; zstd lowers it to what `data` needs.
        prefix: what the frame may refer to as if it stood before `data`; at least 8 bytes.
    """
    parameter = zstd.CompressionParameter
    options: dict[int, int] = {
        parameter.compression_level: level,
        parameter.window_log: window_log,
        parameter.content_size_flag: 1,
        parameter.checksum_flag: 0,
    }
    if prefix and len(prefix) > _FAR:
        options[parameter.enable_long_distance_matching] = 1
    return zstd.compress(data, options=options, zstd_dict=_reference(prefix))


def decompress(data: bytes, size: int, *, window_log: int, prefix: bytes | None = None) -> bytes:
    """Decompress one zstd frame whose size is known, refusing it unread where its header says otherwise.

    Args:
        data: exactly one frame.
        size: bytes that it must decompress to; what the header states must be equal.
        window_log: log2 of the largest window that is accepted.
        prefix: what it was compressed with.

    Raises:
        ZstdError: the frame is damaged, is not the only thing in `data`, or is not of that size and window.
    """
    _check_header(data, size, window_log)
    if size > _AT_ONCE:
        return _decompressed(data, size, window_log, prefix)
    decoder = _decoder(window_log, prefix)
    # One byte more than expected, so that the decoder gets to see the end of the frame.
    raw = decoder.decompress(data, size + 1)
    if not decoder.eof:
        raise ZstdError("its frame is cut off")
    if decoder.unused_data:
        raise ZstdError(f"{len(decoder.unused_data)} bytes follow its frame")
    if len(raw) != size:
        raise ZstdError(f"it decompresses to {len(raw)} bytes, not {size}")
    return raw


def _decompressed(data: bytes, size: int, window_log: int, prefix: bytes | None) -> bytes:
    """Return what a large frame decompresses to, which takes its size and its window's: at once it takes half more."""
    raw = BytesIO()
    # Made as large as it will be, so that it is not copied while it grows, nor where its value is asked for.
    raw.seek(size - 1)
    raw.write(b"\0")
    raw.seek(0)
    for piece in decompress_pieces([data], size, window_log=window_log, prefix=prefix):
        raw.write(piece)
    return raw.getvalue()


def decompress_pieces(
    parts: Iterable[bytes], size: int, *, window_log: int, prefix: bytes | None = None, piece: int = 1 << 18
) -> Iterator[bytes]:
    """Yield what `decompress` returns, in pieces: several times as fast, since no page of memory is used once only.

    Args:
        parts: exactly one frame, its header whole in the first; each is asked for when it is needed.
        size: bytes that it must decompress to; what the header states must be equal.
        window_log: log2 of the largest window that is accepted.
        prefix: what it was compressed with.
        piece: bytes in the largest piece.

    Raises:
        ZstdError: as `decompress`; pieces may have been given before.
    """
    decoder: zstd.ZstdDecompressor | None = None
    given = 0
    for fed in _fed(parts):
        if decoder is None:
            _check_header(bytes(fed[:_LONGEST_HEADER]), size, window_log)
            decoder = _decoder(window_log, prefix)
        if decoder.eof:
            raise ZstdError(f"{len(fed)} bytes or more follow its frame")
        data: bytes | memoryview = fed
        while data is fed or not (decoder.eof or decoder.needs_input):
            raw = decoder.decompress(data, piece)
            data = b""
            given += len(raw)
            if given > size:
                raise ZstdError(f"it decompresses to more than {size} bytes")
            if raw:
                yield raw
        if decoder.eof and decoder.unused_data:
            raise ZstdError(f"{len(decoder.unused_data)} bytes or more follow its frame")
    if decoder is None or not decoder.eof:
        raise ZstdError("its frame is cut off")
    if given != size:
        raise ZstdError(f"it decompresses to {given} bytes, not {size}")


def keep_memory() -> None:
    """Have memory of a large frame's window used again for the next one, where the C library is glibc.

    It gives back what is larger than all that was freed before, and takes a page fault for every 4 KiB of what it gets
    anew, which is three times as dear as to decompress them. Nothing here is touched, so that it takes no memory.
    """
    bytes(_LARGEST_KEPT)


def _fed(parts: Iterable[bytes]) -> Iterator[memoryview]:
    """Yield parts in pieces that the decoder keeps a copy of while it works at them."""
    for part in parts:
        view = memoryview(part)
        for start in range(0, len(view), _FED):
            yield view[start : start + _FED]


def _decoder(window_log: int, prefix: bytes | None) -> zstd.ZstdDecompressor:
    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: window_log}
    return zstd.ZstdDecompressor(zstd_dict=_reference(prefix), options=options)


def _check_header(data: bytes, size: int, window_log: int) -> None:
    header = frame_header(data)
    if header.content_size != size:
        raise ZstdError(f"its frame header states {header.content_size} bytes, not {size}")
    if header.window_size > 1 << window_log:
        raise ZstdError(f"its window of {header.window_size} bytes is over 2^{window_log}")
    if header.dictionary_id:
        raise ZstdError("it needs a dictionary")
