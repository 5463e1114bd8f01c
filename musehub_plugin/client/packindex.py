"""The index beside an mpack that is kept as it came: where each blob is, and the commits, ready to be read one by one.

The file, all numbers big-endian:

- `MUSEIDX1`, then the numbers of blobs, snapshots, commits and blocks, 8 bytes each;
- for each of blobs, snapshots, commits: the sorted SHA-256 digests, 32 bytes each, then as many rows: a blob's is its
  frame (4 bytes), its offset in it (4) and its size (8), as `MPackReader.blob_chunks` takes them; a snapshot's or a
  commit's its ordinal in the pack (4);
- for each block: its place in this file (8), its size here (4) and its size when decompressed (4);
- the blocks: 256 commits each, in the pack's order, as a zstd frame of a msgpack list of commits in their wire form;
- the SHA-256 of all that.

It says nothing that the pack does not say: without it, it is made again, byte for byte.
"""

from __future__ import annotations

import hashlib
import os
import struct
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgpack

from musehub_plugin import ids
from musehub_plugin.client.sortedrows import SortedRows
from musehub_plugin.mpack.overflow import Overflow
from musehub_plugin.mpack.zstd import compress, decompress

MAGIC: Final = b"MUSEIDX1"
KINDS: Final = ("objects", "snapshots", "commits")
_HEADER: Final = struct.Struct(">8s4Q")
_BLOB_ROW: Final = struct.Struct(">IIQ")
_ORDINAL_ROW: Final = struct.Struct(">I")
_BLOCK_ROW: Final = struct.Struct(">QII")
_ROWS: Final = {"objects": _BLOB_ROW, "snapshots": _ORDINAL_ROW, "commits": _ORDINAL_ROW}
_COMMITS_PER_BLOCK: Final = 256
_WINDOW_LOG: Final = 22
_CACHED_BLOCKS: Final = 16
_PIECE: Final = 1 << 18
_SAMPLED: Final = 256
_HELD_BYTES: Final = 1 << 21
_OPEN_INDEXES: Final = 64


class _OpenFiles:
    """Reads files at any place, and keeps those open that were read last.

    What is mapped into memory counts as memory, however it came there; and a mirror may have a thousand packs.
    """

    def __init__(self) -> None:
        self._handles: OrderedDict[Path, int] = OrderedDict()

    def read(self, path: Path, place: int, size: int) -> bytes:
        handle = self._handles.get(path)
        if handle is None:
            while len(self._handles) >= _OPEN_INDEXES:
                os.close(self._handles.popitem(last=False)[1])
            handle = self._handles[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        else:
            self._handles.move_to_end(path)
        return os.pread(handle, size, place)

    def close(self, path: Path) -> None:
        handle = self._handles.pop(path, None)
        if handle is not None:
            os.close(handle)


_files: Final = _OpenFiles()


class PackIndex:
    """An index that is read in place.

    Args:
        path: its file.

    Raises:
        ValueError: the file is no index, or is cut off.
        FileNotFoundError: there is none.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # What is open may be another file of that name, which this one replaced.
        _files.close(path)
        size = path.stat().st_size
        if size < _HEADER.size + 32:
            raise ValueError("the index is cut off")
        magic, *counts, blocks = _HEADER.unpack(self._read(0, _HEADER.size))
        if magic != MAGIC:
            raise ValueError("the file is no index of an mpack")
        self._counts: dict[str, int] = dict(zip(KINDS, counts, strict=True))
        self._digests: dict[str, int] = {}
        place = _HEADER.size
        for kind in KINDS:
            self._digests[kind] = place
            place += self._counts[kind] * (32 + _ROWS[kind].size)
        self._blocks = place
        place += blocks * _BLOCK_ROW.size
        if blocks and place <= size:
            last, stored, _ = _BLOCK_ROW.unpack(self._read(place - _BLOCK_ROW.size, _BLOCK_ROW.size))
            place = last + stored
        if place + 32 != size:
            raise ValueError("the index is cut off")
        self._samples: dict[str, list[bytes]] = {}
        self._cache: OrderedDict[int, list[dict[str, Any]]] = OrderedDict()

    def close(self) -> None:
        """Let the file go; it is opened again where it is needed."""
        _files.close(self._path)

    def count(self, kind: str) -> int:
        """Return how many entities of a kind (`objects`, `snapshots`, `commits`) the pack holds."""
        return self._counts[kind]

    def has(self, kind: str, entity_id: str) -> bool:
        """Say whether the pack holds an entity."""
        return self._find(kind, entity_id) is not None

    def ids(self, kind: str) -> Iterator[str]:
        """Iterate over the ids of a kind, sorted."""
        for start in range(0, self._counts[kind], _PIECE // 32):
            digests = self._digests_at(kind, start, _PIECE // 32)
            for at in range(0, len(digests), 32):
                yield ids.from_digest(digests[at : at + 32])

    def blob(self, object_id: str) -> tuple[int, int, int] | None:
        """Return a blob's frame, its offset there and its size; None where the pack does not hold it."""
        row = self._row("objects", object_id)
        return None if row is None else (row[0], row[1], row[2])

    def ordinal(self, kind: str, entity_id: str) -> int | None:
        """Return a snapshot's or a commit's number in the pack; None where the pack does not hold it."""
        row = self._row(kind, entity_id)
        return None if row is None else int(row[0])

    def commit(self, commit_id: str) -> dict[str, Any] | None:
        """Return a commit in its wire form; None where the pack does not hold it.

        Raises:
            ValueError: the index is damaged.
        """
        ordinal = self.ordinal("commits", commit_id)
        if ordinal is None:
            return None
        number, place = divmod(ordinal, _COMMITS_PER_BLOCK)
        block = self._cache.get(number)
        if block is None:
            row = self._read(self._blocks + number * _BLOCK_ROW.size, _BLOCK_ROW.size)
            where, stored, raw = _BLOCK_ROW.unpack(row)
            packed = decompress(self._read(where, stored), raw, window_log=_WINDOW_LOG)
            block = msgpack.unpackb(packed, strict_map_key=False)
            self._cache[number] = block
            if len(self._cache) > _CACHED_BLOCKS:
                self._cache.popitem(last=False)
        commit: dict[str, Any] = block[place]
        return commit

    def _read(self, place: int, size: int) -> bytes:
        return _files.read(self._path, place, size)

    def _digests_at(self, kind: str, start: int, count: int) -> bytes:
        return self._read(self._digests[kind] + 32 * start, 32 * min(count, self._counts[kind] - start))

    def _find(self, kind: str, entity_id: str) -> int | None:
        digest, count = ids.to_digest(entity_id), self._counts[kind]
        samples = self._samples.get(kind)
        if samples is None:
            # The first of every so many, so that a look-up is one read, at the right place.
            firsts = range(0, count, _SAMPLED)
            samples = self._samples[kind] = [self._digests_at(kind, start, 1) for start in firsts]
        start = _SAMPLED * (bisect_right(samples, digest) - 1)
        if start < 0:
            return None
        digests = self._digests_at(kind, start, _SAMPLED)
        at = digests.find(digest)
        while at % 32 and at >= 0:
            at = digests.find(digest, at + 1)
        return None if at < 0 else start + at // 32

    def _row(self, kind: str, entity_id: str) -> tuple[Any, ...] | None:
        number = self._find(kind, entity_id)
        if number is None:
            return None
        row = _ROWS[kind]
        start = self._digests[kind] + 32 * self._counts[kind]
        return row.unpack(self._read(start + number * row.size, row.size))


class IndexBuilder:
    """Collects what an index says, as a pack is read from its first blob to its last commit, in bounded memory.

    Args:
        folder: where files are made of what memory has no room for.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows = {kind: SortedRows(32 + _ROWS[kind].size, folder) for kind in KINDS}
        self._block: list[dict[str, Any]] = []
        self._blocks = Overflow(folder, held=_HELD_BYTES)
        self._sizes: list[tuple[int, int]] = []

    def add_blobs(self, placed: Iterable[tuple[bytes, tuple[int, int, int, int]]]) -> None:
        """Add all blobs, as `MPackReader.placed_digests` gives them."""
        pack, add = _BLOB_ROW.pack, self._rows["objects"].add
        for digest, (_, *place) in placed:
            add(digest + pack(*place))

    def add_snapshot(self, digest: bytes) -> None:
        """Add a snapshot by its id's digest; the pack's order is the order of the calls."""
        rows = self._rows["snapshots"]
        rows.add(digest + _ORDINAL_ROW.pack(len(rows)))

    def add_commit(self, commit: dict[str, Any], digest: bytes) -> None:
        """Add a commit in its wire form, and its id's digest; the pack's order is the order of the calls."""
        rows = self._rows["commits"]
        rows.add(digest + _ORDINAL_ROW.pack(len(rows)))
        self._block.append(commit)
        if len(self._block) == _COMMITS_PER_BLOCK:
            self._flush()

    def parts(self) -> Iterator[bytes]:
        """Yield the index, in pieces."""
        self._flush()
        digest = hashlib.sha256()
        for part in self._pieces():
            digest.update(part)
            yield part
        yield digest.digest()

    def _flush(self) -> None:
        if self._block:
            raw: bytes = msgpack.packb(self._block)
            stored = compress(raw, level=3, window_log=_WINDOW_LOG)
            self._blocks.append(stored)
            self._sizes.append((len(stored), len(raw)))
            self._block = []

    def _pieces(self) -> Iterator[bytes]:
        yield _HEADER.pack(MAGIC, *(len(self._rows[kind]) for kind in KINDS), len(self._sizes))
        size = _HEADER.size
        for kind in KINDS:
            values = Overflow(self._folder, held=_HELD_BYTES)
            for rows in self._rows[kind].shares():
                yield b"".join([row[:32] for row in rows])
                values.append(b"".join([row[32:] for row in rows]))
            yield from _pieces_of(values)
            size += len(self._rows[kind]) * (32 + _ROWS[kind].size)
        place = size + len(self._sizes) * _BLOCK_ROW.size
        for stored, raw in self._sizes:
            yield _BLOCK_ROW.pack(place, stored, raw)
            place += stored
        yield from _pieces_of(self._blocks)


def _pieces_of(overflow: Overflow) -> Iterator[bytes]:
    for start in range(0, overflow.size, _PIECE):
        yield overflow.read(start, _PIECE)
