"""What `musehub verify` says of a working copy whose files are not what they were."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from musehub_plugin import ids
from musehub_plugin.client import Workdir, apply_mpack, verify
from musehub_plugin.mpack import build_wire_mpack
from tests.unit.client.test_apply import blob, commit, snapshot

TREES = snapshot({"a": b"1"}), snapshot({"a": b"2"})
FIRST = commit(TREES[0]["snapshot_id"])
SECOND = commit(TREES[1]["snapshot_id"], [FIRST["commit_id"]])
IDS = {
    "blob": (ids.blob_id(b"1"), ids.blob_id(b"2")),
    "snapshot": (TREES[0]["snapshot_id"], TREES[1]["snapshot_id"]),
    "commit": (FIRST["commit_id"], SECOND["commit_id"]),
}


@pytest.fixture
def full(workdir: Workdir) -> Workdir:
    """A working copy with two commits in files of their own."""
    blobs = [blob(b"1"), blob(b"2")]
    apply_mpack(workdir, build_wire_mpack(commits=[FIRST, SECOND], snapshots=list(TREES), blobs=blobs))
    assert verify(workdir).problems == []
    return workdir


def file_of(workdir: Workdir, entity_id: str) -> Path:
    """Return the one file that an entity is in."""
    digits = ids.to_hex(entity_id)
    (found,) = (path for path in workdir.root.rglob("*") if path.is_file() and digits[2:] in path.name)
    return found


@pytest.mark.parametrize("kind", ["blob", "snapshot"])
def test_what_is_another_is_named_with_what_it_is(full: Workdir, kind: str) -> None:
    first, second = IDS[kind]
    path = file_of(full, first)
    path.chmod(0o600)
    shutil.copyfile(file_of(full, second), path)
    assert f"{kind} {first} hashes to {second}" in verify(full).problems


def test_a_commit_that_says_something_else_is_named(full: Workdir) -> None:
    path = file_of(full, FIRST["commit_id"])
    path.chmod(0o600)
    path.write_bytes(path.read_bytes().replace(b"message", b"massage").replace(b'"massage":', b'"message":'))
    assert f"commit {FIRST['commit_id']} does not hash to its id" in verify(full).problems


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("blob", f"snapshot {TREES[0]['snapshot_id']} names blob {IDS['blob'][0]} for 'a', which is missing"),
        ("snapshot", f"commit {FIRST['commit_id']} names snapshot {IDS['snapshot'][0]}, which is missing"),
        ("commit", f"commit {SECOND['commit_id']} has the parent {FIRST['commit_id']}, which is missing"),
    ],
)
def test_what_is_missing_is_named_with_who_needs_it(full: Workdir, kind: str, problem: str) -> None:
    file_of(full, IDS[kind][0]).unlink()
    assert verify(full).problems == [problem]


@pytest.mark.parametrize("name", ["HEAD", "refs/heads/main", "remotes/origin/main"])
def test_a_ref_that_no_command_can_read_is_a_problem_beside_others(full: Workdir, name: str) -> None:
    file_of(full, FIRST["commit_id"]).unlink()
    damaged = full.muse / name
    damaged.parent.mkdir(parents=True, exist_ok=True)
    damaged.write_bytes(b"junk junk")
    assert [str(damaged) in problem for problem in verify(full).problems] == [False, True]


def test_a_head_that_names_a_missing_commit_is_a_problem(full: Workdir) -> None:
    (full.muse / "HEAD").write_text(ids.to_hex(ids.fake_id("nowhere")))
    assert verify(full).problems == [f"HEAD names commit {ids.fake_id('nowhere')}, which is missing"]
