"""What a large plan keeps in flat memory and in files is what a small one has in lists."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musehub_plugin import changespool, ids, placedblobs
from musehub_plugin.changespool import ChangeSpool, PlannedChange
from musehub_plugin.ids import to_digest
from musehub_plugin.manifestlog import Difference
from musehub_plugin.mpack import solid_order
from musehub_plugin.mpack.pages import PageFile
from musehub_plugin.mpack.wide import WideManifest
from musehub_plugin.placedblobs import distinct_ids, placed_blobs
from musehub_plugin.widelog import WideDifference

_IDS = [ids.fake_id(str(number)) for number in range(12)]
_PATHS = st.sampled_from(("a", "b/c", "b-c", "é", "z"))
_CHANGES = st.lists(
    st.builds(
        PlannedChange,
        st.sampled_from(_IDS),
        st.builds(Difference, st.lists(_PATHS), st.dictionaries(_PATHS, st.sampled_from(_IDS))),
        st.booleans(),
    ),
    max_size=20,
)


@st.composite
def in_files(draw: st.DrawFn, changes: list[PlannedChange]) -> list[PlannedChange]:
    """Return changes of which any may be too large for memory."""
    file = PageFile()
    return [
        each._replace(change=WideDifference(each.change.removed, WideManifest.of(each.change.changed, file)))
        if draw(st.booleans())
        else each
        for each in changes
    ]


@given(_CHANGES, st.sampled_from((0, 150, 1 << 20)), st.data())
def test_spooled_changes_come_back_in_order(changes: list[PlannedChange], held: int, data: st.DataObject) -> None:
    changes = data.draw(in_files(changes))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(changespool, "_HELD", held)
        spool = ChangeSpool()
        for change in changes:
            spool.append(change)
        assert list(spool) == changes
        assert [spool[place] for place in range(len(spool))] == changes
        assert spool[1:3] == changes[1:3]
        with pytest.raises(IndexError):
            spool[len(changes)]


@given(_CHANGES, st.data())
def test_many_blobs_are_in_the_order_of_few(changes: list[PlannedChange], data: st.DataObject) -> None:
    there = sorted({object_id for planned in changes for object_id in planned.change.changed.values()})
    lacking = data.draw(st.permutations(there))[: data.draw(st.integers(0, len(there)))]
    first: dict[str, tuple[int, str]] = {}
    for position, planned in enumerate(changes):
        for path, object_id in sorted(planned.change.changed.items()):
            if object_id in lacking:
                first.setdefault(object_id, (position, path))
    changes = data.draw(in_files(changes))
    spool = ChangeSpool(map(to_digest, lacking))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(placedblobs, "WIDE_TO_WRITE", data.draw(st.sampled_from((0, 2, 1 << 17))))
        patched.setattr(placedblobs, "PIECE", data.draw(st.sampled_from((1, 3, 1 << 13))))
        found = placed_blobs(spool, changes)
    expected = solid_order((path, position, object_id) for object_id, (position, path) in first.items())
    assert list(found) == expected == found[:] == [found[place] for place in range(len(found))]
    assert list(spool) == changes


def test_a_blob_that_no_snapshot_has_is_named() -> None:
    with pytest.raises(KeyError, match=_IDS[0]):
        placed_blobs(ChangeSpool([to_digest(_IDS[0])]), [])


@given(st.lists(st.sampled_from(_IDS)))
def test_ids_that_come_again_keep_their_first_place(given_ids: list[str]) -> None:
    assert list(distinct_ids(map(to_digest, given_ids))) == list(dict.fromkeys(given_ids))
