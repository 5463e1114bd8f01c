"""An mpack is believed in nothing: what does not hash, or names what is not there, is not stored."""

from __future__ import annotations

import io
from typing import Any

import pytest

from musehub_plugin import ids
from musehub_plugin.client import BadMPack, Workdir, apply_mpack, verify
from musehub_plugin.mpack import build_wire_mpack

DATE = "2026-01-02T03:04:05.000006+00:00"


def blob(content: bytes) -> dict[str, Any]:
    return {"object_id": ids.blob_id(content), "content": content}


def snapshot(files: dict[str, bytes]) -> dict[str, Any]:
    manifest = {path: ids.blob_id(content) for path, content in files.items()}
    return {"snapshot_id": ids.snapshot_id(manifest), "manifest": manifest}


def commit(snapshot_id: str, parents: list[str] | None = None, **changes: Any) -> dict[str, Any]:
    record: dict[str, Any] = {
        "parent_ids": parents or [],
        "snapshot_id": snapshot_id,
        "branch": "main",
        "message": "message",
        "author": "Ada",
        "committed_at": DATE,
        **changes,
    }
    record.setdefault(
        "commit_id",
        ids.commit_id(record["parent_ids"], snapshot_id, record["message"], record["committed_at"]),
    )
    return record


def pack(files: dict[str, bytes], *, parents: list[str] | None = None, **changes: Any) -> tuple[bytes, dict[str, Any]]:
    """Return an mpack of one commit with its files, and the commit."""
    tree = snapshot(files)
    made = commit(tree["snapshot_id"], parents, **changes)
    blobs = [blob(content) for content in dict.fromkeys(files.values())]
    return build_wire_mpack(commits=[made], snapshots=[tree], blobs=blobs), made


def stored(workdir: Workdir) -> dict[str, set[str]]:
    return {kind: set(workdir.stored_ids(kind)) for kind in ("objects", "snapshots", "commits")}


def test_everything_of_an_mpack_is_stored(workdir: Workdir) -> None:
    data, made = pack({"a": b"1", "b/c": b"2"})
    applied = apply_mpack(workdir, data)
    assert (applied.new_commits, applied.new_snapshots, applied.new_blobs) == (1, 1, 2)
    assert workdir.read_commit(made["commit_id"])["message"] == "message"
    assert verify(workdir).problems == []


def test_a_second_application_is_a_no_op(workdir: Workdir) -> None:
    data, _ = pack({"a": b"1"})
    apply_mpack(workdir, data)
    before = stored(workdir)
    applied = apply_mpack(workdir, io.BytesIO(data))
    assert (applied.new_commits, applied.new_snapshots, applied.new_blobs) == (0, 0, 0)
    assert stored(workdir) == before


def test_no_ref_moves(workdir: Workdir) -> None:
    apply_mpack(workdir, pack({"a": b"1"})[0])
    assert (workdir.branches(), workdir.all_remote_heads()) == ({}, set())


def test_an_mpack_that_holds_nothing_is_a_no_op(workdir: Workdir) -> None:
    assert apply_mpack(workdir, build_wire_mpack(commits=[], snapshots=[], blobs=[])).commit_count == 0


def test_s80_an_empty_file_and_an_empty_manifest_arrive(workdir: Workdir) -> None:
    for files in ({"empty": b""}, {}):
        data, made = pack(files)
        apply_mpack(workdir, data)
        assert workdir.read_snapshot(made["snapshot_id"]) == {path: ids.blob_id(b"") for path in files}
    assert workdir.read_blob(ids.blob_id(b"")) == b""


def test_a_large_blob_arrives(workdir: Workdir) -> None:
    content = bytes(range(256)) * 80_000
    apply_mpack(workdir, pack({"big": content})[0])
    assert workdir.read_blob(ids.blob_id(content)) == content


def test_fields_that_nobody_knows_are_kept(workdir: Workdir) -> None:
    data, made = pack({"a": b"1"}, signature="s", weather={"sky": [1, b"\xff"]})
    apply_mpack(workdir, data)
    record = workdir.read_commit(made["commit_id"])
    assert (record["signature"], record["weather"]) == ("s", {"sky": [1, {"$bytes": "/w=="}]})


def test_a_commit_that_hashes_its_author_is_accepted(workdir: Workdir) -> None:
    tree = snapshot({})
    commit_id = ids.commit_id([], tree["snapshot_id"], "message", "Ada")
    data, _ = pack({}, commit_id=commit_id)
    apply_mpack(workdir, data)
    assert workdir.has_commit(commit_id)


def test_parents_may_come_after_their_children(workdir: Workdir) -> None:
    tree = snapshot({})
    chain = [commit(tree["snapshot_id"], message="0")]
    for number in range(1, 50):
        chain.append(commit(tree["snapshot_id"], [chain[-1]["commit_id"]], message=str(number)))
    apply_mpack(workdir, build_wire_mpack(commits=chain[::-1], snapshots=[tree], blobs=[]))
    assert verify(workdir).problems == []


def test_an_application_that_breaks_off_leaves_no_commit_without_its_parents(workdir: Workdir) -> None:
    tree = snapshot({})
    chain = [commit(tree["snapshot_id"], message="0")]
    for number in range(1, 9):
        chain.append(commit(tree["snapshot_id"], [chain[-1]["commit_id"]], message=str(number)))
    data = build_wire_mpack(commits=chain[::-1], snapshots=[tree], blobs=[])

    def break_off(stage: str, done: int, total: int | None) -> None:
        if (stage, done) == ("commits", 4):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        apply_mpack(workdir, data, progress=break_off)
    assert stored(workdir)["commits"] == {made["commit_id"] for made in chain[:4]}
    assert apply_mpack(workdir, data).new_commits == 5


def test_an_mpack_that_builds_on_what_is_here_is_applied(workdir: Workdir) -> None:
    data, first = pack({"a": b"1"})
    apply_mpack(workdir, data)
    tree = snapshot({"a": b"1", "b": b"2"})
    second = commit(tree["snapshot_id"], [first["commit_id"]])
    apply_mpack(workdir, build_wire_mpack(commits=[second], snapshots=[tree], blobs=[blob(b"2")]))
    assert verify(workdir).problems == []


def test_s77_a_blob_that_does_not_hash_to_its_id_is_refused(workdir: Workdir) -> None:
    false = {"object_id": ids.blob_id(b"true"), "content": b"false"}
    with pytest.raises(BadMPack, match=ids.blob_id(b"true")):
        apply_mpack(workdir, build_wire_mpack(commits=[], snapshots=[], blobs=[false]))
    assert stored(workdir)["objects"] == set()


def test_s77_a_large_blob_that_does_not_hash_to_its_id_is_refused(workdir: Workdir) -> None:
    false = {"object_id": ids.blob_id(b"true"), "content": b"false" * 1_000_000}
    with pytest.raises(BadMPack, match=ids.blob_id(b"true")):
        apply_mpack(workdir, build_wire_mpack(commits=[], snapshots=[], blobs=[false]))
    assert stored(workdir)["objects"] == set()


def test_s77_a_snapshot_that_does_not_hash_to_its_id_is_refused(workdir: Workdir) -> None:
    false = {**snapshot({"a": b"1"}), "snapshot_id": ids.fake_id("s")}
    with pytest.raises(BadMPack, match=ids.fake_id("s")):
        apply_mpack(workdir, build_wire_mpack(commits=[], snapshots=[false], blobs=[blob(b"1")]))
    assert stored(workdir)["snapshots"] == set()


def test_s77_a_commit_that_does_not_hash_to_its_id_is_refused(workdir: Workdir) -> None:
    data, _ = pack({"a": b"1"}, commit_id=ids.fake_id("c"))
    with pytest.raises(BadMPack, match=ids.fake_id("c")):
        apply_mpack(workdir, data)
    assert stored(workdir)["commits"] == set()


def test_one_false_commit_keeps_all_commits_out(workdir: Workdir) -> None:
    tree = snapshot({})
    true = commit(tree["snapshot_id"])
    false = commit(tree["snapshot_id"], [true["commit_id"]], commit_id=ids.fake_id("c"))
    with pytest.raises(BadMPack):
        apply_mpack(workdir, build_wire_mpack(commits=[true, false], snapshots=[tree], blobs=[]))
    assert stored(workdir)["commits"] == set()


def test_a_blob_that_is_nowhere_is_named(workdir: Workdir) -> None:
    tree = snapshot({"a": b"1"})
    with pytest.raises(BadMPack, match=ids.blob_id(b"1")):
        apply_mpack(workdir, build_wire_mpack(commits=[], snapshots=[tree], blobs=[]))


def test_a_snapshot_that_is_nowhere_is_named(workdir: Workdir) -> None:
    made = commit(ids.fake_id("s"))
    with pytest.raises(BadMPack, match=ids.fake_id("s")):
        apply_mpack(workdir, build_wire_mpack(commits=[made], snapshots=[], blobs=[]))


def test_a_parent_that_is_nowhere_is_named(workdir: Workdir) -> None:
    data, _ = pack({}, parents=[ids.fake_id("p")])
    with pytest.raises(BadMPack, match=ids.fake_id("p")):
        apply_mpack(workdir, data)
    assert stored(workdir)["commits"] == set()


@pytest.mark.parametrize("cut", [0, 1, 20, -1])
def test_bytes_that_are_no_mpack_are_refused(workdir: Workdir, cut: int) -> None:
    with pytest.raises(BadMPack, match="malformed"):
        apply_mpack(workdir, pack({"a": b"1"})[0][:cut])
    assert stored(workdir) == {"objects": set(), "snapshots": set(), "commits": set()}


def test_no_temporary_file_stays(workdir: Workdir) -> None:
    apply_mpack(workdir, pack({"a": b"1" * 3_000_000})[0])
    assert list((workdir.muse / "tmp").iterdir()) == []
