"""Blobs that are read out of packs, forwards where that goes, are those that were put in, each checked."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from musehub_plugin import ids, packedblobs
from musehub_plugin.blobs import LARGE_BLOB, BlobReader, LargeBlob, NotIndexed
from musehub_plugin.mpack import MPackReader, MPackWriter
from musehub_plugin.mpack import writer as mpack_writer
from musehub_plugin.mpack.layout import Codec, Kind
from musehub_plugin.packedblobs import PackedBlobs
from musehub_plugin.storage.memory import MemoryStorage
from musehub_plugin.store.contents import IndexEntry, NewBlob, add_blobs, add_index_entries
from musehub_plugin.store.session import Database

REPO = "alice/songs"
BLOBS = {ids.blob_id(content): content for content in (b"%d" % number * (6 * number) for number in range(24))}


class NotingStorage(MemoryStorage):
    """Notes where mpacks are read, and how much there."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[tuple[int, int]] = []

    def open_mpack(self, mpack_id: str) -> BinaryIO | None:
        """Return a file that takes notes."""
        opened = super().open_mpack(mpack_id)
        reads = self.reads

        class Noting(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                reads.append((self.tell(), size or 0))
                return super().read(size)

        return None if opened is None else Noting(opened.read())


def pack_of(blobs: Mapping[str, bytes], object_ids: Iterable[str]) -> bytes:
    out = io.BytesIO()
    with MPackWriter(out) as writer:
        for object_id in object_ids:
            writer.add_blob(object_id, blobs[object_id])
    return out.getvalue()


def stored(storage: MemoryStorage, db: Database, data: bytes, *, says: bytes | None = None) -> str:
    """Store and index a pack, as if it were what it `says`; return its id."""
    mpack_id = ids.blob_id(says or data)
    storage.put_mpack(mpack_id, data)
    entries = MPackReader(io.BytesIO(says or data)).directory()
    rows = (IndexEntry(entry.object_id, entry.frame, entry.offset, entry.size) for entry in entries)
    add_index_entries(db, mpack_id, rows)
    return mpack_id


def hold(db: Database, blobs: Mapping[str, bytes]) -> None:
    add_blobs(db, REPO, (NewBlob(ids.to_digest(each), "", len(content)) for each, content in blobs.items()))


def read(
    db: Database, storage: MemoryStorage, packs: Sequence[str], object_ids: Sequence[str]
) -> Iterator[tuple[str, bytes]]:
    with BlobReader(db, storage, REPO, retry_after=1) as reader:
        for digest, content in PackedBlobs(reader, packs, object_ids):
            assert not isinstance(content, LargeBlob)
            yield ids.from_digest(digest), bytes(content)


@contextmanager
def undone(db: Database) -> Iterator[None]:
    try:
        yield
    finally:
        db.rollback()


@settings(max_examples=60)
@given(st.data())
def test_blobs_come_as_they_are_wanted_from_whichever_packs_have_them(
    databases: Mapping[str, Database], data: st.DataObject
) -> None:
    everything = st.permutations(sorted(BLOBS))
    several = st.tuples(everything, st.integers(0, len(BLOBS))).map(lambda drawn: drawn[0][: drawn[1]])
    in_packs = data.draw(st.lists(several, max_size=4))
    wanted = data.draw(several)
    db = databases[data.draw(st.sampled_from(sorted(databases)))]
    storage = MemoryStorage()
    with undone(db), pytest.MonkeyPatch.context() as patched:
        patched.setattr(mpack_writer, "BLOB_FRAME_BYTES", data.draw(st.sampled_from((100, 300))))
        patched.setattr(packedblobs, "_BATCH", 5)
        patched.setattr(packedblobs, "_STREAMED_BYTES", 500)
        hold(db, BLOBS)
        packs = [stored(storage, db, pack_of(BLOBS, each)) for each in in_packs]
        asked = data.draw(st.sets(st.sampled_from(packs))) if packs else set()
        for object_id in BLOBS.keys() - set().union(*in_packs):
            storage.put(object_id, BLOBS[object_id])
        found = list(read(db, storage, sorted(asked), wanted))
    assert found == [(object_id, BLOBS[object_id]) for object_id in wanted]


def test_each_frame_of_a_pack_that_has_blobs_as_they_are_wanted_is_read_once(
    databases: Mapping[str, Database],
) -> None:
    db, storage = databases["sqlite"], NotingStorage()
    with undone(db), pytest.MonkeyPatch.context() as patched:
        patched.setattr(mpack_writer, "BLOB_FRAME_BYTES", 300)
        hold(db, BLOBS)
        data = pack_of(BLOBS, BLOBS)
        packs = [stored(storage, db, data)]
        assert len(list(read(db, storage, packs, list(BLOBS)))) == len(BLOBS)
    frames = [frame for frame in MPackReader(io.BytesIO(data)).frames if frame.kind == Kind.BLOBS]
    assert len(frames) > 3
    assert [storage.reads.count((frame.position, frame.stored)) for frame in frames] == [1] * len(frames)


def test_a_pack_in_another_order_takes_no_statement_for_each_blob(databases: Mapping[str, Database]) -> None:
    db, storage = databases["sqlite"], MemoryStorage()
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    # Twice through all frames.
    wanted = [*list(BLOBS)[::2], *list(BLOBS)[1::2]]
    with undone(db), pytest.MonkeyPatch.context() as patched:
        patched.setattr(mpack_writer, "BLOB_FRAME_BYTES", 300)
        hold(db, BLOBS)
        packs = [stored(storage, db, pack_of(BLOBS, BLOBS))]
        engine = db.session.get_bind()
        event.listen(engine, "before_cursor_execute", note)
        try:
            found = list(read(db, storage, packs, wanted))
        finally:
            event.remove(engine, "before_cursor_execute", note)
    assert found == [(object_id, BLOBS[object_id]) for object_id in wanted]
    assert len(statements) < 4


def test_a_blob_that_was_taken_from_the_repo_is_not_read_out_of_a_pack(databases: Mapping[str, Database]) -> None:
    for db in databases.values():
        storage = MemoryStorage()
        with undone(db):
            hold(db, dict(list(BLOBS.items())[1:]))
            packs = [stored(storage, db, pack_of(BLOBS, BLOBS))]
            with pytest.raises(NotIndexed):
                list(read(db, storage, packs, list(BLOBS)))


@pytest.mark.parametrize("compressed", [True, False])
def test_what_is_damaged_in_one_pack_is_read_from_another(databases: Mapping[str, Database], compressed: bool) -> None:
    db, storage = databases["sqlite"], MemoryStorage()
    contents = BLOBS.values() if compressed else (sha256(each).digest() for each in BLOBS.values())
    blobs = {ids.blob_id(content): content for content in contents}
    with undone(db):
        hold(db, blobs)
        good = pack_of(blobs, blobs)
        frame = MPackReader(io.BytesIO(good)).frames[0]
        assert (frame.codec == Codec.ZSTD) == compressed
        middle = frame.position + frame.stored // 2
        bad = good[:middle] + bytes([good[middle] ^ 0x41]) + good[middle + 1 :]
        packs = [stored(storage, db, bad, says=good)]
        stored(storage, db, pack_of(blobs, reversed(blobs)))
        assert list(read(db, storage, packs, list(blobs))) == list(blobs.items())


def test_a_pack_that_is_gone_is_done_without(databases: Mapping[str, Database]) -> None:
    db, storage = databases["sqlite"], MemoryStorage()
    with undone(db):
        hold(db, BLOBS)
        stored(storage, db, pack_of(BLOBS, BLOBS))
        assert list(read(db, storage, [ids.fake_id("gone")], list(BLOBS))) == list(BLOBS.items())


def test_a_blob_over_16_mib_comes_in_a_file(databases: Mapping[str, Database]) -> None:
    db, storage = databases["sqlite"], MemoryStorage()
    blobs = {ids.blob_id(content): content for content in (b"small", b"large" * (4 << 20), b"last")}
    with undone(db):
        hold(db, blobs)
        packs = [stored(storage, db, pack_of(blobs, blobs))]
        with BlobReader(db, storage, REPO, retry_after=1) as reader:
            for digest, content in PackedBlobs(reader, packs, list(blobs)):
                expected = blobs[ids.from_digest(digest)]
                assert isinstance(content, LargeBlob) == (len(expected) > LARGE_BLOB)
                if isinstance(content, LargeBlob):
                    with content:
                        assert b"".join(content.chunks()) == expected
