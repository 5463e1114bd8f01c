"""The file around the frames: magic, table of contents, trailer. `docs/mpack-format.md` is the specification."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import msgpack

from musehub_plugin import ids
from musehub_plugin.mpack import thin, zstd
from musehub_plugin.mpack.bounded import decode_value
from musehub_plugin.mpack.limits import Limits, MPackError

# A byte that is no text, the name, the version, then what a transfer as text would change (as in PNG's signature).
MAGIC = b"\x8dMPK1\r\n\x1a"
END_MAGIC = b"\x1aMPKEND\n"
TRAILER_SIZE = 16

# Frames of 4 MiB cost 1.15 to 1.45 times the bytes of frames of 16 MiB on two real histories, 1 MiB 1.7 to 3 times.
BLOB_FRAME_BYTES = 16 << 20
# Decoded metadata takes up to some 25 times its raw size (about 90 MiB for 4 MiB), so these frames are kept smaller.
METADATA_FRAME_BYTES = 4 << 20

OPTIONAL_KIND = 128
KNOWN_FEATURES = frozenset({thin.FEATURE})


class Kind(IntEnum):
    """What a frame holds; the order of the values is the order in the file."""

    BLOBS = 1
    DIRECTORY = 2
    OUTSIDE = 3
    SNAPSHOTS = 4
    COMMITS = 5


class Codec(IntEnum):
    """How a frame is stored."""

    PLAIN = 0
    ZSTD = 1
    PREFIXED = 2


@dataclass(frozen=True, slots=True)
class Frame:
    """One row of the table of contents.

    Attributes:
        kind: a `Kind`, or a number of 128 or more for what this version may skip.
        codec: a `Codec`.
        position: offset of the frame's first byte in the file.
        stored: bytes in the file.
        raw: bytes after decompression.
        count: entities in the frame; for blobs, those that begin in it.
    """

    kind: int
    codec: int
    position: int
    stored: int
    raw: int
    count: int


@dataclass(frozen=True, slots=True)
class Toc:
    """The table of contents.

    Attributes:
        needs: the features without which the pack cannot be read.
        frames: the frames, in the order of the file.
        bases: ids of the snapshots that a thin pack starts from.
    """

    needs: tuple[str, ...]
    frames: tuple[Frame, ...]
    bases: tuple[str, ...]


def encode_frame(raw: bytes | bytearray, *, level: int, window_log: int) -> tuple[Codec, bytes | bytearray]:
    """Return a frame's codec and stored bytes: plain, `raw` itself, where zstd would not make it smaller."""
    if raw:
        packed = zstd.compress(raw, level=level, window_log=window_log)
        if len(packed) < len(raw):
            return Codec.ZSTD, packed
    return Codec.PLAIN, raw


def decode_frame(
    codec: int, stored: bytes, raw_size: int, *, where: str, window_log: int, prefix: bytes | None = None
) -> bytes:
    """Return a frame's raw bytes; `prefix` is what it was compressed against.

    Raises:
        MPackError: the bytes are not what the table of contents says.
    """
    if codec == Codec.PLAIN:
        if len(stored) != raw_size:
            raise MPackError(f"{where}: stored plain, but its sizes differ")
        return stored
    try:
        return zstd.decompress(stored, raw_size, window_log=window_log, prefix=prefix)
    except zstd.ZstdError as error:
        raise MPackError(f"{where}: {error}") from error


def decode_frame_pieces(
    codec: int, parts: Iterable[bytes], raw_size: int, *, where: str, window_log: int, prefix: bytes | None = None
) -> Iterator[bytes]:
    """Yield a frame's raw bytes, in pieces; `prefix` is what it was compressed against.

    Args:
        codec: how it is stored.
        parts: it, in parts as `zstd.decompress_pieces` takes them.
        raw_size: bytes that it must have.
        where: which frame it is, for errors.
        window_log: log2 of the largest window that is accepted.
        prefix: what it was compressed against.

    Raises:
        MPackError: the bytes are not what the table of contents says; pieces may have been given before.
    """
    if codec == Codec.PLAIN:
        left = raw_size
        for part in parts:
            left -= len(part)
            if left < 0:
                break
            yield part
        if left:
            raise MPackError(f"{where}: stored plain, but its sizes differ")
        return
    try:
        yield from zstd.decompress_pieces(parts, raw_size, window_log=window_log, prefix=prefix)
    except zstd.ZstdError as error:
        raise MPackError(f"{where}: {error}") from error


def encode_toc(frames: Sequence[Frame], bases: Sequence[bytes], *, level: int) -> bytes:
    """Return the stored table of contents and the trailer; a pack with bases is a thin one."""
    columns = [
        [frame.kind for frame in frames],
        [frame.codec for frame in frames],
        [frame.stored for frame in frames],
        [frame.raw for frame in frames],
        [frame.count for frame in frames],
    ]
    toc: dict[str, object] = {"needs": [thin.FEATURE] if bases else [], "frames": columns}
    if bases:
        toc["bases"] = b"".join(bases)
    raw: bytes = msgpack.packb(toc)
    _, stored = encode_frame(raw, level=level, window_log=20)
    return bytes(stored) + len(stored).to_bytes(4, "big") + len(raw).to_bytes(4, "big") + END_MAGIC


def parse_trailer(trailer: bytes, size_bytes: int, limits: Limits) -> tuple[int, int]:
    """Return the stored and the raw size of the table of contents.

    Raises:
        MPackError: the last bytes are no trailer, or it does not fit the file or the limits.
    """
    if len(trailer) != TRAILER_SIZE or trailer[8:] != END_MAGIC:
        raise MPackError("trailer: the file does not end as an mpack does; it may be cut off")
    stored = int.from_bytes(trailer[:4], "big")
    raw = int.from_bytes(trailer[4:8], "big")
    if stored > size_bytes - len(MAGIC) - TRAILER_SIZE:
        raise MPackError(f"trailer: a table of contents of {stored} bytes does not fit in the file")
    if stored > raw:
        raise MPackError("trailer: the table of contents is stored larger than it is")
    if raw > limits.max_toc_size:
        raise MPackError(f"trailer: a table of contents of {raw} bytes is over the limit of {limits.max_toc_size}")
    return stored, raw


def parse_toc(stored: bytes, raw_size: int, frames_end: int, limits: Limits) -> Toc:
    """Decode the table of contents and check that its frames fill the file from the magic to the table itself.

    Args:
        stored: the table as it is in the file.
        raw_size: its raw size, from the trailer.
        frames_end: offset at which the last frame must end.
        limits: what is accepted.

    Raises:
        MPackError: the table is damaged, needs a feature that this version lacks, contradicts the file or
            exceeds a limit.
    """
    where = "table of contents"
    codec = Codec.PLAIN if len(stored) == raw_size else Codec.ZSTD
    raw = decode_frame(codec, stored, raw_size, where=where, window_log=limits.max_window_log)
    toc = decode_value(raw, where, max_items=8 * limits.max_frames + 1024, max_depth=8)
    if type(toc) is not dict:
        raise MPackError(f"{where}: not a map")
    needs = toc.get("needs")
    if type(needs) is not list or not all(type(name) is str for name in needs):
        raise MPackError(f"{where}: 'needs' is not a list of strings")
    unknown = [name for name in needs if name not in KNOWN_FEATURES]
    if unknown:
        raise MPackError(f"{where}: the pack needs {unknown[0]!r:.60}, which this reader does not know")
    bases = _bases(toc, where) if thin.FEATURE in needs else ()
    columns = toc.get("frames")
    if type(columns) is not list or len(columns) != 5 or not all(type(column) is list for column in columns):
        raise MPackError(f"{where}: 'frames' is not five columns")
    if len({len(column) for column in columns}) != 1:
        raise MPackError(f"{where}: the columns of 'frames' differ in length")
    if len(columns[0]) > limits.max_frames:
        raise MPackError(f"{where}: {len(columns[0])} frames are over the limit of {limits.max_frames}")
    frames = []
    position = len(MAGIC)
    for ordinal, (kind, codec_number, size, raw_bytes, count) in enumerate(zip(*columns, strict=True)):
        frame = _checked(ordinal, kind, codec_number, position, size, raw_bytes, count)
        if frame.codec == Codec.PREFIXED and frame.kind < OPTIONAL_KIND and not (bases and frame.kind == Kind.BLOBS):
            raise MPackError(f"frame {ordinal}: only blobs of a thin pack are stored in codec {frame.codec}")
        position += frame.stored
        if position > frames_end:
            raise MPackError(f"frame {ordinal}: it runs past the table of contents")
        frames.append(frame)
    if position != frames_end:
        raise MPackError(f"{where}: {frames_end - position} bytes of the file belong to no frame")
    _check_order(frames)
    _check_totals(frames, raw_size, frames_end, limits)
    return Toc(tuple(needs), tuple(frames), bases)


def _bases(toc: dict[str, Any], where: str) -> tuple[str, ...]:
    digests = toc.get("bases")
    if type(digests) is not bytes or len(digests) % 32 or not 32 <= len(digests) <= 32 * thin.MAX_BASES:
        raise MPackError(f"{where}: 'bases' is not the ids of 1 to {thin.MAX_BASES} snapshots")
    bases = tuple(ids.from_digest(digests[start : start + 32]) for start in range(0, len(digests), 32))
    if len(set(bases)) != len(bases):
        raise MPackError(f"{where}: a base is listed twice")
    return bases


def _checked(ordinal: int, *row: Any) -> Frame:
    if any(type(value) is not int or value < 0 for value in row):
        raise MPackError(f"frame {ordinal}: its row in the table of contents is not five sizes")
    frame = Frame(*row)
    if frame.kind >= OPTIONAL_KIND:
        return frame
    if frame.kind not in Kind.__members__.values():
        raise MPackError(f"frame {ordinal}: kind {frame.kind} is not known to this reader")
    if frame.codec not in Codec.__members__.values():
        raise MPackError(f"frame {ordinal}: codec {frame.codec} is not known to this reader")
    bound = BLOB_FRAME_BYTES if frame.kind == Kind.BLOBS else METADATA_FRAME_BYTES
    if frame.raw > bound:
        raise MPackError(f"frame {ordinal}: {frame.raw} raw bytes are over the format's bound of {bound}")
    if frame.codec == Codec.PLAIN and frame.stored != frame.raw:
        raise MPackError(f"frame {ordinal}: stored plain, but its sizes differ")
    if frame.codec != Codec.PLAIN and frame.stored >= frame.raw:
        raise MPackError(f"frame {ordinal}: compressed, but no smaller for it")
    return frame


def _check_order(frames: Sequence[Frame]) -> None:
    """Blobs come first, then directory, then outside ids and snapshots, which take turns, then commits."""
    stage = 0
    for ordinal, frame in enumerate(frames):
        if frame.kind >= OPTIONAL_KIND:
            stage = max(stage, Kind.DIRECTORY)
            continue
        here = Kind.SNAPSHOTS if frame.kind == Kind.OUTSIDE else frame.kind
        if here < stage:
            raise MPackError(f"frame {ordinal}: {Kind(frame.kind).name.lower()} out of order")
        stage = here


def _check_totals(frames: Sequence[Frame], toc_raw: int, frames_end: int, limits: Limits) -> None:
    def total(kind: Kind) -> int:
        return sum(frame.count for frame in frames if frame.kind == kind)

    for kind, name, bound in (
        (Kind.BLOBS, "blobs", limits.max_blobs),
        (Kind.OUTSIDE, "outside objects", limits.max_outside),
        (Kind.SNAPSHOTS, "snapshots", limits.max_snapshots),
        (Kind.COMMITS, "commits", limits.max_commits),
    ):
        if total(kind) > bound:
            raise MPackError(f"table of contents: {total(kind)} {name} are over the limit of {bound}")
    if total(Kind.BLOBS) != total(Kind.DIRECTORY):
        raise MPackError("table of contents: the directory does not list as many blobs as the frames hold")
    raw = toc_raw + sum(frame.raw for frame in frames if frame.kind < OPTIONAL_KIND)
    if raw > limits.max_raw_size:
        raise MPackError(f"table of contents: {raw} raw bytes are over the limit of {limits.max_raw_size}")
    if raw > limits.ratio_allowance + limits.max_ratio * (frames_end + TRAILER_SIZE):
        raise MPackError(f"table of contents: {raw} raw bytes are over {limits.max_ratio} times the file's size")
