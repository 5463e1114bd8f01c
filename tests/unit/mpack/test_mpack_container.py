"""The file around the frames: what a table of contents may and may not say."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import msgpack
import pytest

from musehub_plugin import ids
from musehub_plugin.mpack import Limits, MPackError, MPackReader, parse_wire_mpack
from musehub_plugin.mpack import reader as reader_module
from musehub_plugin.mpack.layout import Codec, encode_frame
from musehub_plugin.mpack.zstd import compress, zstd

# `assemble` and `hand_frame` are fixtures of conftest.py.
Assemble = Callable[..., bytes]
HandFrame = Callable[..., Any]

HELLO = ids.blob_id(b"hello")
BLOBS = [{"object_id": HELLO, "content": b"hello"}]
DIRECTORY = msgpack.packb([ids.to_digest(HELLO), [5]])


def test_a_pack_put_together_by_hand_reads(assemble: Assemble, hand_frame: HandFrame) -> None:
    assert parse_wire_mpack(assemble(hand_frame(1, b"hello", 1), hand_frame(2, DIRECTORY, 1)))["blobs"] == BLOBS


def test_a_compressed_table_of_contents_reads(assemble: Assemble, hand_frame: HandFrame) -> None:
    skipped = [hand_frame(200, b"", 0) for _ in range(40)]
    data = assemble(hand_frame(1, b"hello", 1), hand_frame(2, DIRECTORY, 1), *skipped, compress_table=True)
    assert parse_wire_mpack(data)["blobs"] == BLOBS


@pytest.mark.parametrize("codec", [2, 9])
def test_optional_frames_and_unknown_keys_are_skipped(assemble: Assemble, hand_frame: HandFrame, codec: int) -> None:
    later = hand_frame(128, b"from a later version", 7, codec=codec, raw=1 << 60)
    extra = {"later": [{"x": 1}], "bases": "of no thin pack"}
    data = assemble(hand_frame(1, b"hello", 1), later, hand_frame(2, DIRECTORY, 1), extra=extra)
    assert parse_wire_mpack(data)["blobs"] == BLOBS


def test_a_feature_that_is_not_known_is_refused_by_name(assemble: Assemble) -> None:
    with pytest.raises(MPackError, match="'later'"):
        parse_wire_mpack(assemble(needs=["later"]))


def test_another_version_is_refused(small_pack: bytes) -> None:
    with pytest.raises(MPackError, match="version"):
        parse_wire_mpack(small_pack.replace(b"MPK1", b"MPK2", 1))


@pytest.mark.parametrize("kind", [0, 6, 127])
def test_a_kind_that_is_not_known_is_refused(assemble: Assemble, hand_frame: HandFrame, kind: int) -> None:
    with pytest.raises(MPackError, match=f"kind {kind}"):
        parse_wire_mpack(assemble(hand_frame(kind, b"", 0)))


def test_a_codec_that_is_not_known_is_refused(assemble: Assemble, hand_frame: HandFrame) -> None:
    with pytest.raises(MPackError, match="codec 3"):
        parse_wire_mpack(assemble(hand_frame(1, b"hello", 1, codec=3), hand_frame(2, DIRECTORY, 1)))


def test_a_gap_before_the_table_is_refused(assemble: Assemble, hand_frame: HandFrame) -> None:
    data = assemble(hand_frame(1, b"hello", 1), hand_frame(2, DIRECTORY, 1), gap=b"\0")
    with pytest.raises(MPackError, match="belong to no frame"):
        parse_wire_mpack(data)


def test_a_frame_that_reaches_into_the_table_is_refused(assemble: Assemble, hand_frame: HandFrame) -> None:
    data = assemble(hand_frame(1, b"hello", 1), hand_frame(2, DIRECTORY, 1, stored_size=len(DIRECTORY) + 1))
    with pytest.raises(MPackError, match="frame 1"):
        parse_wire_mpack(data)


def test_frames_out_of_order_are_refused(assemble: Assemble, hand_frame: HandFrame) -> None:
    with pytest.raises(MPackError, match="out of order"):
        parse_wire_mpack(assemble(hand_frame(2, DIRECTORY, 1), hand_frame(1, b"hello", 1)))


def test_an_optional_frame_before_the_blobs_is_refused(assemble: Assemble, hand_frame: HandFrame) -> None:
    frames = [hand_frame(128, b"?", 1), hand_frame(1, b"hello", 1), hand_frame(2, DIRECTORY, 1)]
    with pytest.raises(MPackError, match="frame 1: blobs out of order"):
        parse_wire_mpack(assemble(*frames))


def test_a_plain_frame_whose_sizes_differ_is_refused(assemble: Assemble, hand_frame: HandFrame) -> None:
    with pytest.raises(MPackError, match="sizes differ"):
        parse_wire_mpack(assemble(hand_frame(1, b"hello", 1, raw=6), hand_frame(2, DIRECTORY, 1)))


def test_a_frame_that_compression_made_no_smaller_is_refused(assemble: Assemble, hand_frame: HandFrame) -> None:
    stored = zstd.compress(b"hello")
    with pytest.raises(MPackError, match="no smaller"):
        parse_wire_mpack(assemble(hand_frame(1, stored, 1, codec=1, raw=5), hand_frame(2, DIRECTORY, 1)))


@pytest.mark.parametrize(("kind", "bound"), [(1, 1 << 24), (2, 1 << 22), (3, 1 << 22), (4, 1 << 22), (5, 1 << 22)])
def test_a_frame_over_the_bound_of_its_kind_is_refused(
    assemble: Assemble, hand_frame: HandFrame, kind: int, bound: int
) -> None:
    with pytest.raises(MPackError, match="bound"):
        parse_wire_mpack(assemble(hand_frame(kind, b"x", 0, codec=1, raw=bound + 1)))


@pytest.mark.parametrize("value", [-1, True, None, "1", 1.0, [1]])
@pytest.mark.parametrize("column", range(5))
def test_a_table_row_that_is_not_five_sizes_is_refused(column: int, value: object) -> None:
    columns: list[list[object]] = [[1], [0], [0], [0], [0]]
    columns[column] = [value]
    table = msgpack.packb({"needs": [], "frames": columns})
    size = len(table).to_bytes(4, "big")
    with pytest.raises(MPackError, match="frame 0"):
        parse_wire_mpack(b"\x8dMPK1\r\n\x1a" + table + size + size + b"\x1aMPKEND\n")


@pytest.mark.parametrize(
    "table",
    [
        pytest.param([], id="no map"),
        pytest.param({"frames": [[]] * 5}, id="no needs"),
        pytest.param({"needs": []}, id="no frames"),
        pytest.param({"needs": [1], "frames": [[]] * 5}, id="a need that is no string"),
        pytest.param({"needs": [[]], "frames": [[]] * 5}, id="a need that is an array"),
        pytest.param({"needs": [], "frames": [[]] * 4}, id="four columns"),
        pytest.param({"needs": [], "frames": [[], [], [], [], [1]]}, id="columns of different length"),
        pytest.param({"needs": [], "frames": [[], [], [], [], 1]}, id="a column that is no array"),
    ],
)
def test_a_table_of_another_shape_is_refused(table: object) -> None:
    raw = msgpack.packb(table)
    size = len(raw).to_bytes(4, "big")
    with pytest.raises(MPackError, match="table of contents"):
        parse_wire_mpack(b"\x8dMPK1\r\n\x1a" + raw + size + size + b"\x1aMPKEND\n")


def test_a_key_that_the_table_has_twice_is_refused() -> None:
    raw = b"\x83" + b"\xa5needs\x90" * 2 + b"\xa6frames\x95\x90\x90\x90\x90\x90"
    size = len(raw).to_bytes(4, "big")
    with pytest.raises(MPackError, match="twice"):
        parse_wire_mpack(b"\x8dMPK1\r\n\x1a" + raw + size + size + b"\x1aMPKEND\n")


@pytest.mark.parametrize(
    ("stored", "raw", "message"),
    [
        (1 << 31, 1 << 31, "does not fit"),
        (20, 10, "stored larger"),
        (20, (1 << 32) - 1, "over the limit"),
    ],
)
def test_a_trailer_with_false_sizes_is_refused(stored: int, raw: int, message: str) -> None:
    sizes = stored.to_bytes(4, "big") + raw.to_bytes(4, "big")
    with pytest.raises(MPackError, match=message):
        parse_wire_mpack(b"\x8dMPK1\r\n\x1a" + bytes(20) + sizes + b"\x1aMPKEND\n")


def directory_of(*blobs: tuple[str, int]) -> bytes:
    """Return the raw bytes of a directory frame."""
    packed: bytes = msgpack.packb([b"".join(ids.to_digest(oid) for oid, _ in blobs), [size for _, size in blobs]])
    return packed


def test_blobs_may_run_on_through_frames(assemble: Assemble, hand_frame: HandFrame) -> None:
    names = [ids.fake_id(str(n)) for n in range(4)]
    directory = directory_of((names[0], 2), (names[1], 7), (names[2], 0), (names[3], 1))
    frames = [hand_frame(1, b"aab", 2), hand_frame(1, b"bb", 0), hand_frame(1, b"bbbb", 1), hand_frame(1, b"d", 1)]
    found = parse_wire_mpack(assemble(*frames, hand_frame(2, directory, 4)))["blobs"]
    assert [blob["content"] for blob in found] == [b"aa", b"bbbbbbb", b"", b"d"]


@pytest.mark.parametrize("counts", [(1, 1), (2, 0)])
def test_a_blob_at_the_border_of_two_frames_begins_in_the_one_that_counts_it(
    assemble: Assemble, hand_frame: HandFrame, counts: tuple[int, int]
) -> None:
    directory = directory_of((ids.fake_id("a"), 2), (ids.fake_id("b"), 1))
    pack = assemble(hand_frame(1, b"aa", counts[0]), hand_frame(1, b"b", counts[1]), hand_frame(2, directory, 2))
    assert [blob["content"] for blob in parse_wire_mpack(pack)["blobs"]] == [b"aa", b"b"]
    reader = MPackReader(io.BytesIO(pack))
    entry = list(reader.directory())[1]
    assert reader.read_blob(entry.frame, entry.offset, entry.size) == b"b"


@pytest.mark.parametrize(
    ("frames", "sizes"),
    [
        pytest.param([(b"abc", 2)], [1, 1], id="bytes left in the last frame"),
        pytest.param([(b"abc", 2)], [1, 3], id="last blob runs past the last frame"),
        pytest.param([(b"abc", 1), (b"d", 1)], [2, 2], id="bytes left in a frame before"),
        pytest.param([(b"abc", 2), (b"d", 0)], [4, 0], id="a blob begins in a later frame than counted"),
        pytest.param([(b"abc", 0), (b"d", 1)], [4], id="a blob begins in an earlier frame than counted"),
        pytest.param([(b"abc", 1)], [1 << 63], id="a blob of 2^63 bytes"),
        pytest.param([(b"abc", 1)], [-1], id="a blob of less than nothing"),
    ],
)
def test_sizes_that_contradict_the_frames_are_refused(
    assemble: Assemble, hand_frame: HandFrame, frames: list[tuple[bytes, int]], sizes: list[int]
) -> None:
    directory = directory_of(*((ids.fake_id(str(n)), size) for n, size in enumerate(sizes)))
    hand_frames = [hand_frame(1, raw, count) for raw, count in frames]
    reader = MPackReader(io.BytesIO(assemble(*hand_frames, hand_frame(2, directory, len(sizes)))))
    with pytest.raises(MPackError):
        next(reader.directory())


def test_a_directory_of_fewer_blobs_than_the_frames_count_is_refused(assemble: Assemble, hand_frame: HandFrame) -> None:
    with pytest.raises(MPackError, match="directory"):
        parse_wire_mpack(assemble(hand_frame(1, b"hello", 2), hand_frame(2, DIRECTORY, 1)))


def test_a_directory_of_more_blobs_than_the_frames_count_is_refused(assemble: Assemble, hand_frame: HandFrame) -> None:
    directory = hand_frame(2, directory_of((HELLO, 5), (ids.fake_id("another"), 0)), 2)
    with pytest.raises(MPackError, match="directory"):
        parse_wire_mpack(assemble(hand_frame(1, b"hello", 1), directory))


def test_outside_ids_and_snapshots_take_turns(assemble: Assemble, hand_frame: HandFrame) -> None:
    outside, none = (
        hand_frame(3, ids.to_digest(HELLO), 1),
        hand_frame(4, msgpack.packb(EMPTY_COLUMNS["snapshots"][1]), 0),
    )
    assert list(MPackReader(io.BytesIO(assemble(none, outside, none))).outside_objects()) == [HELLO]


def test_a_directory_that_is_too_long_to_keep_is_read_where_it_is_needed(
    assemble: Assemble, hand_frame: HandFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "_KEPT_SIZES", 0)
    sizes = [2, 1, 3, 4, 2, 5]
    blobs = [(ids.fake_id(str(number)), size) for number, size in enumerate(sizes)]
    frames = [hand_frame(1, bytes(sum(sizes[at : at + 2])), 2) for at in (0, 2, 4)]
    directory = [hand_frame(2, directory_of(*blobs[at : at + 3]), 3) for at in (0, 3)]
    reader = MPackReader(io.BytesIO(assemble(*frames, *directory)))
    placed = list(reader.placed_digests())
    assert [place[3] for _, place in placed] == sizes
    for first in range(3):
        assert list(reader.placed_digests(range(first, 3))) == placed[2 * first :]


def test_a_place_past_the_end_of_its_frame_is_refused_although_another_follows(
    assemble: Assemble, hand_frame: HandFrame
) -> None:
    directory = directory_of((ids.fake_id("a"), 2), (ids.fake_id("b"), 2))
    reader = MPackReader(
        io.BytesIO(assemble(hand_frame(1, b"aa", 1), hand_frame(1, b"bb", 1), hand_frame(2, directory, 2)))
    )
    with pytest.raises(MPackError, match="no offset 3"):
        reader.read_blob(0, 3, 1)


def test_a_place_of_more_bytes_than_the_limit_on_a_blob_is_refused(assemble: Assemble, hand_frame: HandFrame) -> None:
    pack = io.BytesIO(assemble(hand_frame(1, b"hello", 1), hand_frame(2, DIRECTORY, 1)))
    assert MPackReader(pack, limits=Limits(max_blob_size=4)).read_blob(0, 0, 4) == b"hell"
    with pytest.raises(MPackError, match="limit of 4"):
        MPackReader(pack, limits=Limits(max_blob_size=4)).read_blob(0, 0, 5)


def test_a_directory_with_a_blob_over_the_limit_is_refused(assemble: Assemble, hand_frame: HandFrame) -> None:
    pack = io.BytesIO(assemble(hand_frame(1, b"hello", 1), hand_frame(2, DIRECTORY, 1)))
    with pytest.raises(MPackError, match="size 0 is 5, not from 0 to 4"):
        next(MPackReader(pack, limits=Limits(max_blob_size=4)).directory())


def test_what_compression_makes_no_smaller_is_stored_plain() -> None:
    texts = [bytes(range(size)) + b"a" * more for size in range(40) for more in range(20)]
    as_long = [raw for raw in texts if len(compress(raw, level=6, window_log=22)) == len(raw)]
    assert as_long
    assert {encode_frame(raw, level=6, window_log=22)[0] for raw in as_long} == {Codec.PLAIN}


def test_a_blob_that_is_listed_twice_is_refused(assemble: Assemble, hand_frame: HandFrame) -> None:
    directory = hand_frame(2, directory_of((HELLO, 2), (HELLO, 3)), 2)
    with pytest.raises(MPackError, match="twice"):
        parse_wire_mpack(assemble(hand_frame(1, b"hello", 2), directory))


def test_an_outside_id_that_is_listed_twice_is_refused(assemble: Assemble, hand_frame: HandFrame) -> None:
    outside = hand_frame(3, ids.to_digest(HELLO) * 2, 2)
    with pytest.raises(MPackError, match="twice"):
        parse_wire_mpack(assemble(outside))


@pytest.mark.parametrize("raw", [bytes(64), bytes(33), b""], ids=["two", "one and a byte", "none"])
def test_outside_ids_that_are_not_as_many_as_counted_are_refused(
    assemble: Assemble, hand_frame: HandFrame, raw: bytes
) -> None:
    with pytest.raises(MPackError, match="are not 1 ids"):
        list(MPackReader(io.BytesIO(assemble(hand_frame(3, raw, 1)))).outside_objects())


EMPTY_COLUMNS = {
    "directory": (2, [b"", []]),
    "snapshots": (4, [[], [], [], [], [], [], [], [], b""]),
    "commits": (5, [[], b"", b"", [], [], [], [], [], [], [], []]),
}


@pytest.mark.parametrize("name", EMPTY_COLUMNS)
def test_bytes_that_follow_the_last_column_are_refused(assemble: Assemble, hand_frame: HandFrame, name: str) -> None:
    kind, columns = EMPTY_COLUMNS[name]
    raw = msgpack.packb(columns)
    parse_wire_mpack(assemble(hand_frame(kind, raw, 0)))
    with pytest.raises(MPackError, match="1 bytes follow"):
        parse_wire_mpack(assemble(hand_frame(kind, raw + b"\0", 0)))


@pytest.mark.parametrize("frame", [-1, 1, 2])
def test_a_frame_that_holds_no_blobs_has_no_pieces(assemble: Assemble, hand_frame: HandFrame, frame: int) -> None:
    reader = MPackReader(io.BytesIO(assemble(hand_frame(1, b"hello", 1), hand_frame(2, DIRECTORY, 1))))
    with pytest.raises(MPackError, match="no blobs"):
        reader.blob_pieces(frame)


@pytest.mark.parametrize(
    "place",
    [(1, 0, 1), (-1, 0, 1), (-2, 0, 1), (0, 6, 1), (0, -1, 1), (0, 0, 6), (0, 4, 2), (0, 0, -1), (0, 0, 1 << 40)],
)
def test_a_place_that_the_pack_does_not_have_is_refused(
    assemble: Assemble, hand_frame: HandFrame, place: tuple[int, int, int]
) -> None:
    reader = MPackReader(io.BytesIO(assemble(hand_frame(1, b"hello", 1), hand_frame(2, DIRECTORY, 1))))
    with pytest.raises(MPackError):
        reader.read_blob(*place)


def test_a_source_that_gives_less_than_asked_is_read_on(small_pack: bytes) -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size, 7) if size is not None and size >= 0 else size)

    assert len(list(MPackReader(Slow(small_pack)).commits())) == 6


def test_reads_are_one_for_each_frame_and_two_for_the_table(small_pack: bytes) -> None:
    class Counting(io.BytesIO):
        reads = 0

        def read(self, size: int | None = -1, /) -> bytes:
            self.reads += 1
            return super().read(size)

    source = Counting(small_pack)
    reader = MPackReader(source)
    for blob in reader.blobs():
        blob.read()
    list(reader.snapshots())
    list(reader.commits())
    assert source.reads == 2 + len(reader.frames)
