"""A file over range requests reads as a file in memory does."""

from __future__ import annotations

import io
import os
import random
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musehub_plugin.storage.rangefile import MAX_WINDOW, RangeFile
from tests.effort import effort

CONTENT = random.Random(1).randbytes(3_000_000)

# What a reader may do: read so many bytes, or go to a place counted from start, here or end.
steps = st.lists(
    st.tuples(st.just("read"), st.integers(-1, 1_000_000))
    | st.tuples(st.just("read1"), st.integers(-1, 1_000_000))
    | st.tuples(st.sampled_from(["seek0", "seek1", "seek2"]), st.integers(-3_500_000, 3_500_000)),
    max_size=12,
)


class Requests:
    """Serves `CONTENT` and notes what was asked for."""

    def __init__(self, content: bytes = CONTENT) -> None:
        self.content = content
        self.asked: list[tuple[int, int]] = []

    def fetch(self, offset: int, length: int) -> bytes:
        self.asked.append((offset, length))
        assert 0 < length <= len(self.content) - offset
        return self.content[offset : offset + length]

    def file(self) -> RangeFile:
        return RangeFile(self.fetch, len(self.content))


@given(steps)
@effort(100)
def test_it_reads_as_a_file_in_memory_does(plan: list[tuple[str, int]]) -> None:
    file, oracle = Requests().file(), io.BytesIO(CONTENT)
    for what, number in plan:
        if what == "read":
            assert file.read(number) == oracle.read(number)
        elif what == "read1":
            # May be short, never empty before the end, and never anything else than what follows.
            piece = file.read1(number)
            assert piece == oracle.read(len(piece))
            assert piece or number == 0 or oracle.tell() >= len(CONTENT)
        else:
            whence = int(what[-1])
            base = (0, oracle.tell(), len(CONTENT))[whence]
            if base + number >= 0:
                assert file.seek(number, whence) == oracle.seek(number, whence)
        assert file.tell() == oracle.tell()


@pytest.mark.parametrize(
    ("offset", "whence"),
    [(-1, os.SEEK_SET), (-6, os.SEEK_CUR), (-len(CONTENT) - 1, os.SEEK_END), (0, 3)],
    ids=["from the start", "from here", "from the end", "from nowhere"],
)
def test_a_place_before_the_start_is_refused_and_nothing_moves(offset: int, whence: int) -> None:
    file = Requests().file()
    file.seek(5)
    with pytest.raises(ValueError, match="cannot seek"):
        file.seek(offset, whence)
    assert file.tell() == 5


def test_the_last_byte_is_read_where_no_size_is_said() -> None:
    file = Requests().file()
    file.seek(-1, os.SEEK_END)
    assert file.read1() == CONTENT[-1:]


def test_a_closed_file_is_not_read() -> None:
    requests = Requests()
    file = requests.file()
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.read(1)
    assert requests.asked == []


def test_a_sequential_reader_makes_few_requests() -> None:
    requests = Requests(bytes(100_000_000))
    file = requests.file()
    while file.read(65536):
        pass
    assert len(requests.asked) <= 17


def test_no_request_of_a_sequential_reader_exceeds_the_window() -> None:
    requests = Requests(bytes(50_000_000))
    file = requests.file()
    while file.read(65536):
        pass
    assert max(length for _, length in requests.asked) == MAX_WINDOW


def test_a_reader_that_jumps_fetches_little() -> None:
    requests = Requests(bytes(100_000_000))
    file = requests.file()
    for place in (90_000_000, 10, 50_000_000):
        file.seek(place)
        file.read(100)
    assert sum(length for _, length in requests.asked) == 3 * 256 * 1024


def test_a_read_within_what_was_fetched_asks_for_nothing() -> None:
    requests = Requests()
    file = requests.file()
    file.read(1000)
    file.seek(10)
    file.read(100)
    assert len(requests.asked) == 1


def test_what_follows_a_read_beyond_the_window_is_right() -> None:
    content = random.Random(2).randbytes(2 * MAX_WINDOW)
    file = Requests(content).file()
    file.read(MAX_WINDOW + 1)
    assert file.read(100) == content[MAX_WINDOW + 1 : MAX_WINDOW + 101]


def test_reading_everything_is_one_request() -> None:
    requests = Requests(bytes(100_000_000))
    requests.file().read()
    assert requests.asked == [(0, 100_000_000)]


def test_what_follows_is_fetched_while_a_reader_works() -> None:
    started, requests = threading.Event(), Requests(bytes(20_000_000))

    def fetch(offset: int, length: int) -> bytes:
        if threading.current_thread() is not threading.main_thread():
            started.set()
        return requests.fetch(offset, length)

    with RangeFile(fetch, 20_000_000) as file:
        file.read(600_000)
        file.read(600_000)
        assert started.wait(60)


def test_a_piece_that_could_not_be_fetched_ahead_is_asked_for_again() -> None:
    requests = Requests()

    def fetch(offset: int, length: int) -> bytes:
        if threading.current_thread() is not threading.main_thread():
            raise OSError("away")
        return requests.fetch(offset, length)

    with RangeFile(fetch, len(CONTENT)) as file:
        read = b"".join(iter(lambda: file.read(100_000), b""))
    assert read == CONTENT


def test_nothing_is_under_way_once_a_file_is_closed() -> None:
    requests = Requests(bytes(50_000_000))
    with requests.file() as file:
        file.read(2_000_000)
    assert not [thread for thread in threading.enumerate() if thread.name == "range-ahead"]
