"""Decompressed frames on disk: what is kept is what was given, and never half of it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from musehub_plugin.framecache import FrameCache

PACK = "sha256:" + "ab" * 32


PART = 1 << 16


def keep(cache: FrameCache, frame: int, raw: bytes, *, mpack_bytes: int = 0) -> None:
    cache.keep(PACK, frame, len(raw), [raw[:10], raw[10:]], mpack_bytes=mpack_bytes)


def half_random(size: int) -> bytes:
    """Return bytes of which half the parts can be compressed, and the others cannot."""
    chance = Random(0)
    return b"".join((chance.randbytes(PART), b"again and again " * (PART // 16))[n % 2] for n in range(size // PART))


def test_a_part_of_a_kept_frame_is_read() -> None:
    cache = FrameCache(1000)
    keep(cache, 3, bytes(range(100)))
    assert cache.read(PACK, 3, 20, 5) == bytes(range(20, 25))


def test_what_runs_past_a_frame_is_not_there() -> None:
    cache = FrameCache(1000)
    keep(cache, 0, bytes(100))
    keep(cache, 1, bytes(100))
    assert cache.read(PACK, 0, 90, 11) is None


@pytest.mark.parametrize("mpack_bytes", [0, 1 << 20], ids=["as it is", "compressed"])
@pytest.mark.parametrize("place", [(-1, 10), (0, -1), (-1, 0), (-1, -1), (-(1 << 20), 10)])
def test_a_place_before_a_frame_is_not_there(place: tuple[int, int], mpack_bytes: int) -> None:
    cache = FrameCache(1000)
    keep(cache, 0, bytes(100), mpack_bytes=mpack_bytes)
    assert cache.read(PACK, 0, *place) is None


def test_another_frame_and_another_pack_are_not_there() -> None:
    cache = FrameCache(1000)
    keep(cache, 0, bytes(100))
    assert cache.read(PACK, 1, 0, 5) is None
    assert cache.read("sha256:" + "cd" * 32, 0, 0, 5) is None


def test_a_new_frame_takes_the_place_of_the_oldest() -> None:
    cache = FrameCache(1000)
    for frame in range(5):
        keep(cache, frame, bytes([frame]) * 240)
    assert cache.read(PACK, 0, 0, 1) is None
    assert [cache.read(PACK, frame, 239, 1) for frame in range(1, 5)] == [b"\1", b"\2", b"\3", b"\4"]


def test_frames_that_fill_the_whole_are_all_there() -> None:
    cache = FrameCache(1000)
    for frame in range(4):
        keep(cache, frame, bytes(250))
    assert None not in [cache.read(PACK, frame, 0, 1) for frame in range(4)]


def test_a_new_frame_takes_the_place_of_all_that_are_where_it_goes() -> None:
    cache = FrameCache(1000)
    for frame in range(10):
        keep(cache, frame, bytes([frame]) * 100)
    keep(cache, 10, bytes([10]) * 250)
    found = [cache.read(PACK, frame, 0, 100) for frame in range(10)]
    assert found == [None, None, None, *(bytes([frame]) * 100 for frame in range(3, 10))]


@pytest.mark.parametrize("mpack_bytes", [0, 1 << 30], ids=["as it is", "compressed"])
def test_a_frame_takes_no_more_room_than_was_announced(mpack_bytes: int) -> None:
    raw = Random(0).randbytes(2 * PART)
    cache = FrameCache(4 * PART)
    for frame in range(4):
        keep(cache, frame, raw[:PART], mpack_bytes=mpack_bytes)
    cache.keep(PACK, 4, PART, [raw[:PART], raw[PART:]], mpack_bytes=mpack_bytes)
    keep(cache, 5, raw[PART:], mpack_bytes=mpack_bytes)
    found = [cache.read(PACK, frame, 0, PART) for frame in range(6)]
    assert found == [None, *[raw[:PART]] * 3, None, raw[PART:]]


def test_a_frame_that_would_push_out_most_others_is_not_kept() -> None:
    cache = FrameCache(1000)
    keep(cache, 0, bytes(251))
    assert cache.read(PACK, 0, 0, 1) is None


@given(st.integers(0, 5 * PART), st.integers(0, 3 * PART))
@example(PART, PART)
@example(0, 5 * PART)
@example(5 * PART, 0)
def test_any_part_of_a_frame_that_is_kept_compressed_is_read(offset: int, size: int) -> None:
    raw = half_random(5 * PART)
    cache = FrameCache(20 * PART)
    keep(cache, 0, raw, mpack_bytes=11 * PART)
    expected = raw[offset : offset + size] if offset + size <= len(raw) else None
    assert cache.read(PACK, 0, offset, size) == expected


def test_the_last_part_of_a_compressed_frame_is_read_where_it_could_not_be_compressed() -> None:
    raw = Random(0).randbytes(PART + 1_000)
    cache = FrameCache(8 * PART)
    keep(cache, 0, raw, mpack_bytes=100 * PART)
    assert cache.read(PACK, 0, PART - 10, 1_010) == raw[PART - 10 :]


@pytest.mark.parametrize("zeros", range(60))
def test_a_part_that_is_as_long_compressed_is_read(zeros: int) -> None:
    raw = Random(0).randbytes(100) + bytes(zeros)
    cache = FrameCache(1_000)
    keep(cache, 0, raw, mpack_bytes=1_000)
    assert cache.read(PACK, 0, 0, len(raw)) == raw


@pytest.mark.parametrize(("mpack_bytes", "held"), [(4 * PART, 4), (4 * PART + 1, 5)], ids=["half", "more than half"])
def test_frames_are_compressed_where_their_mpack_takes_more_than_half_of_what_has_room(
    mpack_bytes: int, held: int
) -> None:
    cache = FrameCache(8 * PART)
    # As they are four have room at a time, and the fifth pushes out the first.
    for frame in range(5):
        keep(cache, frame, b"again and again " * (2 * PART // 16), mpack_bytes=mpack_bytes)
    assert len([frame for frame in range(5) if cache.read(PACK, frame, 0, 5) is not None]) == held


def test_frames_of_an_mpack_that_would_push_one_another_out_are_kept_compressed() -> None:
    cache = FrameCache(20 * PART)
    raw = b"again and again " * (5 * PART // 16)
    for frame in range(40):
        keep(cache, frame, raw, mpack_bytes=40 * 5 * PART)
    assert [cache.read(PACK, frame, 3 * PART, 5) for frame in range(40)] == [b"again"] * 40


def test_frames_that_pass_are_kept_as_they_are_whatever_their_mpack_takes() -> None:
    cache = FrameCache(8 * PART, passing=True)
    for frame in range(9):
        keep(cache, frame, bytes([frame]) * PART, mpack_bytes=100 * PART)
    # Compressed, the first would have room beside the others.
    assert cache.read(PACK, 0, 0, 1) is None
    assert cache.read(PACK, 8, PART - 1, 1) == b"\x08"


def test_frames_that_are_kept_compressed_take_the_place_of_the_oldest() -> None:
    raw = half_random(5 * PART)
    cache = FrameCache(20 * PART)
    for frame in range(12):
        keep(cache, frame, raw[frame:], mpack_bytes=60 * PART)
    there = [frame for frame in range(12) if cache.read(PACK, frame, 3 * PART, 9) is not None]
    assert there == list(range(there[0], 12))
    assert {cache.read(PACK, frame, 3 * PART, 9) == raw[frame:][3 * PART : 3 * PART + 9] for frame in there} == {True}


def test_no_bytes_at_all_keep_nothing() -> None:
    cache = FrameCache(0)
    keep(cache, 0, b"a frame")
    assert cache.read(PACK, 0, 0, 1) is None


def test_a_frame_that_breaks_off_is_not_kept_and_may_come_again() -> None:
    def broken() -> Iterator[bytes]:
        yield b"the beginning"
        raise ConnectionError

    cache = FrameCache(1000)
    with pytest.raises(ConnectionError):
        cache.keep(PACK, 0, 100, broken())
    assert cache.read(PACK, 0, 0, 5) is None
    keep(cache, 0, b"now it is whole")
    assert cache.read(PACK, 0, 0, 15) == b"now it is whole"


def test_a_frame_that_is_shorter_than_announced_is_not_kept() -> None:
    cache = FrameCache(1000)
    cache.keep(PACK, 0, 100, [b"less"])
    assert cache.read(PACK, 0, 0, 4) is None


def test_a_frame_that_is_there_is_not_asked_for_again() -> None:
    def never() -> Iterator[bytes]:
        raise AssertionError("asked for again")
        yield

    cache = FrameCache(1000)
    keep(cache, 0, b"once is enough")
    cache.keep(PACK, 0, 14, never())
    assert cache.read(PACK, 0, 0, 4) == b"once"


def test_a_fork_leaves_its_parent_what_it_has() -> None:
    cache = FrameCache(1000)
    keep(cache, 0, b"the parent's frame")

    def child() -> None:
        assert cache.read(PACK, 0, 0, 3) is None
        keep(cache, 0, b"THE CHILD'S FRAME")
        assert cache.read(PACK, 0, 0, 3) == b"THE"

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == 0
    assert cache.read(PACK, 0, 0, 3) == b"the"
