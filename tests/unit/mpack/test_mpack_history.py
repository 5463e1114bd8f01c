"""Rows of snapshots and commits that refer to what is not there, or say too little or too much."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import Any

import msgpack
import pytest

from musehub_plugin import ids
from musehub_plugin.mpack import MPackError, MPackReader, build_wire_mpack, digestlist, parse_wire_mpack
from musehub_plugin.mpack.history import COMMITS_PER_FRAME

# `assemble` and `hand_frame` are fixtures of conftest.py.
Assemble = Callable[..., bytes]
HandFrame = Callable[..., Any]

DIGESTS = [ids.to_digest(ids.fake_id(str(n))) for n in range(4)]

# One snapshot {"a": outside 0, "b": outside 1}, then one without "a".
GOOD_SNAPSHOTS: list[Any] = [["a", "b"], [0, 1], [0, 1], [1], [2, 0], [0, 0], [0, 1], [], b""]
# A commit with no parent and an outside snapshot, then its child with an outside parent besides.
GOOD_COMMITS: list[Any] = [
    [0, 0],
    b"",
    DIGESTS[0] + DIGESTS[1],
    [0, 2],
    [1, -1],
    [1, 1],
    ["", ""],
    ["", ""],
    ["", ""],
    ["", ""],
    [b"", b""],
]


def snapshots_pack(assemble: Assemble, hand_frame: HandFrame, columns: list[Any], count: int = 2) -> bytes:
    """Return a pack of one snapshots frame and two outside ids."""
    return assemble(hand_frame(3, DIGESTS[0] + DIGESTS[1], 2), hand_frame(4, msgpack.packb(columns), count))


def commits_pack(assemble: Assemble, hand_frame: HandFrame, columns: list[Any], count: int = 2) -> bytes:
    """Return a pack of one commits frame."""
    return assemble(hand_frame(5, msgpack.packb(columns), count))


def changed(columns: list[Any], changes: dict[int, Any]) -> list[Any]:
    """Return `columns` with some of them replaced."""
    return [changes.get(number, column) for number, column in enumerate(columns)]


def test_rows_of_snapshots_read_as_manifests(assemble: Assemble, hand_frame: HandFrame) -> None:
    found = parse_wire_mpack(snapshots_pack(assemble, hand_frame, GOOD_SNAPSHOTS))["snapshots"]
    first = {"a": ids.from_digest(DIGESTS[0]), "b": ids.from_digest(DIGESTS[1])}
    second = {"b": ids.from_digest(DIGESTS[1])}
    assert found == [{"snapshot_id": ids.snapshot_id(m), "manifest": m} for m in (first, second)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({0: ["a", "a"]}, "listed twice", id="a path twice in the list"),
        pytest.param({0: ["a", "b", "c"]}, "no snapshot uses", id="a path that is not used"),
        pytest.param({0: ["a"]}, "new paths", id="a new path that is not listed"),
        pytest.param({0: [b"a", b"b"]}, "type bytes", id="a path of bytes"),
        pytest.param({1: [1, 1]}, "no snapshot to start from", id="first row starts from one before"),
        pytest.param({1: [2, 1]}, "does not name", id="starts from a base in a pack without any"),
        pytest.param({1: [8, 1]}, "names a base", id="names a base and starts from the empty manifest"),
        pytest.param({1: [512, 1]}, "row code", id="a code that is not defined"),
        pytest.param({0: ["a", 0]}, "number 0 of 0", id="the path of a base in a pack without any"),
        pytest.param({1: [4, 0]}, "does not hold the 2", id="fewer snapshots than counted"),
        pytest.param({1: [0, 0]}, "removes a path", id="removes from the empty manifest"),
        pytest.param({3: [3]}, "removed path", id="removes path 3 of 2"),
        pytest.param({2: [1, 0]}, "removes a path", id="removes before it is there"),
        pytest.param({2: [0, 2]}, "removed path", id="fewer removals than counted"),
        pytest.param({2: [0]}, "removed count", id="a row without a removed count"),
        pytest.param({5: [0, 1]}, "sets a path twice", id="a path set twice"),
        pytest.param({5: [0]}, "changed path", id="fewer changes than counted"),
        pytest.param({6: [0, 2]}, "refers to object 2", id="object past the last"),
        pytest.param({6: [-1, 2]}, "refers to object -1", id="object before the first"),
        pytest.param({6: [0, 1.0]}, "type float", id="a step that is no integer"),
        pytest.param({6: [0, True]}, "type bool", id="a step that is a truth"),
        pytest.param({7: [0], 8: b""}, "stored id", id="a stored ordinal without id"),
        pytest.param({7: [], 8: DIGESTS[2]}, "stored id", id="a stored id without ordinal"),
        pytest.param({7: [2], 8: DIGESTS[2]}, "stored id ordinal", id="the id of a third snapshot"),
        pytest.param({7: [1, 0], 8: DIGESTS[2] + DIGESTS[3]}, "ascend", id="stored ordinals that descend"),
        pytest.param({7: [0, 1], 8: DIGESTS[2] * 2}, "twice", id="two snapshots of one id"),
        pytest.param({7: [0], 8: "x" * 32}, "byte string", id="ids in a string"),
        pytest.param({7: [0], 8: DIGESTS[2] + b"x"}, "32 bytes", id="ids of 33 bytes"),
    ],
)
def test_rows_of_snapshots_that_say_nonsense_are_refused(
    assemble: Assemble, hand_frame: HandFrame, changes: dict[int, Any], message: str
) -> None:
    with pytest.raises(MPackError, match=message):
        parse_wire_mpack(snapshots_pack(assemble, hand_frame, changed(GOOD_SNAPSHOTS, changes)))


def test_a_tenth_column_of_snapshots_is_refused(assemble: Assemble, hand_frame: HandFrame) -> None:
    with pytest.raises(MPackError, match="10 columns"):
        parse_wire_mpack(snapshots_pack(assemble, hand_frame, [*GOOD_SNAPSHOTS, []]))


def test_bytes_after_the_columns_are_refused(assemble: Assemble, hand_frame: HandFrame) -> None:
    frame = hand_frame(4, msgpack.packb([[], [], [], [], [], [], [], [], b""]) + b"\0", 0)
    with pytest.raises(MPackError, match="follow the last column"):
        parse_wire_mpack(assemble(frame))


def test_a_snapshot_may_go_on_in_the_next_frame(assemble: Assemble, hand_frame: HandFrame) -> None:
    first = msgpack.packb([["a"], [4], [0], [], [1], [0], [0], [], b""])
    second = msgpack.packb([["b"], [1], [0], [], [1], [0], [1], [], b""])
    outside = hand_frame(3, DIGESTS[0] + DIGESTS[1], 2)
    found = parse_wire_mpack(assemble(outside, hand_frame(4, first, 0), hand_frame(4, second, 1)))["snapshots"]
    assert [sorted(snapshot["manifest"]) for snapshot in found] == [["a", "b"]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        pytest.param([([4], 0)], "unfinished", id="never finished"),
        pytest.param([([4], 0), ([0], 1)], "leaves a snapshot unfinished", id="another begun"),
    ],
)
def test_an_unfinished_snapshot_is_refused(
    assemble: Assemble, hand_frame: HandFrame, rows: list[tuple[list[int], int]], message: str
) -> None:
    frames = [hand_frame(4, msgpack.packb([[], codes, [0], [], [0], [], [], [], b""]), count) for codes, count in rows]
    with pytest.raises(MPackError, match=message):
        parse_wire_mpack(assemble(*frames))


def test_a_snapshot_that_removes_after_it_has_set_is_refused(assemble: Assemble, hand_frame: HandFrame) -> None:
    rows = msgpack.packb([["a", "b"], [0, 5, 1], [0, 0, 1], [1], [1, 1, 0], [0, 0], [0, 1], [], b""])
    with pytest.raises(MPackError, match="removes paths after it has set some"):
        parse_wire_mpack(assemble(hand_frame(3, DIGESTS[0] + DIGESTS[1], 2), hand_frame(4, rows, 2)))


def test_rows_of_commits_read_as_records(assemble: Assemble, hand_frame: HandFrame) -> None:
    found = parse_wire_mpack(commits_pack(assemble, hand_frame, GOOD_COMMITS))["commits"]
    assert found[1]["parent_ids"] == [found[0]["commit_id"], ids.from_digest(DIGESTS[1])]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({0: [0, 3]}, "id rule", id="a rule that is not defined"),
        pytest.param({0: [0, 2]}, "stored id", id="a stored id that is missing"),
        pytest.param({1: DIGESTS[0]}, "stored id", id="a stored id that nobody has"),
        pytest.param({0: [2, 2], 1: DIGESTS[0] * 2}, "twice", id="two commits of one id"),
        pytest.param({4: [2, -1]}, "commit 1 has a parent 2 before it", id="a parent before the first"),
        pytest.param({4: [1, -2]}, "commit 1 refers to outside id 2", id="an outside parent that is not there"),
        pytest.param({4: [1]}, "parent", id="fewer parents than counted"),
        pytest.param({3: [0, 3]}, "parent", id="more parents counted"),
        pytest.param({5: [1, 5]}, "commit 1 refers to outside id 2", id="an outside snapshot that is not there"),
        pytest.param({5: [1, -1]}, "commit 1 refers to outside id -1", id="an outside snapshot before the first"),
        pytest.param({5: [0, 1]}, "commit 0 refers to snapshot 0 of 0", id="a snapshot past the last"),
        pytest.param({5: [1, -2]}, "commit 1 refers to snapshot -1", id="a snapshot before the first"),
        pytest.param({6: ["", None]}, "branch 1 is of type NoneType", id="a branch that is nothing"),
        pytest.param({7: ["", b""]}, "message 1 is of type bytes", id="a message of bytes"),
        pytest.param({9: [""]}, "committed_at", id="a date is missing"),
        pytest.param({10: ["", ""]}, "further fields", id="further fields in a string"),
    ],
)
def test_rows_of_commits_that_say_nonsense_are_refused(
    assemble: Assemble, hand_frame: HandFrame, changes: dict[int, Any], message: str
) -> None:
    with pytest.raises(MPackError, match=message):
        parse_wire_mpack(commits_pack(assemble, hand_frame, changed(GOOD_COMMITS, changes)))


def test_a_parent_that_is_named_by_its_id_is_told_apart(assemble: Assemble, hand_frame: HandFrame) -> None:
    columns = changed(GOOD_COMMITS, {4: [1, 0]})
    read = list(MPackReader(io.BytesIO(commits_pack(assemble, hand_frame, columns))).read_commits())
    assert [list(each.outside_parents) for each in read] == [[], [ids.from_digest(DIGESTS[0])]]
    assert read[1].record["parent_ids"] == [read[0].record["commit_id"], ids.from_digest(DIGESTS[0])]


def commit_columns(parents: list[int], first: int = 0) -> list[Any]:
    """Return the columns of commits with a parent each, as many commits back as is said; none where that is 0."""
    texts = [str(first + row) for row in range(len(parents))]
    counts, steps = [int(step > 0) for step in parents], [step for step in parents if step]
    nothing = [""] * len(parents)
    return [
        [0] * len(parents),
        b"",
        DIGESTS[0],
        counts,
        steps,
        [1] * len(parents),
        nothing,
        texts,
        nothing,
        nothing,
        [b""] * len(parents),
    ]


def test_the_first_commit_is_the_parent_of_one_in_the_next_frame(assemble: Assemble, hand_frame: HandFrame) -> None:
    frames = [hand_frame(5, msgpack.packb(commit_columns([step], first)), 1) for first, step in enumerate([0, 1])]
    found = parse_wire_mpack(assemble(*frames))["commits"]
    assert found[1]["parent_ids"] == [found[0]["commit_id"]]


def test_a_frame_of_more_commits_than_writers_put_into_one_is_read(assemble: Assemble, hand_frame: HandFrame) -> None:
    count = COMMITS_PER_FRAME + 3
    columns = commit_columns([0] + [1] * (count - 1))
    found = parse_wire_mpack(commits_pack(assemble, hand_frame, columns, count))["commits"]
    assert [each["parent_ids"] for each in found[1:]] == [[each["commit_id"]] for each in found[:-1]]


READS: dict[str, list[Callable[[MPackReader], Iterable[object]]]] = {
    "blob": [MPackReader.directory],
    "outside": [MPackReader.outside_objects],
    "snapshot": [MPackReader.snapshot_deltas, MPackReader.hashed_snapshots],
    "commit": [MPackReader.commits],
}


@pytest.mark.parametrize("exact", [1, 1 << 15], ids=["once all have come", "as they come"])
@pytest.mark.parametrize("kind", READS)
def test_what_comes_twice_is_refused_however_many_there_are(
    assemble: Assemble, hand_frame: HandFrame, monkeypatch: pytest.MonkeyPatch, kind: str, exact: int
) -> None:
    monkeypatch.setattr(digestlist, "_EXACT", exact)
    nobodys = changed(commit_columns([0, 0, 0]), {7: ["1", "2", "1"]})
    empty = [[], [0, 0], [0, 0], [], [0, 0], [], [], [], b""]
    twice = DIGESTS[0] + DIGESTS[1], DIGESTS[2] + DIGESTS[0]
    packs = {
        "blob": [hand_frame(1, b"", 4), *(hand_frame(2, msgpack.packb([each, [0, 0]]), 2) for each in twice)],
        "outside": [hand_frame(3, each, 2) for each in twice],
        "snapshot": [hand_frame(4, msgpack.packb(empty), 2)],
        "commit": [hand_frame(5, msgpack.packb(nobodys), 3)],
    }
    pack = assemble(*packs[kind])
    for read in READS[kind]:
        with pytest.raises(MPackError, match="twice"):
            list(read(MPackReader(io.BytesIO(pack))))


def test_a_count_of_commits_that_the_frame_does_not_hold_is_refused(assemble: Assemble, hand_frame: HandFrame) -> None:
    with pytest.raises(MPackError, match="id rule has 2 values, not 3"):
        parse_wire_mpack(commits_pack(assemble, hand_frame, GOOD_COMMITS, count=3))


@pytest.mark.parametrize("kind", ["blobs", "snapshots", "commits"])
def test_an_id_given_twice_is_not_written(kind: str) -> None:
    entity = {
        "blobs": {"object_id": ids.fake_id("x"), "content": b""},
        "snapshots": {"snapshot_id": ids.fake_id("x"), "manifest": {}},
        "commits": {"commit_id": ids.fake_id("x"), "snapshot_id": ids.fake_id("s")},
    }[kind]
    pack: dict[str, Any] = {"blobs": [], "snapshots": [], "commits": [], kind: [entity, entity]}
    with pytest.raises(ValueError, match="before"):
        build_wire_mpack(**pack)


@pytest.mark.parametrize(
    "pack",
    [
        pytest.param({"blobs": [{"object_id": "sha256:x", "content": b""}]}, id="blob id"),
        pytest.param({"blobs": [{"content": b""}]}, id="no blob id"),
        pytest.param({"blobs": [{"object_id": ids.fake_id("x")}]}, id="no content"),
        pytest.param({"snapshots": [{"snapshot_id": "x", "manifest": {}}]}, id="snapshot id"),
        pytest.param({"snapshots": [{"snapshot_id": ids.fake_id("s"), "manifest": {"a": "x"}}]}, id="object id"),
        pytest.param({"commits": [{"commit_id": "x", "snapshot_id": ids.fake_id("s")}]}, id="commit id"),
        pytest.param({"commits": [{"commit_id": ids.fake_id("c")}]}, id="no snapshot id"),
        pytest.param({"commits": [{"commit_id": ids.fake_id("c"), "snapshot_id": None}]}, id="snapshot id of nothing"),
    ],
)
def test_what_lacks_an_id_is_not_written(pack: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"not an id|has no"):
        build_wire_mpack(**({"blobs": [], "snapshots": [], "commits": []} | pack))


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"message": None}, id="a message of nothing"),
        pytest.param({"author": 1}, id="an author of a number"),
        pytest.param({"message": "\ud800"}, id="half a character"),
        pytest.param({"parent_ids": "x"}, id="parents in a string"),
        pytest.param({"parent_ids": [None]}, id="a parent of nothing"),
        pytest.param({"further": object()}, id="a thing"),
        pytest.param({"further": 1 << 64}, id="a number over 64 bits"),
        pytest.param({"further": {1: 2}}, id="a key of a number"),
        pytest.param({"further": {"a", "b"}}, id="a set"),
    ],
)
def test_a_commit_that_msgpack_cannot_hold_is_not_written(fields: dict[str, Any]) -> None:
    commit = {"commit_id": ids.fake_id("c"), "snapshot_id": ids.fake_id("s"), **fields}
    with pytest.raises(ValueError, match=r".+"):
        build_wire_mpack(commits=[commit], snapshots=[], blobs=[])
