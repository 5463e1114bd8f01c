"""Bytes that are no pack, or no longer: one kind of error, in little time and memory."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musehub_plugin import ids
from musehub_plugin.mpack import MPackError, MPackReader, build_wire_mpack, parse_wire_mpack
from musehub_plugin.mpack.zstd import zstd
from tests.effort import effort

# `assemble` and `hand_frame` are fixtures of conftest.py.
Assemble = Callable[..., bytes]
HandFrame = Callable[..., Any]

NO_ROWS: list[Any] = [[], [], [], [], [], [], [], [], b""]


def peak_of(action: Callable[[], object]) -> int:
    """Return the most memory that Python held for `action`, in bytes."""
    tracemalloc.start()
    try:
        action()
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


def test_every_truncation_is_refused(small_pack: bytes) -> None:
    for size in range(len(small_pack)):
        with pytest.raises(MPackError):
            parse_wire_mpack(small_pack[:size])


def test_every_flipped_bit_is_refused_or_gives_another_well_formed_pack(small_pack: bytes) -> None:
    for position in range(len(small_pack)):
        for bit in range(8):
            damaged = bytearray(small_pack)
            damaged[position] ^= 1 << bit
            try:
                found = parse_wire_mpack(bytes(damaged))
            except MPackError:
                continue
            build_wire_mpack(**found)


@pytest.mark.parametrize("extra", [b"\0", b"\0" * 16, b"\x1aMPKEND\n"])
def test_bytes_after_the_end_are_refused(small_pack: bytes, extra: bytes) -> None:
    with pytest.raises(MPackError):
        parse_wire_mpack(small_pack + extra)


def test_bytes_before_the_beginning_are_refused(small_pack: bytes) -> None:
    with pytest.raises(MPackError, match="magic"):
        parse_wire_mpack(b"\0" + small_pack)


def test_a_missing_byte_in_the_middle_is_refused(small_pack: bytes) -> None:
    for position in range(8, len(small_pack)):
        with pytest.raises(MPackError):
            parse_wire_mpack(small_pack[:position] + small_pack[position + 1 :])


@effort(200)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(MPackError):
        parse_wire_mpack(data)


@effort(200)
@given(kind=st.integers(1, 5), raw=st.binary(max_size=60), count=st.integers(0, 3), compress=st.booleans())
def test_any_bytes_in_a_frame_are_refused_or_read(kind: int, raw: bytes, count: int, compress: bool) -> None:
    stored = zstd.compress(raw * 9) if compress else raw
    columns = [[kind], [int(compress)], [len(stored)], [len(raw) * (9 if compress else 1)], [count]]
    table = msgpack.packb({"needs": [], "frames": columns})
    size = len(table).to_bytes(4, "big")
    data = b"\x8dMPK1\r\n\x1a" + stored + table + size + size + b"\x1aMPKEND\n"
    with suppress(MPackError):
        parse_wire_mpack(data)


@effort(100)
@given(st.recursive(st.one_of(st.none(), st.integers(), st.text(max_size=3)), lambda inner: st.lists(inner)))
def test_any_table_of_contents_is_refused(columns: object) -> None:
    try:
        table = msgpack.packb({"needs": [], "frames": columns})
    except OverflowError:
        return
    size = len(table).to_bytes(4, "big")
    if columns == [[]] * 5:
        return
    with pytest.raises(MPackError):
        parse_wire_mpack(b"\x8dMPK1\r\n\x1a" + table + size + size + b"\x1aMPKEND\n")


def test_an_error_says_which_frame_is_damaged(small_pack: bytes) -> None:
    frame = MPackReader(io.BytesIO(small_pack)).frames[0]
    damaged = bytearray(small_pack)
    damaged[frame.position] ^= 0xFF
    with pytest.raises(MPackError, match=r"frame 0 \(blobs\)"):
        parse_wire_mpack(bytes(damaged))


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"\x99" + b"\xdd\xff\xff\xff\xff", id="array of 2^32 values"),
        pytest.param(b"\x99" + b"\xdc\xff\xff" * 20_000, id="arrays of 65535 in one another"),
        pytest.param(b"\x99" + b"\x91" * 100_000, id="arrays of 1 in one another"),
        pytest.param(b"\x99" + b"\x81\xa1a" * 30_000, id="maps in one another"),
        pytest.param(b"\x99\xdd\x00\x0f\x42\x40" + b"\x80" * 1_000_000, id="a million empty maps"),
        pytest.param(b"\x99\xdd\x00\x0f\x42\x40" + b"\x90" * 1_000_000, id="a million empty arrays"),
        pytest.param(b"\x99\xc6\xff\xff\xff\xff", id="byte string of 4 GiB"),
        pytest.param(b"\x99\xdb\xff\xff\xff\xff", id="string of 4 GiB"),
        pytest.param(b"\x99\xc9\xff\xff\xff\xff\x01", id="extension of 4 GiB"),
        pytest.param(b"\x99\x91\xd6\xff\x00\x00\x00\x00", id="timestamp"),
        pytest.param(b"\xdf\xff\xff\xff\xff", id="map of 2^32 pairs"),
    ],
)
def test_s41_columns_cannot_make_a_reader_allocate(assemble: Assemble, hand_frame: HandFrame, raw: bytes) -> None:
    data = assemble(hand_frame(4, raw, 1))

    def read() -> None:
        with pytest.raises(MPackError):
            parse_wire_mpack(data)

    assert peak_of(read) < 10 << 20


@pytest.mark.parametrize(
    "extra",
    [
        pytest.param(b"\xdc\xff\xff" * 20_000, id="arrays of 65535 in one another"),
        pytest.param(b"\x81\xa1a" * 30_000, id="maps in one another"),
        pytest.param(b"\x81\xa1a\xdd\x00\x0f\x00\x00" + b"\x80" * 0xF0000, id="a million empty maps"),
        pytest.param(b"\x81\xa1a\xdd\xff\xff\xff\xff", id="array of 2^32 values"),
        pytest.param(b"\x82\xa1a\x01\xa1a\x02", id="a key twice"),
        pytest.param(b"\x81\xc4\x01a\x01", id="key of bytes"),
        pytest.param(b"\x81\x01\x01", id="key of a number"),
        pytest.param(b"\x81\xa1a\xd6\xff\x00\x00\x00\x00", id="timestamp"),
        pytest.param(b"\x81\xa1a\xc1", id="unused type"),
        pytest.param(b"\x81\xa1a\xa1\xff", id="invalid UTF-8"),
        pytest.param(b"\x80\x80", id="something after it"),
        pytest.param(b"\x81\xa1a", id="cut off"),
        pytest.param(b"\x93\x01\x02\x03", id="no map"),
        pytest.param(b"\x81\xa7message\xa1x", id="a field that has its own place"),
    ],
)
def test_further_fields_that_are_no_plain_map_are_refused(
    assemble: Assemble, hand_frame: HandFrame, extra: bytes
) -> None:
    digest = b"\1" * 32
    columns = [[0], b"", digest, [0], [], [1], [""], [""], [""], [""], [extra]]
    data = assemble(hand_frame(5, msgpack.packb(columns), 1))

    def read() -> None:
        with pytest.raises(MPackError):
            parse_wire_mpack(data)

    assert peak_of(read) < 10 << 20


@pytest.mark.parametrize(("raw", "message"), [(1 << 24, "states"), (1000, "states"), (999_999, "states")])
def test_a_zstd_frame_of_another_size_than_the_table_says_is_refused_unread(
    assemble: Assemble, hand_frame: HandFrame, raw: int, message: str
) -> None:
    digest, size = b"\1" * 32, raw
    directory = msgpack.packb([digest, [size]])
    blobs = hand_frame(1, zstd.compress(bytes(1_000_000)), 1, codec=1, raw=raw)
    data = assemble(blobs, hand_frame(2, directory, 1))

    def read() -> None:
        with pytest.raises(MPackError, match=message):
            parse_wire_mpack(data)

    assert peak_of(read) < 1 << 20


def test_a_zstd_frame_that_does_not_state_its_size_is_refused(assemble: Assemble, hand_frame: HandFrame) -> None:
    stored = zstd.compress(bytes(5000), options={zstd.CompressionParameter.content_size_flag: 0})
    data = assemble(hand_frame(3, stored, 1, codec=1, raw=5000))
    with pytest.raises(MPackError, match="states None"):
        parse_wire_mpack(data)


def test_a_zstd_frame_with_a_window_over_16_mib_is_refused(assemble: Assemble, hand_frame: HandFrame) -> None:
    # Made by hand: content size 1000, window 2^25, then one block of 1000 repeated bytes.
    header = b"\x28\xb5\x2f\xfd" + bytes([0x40, (25 - 10) << 3]) + (1000 - 256).to_bytes(2, "little")
    block = (1 | 1 << 1 | 1000 << 3).to_bytes(3, "little") + b"a"
    assert zstd.decompress(header + block) == b"a" * 1000
    data = assemble(hand_frame(3, header + block, 1, codec=1, raw=1000))
    with pytest.raises(MPackError, match="window"):
        parse_wire_mpack(data)


def test_a_zstd_frame_that_holds_more_than_it_states_is_refused(assemble: Assemble, hand_frame: HandFrame) -> None:
    # A block of 1000 bytes under a header of 300.
    header = b"\x28\xb5\x2f\xfd" + bytes([0x60]) + (300 - 256).to_bytes(2, "little")
    block = (1 | 1 << 1 | 1000 << 3).to_bytes(3, "little") + b"a"
    data = assemble(hand_frame(3, header + block, 1, codec=1, raw=300))
    with pytest.raises(MPackError):
        parse_wire_mpack(data)


def test_a_zstd_frame_that_needs_a_dictionary_is_refused(assemble: Assemble, hand_frame: HandFrame) -> None:
    dictionary = zstd.train_dict([b"%d and more of the same" % n for n in range(2000)], 1024)
    stored = zstd.compress(b"7 and more of the same" * 10, zstd_dict=dictionary)
    with pytest.raises(MPackError, match="dictionary"):
        parse_wire_mpack(assemble(hand_frame(3, stored, 1, codec=1, raw=220)))


def test_a_second_zstd_frame_is_refused(assemble: Assemble, hand_frame: HandFrame) -> None:
    stored = zstd.compress(bytes(320)) + zstd.compress(b"")
    with pytest.raises(MPackError, match="follow its frame"):
        parse_wire_mpack(assemble(hand_frame(3, stored, 10, codec=1, raw=320)))


def test_a_bomb_is_refused_by_its_ratio(assemble: Assemble, hand_frame: HandFrame) -> None:
    stored = zstd.compress(bytes(1 << 24))
    frames = [hand_frame(1, stored, 1, codec=1, raw=1 << 24) for _ in range(8)]
    ids_of_zeros = [bytes([n]) * 32 for n in range(8)]
    directory = hand_frame(2, msgpack.packb([b"".join(ids_of_zeros), [1 << 24] * 8]), 8)

    def read() -> None:
        with pytest.raises(MPackError, match="times the file's size"):
            parse_wire_mpack(assemble(*frames, directory))

    assert peak_of(read) < 1 << 20


def test_what_the_writer_writes_is_never_taken_for_a_bomb() -> None:
    content = bytes(1 << 24)
    blobs = [{"object_id": ids.fake_id(str(n)), "content": content} for n in range(12)]
    data = build_wire_mpack(commits=[], snapshots=[], blobs=blobs)
    assert MPackReader(io.BytesIO(data)).raw_size == 12 << 24
