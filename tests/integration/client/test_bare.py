"""Bare clones: packs as they came, an index beside them, and every command on top of that."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from random import Random

import pytest

from musehub_plugin.client import (
    BadMPack,
    Workdir,
    WorkdirError,
    clone,
    fetch,
    import_git,
    pack,
    pull,
    push,
    unpack,
    verify,
)
from musehub_plugin.client.keeping import keep_mpack
from musehub_plugin.mpack import build_wire_mpack
from tests.integration.client.conftest import LiveHub
from tests.integration.client.test_round_trip import add_commit, commits_of, contents_of
from tests.unit.client.git_histories import GitHistory


@pytest.fixture
def origin(tmp_path: Path) -> Workdir:
    """Ten commits on two branches, with a merge."""
    history = GitHistory(tmp_path / "history.git")
    last = history.commit(files={b"a": b"0", b"empty": b"", b"long": bytes(range(256)) * 2_000})
    for number in range(1, 8):
        last = history.commit(parents=[last], files={b"a": b"%d" % number, b"d%d/f" % number: b"x" * number})
    side = history.commit(ref="refs/heads/side", parents=[last], files={b"side": b"s", b"a": None})
    history.commit(parents=[last, side], files={b"a": b"merged"})
    workdir = Workdir.create(tmp_path / "origin")
    import_git(history.path, workdir)
    return workdir


@pytest.fixture
def url(live_hub: LiveHub, origin: Workdir) -> str:
    """The repo that holds the history."""
    url = live_hub.add_repo("engine")
    push(origin, live_hub.transport(url), branches=["main", "side"])
    return url


@pytest.fixture
def bare(live_hub: LiveHub, url: str, tmp_path: Path) -> Workdir:
    """A bare clone of it."""
    return clone(live_hub.transport(url), tmp_path / "bare", bare=True).workdir


def same(one: Workdir, other: Workdir) -> bool:
    """Say whether two working copies hold the same commits, manifests and blobs."""
    return commits_of(one) == commits_of(other) and contents_of(one) == contents_of(other)


def test_a_bare_clone_holds_everything_in_one_pack_and_an_index(bare: Workdir, origin: Workdir) -> None:
    assert sorted(path.suffix for path in bare.packs.folder.iterdir()) == [".idx", ".mpack"]
    assert [*bare.loose_ids("objects"), *bare.loose_ids("snapshots"), *bare.loose_ids("commits")] == []
    assert [path.name for path in bare.root.iterdir()] == [".muse"]
    assert same(bare, origin)
    assert bare.branches() == origin.branches()
    found = verify(bare)
    assert (found.problems, found.commit_count, found.pack_count) == ([], 10, 1)


def test_a_fetch_adds_a_pack_that_leans_on_the_first(
    live_hub: LiveHub, url: str, bare: Workdir, origin: Workdir
) -> None:
    add_commit(origin, {"a": b"new", "empty": b""})
    push(origin, live_hub.transport(url))
    pulled = pull(bare, live_hub.transport(url))
    assert (pulled.fetched.new_commits, pulled.fetched.new_blobs, len(list(bare.packs))) == (1, 1, 2)
    assert bare.branches() == origin.branches()
    assert same(bare, origin)
    assert verify(bare).problems == []


def test_a_push_from_a_bare_clone_carries_everything(
    live_hub: LiveHub, bare: Workdir, origin: Workdir, tmp_path: Path
) -> None:
    mirror = live_hub.add_repo("mirror")
    push(bare, live_hub.transport(mirror), branches=["main", "side"])
    assert same(clone(live_hub.transport(mirror), tmp_path / "again").workdir, origin)


def test_unpack_makes_an_ordinary_working_copy(bare: Workdir, origin: Workdir) -> None:
    done = unpack(bare)
    again = Workdir(bare.root)
    assert (done.commit_count, again.bare, list(again.packs)) == (10, False, [])
    assert same(again, origin)
    assert verify(again).problems == []
    assert (bare.root / "a").read_bytes() == b"merged"
    assert len([path for path in bare.root.rglob("*") if path.is_file() and ".muse" not in path.parts]) == (
        done.files.written
    )


def test_a_packed_working_copy_keeps_its_files_and_pulls(
    live_hub: LiveHub, url: str, origin: Workdir, tmp_path: Path
) -> None:
    copy = clone(live_hub.transport(url), tmp_path / "copy").workdir
    pack(copy)
    add_commit(origin, {"a": b"new", "empty": b""})
    push(origin, live_hub.transport(url))
    pull(copy, live_hub.transport(url))
    assert ((copy.root / "a").read_bytes(), (copy.root / "side").exists()) == (b"new", False)
    assert (len(list(copy.packs)), list(copy.loose_ids("commits")), verify(copy).problems) == (2, [], [])


def test_pack_makes_one_pack_of_many_and_of_files(live_hub: LiveHub, url: str, bare: Workdir, origin: Workdir) -> None:
    add_commit(origin, {"a": b"new", "empty": b""})
    push(origin, live_hub.transport(url))
    pull(bare, live_hub.transport(url))
    for workdir in (bare, origin):
        commits, contents = commits_of(workdir), contents_of(workdir)
        pack(workdir)
        assert len(list(workdir.packs)) == 1
        assert [*workdir.loose_ids("objects"), *workdir.loose_ids("commits")] == []
        assert (commits_of(workdir), contents_of(workdir)) == (commits, contents)
        assert verify(workdir).problems == []


def test_an_index_that_is_missing_or_cut_off_is_made_again(bare: Workdir) -> None:
    (index,) = bare.packs.folder.glob("*.idx")
    content = index.read_bytes()
    for damage in (index.unlink, lambda: index.write_bytes(content[:-40]), lambda: index.write_bytes(b"")):
        damage()
        assert verify(Workdir(bare.root)).problems == []
        assert index.read_bytes() == content


@pytest.mark.parametrize("suffix", [".idx", ".mpack"])
def test_a_flipped_bit_anywhere_is_found_by_verify(bare: Workdir, suffix: str) -> None:
    (path,) = bare.packs.folder.glob(f"*{suffix}")
    content = path.read_bytes()
    for place in Random(suffix).sample(range(len(content)), 6):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        assert verify(Workdir(bare.root)).problems, place
    path.write_bytes(content)
    assert verify(Workdir(bare.root)).problems == []


def test_a_damaged_pack_is_brought_again_by_repair(live_hub: LiveHub, url: str, bare: Workdir, origin: Workdir) -> None:
    (path,) = bare.packs.folder.glob("*.mpack")
    path.write_bytes(path.read_bytes()[:-100])
    bare.packs.forget()
    fetch(bare, live_hub.transport(url), repair=True)
    assert same(bare, origin)
    assert verify(bare).problems == []


def test_a_pack_that_cannot_be_listed_is_set_aside_by_repair_and_keeps_its_bytes(
    live_hub: LiveHub, url: str, bare: Workdir, origin: Workdir
) -> None:
    before = list(bare.packs)
    add_commit(origin, {"a": b"new"})
    push(origin, live_hub.transport(url))
    pull(bare, live_hub.transport(url))
    (newer,) = [each for each in bare.packs if each.mpack_id not in {old.mpack_id for old in before}]
    damaged = newer.path.read_bytes()[:-20]
    newer.path.write_bytes(damaged)
    newer.index_path.unlink()
    bare.packs.forget()
    fetch(bare, live_hub.transport(url), repair=True)
    assert newer.path.with_suffix(".mpack.damaged").read_bytes() == damaged
    assert same(bare, origin)
    assert verify(bare).problems == []


def test_what_replaces_files_packs_or_damaged_packs_is_on_disk_before_they_go(
    live_hub: LiveHub, url: str, origin: Workdir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A power cut can only be played: what is there when all is written to disk is what it would leave.
    left: list[Path] = []

    def cut() -> None:
        left.append(tmp_path / f"left{len(left)}")
        shutil.copytree(origin.root, left[-1])

    monkeypatch.setattr(os, "sync", cut)
    pack(origin)
    add_commit(origin, {"a": b"new"})
    push(origin, live_hub.transport(url))
    fetch(origin, live_hub.transport(url), repair=True)
    unpack(origin)
    files, packs, more_packs = map(Workdir, left)
    # A copy has both, what is replaced and what replaces it.
    assert (len(list(files.loose_ids("commits"))), len(list(files.packs))) == (10, 1)
    assert [len(list(each.packs)) for each in (packs, more_packs)] == [2, 1]
    assert len(list(more_packs.loose_ids("commits"))) == 11
    assert [verify(each).problems for each in (files, packs, more_packs)] == [[], [], []]


def test_a_pack_with_a_false_blob_is_not_kept(tmp_path: Path) -> None:
    bare = Workdir.create(tmp_path / "bare", bare=True)
    false = tmp_path / "false.mpack"
    blob = {"object_id": "sha256:" + "1" * 64, "content": b"x"}
    false.write_bytes(build_wire_mpack(commits=[], snapshots=[], blobs=[blob]))
    with pytest.raises(BadMPack, match="does not hash to its id"):
        keep_mpack(bare, false, "sha256:" + "2" * 64)
    assert list(bare.packs) == []


def test_what_keeps_no_packs_cannot_be_unpacked(origin: Workdir) -> None:
    with pytest.raises(WorkdirError, match="nothing to unpack"):
        unpack(origin)


def test_a_bare_clone_is_a_fraction_of_the_other(bare: Workdir, origin: Workdir) -> None:
    files = {workdir: [path for path in workdir.muse.rglob("*") if path.is_file()] for workdir in (bare, origin)}
    assert len(files[bare]) < 12 < len(files[origin])


def test_a_pack_that_is_what_a_hub_lacks_is_sent_as_it_is(live_hub: LiveHub, origin: Workdir, tmp_path: Path) -> None:
    imported = Workdir.create(tmp_path / "imported", bare=True)
    import_git(tmp_path / "history.git", imported)
    (pack,) = imported.packs
    url = live_hub.add_repo("mirror")
    pushed = push(imported, live_hub.transport(url), branches=["main", "side"])
    assert (pushed.commit_count, pushed.snapshot_count, pushed.blob_count) == (10, 10, 19)
    assert pushed.sent_bytes == pack.path.stat().st_size
    copy = clone(live_hub.transport(url), tmp_path / "copy", bare=True).workdir
    assert [each.mpack_id for each in copy.packs] == [pack.mpack_id]
    assert same(copy, origin)


def test_a_pack_that_holds_more_than_a_hub_lacks_is_not_sent_as_it_is(
    live_hub: LiveHub, origin: Workdir, tmp_path: Path
) -> None:
    imported = Workdir.create(tmp_path / "imported", bare=True)
    import_git(tmp_path / "history.git", imported)
    side = imported.branch_head("side")
    url = live_hub.add_repo("mirror")
    pushed = push(imported, live_hub.transport(url), branches=["side"])
    assert pushed.commit_count == 9
    copy = clone(live_hub.transport(url), tmp_path / "copy").workdir
    assert copy.branches() == {"side": side}
    assert verify(copy).problems == []


def test_packing_what_is_one_pack_already_keeps_it(origin: Workdir) -> None:
    pack(origin)
    (first,) = origin.packs
    before = first.mpack_id
    assert pack(origin).commit_count == 10
    assert [each.mpack_id for each in origin.packs] == [before]
    assert verify(origin).problems == []
