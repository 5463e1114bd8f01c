"""What the client keeps beside memory gives what a dict and a sorted list would."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musehub_plugin.client import sortedrows
from musehub_plugin.client.scratch import ScratchTable
from musehub_plugin.client.sortedrows import SortedRows
from musehub_plugin.mpack import solid_order
from tests.effort import effort

places = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from(["a", "a/b", "b", "\u00e9", "\U0001f600"]), st.integers(0, 5))
)


def name(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


@contextmanager
def a_table() -> Iterator[ScratchTable]:
    with tempfile.TemporaryDirectory() as folder, ScratchTable(Path(folder, "table")) as table:
        assert list(Path(folder).iterdir()) == []
        yield table


@effort(40)
@given(places, st.sets(st.integers(0, 9)))
def test_objects_come_in_solid_order_without_those_that_were_dropped(
    placed: list[tuple[int, str, int]], dropped: set[int]
) -> None:
    with a_table() as table:
        table.place((name(number), path, sequence) for number, path, sequence in placed)
        table.drop(set(map(name, dropped)))
        found = [each.hex() for each in table.in_order()]
    rows = ((path, sequence, name(number).hex()) for number, path, sequence in placed if number not in dropped)
    assert found == solid_order(rows)


@effort(20)
@given(places, st.dictionaries(st.integers(0, 12), st.binary(min_size=32, max_size=32)))
def test_a_digest_is_what_was_noted_last_wherever_the_object_is(
    placed: list[tuple[int, str, int]], digests: dict[int, bytes]
) -> None:
    with a_table() as table:
        table.set_digests((name(number), bytes(32)) for number in digests)
        table.place((name(number), path, sequence) for number, path, sequence in placed)
        table.set_digests((name(number), digest) for number, digest in digests.items())
        assert {number: table.digest(name(number)) for number in range(13)} == {
            number: digests.get(number) for number in range(13)
        }
        assert set(table) == {name(number) for number in {*digests, *(number for number, _, _ in placed)}}


@effort(40)
@given(st.lists(st.binary(min_size=5, max_size=5)))
def test_rows_come_back_sorted_from_memory_and_from_the_file(rows: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder, patch.object(sortedrows, "_HELD_BYTES", 40):
        kept = SortedRows(5, Path(folder))
        for row in rows:
            kept.add(row)
        assert len(kept) == len(rows)
        assert list(chain.from_iterable(kept.shares())) == sorted(rows)
        assert list(Path(folder).iterdir()) == []


def test_a_disk_that_is_full_is_the_systems_own_error(tmp_path: Path) -> None:
    with ScratchTable(tmp_path / "table") as table:
        table._database.execute("PRAGMA max_page_count = 2")
        with pytest.raises(OSError, match="No space left"):
            table.place((name(number), "a" * 1_000, 0) for number in range(100))
