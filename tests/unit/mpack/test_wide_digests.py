"""A table of digests that are in a file numbers them as one in memory does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musehub_plugin.mpack import widedigests
from musehub_plugin.mpack.digests import DigestTable
from musehub_plugin.mpack.widedigests import WideDigestTable

numbers = st.lists(st.integers(0, 120), max_size=200)


@pytest.fixture(autouse=True, scope="module", params=[1, 0xFFFF], ids=["many alike", "few alike"])
def _small_bounds(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(widedigests, "_HELD", 3)
        patch.setattr(widedigests, "_PRINT", request.param)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("digests")


def digest_of(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


@given(numbers)
def test_digests_have_the_numbers_that_they_would_have_in_memory(folder: Path, run: list[int]) -> None:
    table, expected = WideDigestTable(folder), DigestTable()
    digests = list(map(digest_of, run))
    assert [table.number(each) for each in digests] == [expected.number(each) for each in digests]
    assert (table.count, table.part(0, table.count)) == (expected.count, expected.part(0, expected.count))
    assert table.part(2, 7) == expected.part(2, 7)
    assert list(table.sorted_ordinals()) == list(expected.sorted_ordinals())
    asked = list(map(digest_of, range(125)))
    assert [table.find(each) for each in asked] == [expected.find(each) for each in asked]


def test_many_are_added_at_once_and_each_once(folder: Path) -> None:
    table = WideDigestTable(folder)
    table.extend(b"".join(map(digest_of, range(200))))
    assert (table.count, table[150], table.find(digest_of(150))) == (200, digest_of(150), 150)
    with pytest.raises(ValueError, match="was added before"):
        table.extend(digest_of(200) + digest_of(7))
