"""Each limit lets its own number pass and refuses one more."""

from __future__ import annotations

import io
from dataclasses import fields, replace
from typing import Any

import pytest

from musehub_plugin import ids
from musehub_plugin.mpack import Limits, MPackError, MPackReader, MPackWriter, build_wire_mpack, parse_wire_mpack

# Two of everything; the second snapshot changes one path of two; the second commit has two parents.
BLOBS: list[dict[str, Any]] = [
    {"object_id": ids.blob_id(content), "content": content} for content in (b"a" * 10, b"b" * 7)
]
MANIFESTS: list[dict[str, str]] = [
    {"long path": BLOBS[0]["object_id"], "b": ids.fake_id("o1")},
    {"long path": BLOBS[1]["object_id"], "b": ids.fake_id("o1"), "c": ids.fake_id("o2")},
]
SNAPSHOTS: list[dict[str, Any]] = [{"snapshot_id": ids.snapshot_id(m), "manifest": m} for m in MANIFESTS]
COMMITS: list[dict[str, Any]] = [
    {
        "commit_id": ids.fake_id(f"c{n}"),
        "parent_ids": [ids.fake_id(f"p{parent}") for parent in range(n + 1)],
        "snapshot_id": SNAPSHOTS[n]["snapshot_id"],
        "message": "message é",
        "author": "author",
        "further": [[1], 2],
    }
    for n in range(2)
]
PACK = build_wire_mpack(commits=COMMITS, snapshots=SNAPSHOTS, blobs=BLOBS)
TABLE_SIZE = int.from_bytes(PACK[-12:-8], "big")
RAW_SIZE = sum(frame.raw for frame in MPackReader(io.BytesIO(PACK)).frames) + TABLE_SIZE

EXACT = {
    "max_file_size": len(PACK),
    "max_toc_size": TABLE_SIZE,
    "max_frames": 5,
    "max_commits": 2,
    "max_snapshots": 2,
    "max_blobs": 2,
    "max_outside": 2,
    "max_manifest_entries": 3,
    "max_manifest_changes": 4,
    "max_total_entries": 5,
    "max_blob_size": 10,
    "max_raw_size": RAW_SIZE,
    "max_parents": 2,
    "max_path_size": len("long path"),
    "max_message_size": len("message é".encode()),
    "max_text_size": len("author"),
    "max_extra_size": 13,
    "max_extra_items": 6,
    "max_extra_depth": 3,
}


@pytest.mark.parametrize("name", EXACT)
def test_what_is_within_a_limit_is_read(name: str) -> None:
    parse_wire_mpack(PACK, limits=replace(Limits(), **{name: EXACT[name]}))


@pytest.mark.parametrize("name", EXACT)
def test_one_over_a_limit_is_refused(name: str) -> None:
    with pytest.raises(MPackError):
        parse_wire_mpack(PACK, limits=replace(Limits(), **{name: EXACT[name] - 1}))


def test_every_limit_is_tried() -> None:
    elsewhere = {"max_ratio", "ratio_allowance", "max_window_log"}
    assert {field.name for field in fields(Limits)} == EXACT.keys() | elsewhere


def test_the_ratio_counts_beyond_the_allowance() -> None:
    blob = {"object_id": ids.fake_id("zeros"), "content": bytes(1_000_000)}
    data = build_wire_mpack(commits=[], snapshots=[], blobs=[blob])
    parse_wire_mpack(data, limits=Limits(max_ratio=0, ratio_allowance=1_001_000))
    with pytest.raises(MPackError, match="times"):
        parse_wire_mpack(data, limits=Limits(max_ratio=0, ratio_allowance=1_000_000))


def test_a_lower_window_limit_refuses_what_needs_more() -> None:
    blob = {"object_id": ids.fake_id("zeros"), "content": bytes(1 << 20)}
    data = build_wire_mpack(commits=[], snapshots=[], blobs=[blob])
    with pytest.raises(MPackError, match="window"):
        parse_wire_mpack(data, limits=Limits(max_window_log=19))


@pytest.mark.parametrize(
    ("name", "bound"),
    [
        ("max_parents", 1),
        ("max_message_size", 9),
        ("max_text_size", 5),
        ("max_extra_size", 12),
        ("max_extra_depth", 2),
    ],
)
def test_a_commit_over_a_limit_is_not_written(name: str, bound: int) -> None:
    writer = MPackWriter(io.BytesIO(), limits=replace(Limits(), **{name: bound}))
    with pytest.raises(ValueError, match=r"over|deep"):
        writer.add_commit(COMMITS[1])


@pytest.mark.parametrize(("name", "bound"), [("max_parents", 2), ("max_message_size", 10), ("max_text_size", 25)])
def test_a_commit_at_a_limit_is_written(name: str, bound: int) -> None:
    record = {**COMMITS[1], "parent_ids": [ids.fake_id("1"), ids.fake_id("2")], "message": "a" * 10, "author": "a" * 25}
    with MPackWriter(io.BytesIO(), limits=replace(Limits(), **{name: bound})) as writer:
        writer.add_commit(record)


@pytest.mark.parametrize(("name", "bound"), [("max_path_size", 8), ("max_manifest_entries", 2)])
def test_a_snapshot_over_a_limit_is_not_written(name: str, bound: int) -> None:
    writer = MPackWriter(io.BytesIO(), limits=replace(Limits(), **{name: bound}))
    with pytest.raises(ValueError, match="over"):
        writer.add_snapshot(SNAPSHOTS[1]["snapshot_id"], MANIFESTS[1])


@pytest.mark.parametrize("size", [31, 33])
def test_a_blob_of_an_id_that_is_not_32_bytes_is_not_written(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        MPackWriter(io.BytesIO()).add_blob(bytes(size), b"")


def test_a_blob_over_the_limit_is_not_written() -> None:
    writer = MPackWriter(io.BytesIO(), limits=Limits(max_blob_size=9))
    with pytest.raises(ValueError, match="over"):
        writer.add_blob(BLOBS[0]["object_id"], b"a" * 10)


def test_many_small_rows_cannot_stand_for_endless_manifests() -> None:
    """A pack of little more than a hundred bytes a snapshot that would be a million entries to hash."""
    manifest = {f"path{n}": ids.fake_id("o") for n in range(1000)}
    out = io.BytesIO()
    with MPackWriter(out) as writer:
        for n in range(1000):
            manifest["path0"] = ids.fake_id(f"o{n % 2}")
            writer.add_snapshot(ids.fake_id(f"s{n}"), manifest, derivable=False)
    limits = Limits(max_total_entries=100_000)
    with pytest.raises(MPackError, match="entries in all"):
        list(MPackReader(out, limits=limits).snapshots())
