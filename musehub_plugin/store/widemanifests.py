"""Rows of snapshots whose manifests are too wide for memory: the same rows, written and read piece by piece.

A manifest of a million paths is a value of 70 MB.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import msgpack
from sqlalchemy import LargeBinary, func, select

from musehub_plugin.ids import from_digest, to_digest
from musehub_plugin.manifestlog import Difference
from musehub_plugin.mpack.manifests import WIDE_PATHS
from musehub_plugin.mpack.overflow import Overflow
from musehub_plugin.mpack.pages import PageFile
from musehub_plugin.mpack.wide import WideManifest
from musehub_plugin.store import manifests
from musehub_plugin.store.largevalues import PIECE, large_value
from musehub_plugin.store.manifests import Chain, NewSnapshot, pack_change
from musehub_plugin.store.models import DIGEST_SIZE, MusehubSnapshot
from musehub_plugin.store.session import Database

# The code of a byte string whose length takes four bytes; the specification of msgpack has it.
_BIN_32 = b"\xc6"
_BIN_32_FROM = 1 << 16


def new_wide_snapshot(
    snapshot_id: str,
    base: tuple[str, Chain] | None,
    removed: Collection[str],
    changed: Mapping[str, str],
    manifest: WideManifest,
) -> NewSnapshot:
    """Return a snapshot as it is to be stored, by the rules of `manifests.new_snapshot`.

    Args:
        snapshot_id: its id.
        base: the snapshot that it changes and how long its chain is; None: the empty manifest.
        removed: paths that are gone, sorted.
        changed: `{path: object_id}` of what is new or different, sorted by path.
        manifest: all of it.
    """
    count = len(manifest)
    if base is not None:
        if isinstance(changed, dict):
            change = Difference(list(removed), changed)
            packed = pack_change(change)
            reached = base[1].with_delta(len(packed))
            if reached.is_worth(count):
                return NewSnapshot(snapshot_id, base[0], change, count, reached, packed)
        else:
            spooled = _spooled(removed, changed)
            reached = base[1].with_delta(spooled.size)
            if reached.is_worth(count):
                return NewSnapshot(snapshot_id, base[0], Difference([], {}), count, reached, b"", spooled)
    return NewSnapshot(snapshot_id, None, Difference([], {}), count, Chain(0, 0), b"", _spooled((), manifest))


def _spooled(removed: Collection[str], changed: Mapping[str, str]) -> Overflow:
    """Return in a file what `pack_change` returns; both are sorted."""
    packer = msgpack.Packer()
    parts = chain(
        [packer.pack_array_header(3), packer.pack_array_header(len(removed))],
        map(packer.pack, removed),
        [packer.pack_array_header(len(changed))],
        map(packer.pack, changed),
        [_header(DIGEST_SIZE * len(changed))],
        map(to_digest, changed.values()),
    )
    out, tail = Overflow(held=PIECE), bytearray()
    for part in parts:
        tail += part
        if len(tail) >= PIECE:
            out.append(tail)
            tail = bytearray()
    out.append(tail)
    return out


def _header(size: int) -> bytes:
    """Return what msgpack has before a byte string of some bytes."""
    if size >= _BIN_32_FROM:
        return _BIN_32 + size.to_bytes(4, "big")
    packed: bytes = msgpack.packb(bytes(size))
    return packed[: len(packed) - size]


def add_snapshots(db: Database, repo_id: str, new: Sequence[NewSnapshot]) -> None:
    """Insert snapshots as `manifests.add_snapshots` does, also those that are in files."""
    manifests.add_snapshots(db, repo_id, [snapshot for snapshot in new if snapshot.spooled is None])
    wide = sorted(snapshot for snapshot in new if snapshot.spooled is not None)
    there = db.found_among(MusehubSnapshot.snapshot_id, [snapshot.snapshot_id for snapshot in wide])
    for snapshot in wide:
        if snapshot.snapshot_id not in there:
            _insert(db, snapshot)
    manifests.hold_snapshots(db, repo_id, [snapshot.snapshot_id for snapshot in wide])


def _insert(db: Database, snapshot: NewSnapshot) -> None:
    spooled = snapshot.spooled or Overflow()
    row = {
        "snapshot_id": snapshot.snapshot_id,
        "base_id": snapshot.base_id,
        "entry_count": snapshot.entry_count,
        "chain_length": snapshot.chain.length,
        "chain_bytes": snapshot.chain.size_bytes,
    }
    with large_value(db, spooled.size, spooled.read) as value:
        db.insert_one(MusehubSnapshot, {**row, "delta_blob": value})


class _Row(NamedTuple):
    snapshot_id: str
    base_id: str | None
    size_bytes: int


def manifest(db: Database, repo_id: str, snapshot_id: str) -> dict[str, str] | WideManifest | None:
    """Return one manifest; None where the repo does not hold the snapshot.

    One that is too wide for memory is in a file, unless its row, or one that it rests on, was written by hand.
    """
    if not manifests.held_snapshots(db, repo_id, [snapshot_id]):
        return None
    rows = _rows(db, snapshot_id)
    if rows is None:
        return manifests.manifest(db, repo_id, snapshot_id)
    found = WideManifest.of({}, PageFile())
    for row in reversed(rows):
        _apply(db, row, found)
    return found


def follow_large_row(db: Database, snapshot_id: str, found: WideManifest) -> bool:
    """Have a manifest become what the large row of a snapshot changes it to; say False where that is not there."""
    size = select(func.length(MusehubSnapshot.delta_blob)).where(MusehubSnapshot.snapshot_id == snapshot_id)
    size_bytes = db.execute(size).scalar_one_or_none()
    if size_bytes is None:
        return False
    _apply(db, _Row(snapshot_id, None, size_bytes), found)
    return True


def _rows(db: Database, snapshot_id: str) -> list[_Row] | None:
    """Return the row of a wide manifest, and those that it rests on; None where it is not wide, or one is not ours."""
    rows: list[_Row] = []
    at: str | None = snapshot_id
    columns = MusehubSnapshot.base_id, func.length(MusehubSnapshot.delta_blob), MusehubSnapshot.entry_count
    while at is not None:
        row = db.execute(select(*columns).where(MusehubSnapshot.snapshot_id == at)).one_or_none()
        if row is None or row[1] is None or len(rows) > manifests.MAX_CHAIN or (not rows and row[2] <= WIDE_PATHS):
            return None
        rows.append(_Row(at, row[0], row[1]))
        at = row[0]
    return rows


def _apply(db: Database, row: _Row, found: WideManifest) -> None:
    """Have a manifest become what a row changes it to."""
    unpacker = msgpack.Unpacker(_Stream(_pieces(db, row)), max_buffer_size=4 * PIECE)
    unpacker.read_array_header()
    removed = unpacker.read_array_header()
    found.remove(unpacker.unpack() for _ in range(removed))
    count = unpacker.read_array_header()
    # The digests are the end of the row.
    digests = _pieces(db, row, row.size_bytes - DIGEST_SIZE * count)
    object_ids = (
        from_digest(piece[at : at + DIGEST_SIZE]) for piece in digests for at in range(0, len(piece), DIGEST_SIZE)
    )
    paths = (unpacker.unpack() for _ in range(count))
    found.set(zip(paths, object_ids, strict=True))


def _pieces(db: Database, row: _Row, start: int = 0) -> Iterator[bytes]:
    """Yield the bytes of a row's change from a place on; a piece has a whole number of digests."""
    for place in range(start, row.size_bytes, PIECE):
        piece = select(func.substr(MusehubSnapshot.delta_blob, place + 1, PIECE, type_=LargeBinary))
        yield bytes(db.execute(piece.where(MusehubSnapshot.snapshot_id == row.snapshot_id)).scalar_one())


class _Stream:
    """A file of pieces, as msgpack reads one."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def read(self, _: int) -> bytes:
        return next(self._pieces, b"")
