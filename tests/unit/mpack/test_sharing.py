"""Snapshots that are hashed in shares have the ids that they have when they are hashed one after the other."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musehub_plugin import ids
from musehub_plugin.mpack import Limits, MPackError, MPackReader, MPackWriter, manifests, sharing, snapshots
from musehub_plugin.mpack.sharing import hash_share, join, snapshot_shares

Manifest = dict[str, str]
ROWS = 4


@pytest.fixture(autouse=True, scope="module")
def _small_frames() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshots, "ROWS_PER_FRAME", ROWS)
        yield


def pack_of(manifests_of_pack: Sequence[tuple[Manifest, bool]]) -> bytes:
    """Return a pack of snapshots, each with whether its id is left to the reader."""
    out = io.BytesIO()
    with MPackWriter(out) as writer:
        for number, (manifest, derived) in enumerate(manifests_of_pack):
            snapshot_id = ids.snapshot_id(manifest) if derived else ids.fake_id(f"snapshot {number}")
            writer.add_snapshot(snapshot_id, manifest, derivable=derived)
    return out.getvalue()


def line_of(count: int) -> list[tuple[Manifest, bool]]:
    """Return manifests of which each has a path that none has before it."""
    return [({f"path{n}": ids.fake_id(str(n)) for n in range(number + 1)}, True) for number in range(count)]


def joined(pack: bytes, limits: Limits | None = None) -> tuple[list[bytes], bool] | None:
    """Return what the shares of a pack's snapshots come to, hashed from the last to the first."""
    reader = MPackReader(io.BytesIO(pack), limits=limits)
    shares = snapshot_shares(reader)
    hashed = [hash_share(reader, share) for share in reversed(shares)]
    found = join(reader, reversed(hashed))
    return None if found is None else (list(found[0]), found[1])


@given(
    st.lists(
        st.tuples(
            st.dictionaries(
                st.text(st.characters(exclude_categories=["Cs"]), max_size=2), st.integers(0, 3), max_size=8
            ),
            st.booleans(),
        ),
        max_size=30,
        unique_by=lambda entry: tuple(sorted(entry[0].items())),
    ),
    st.sampled_from([1, 100]),
)
def test_shares_joined_are_the_ids_of_all(steps: list[tuple[dict[str, int], bool]], many_frames: int) -> None:
    pack = pack_of(
        [({path: ids.fake_id(str(n)) for path, n in entries.items()}, derived) for entries, derived in steps]
    )
    one_by_one = list(MPackReader(io.BytesIO(pack)).hashed_snapshots())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharing, "_MANY_FRAMES", many_frames)
        expected = [digest for digest, _ in one_by_one], any(stated for _, stated in one_by_one)
        assert joined(pack) == expected


@pytest.mark.parametrize("many_frames", [1, 100])
def test_a_reader_that_knows_the_joined_ids_gives_commits_their_snapshots(
    many_frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "_MANY_FRAMES", many_frames)
    line = line_of(11)
    reader = MPackReader(io.BytesIO(pack_of(line)))
    assert join(reader, [hash_share(reader, share) for share in snapshot_shares(reader)]) is not None
    assert list(reader.snapshot_ids()) == [ids.snapshot_id(manifest) for manifest, _ in line]


def test_few_frames_are_shared_by_halves() -> None:
    reader = MPackReader(io.BytesIO(pack_of(line_of(ROWS + 1))))
    assert [(share.first, share.start, share.stop) for share in snapshot_shares(reader)] == [
        (0, 0, 2),
        (2, 2, 4),
        (4, 0, 0),
        (4, 0, 1),
    ]


def test_a_snapshot_that_is_there_twice_in_two_shares_is_left_to_who_reads_all() -> None:
    manifest = {"path": ids.fake_id("blob")}
    pack = io.BytesIO()
    with MPackWriter(pack) as writer:
        for number, (each, _) in enumerate([*line_of(ROWS), (manifest, True)]):
            writer.add_snapshot(ids.snapshot_id(each), each, derivable=number < ROWS)
    # The last one's id is stated; what is stated becomes that of the first.
    first, last = (ids.to_digest(ids.snapshot_id(each)) for each in (line_of(1)[0][0], manifest))
    data = pack.getvalue()
    damaged = data.replace(last, first)
    assert damaged != data
    assert joined(damaged) is None


def test_more_entries_than_the_limit_allows_in_all_shares_are_left_to_who_reads_all() -> None:
    line = line_of(10)
    count = sum(len(manifest) for manifest, _ in line)
    pack = pack_of(line)
    assert joined(pack, Limits(max_total_entries=count)) is not None
    assert joined(pack, Limits(max_total_entries=count - 1)) is None


def test_more_changes_than_the_limit_allows_in_all_shares_are_left_to_who_reads_all() -> None:
    pack = pack_of(line_of(9))
    # The first snapshot of each of three frames is whole.
    count = 4 + (5 + 3) + 9
    assert joined(pack, Limits(max_manifest_changes=count)) is not None
    assert joined(pack, Limits(max_manifest_changes=count - 1)) is None


def test_a_manifest_that_goes_on_in_the_next_frame_is_left_to_who_reads_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "_RAW_TARGET", 200)
    monkeypatch.setattr(snapshots, "_CHANGES_PER_ROW", 4)
    pack = pack_of(line_of(30))
    assert joined(pack) is None
    assert len(list(MPackReader(io.BytesIO(pack)).hashed_snapshots())) == 30


def test_a_manifest_that_is_too_wide_for_memory_is_left_to_who_reads_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "WIDE_PATHS", 5)
    assert joined(pack_of(line_of(5))) is not None
    assert joined(pack_of(line_of(6))) is None


def test_a_damaged_frame_is_left_to_who_reads_all() -> None:
    pack = pack_of(line_of(3))
    reader = MPackReader(io.BytesIO(pack))
    (frame,) = (frame for frame in reader.frames if frame.kind == 4)
    damaged = bytearray(pack)
    damaged[frame.position + frame.stored // 2] ^= 0xFF
    assert joined(bytes(damaged)) is None
    with pytest.raises(MPackError):
        list(MPackReader(io.BytesIO(damaged)).hashed_snapshots())


def test_a_manifest_of_more_than_two_frames_is_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = {f"path{n}": ids.fake_id(str(n)) for n in range(40)}
    assert snapshot_shares(MPackReader(io.BytesIO(pack_of([(manifest, True)])))) != []
    # Four rows in a frame.
    monkeypatch.setattr(snapshots, "_CHANGES_PER_ROW", 4)
    assert snapshot_shares(MPackReader(io.BytesIO(pack_of([(manifest, True)])))) == []


def test_frames_larger_than_writers_make_them_are_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    pack = pack_of(line_of(9))
    largest = max(frame.raw for frame in MPackReader(io.BytesIO(pack)).frames if frame.kind == 4)
    monkeypatch.setattr(sharing, "_SHARED_BYTES", largest)
    assert joined(pack) is not None
    monkeypatch.setattr(sharing, "_SHARED_BYTES", largest - 1)
    assert snapshot_shares(MPackReader(io.BytesIO(pack))) == []
    assert joined(pack) is None
