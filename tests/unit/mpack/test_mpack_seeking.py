"""Reading snapshots from the middle of a pack, and with ids that are known."""

from __future__ import annotations

import io
from typing import Any

import pytest

from musehub_plugin import ids
from musehub_plugin.mpack import MPackReader, MPackWriter, SnapshotDelta, build_wire_mpack
from musehub_plugin.mpack.digestlist import DigestList

WirePack = dict[str, list[dict[str, Any]]]
Manifest = dict[str, str]


@pytest.fixture(scope="module")
def long_pack() -> bytes:
    """A pack of 9,000 snapshots in three frames."""
    out = io.BytesIO()
    with MPackWriter(out) as writer:
        for n in range(9_000):
            changed = {f"path{n % 50}": ids.fake_id(str(n))}
            writer.add_snapshot_delta(ids.fake_id(f"s{n}"), [], changed, derivable=n % 3 > 0)
    return out.getvalue()


def added_up(deltas: list[SnapshotDelta]) -> dict[int, tuple[str, Manifest]]:
    manifest: Manifest = {}
    found = {}
    for delta in deltas:
        if delta.full:
            manifest = {}
        for path in delta.removed:
            del manifest[path]
        manifest = {**manifest, **delta.changed}
        found[delta.ordinal] = delta.snapshot_id, manifest
    return found


@pytest.mark.parametrize("start", [0, 1, 4095, 4096, 5000, 8191, 8192, 8999])
def test_snapshots_from_an_ordinal_on_are_those_of_the_whole_pass(long_pack: bytes, start: int) -> None:
    whole = added_up(list(MPackReader(io.BytesIO(long_pack)).snapshot_deltas()))
    deltas = list(MPackReader(io.BytesIO(long_pack)).snapshot_deltas(start))
    assert deltas[0].full
    assert start - 4096 < deltas[0].ordinal <= start
    assert added_up(deltas) == {n: entry for n, entry in whole.items() if n >= deltas[0].ordinal}


def test_an_ordinal_past_the_last_begins_with_the_last_frame(long_pack: bytes) -> None:
    assert next(MPackReader(io.BytesIO(long_pack)).snapshot_deltas(9_000)).ordinal == 8192


def test_a_pack_without_snapshots_yields_none_from_any_ordinal() -> None:
    pack = build_wire_mpack(commits=[], snapshots=[], blobs=[])
    assert list(MPackReader(io.BytesIO(pack)).snapshot_deltas(7)) == []


def test_a_snapshot_that_goes_on_in_the_next_frame_is_read_from_its_beginning() -> None:
    big = {f"{n % 100:03}/{'long name ' * 12}{n}": ids.fake_id("o") for n in range(20_000)}
    manifests = [{"small": ids.fake_id("o")}, big, {**big, "one more": ids.fake_id("o")}]
    out = io.BytesIO()
    with MPackWriter(out) as writer:
        for manifest in manifests:
            writer.add_snapshot(ids.snapshot_id(manifest), manifest)
    found = added_up(list(MPackReader(out).snapshot_deltas(1)))
    assert [found[n][1] for n in (1, 2)] == manifests[1:]


def test_a_pass_from_the_middle_leaves_the_ids_of_all_to_be_computed(long_pack: bytes) -> None:
    reader = MPackReader(io.BytesIO(long_pack))
    list(reader.snapshot_deltas(8_500))
    assert reader.snapshot_digests() == MPackReader(io.BytesIO(long_pack)).snapshot_digests()


def test_ids_that_are_known_are_not_computed_again(history: WirePack) -> None:
    data = build_wire_mpack(**history)
    known = [ids.fake_id(f"known {n}") for n in range(len(history["snapshots"]))]
    reader = MPackReader(io.BytesIO(data))
    digests = DigestList()
    digests.extend(b"".join(map(ids.to_digest, known)))
    reader.know_snapshots(digests)
    assert [delta.snapshot_id for delta in reader.snapshot_deltas()] == known
    assert list(reader.snapshot_ids()) == known


def test_ids_that_are_known_are_those_of_a_pass_from_the_middle(long_pack: bytes) -> None:
    whole = [delta.snapshot_id for delta in MPackReader(io.BytesIO(long_pack)).snapshot_deltas()]
    reader = MPackReader(io.BytesIO(long_pack))
    digests = DigestList()
    digests.extend(b"".join(map(ids.to_digest, whole)))
    reader.know_snapshots(digests)
    deltas = list(reader.snapshot_deltas(8_500))
    assert [delta.snapshot_id for delta in deltas] == whole[deltas[0].ordinal :]


def test_known_ids_that_are_too_few_are_refused(history: WirePack) -> None:
    reader = MPackReader(io.BytesIO(build_wire_mpack(**history)))
    with pytest.raises(ValueError, match="not those of 40 snapshots"):
        reader.know_snapshots(DigestList())
