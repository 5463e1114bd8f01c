"""A checkout writes the files of a commit, inside the tree, and never over what is not saved."""

from __future__ import annotations

from pathlib import Path

import pytest

from musehub_plugin import ids
from musehub_plugin.client import Workdir, WorkdirError, checkout, entities, pack
from musehub_plugin.client.manifest import ManifestRows
from musehub_plugin.client.record import new_record
from musehub_plugin.client.worktree import in_the_way
from musehub_plugin.mpack import manifests

DATE = "2026-01-02T03:04:05.000006+00:00"


@pytest.fixture(params=["in memory", "wide"], autouse=True)
def _manifests_are(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "wide":
        monkeypatch.setattr(entities, "_WIDE_FILE", 0)
        monkeypatch.setattr(manifests, "WIDE_PATHS", 0)


def commit(workdir: Workdir, files: dict[str, bytes]) -> str:
    """Store a commit with these files, whatever their paths are."""
    rows = ManifestRows({path: workdir.write_blob(content)[0] for path, content in files.items()})
    snapshot_id = rows.snapshot_id()
    workdir.write_snapshot(rows, snapshot_id, DATE)
    commit_id = ids.commit_id([], snapshot_id, "m", DATE)
    record = new_record(
        commit_id=commit_id,
        repo_id="",
        branch="",
        snapshot_id=snapshot_id,
        message="m",
        committed_at=DATE,
        parent_ids=[],
        author="",
        metadata={},
    )
    workdir.write_commit(record)
    return commit_id


def tree(workdir: Workdir) -> dict[str, bytes]:
    return {
        path.relative_to(workdir.root).as_posix(): path.read_bytes()
        for path in workdir.root.rglob("*")
        if path.is_file() and not path.is_symlink() and ".muse" not in path.parts
    }


FILES = {"a": b"1", "dir/sub/b": b"2", ".dot": b"", "ü": b"3"}


def test_the_files_of_a_commit_are_written(workdir: Workdir) -> None:
    done = checkout(workdir, commit(workdir, FILES))
    assert (tree(workdir), done.written, done.kept) == (FILES, 4, [])


def test_a_second_checkout_writes_nothing(workdir: Workdir) -> None:
    commit_id = commit(workdir, FILES)
    checkout(workdir, commit_id)
    done = checkout(workdir, commit_id, previous=commit_id)
    assert (done.written, done.unchanged) == (0, 4)


def test_a_script_that_was_made_executable_stays_so_when_it_changes(workdir: Workdir) -> None:
    one, two = commit(workdir, {"run": b"1"}), commit(workdir, {"run": b"2"})
    checkout(workdir, one)
    (workdir.root / "run").chmod(0o755)
    checkout(workdir, two, previous=one)
    assert (tree(workdir), (workdir.root / "run").stat().st_mode & 0o777) == ({"run": b"2"}, 0o755)


@pytest.mark.parametrize("path", ["n" * 256, "n" * 256 + "/x", "/".join(["n" * 100] * 40)])
def test_a_name_that_the_file_system_cannot_have_is_told_and_all_else_is_written(workdir: Workdir, path: str) -> None:
    done = checkout(workdir, commit(workdir, {**FILES, path: b"x"}))
    assert (tree(workdir), done.written, done.unnameable) == (FILES, 4, [path])


def test_a_name_that_the_file_system_cannot_have_is_in_nobodys_way(workdir: Workdir) -> None:
    one, two = (commit(workdir, {"a": content, "n" * 256: content}) for content in (b"1", b"2"))
    checkout(workdir, one)
    assert in_the_way(workdir, two, previous=one) == []


def test_files_follow_from_one_commit_to_another(workdir: Workdir) -> None:
    one, two = commit(workdir, {"a": b"1", "gone/x": b"x"}), commit(workdir, {"a": b"2", "new": b"n"})
    checkout(workdir, one)
    checkout(workdir, two, previous=one)
    assert tree(workdir) == {"a": b"2", "new": b"n"}
    assert not (workdir.root / "gone").exists()


def test_a_file_gives_way_to_a_folder_and_back(workdir: Workdir) -> None:
    one, two = commit(workdir, {"a": b"1"}), commit(workdir, {"a/b": b"2"})
    checkout(workdir, one)
    checkout(workdir, two, previous=one)
    assert tree(workdir) == {"a/b": b"2"}
    checkout(workdir, one, previous=two)
    assert tree(workdir) == {"a": b"1"}


def test_a_change_that_is_not_saved_is_kept(workdir: Workdir) -> None:
    one, two = commit(workdir, {"a": b"1", "b": b"1"}), commit(workdir, {"a": b"2"})
    checkout(workdir, one)
    (workdir.root / "a").write_bytes(b"mine")
    (workdir.root / "b").write_bytes(b"mine too")
    done = checkout(workdir, two, previous=one)
    assert (tree(workdir), done.kept) == ({"a": b"mine", "b": b"mine too"}, ["a"])


def test_a_file_that_was_there_first_is_kept(workdir: Workdir) -> None:
    (workdir.root / "a").write_bytes(b"mine")
    done = checkout(workdir, commit(workdir, {"a": b"1"}))
    assert (tree(workdir), done.kept) == ({"a": b"mine"}, ["a"])


def test_a_file_in_the_place_of_a_folder_is_kept(workdir: Workdir) -> None:
    (workdir.root / "dir").write_bytes(b"mine")
    done = checkout(workdir, commit(workdir, {"dir/a": b"1"}))
    assert (tree(workdir), done.kept) == ({"dir": b"mine"}, ["dir/a"])


def test_a_folder_in_the_place_of_a_file_is_kept(workdir: Workdir) -> None:
    (workdir.root / "a").mkdir()
    assert checkout(workdir, commit(workdir, {"a": b"1"})).kept == ["a"]


UNSAFE = [
    "../x", "a/../../x", "/tmp/x", "a//b", ".", "..", "a/.", "a\\b", "a\0b", "a\rb", "a\nb", ".muse/HEAD", ".MUSE/x",
    "a/.muse/x", "d" * 4_097,
]  # fmt: skip


@pytest.mark.parametrize("path", UNSAFE)
def test_s79_a_path_that_is_not_safe_is_refused_before_anything_is_written(workdir: Workdir, path: str) -> None:
    commit_id = commit(workdir, {"a-first": b"1", path: b"2"})
    with pytest.raises(WorkdirError, match="cannot be checked out"):
        checkout(workdir, commit_id)
    assert tree(workdir) == {}


def test_s79_a_file_that_is_also_a_folder_is_refused(workdir: Workdir) -> None:
    commit_id = commit(workdir, {"a": b"1", "a/b": b"2"})
    with pytest.raises(WorkdirError, match="cannot be checked out"):
        checkout(workdir, commit_id)


def test_s79_an_unsafe_path_of_the_previous_commit_removes_nothing(workdir: Workdir, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"1")
    one, two = commit(workdir, {"../outside": b"1"}), commit(workdir, {})
    checkout(workdir, two, previous=one)
    assert outside.read_bytes() == b"1"


def test_no_file_is_written_through_a_symlink(workdir: Workdir, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (workdir.root / "dir").symlink_to(outside)
    done = checkout(workdir, commit(workdir, {"dir/a": b"1", "dir/sub/b": b"2"}))
    assert (list(outside.iterdir()), done.kept) == ([], ["dir/a", "dir/sub/b"])


def test_no_file_is_removed_through_a_symlink(workdir: Workdir, tmp_path: Path) -> None:
    one, two = commit(workdir, {"dir/a": b"1"}), commit(workdir, {})
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a").write_bytes(b"1")
    (workdir.root / "dir").symlink_to(outside)
    checkout(workdir, two, previous=one)
    assert (outside / "a").exists()


def test_a_symlink_in_the_place_of_a_file_is_kept(workdir: Workdir, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"1")
    (workdir.root / "a").symlink_to(outside)
    done = checkout(workdir, commit(workdir, {"a": b"2"}))
    assert (outside.read_bytes(), done.kept) == (b"1", ["a"])


def test_a_missing_blob_is_named(workdir: Workdir) -> None:
    commit_id = commit(workdir, {"a": b"1"})
    digits = ids.to_hex(ids.blob_id(b"1"))
    (workdir.muse / "objects" / digits[:2] / digits[2:]).unlink()
    with pytest.raises(WorkdirError, match=f"blob {ids.blob_id(b'1')} is missing"):
        checkout(workdir, commit_id)


def test_a_checkout_out_of_a_pack_writes_the_same_files(workdir: Workdir) -> None:
    commit_id = commit(workdir, FILES)
    workdir.set_branch("main", commit_id)
    pack(workdir)
    done = checkout(workdir, commit_id)
    assert (tree(workdir), done.written, done.kept) == (FILES, 4, [])


def test_what_is_not_saved_is_in_the_way(workdir: Workdir) -> None:
    one, two = commit(workdir, {"a": b"1", "b": b"1", "d": b"1"}), commit(workdir, {"a": b"2", "b": b"2", "c": b"2"})
    checkout(workdir, one)
    for path in "acd":
        (workdir.root / path).write_bytes(b"mine")
    assert in_the_way(workdir, two, previous=one) == ["a", "c"]


def test_a_folder_of_files_that_go_is_not_in_the_way(workdir: Workdir) -> None:
    one, two = commit(workdir, {"dir/sub/a": b"1", "dir/b": b"1"}), commit(workdir, {"dir": b"2"})
    checkout(workdir, one)
    assert in_the_way(workdir, two, previous=one) == []
    (workdir.root / "dir" / "sub" / "mine").write_bytes(b"")
    assert in_the_way(workdir, two, previous=one) == ["dir"]


def test_a_file_that_goes_is_not_in_the_way_of_a_folder(workdir: Workdir) -> None:
    one, two = commit(workdir, {"dir": b"1"}), commit(workdir, {"dir/a": b"2"})
    checkout(workdir, one)
    assert in_the_way(workdir, two, previous=one) == []


def test_an_empty_folder_of_somebodys_own_is_in_the_way(workdir: Workdir) -> None:
    one, two = commit(workdir, {"b": b"1"}), commit(workdir, {"dir": b"2"})
    checkout(workdir, one)
    (workdir.root / "dir").mkdir()
    assert in_the_way(workdir, two, previous=one) == ["dir"]
