"""A pack that begins as a copy of another reads as one that was written anew."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musehub_plugin import ids
from musehub_plugin.mpack import (
    Kind,
    Limits,
    MPackReader,
    MPackWriter,
    PackSummary,
    build_wire_mpack,
    parse_wire_mpack,
    verify,
)
from musehub_plugin.testing import History
from tests.effort import effort

WirePack = dict[str, list[dict[str, Any]]]
KINDS = ("blobs", "snapshots", "commits")
ID = {"blobs": "object", "snapshots": "snapshot", "commits": "commit"}
VECTORS = Path(__file__).parents[2] / "vectors" / "mpack"


def whole(history: WirePack) -> WirePack:
    """Return the pack with the objects in it that its manifests name."""
    held = {blob["object_id"] for blob in history["blobs"]}
    named = {oid for snapshot in history["snapshots"] for oid in snapshot["manifest"].values()}
    missing = [{"object_id": oid, "content": oid.encode()} for oid in sorted(named - held)]
    return {**history, "blobs": history["blobs"] + missing}


def cut(pack: WirePack, ends: tuple[int, int, int]) -> tuple[WirePack, WirePack]:
    """Return what comes before the ends, one for each kind, and what comes after."""
    first = {kind: pack[kind][:end] for kind, end in zip(KINDS, ends, strict=True)}
    rest = {kind: pack[kind][end:] for kind, end in zip(KINDS, ends, strict=True)}
    return first, rest


def extend(reader: MPackReader, rest: WirePack, **known: list[str]) -> tuple[bytes, PackSummary]:
    """Return a pack that is a copy with more behind it."""
    out = io.BytesIO()
    with MPackWriter(out) as writer:
        writer.copy_pack(reader, **known)
        for blob in rest["blobs"]:
            writer.add_blob(blob["object_id"], blob["content"])
        for snapshot in rest["snapshots"]:
            writer.add_snapshot(snapshot["snapshot_id"], snapshot["manifest"])
        for commit in rest["commits"]:
            writer.add_commit(commit)
    return out.getvalue(), writer.finish()


def opened(pack: WirePack) -> MPackReader:
    return MPackReader(io.BytesIO(build_wire_mpack(**pack)))


@effort(30, shared_fixtures=True)
@given(data=st.data())
def test_a_copy_with_more_behind_it_reads_as_one_written_anew(history: WirePack, data: st.DataObject) -> None:
    pack = whole(history)
    commits = data.draw(st.integers(0, len(pack["commits"])))
    snapshots = data.draw(st.integers(0, len(pack["snapshots"])))
    first, rest = cut(pack, (len(pack["blobs"]), snapshots, commits))
    data_out, summary = extend(opened(first), rest)
    assert parse_wire_mpack(data_out) == parse_wire_mpack(build_wire_mpack(**pack))
    assert (summary.commit_count, summary.snapshot_count, summary.blob_count, summary.size_bytes) == (
        *(len(pack[kind]) for kind in reversed(KINDS)),
        len(data_out),
    )
    assert summary.raw_size == sum(len(blob["content"]) for blob in pack["blobs"])


def test_new_blobs_follow_the_copied_ones() -> None:
    history = History()
    tip = history.commit({"a": b"1", "b": b"2"})
    first = opened(parse_wire_mpack(history.pack()))
    history.commit({"a": b"3", "b": b"2"}, [tip])
    pack = parse_wire_mpack(history.pack())
    known = set(first.snapshot_ids()) | {record["commit_id"] for record in first.commits()}
    known |= {blob.object_id for blob in first.blobs()}
    rest = {kind: [entity for entity in pack[kind] if entity[f"{ID[kind]}_id"] not in known] for kind in KINDS}
    data, _ = extend(first, rest)
    reader = MPackReader(io.BytesIO(data))
    verify(reader)
    assert {blob.object_id: blob.read() for blob in reader.blobs()} == {
        ids.blob_id(content): content for content in (b"1", b"2", b"3")
    }


def test_copied_frames_are_the_same_bytes(history: WirePack) -> None:
    source = opened(whole(history))
    data, _ = extend(source, {kind: [] for kind in KINDS})
    copy = MPackReader(io.BytesIO(data))
    frames = [(frame.kind, source.stored_frame(n)) for n, frame in enumerate(source.frames)]
    assert [(frame.kind, copy.stored_frame(n)) for n, frame in enumerate(copy.frames)] == frames


def test_a_copy_of_a_copy_with_nothing_added_is_the_same_file(history: WirePack) -> None:
    nothing: WirePack = {kind: [] for kind in KINDS}
    source = build_wire_mpack(**whole(history))
    once, _ = extend(MPackReader(io.BytesIO(source)), nothing)
    twice, _ = extend(MPackReader(io.BytesIO(once)), nothing)
    assert (once, twice) == (source, source)


def test_ids_that_the_caller_knows_give_the_same_bytes(history: WirePack) -> None:
    first, rest = cut(whole(history), (10_000, 25, 20))
    known = {
        "snapshot_ids": [snapshot["snapshot_id"] for snapshot in first["snapshots"]],
        "commit_ids": [commit["commit_id"] for commit in first["commits"]],
    }
    assert extend(opened(first), rest, **known) == extend(opened(first), rest)


@pytest.mark.parametrize("kind", ["snapshot_ids", "commit_ids"])
def test_ids_that_are_too_few_are_refused(history: WirePack, kind: str) -> None:
    with pytest.raises(ValueError, match="not as many"):
        MPackWriter(io.BytesIO()).copy_pack(opened(whole(history)), **{kind: [ids.fake_id("one")]})


def test_a_pack_with_outside_ids_is_not_copied(history: WirePack) -> None:
    with pytest.raises(ValueError, match="does not hold"):
        MPackWriter(io.BytesIO()).copy_pack(opened(history))


def test_nothing_is_copied_behind_what_was_added() -> None:
    writer = MPackWriter(io.BytesIO())
    writer.add_blob(ids.fake_id("b"), b"")
    with pytest.raises(ValueError, match="before anything is added"):
        writer.copy_pack(opened({kind: [] for kind in KINDS}))


def test_only_one_pack_is_copied() -> None:
    writer = MPackWriter(io.BytesIO())
    writer.copy_pack(opened({kind: [] for kind in KINDS}))
    with pytest.raises(ValueError, match="before anything is added"):
        writer.copy_pack(opened({kind: [] for kind in KINDS}))


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_copied_is_not_added_again(history: WirePack, kind: str) -> None:
    pack = whole(history)
    with pytest.raises(ValueError, match="was added before"):
        extend(opened(pack), {**{other: [] for other in KINDS}, kind: pack[kind][:1]})


def test_copied_frames_count_where_the_writer_keeps_from_writing_a_bomb() -> None:
    blobs = [{"object_id": ids.fake_id(str(n)), "content": bytes(1 << 24)} for n in range(8)]
    first, rest = cut({"blobs": blobs, "snapshots": [], "commits": []}, (4, 0, 0))
    data, _ = extend(opened(first), rest)
    assert MPackReader(io.BytesIO(data)).raw_size == 8 << 24


def test_copied_frames_count_once() -> None:
    limits = Limits(ratio_allowance=0, max_ratio=2)
    blobs = [{"object_id": ids.fake_id("noise"), "content": random.Random(1).randbytes(1 << 20)}]
    out = io.BytesIO()
    with MPackWriter(out, limits=limits) as writer:
        writer.copy_pack(opened({"blobs": blobs, "snapshots": [], "commits": []}))
        writer.add_blob(ids.fake_id("zeros"), bytes(3 << 19))
    assert MPackReader(out, limits=limits).blob_count == 2


def test_optional_frames_are_left_behind() -> None:
    with (VECTORS / "optional-parts.mpack").open("rb") as source:
        data, _ = extend(MPackReader(source), {kind: [] for kind in KINDS})
    assert {frame.kind for frame in MPackReader(io.BytesIO(data)).frames} == {Kind.BLOBS, Kind.DIRECTORY}
