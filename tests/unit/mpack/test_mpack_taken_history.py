"""Snapshots and commits that another writer wrote give the same pack as those that are added."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musehub_plugin import ids
from musehub_plugin.mpack import (
    Codec,
    Kind,
    Limits,
    MPackError,
    MPackReader,
    MPackWriter,
    PackSummary,
    build_wire_mpack,
)
from tests.effort import effort

WirePack = dict[str, list[dict[str, Any]]]
TIGHT = Limits(max_ratio=1, ratio_allowance=0)


def add_history(writer: MPackWriter, pack: WirePack) -> None:
    for snapshot in pack["snapshots"]:
        writer.add_snapshot(snapshot["snapshot_id"], snapshot["manifest"])
    for commit in pack["commits"]:
        writer.add_commit(commit)


def add_blobs(writer: MPackWriter, pack: WirePack) -> None:
    for blob in pack["blobs"]:
        writer.add_blob(blob["object_id"], blob["content"])


def history_alone(pack: WirePack, limits: Limits | None = None) -> bytes:
    """Return what a writer writes that is given the blobs' ids alone."""
    out = io.BytesIO()
    with MPackWriter(out, limits=limits, blobs=[ids.to_digest(blob["object_id"]) for blob in pack["blobs"]]) as writer:
        add_history(writer, pack)
    return out.getvalue()


def added(pack: WirePack, limits: Limits | None = None) -> tuple[bytes, PackSummary]:
    out = io.BytesIO()
    with MPackWriter(out, limits=limits) as writer:
        add_blobs(writer, pack)
        add_history(writer, pack)
    return out.getvalue(), writer.finish()


def taken(pack: WirePack, limits: Limits | None = None) -> tuple[bytes, PackSummary]:
    out = io.BytesIO()
    with MPackWriter(out, limits=limits) as writer:
        add_blobs(writer, pack)
        writer.take_history(io.BytesIO(history_alone(pack, limits)))
    return out.getvalue(), writer.finish()


@effort(30, shared_fixtures=True)
@given(data=st.data())
def test_history_that_is_taken_over_gives_the_bytes_of_history_that_is_added(
    history: WirePack, data: st.DataObject
) -> None:
    pack = {kind: entities[: data.draw(st.integers(0, len(entities)))] for kind, entities in history.items()}
    assert taken(pack) == added(pack)


def test_a_frame_that_would_look_like_a_bomb_is_stored_plain_wherever_it_was_compressed(history: WirePack) -> None:
    whole, _ = added(history, TIGHT)
    frames = MPackReader(io.BytesIO(whole)).frames
    assert Codec.PLAIN in {frame.codec for frame in frames if frame.kind in {Kind.SNAPSHOTS, Kind.COMMITS}}
    assert taken(history, TIGHT)[0] == whole


def test_nothing_follows_history_that_was_taken_over(history: WirePack) -> None:
    writer = MPackWriter(io.BytesIO())
    add_blobs(writer, history)
    writer.take_history(io.BytesIO(history_alone(history)))
    with pytest.raises(ValueError, match="cannot be added"):
        writer.add_commit(history["commits"][0])


def test_history_is_not_taken_over_after_a_snapshot(history: WirePack) -> None:
    writer = MPackWriter(io.BytesIO())
    writer.add_snapshot(history["snapshots"][0]["snapshot_id"], history["snapshots"][0]["manifest"])
    with pytest.raises(ValueError, match="right after blobs"):
        writer.take_history(io.BytesIO(history_alone(history)))


def test_history_is_not_taken_over_after_a_pack_was_copied(history: WirePack) -> None:
    taken = history_alone(history)
    writer = MPackWriter(io.BytesIO())
    writer.copy_pack(MPackReader(io.BytesIO(build_wire_mpack(commits=[], snapshots=[], blobs=history["blobs"]))))
    with pytest.raises(ValueError, match="right after blobs"):
        writer.take_history(io.BytesIO(taken))


def test_history_that_is_damaged_is_not_taken_over(history: WirePack) -> None:
    data = bytearray(history_alone(history))
    frame = MPackReader(io.BytesIO(bytes(data))).frames[-1]
    data[frame.position : frame.position + 4] = bytes(4)
    writer = MPackWriter(io.BytesIO())
    add_blobs(writer, history)
    with pytest.raises(MPackError, match="a frame of"):
        writer.take_history(io.BytesIO(bytes(data)))
