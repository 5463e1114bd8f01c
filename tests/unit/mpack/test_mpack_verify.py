"""Every false id is found, and the first one is named."""

from __future__ import annotations

import io
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musehub_plugin import ids
from musehub_plugin.mpack import (
    FalseIdError,
    Kind,
    MPackReader,
    MPackWriter,
    blob_shares,
    build_wire_mpack,
    verify,
    verify_blobs,
)
from musehub_plugin.mpack.manifests import ManifestHasher
from musehub_plugin.mpack.zstd import ZstdError, compress, decompress_pieces
from tests.effort import effort

WirePack = dict[str, list[dict[str, Any]]]


def true_pack() -> WirePack:
    """Return a pack of five commits in which every id is true; odd commits hash their author."""
    pack: WirePack = {"commits": [], "snapshots": [], "blobs": []}
    parents: list[str] = []
    manifest: dict[str, str] = {}
    for n in range(5):
        content = f"content {n}".encode()
        manifest = {**manifest, f"path{n % 3}": ids.blob_id(content)}
        snapshot_id = ids.snapshot_id(manifest)
        author, date = "Ada <ada@example.org>", f"2026-01-0{n + 1}T00:00:00+00:00"
        commit_id = ids.commit_id(parents, snapshot_id, "message", author if n % 2 else date)
        pack["blobs"].append({"object_id": ids.blob_id(content), "content": content})
        pack["snapshots"].append({"snapshot_id": snapshot_id, "manifest": manifest})
        pack["commits"].append(
            {
                "commit_id": commit_id,
                "parent_ids": parents,
                "snapshot_id": snapshot_id,
                "message": "message",
                "author": author,
                "committed_at": date,
            }
        )
        parents = [commit_id]
    return pack


def reader_of(pack: WirePack) -> MPackReader:
    """Return a reader of the pack."""
    return MPackReader(io.BytesIO(build_wire_mpack(**pack)))


def test_a_pack_of_true_ids_passes() -> None:
    verify(reader_of(true_pack()))


@pytest.mark.parametrize(
    ("kinds", "kind", "key"),
    [("blobs", "blob", "object_id"), ("snapshots", "snapshot", "snapshot_id"), ("commits", "commit", "commit_id")],
)
@pytest.mark.parametrize("ordinal", [0, 2, 4])
def test_s77_a_false_id_is_named(kinds: str, kind: str, key: str, ordinal: int) -> None:
    pack = true_pack()
    false_id = ids.fake_id("false")
    pack[kinds][ordinal] = {**pack[kinds][ordinal], key: false_id}
    with pytest.raises(FalseIdError) as caught:
        verify(reader_of(pack))
    assert (caught.value.kind, caught.value.entity_id, caught.value.ordinal) == (kind, false_id, ordinal)


@pytest.mark.parametrize(
    ("kinds", "field", "value"),
    [
        ("blobs", "content", b"another"),
        ("snapshots", "manifest", {"path": ids.fake_id("another")}),
        ("commits", "message", "another"),
        ("commits", "parent_ids", [ids.fake_id("another")]),
        ("commits", "committed_at", "another"),
    ],
)
def test_s77_changed_content_under_the_old_id_is_found(kinds: str, field: str, value: object) -> None:
    pack = true_pack()
    pack[kinds][2] = {**pack[kinds][2], field: value}
    with pytest.raises(FalseIdError, match=f"{kinds[:-1]} 2 does not hash to its id"):
        verify(reader_of(pack))


def test_what_no_id_covers_may_be_anything() -> None:
    pack = true_pack()
    pack["commits"][0] |= {"branch": "other", "author": "other", "further": True}
    verify(reader_of(pack))


def test_an_empty_pack_passes() -> None:
    verify(reader_of({"commits": [], "snapshots": [], "blobs": []}))


def test_a_true_id_that_is_stored_all_the_same_passes() -> None:
    pack = true_pack()
    out = io.BytesIO()
    with MPackWriter(out) as writer:
        for n, snapshot in enumerate(pack["snapshots"]):
            writer.add_snapshot(snapshot["snapshot_id"], snapshot["manifest"], derivable=n % 2 == 0)
    verify(MPackReader(out))


@effort(60)
@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.dictionaries(
                st.text("ab", max_size=3) | st.text(max_size=3), st.one_of(st.none(), st.integers(0, 9)), max_size=60
            ),
        ),
        max_size=6,
    ),
    st.sampled_from([1, 2, 3, 128]),
)
def test_hashing_by_changes_agrees_with_hashing_whole(
    steps: list[tuple[bool, dict[str, int | None]]], entries_per_state: int
) -> None:
    hasher = ManifestHasher()
    manifest: dict[str, str] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("musehub_plugin.mpack.manifests._ENTRIES_PER_STATE", entries_per_state)
        for full, change in steps:
            if full:
                manifest = {}
            removed = [path for path, number in change.items() if number is None and path in manifest]
            changed = {path: ids.fake_id(str(number)) for path, number in change.items() if number is not None}
            hasher.change(removed, changed, full=full)
            manifest = {path: oid for path, oid in manifest.items() if path not in removed} | changed
            assert ids.from_digest(hasher.digest()) == ids.snapshot_id(manifest)


def test_hashing_by_changes_agrees_at_the_border_of_what_is_hashed_before() -> None:
    manifest = {f"{number:04}": ids.fake_id(str(number)) for number in range(1_000)}
    hasher = ManifestHasher()
    hasher.change((), manifest, full=True)
    while manifest:
        assert ids.from_digest(hasher.digest()) == ids.snapshot_id(manifest)
        gone = max(manifest)
        del manifest[gone]
        hasher.change([gone], {}, full=False)
    assert ids.from_digest(hasher.digest()) == ids.snapshot_id({})


def test_hashing_by_changes_agrees_wherever_an_entry_is_replaced_removed_and_added() -> None:
    manifest = {f"{number:04}": ids.fake_id(str(number)) for number in range(600)}
    hasher = ManifestHasher()
    hasher.change((), manifest, full=True)
    hasher.digest()
    for path in [*sorted(manifest)[::50], "0599"]:
        steps: list[dict[str, str | None]] = [
            {path: ids.fake_id("now")},
            {path: None},
            {path: ids.fake_id("again"), "0300": ids.fake_id(path)},
        ]
        for step in steps:
            removed = [gone for gone, now in step.items() if now is None]
            changed = {path: now for path, now in step.items() if now is not None}
            hasher.change(removed, changed, full=False)
            manifest = {path: now for path, now in manifest.items() if path not in removed} | changed
            assert ids.from_digest(hasher.digest()) == ids.snapshot_id(manifest)


def pack_of(blobs: list[bytes], *, level: int = 1) -> bytes:
    """Return a pack of blobs alone."""
    out = io.BytesIO()
    with MPackWriter(out, level=level) as writer:
        for content in blobs:
            writer.add_blob(ids.blob_id(content), content)
    return out.getvalue()


# What fills frames, what goes on in the next ones, what ends at a border, and nothing at all before, between and after.
FRAME = 16 << 20
FRAMES_FULL = [b"", b"a" * 9_000_000, b"b" * 9_000_000, b"c" * (2 * FRAME), b"d" * (FRAME + 5), b"e", b"f" * FRAME]


@pytest.mark.parametrize("count", [1, 2, 3, 50])
def test_shares_of_the_blobs_cover_each_frame_once_and_verify_on_their_own(count: int) -> None:
    reader = MPackReader(io.BytesIO(pack_of(FRAMES_FULL)))
    shares = blob_shares(reader, count)
    frames = sum(1 for frame in reader.frames if frame.kind == Kind.BLOBS)
    assert [frame for share in shares for frame in share] == list(range(frames))
    assert 1 <= len(shares) <= count
    for share in shares:
        verify_blobs(reader, share)


@pytest.mark.parametrize("false", range(len(FRAMES_FULL)))
def test_s77_a_false_blob_is_found_in_its_share_alone(false: int) -> None:
    out = io.BytesIO()
    with MPackWriter(out, level=1) as writer:
        for number, content in enumerate(FRAMES_FULL):
            writer.add_blob(ids.fake_id("x") if number == false else ids.blob_id(content), content)
    reader = MPackReader(out)
    found = []
    for share in blob_shares(reader, 3):
        try:
            verify_blobs(reader, share)
        except FalseIdError as error:
            found.append(error.ordinal)
    assert found == [false]


@given(st.binary(max_size=3_000_000), st.data())
@effort(30)
def test_pieces_of_a_frame_are_the_frame(raw: bytes, data: st.DataObject) -> None:
    packed = compress(raw, level=1, window_log=20)
    pieces = list(decompress_pieces([packed], len(raw), window_log=20, piece=data.draw(st.integers(1_000, 1 << 18))))
    assert b"".join(pieces) == raw
    assert b"" not in pieces


@pytest.mark.parametrize("end", [0, 5, 100, -1])
def test_pieces_of_a_frame_that_is_cut_off_are_refused(end: int) -> None:
    raw = Random(1).randbytes(100_000)
    packed = compress(raw, level=1, window_log=20)
    with pytest.raises(ZstdError):
        list(decompress_pieces([packed[:end]], len(raw), window_log=20))


@pytest.mark.parametrize(("size", "after"), [(99_999, b""), (100_001, b""), (100_000, b"x")])
def test_pieces_of_a_frame_that_is_another_one_are_refused(size: int, after: bytes) -> None:
    packed = compress(Random(1).randbytes(100_000), level=1, window_log=20)
    with pytest.raises(ZstdError):
        list(decompress_pieces([packed + after], size, window_log=20))
