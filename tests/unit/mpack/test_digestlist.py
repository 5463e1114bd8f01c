"""A list of digests holds what a list would, in memory and past it, and tells what is in it twice."""

from __future__ import annotations

import hashlib
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musehub_plugin.mpack import digestlist
from musehub_plugin.mpack.digestlist import DigestList
from tests.effort import effort

numbers = st.lists(st.integers(0, 60), max_size=60)


def digest(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of eight digests on they are in a file, and of four on only their hashes are compared."""
    monkeypatch.setattr(digestlist, "_HELD", 8)
    monkeypatch.setattr(digestlist, "_EXACT", 4)
    monkeypatch.setattr(digestlist, "_PIECE", 3)


def first_repeated(listed: list[int]) -> int | None:
    return next((at for at, number in enumerate(listed) if number in listed[:at]), None)


@effort(60)
@given(st.sets(st.integers(), max_size=60), st.integers(0, 60), st.integers(0, 60))
def test_what_was_added_is_read_back_one_by_one_in_parts_and_in_order(added: set[int], start: int, stop: int) -> None:
    wanted = list(map(digest, added))
    listed = DigestList()
    for each in wanted:
        assert listed.add(each)
    assert len(listed) == len(wanted)
    assert list(listed) == wanted
    assert [listed[at] for at in range(len(wanted))] == wanted
    assert listed.part(start, stop) == b"".join(wanted[start:stop])
    assert listed.first_repeat() is None


@effort(60)
@given(numbers)
def test_one_that_comes_twice_is_told_at_once_or_in_the_end(added: list[int]) -> None:
    listed = DigestList()
    told = [not listed.add(digest(number)) for number in added]
    repeat = listed.first_repeat()
    assert any(told) or repeat is not None or first_repeated(added) is None
    if first_repeated(added) is None:
        assert not any(told)
        assert repeat is None
    if repeat is not None:
        assert listed[repeat] in list(listed)[:repeat]


@effort(60)
@given(st.lists(numbers, max_size=6))
def test_of_whole_parts_the_ordinal_of_one_that_came_before_is_told(parts: list[list[int]]) -> None:
    listed = DigestList()
    told = None
    for part in parts:
        told = listed.extend(b"".join(map(digest, part)))
        if told is not None:
            break
    else:
        told = listed.first_repeat()
    if told is None:
        assert first_repeated([number for part in parts for number in part]) is None
    else:
        assert listed[told] in list(listed)[:told]


def test_two_digests_of_one_hash_are_no_repeat() -> None:
    with patch.object(digestlist, "hash", lambda _: 7, create=True):
        listed = DigestList()
        for number in range(20):
            listed.add(digest(number))
        assert listed.first_repeat() is None
        listed = DigestList()
        for number in [*range(20), 3]:
            listed.add(digest(number))
        assert listed.first_repeat() == 20


def test_a_short_list_makes_no_file_and_a_long_one_leaves_none(tmp_path: Path) -> None:
    listed = DigestList(tmp_path)
    listed.extend(b"".join(map(digest, range(7))))
    assert listed.handle is None
    listed.extend(b"".join(map(digest, range(7, 20))))
    assert listed.handle is not None
    assert list(tmp_path.iterdir()) == []
