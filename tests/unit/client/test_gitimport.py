"""A git history becomes a muse history, by the policy that the module documents."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.synthetic_git import write_repository
from musehub_plugin import ids
from musehub_plugin.client import GitImportError, Workdir, import_git, verify
from musehub_plugin.client.gitpolicy import muse_date, muse_path
from musehub_plugin.names import unsafe_path
from tests.unit.client.git_histories import EXECUTABLE, SUBMODULE, SYMLINK, GitHistory


@pytest.fixture(params=["loose", "packed"])
def workdir(request: pytest.FixtureRequest, tmp_path: Path) -> Workdir:
    """A working copy without commits."""
    return Workdir.create(tmp_path / "copy", bare=request.param == "packed")


def files_of(workdir: Workdir, branch: str = "main") -> dict[str, bytes]:
    head = workdir.branch_head(branch)
    assert head is not None
    manifest = workdir.read_snapshot(ids.PREFIX + workdir.read_commit(head)["snapshot_id"])
    return {path: workdir.read_blob(object_id) for path, object_id in manifest.items()}


def head_record(workdir: Workdir, branch: str = "main") -> dict[str, object]:
    head = workdir.branch_head(branch)
    assert head is not None
    return workdir.read_commit(head)


def test_files_changes_and_deletions_arrive(history: GitHistory, workdir: Workdir) -> None:
    first = history.commit(files={b"a": b"1", b"dir/b": b"", b"gone": b"x"})
    history.commit(parents=[first], files={b"a": b"2", b"gone": None})
    import_git(history.path, workdir)
    assert files_of(workdir) == {"a": b"2", "dir/b": b""}


def test_a_file_that_becomes_a_folder_is_replaced(history: GitHistory, workdir: Workdir) -> None:
    first = history.commit(files={b"a": b"file"})
    history.commit(parents=[first], files={b"a": None, b"a/b": b"inside"})
    import_git(history.path, workdir)
    assert files_of(workdir) == {"a/b": b"inside"}


def test_the_message_is_kept_to_the_byte(history: GitHistory, workdir: Workdir) -> None:
    history.commit(message=b"  subject\n\n\nbody \xc3\xa9\n:100644 not a change\n\n")
    import_git(history.path, workdir)
    assert head_record(workdir)["message"] == "  subject\n\n\nbody é\n:100644 not a change\n\n"


def test_an_empty_message_is_kept(history: GitHistory, workdir: Workdir) -> None:
    first = history.commit(message=b"", files={b"a": b"1"})
    history.commit(message=b"", parents=[first])
    assert import_git(history.path, workdir).commits == 2


def test_a_message_in_another_encoding_is_converted(history: GitHistory, workdir: Workdir) -> None:
    history.commit(message=b"caf\xe9", encoding=b"ISO-8859-1")
    import_git(history.path, workdir)
    assert head_record(workdir)["message"] == "café"


def test_text_that_is_not_utf_8_is_read_as_latin_1_and_counted(history: GitHistory, workdir: Workdir) -> None:
    history.commit(message=b"caf\xe9")
    assert import_git(history.path, workdir).latin1_texts == 1
    assert head_record(workdir)["message"] == "café"


def test_author_date_and_git_hash_are_recorded(history: GitHistory, workdir: Workdir) -> None:
    name = history.commit(author="Zoë <z@example.com>".encode(), author_date=1, date=1_700_000_000)
    import_git(history.path, workdir)
    record = head_record(workdir)
    assert (record["author"], record["committed_at"], record["metadata"]) == (
        "Zoë <z@example.com>",
        "2023-11-14T22:13:20.000000+00:00",
        {"git.commit": name},
    )


def test_a_merge_keeps_its_parents_in_order(history: GitHistory, workdir: Workdir) -> None:
    base = history.commit(files={b"a": b"0"}, message=b"base")
    left = history.commit(parents=[base], files={b"l": b"1"}, message=b"left")
    right = history.commit(ref="refs/heads/side", parents=[base], files={b"r": b"1"}, message=b"right")
    history.commit(parents=[left, right], files={b"r": b"1"}, message=b"merge")
    import_git(history.path, workdir)
    record = head_record(workdir)
    parents = [
        workdir.read_commit(f"sha256:{record[key]}")["message"] for key in ("parent_commit_id", "parent2_commit_id")
    ]
    assert parents == ["left", "right"]


def test_a_merge_of_five_keeps_all_parents_and_verifies(history: GitHistory, workdir: Workdir) -> None:
    base = history.commit(message=b"base")
    tips = [history.commit(ref=f"refs/heads/t{n}", parents=[base], message=b"t%d" % n) for n in range(5)]
    history.commit(ref="refs/heads/main", parents=tips, message=b"octopus")
    import_git(history.path, workdir)
    assert len(head_record(workdir)["parent_ids"]) == 5  # type: ignore[arg-type]  # a list, as the file has it
    assert verify(workdir).problems == []


def test_all_branches_arrive_and_head_is_gits(history: GitHistory, workdir: Workdir) -> None:
    first = history.commit(ref="refs/heads/trunk", message=b"1")
    history.commit(ref="refs/heads/feature/x", parents=[first], message=b"2")
    history.git("symbolic-ref", "HEAD", "refs/heads/trunk")
    import_git(history.path, workdir)
    assert (set(workdir.branches()), workdir.head_branch()) == ({"feature/x", "trunk"}, "trunk")


def test_tags_arrive_as_local_refs_and_annotated_ones_are_counted(history: GitHistory, workdir: Workdir) -> None:
    first = history.commit()
    history.git("tag", "light", first)
    history.git("-c", "user.name=a", "-c", "user.email=a@b", "tag", "-m", "text", "heavy", first)
    result = import_git(history.path, workdir)
    assert (set(workdir.tags()), result.annotated_tags) == ({"light", "heavy"}, 1)


def test_a_tag_that_names_no_commit_is_left_out(history: GitHistory, workdir: Workdir) -> None:
    first = history.commit()
    history.git("update-ref", "refs/tags/tree", history.git("rev-parse", f"{first}^{{tree}}").decode().strip())
    assert import_git(history.path, workdir).tags == 0


def test_one_ref_can_be_chosen(history: GitHistory, workdir: Workdir) -> None:
    first = history.commit()
    history.commit(ref="refs/heads/other", parents=[first], message=b"other")
    import_git(history.path, workdir, refs=["main"])
    assert workdir.branches().keys() == {"main"}


def test_a_ref_that_is_not_there_is_named(history: GitHistory, workdir: Workdir) -> None:
    history.commit()
    with pytest.raises(GitImportError, match="no branch or tag 'absent'"):
        import_git(history.path, workdir, refs=["absent"])


def test_remote_tracking_branches_come_when_asked_for(history: GitHistory, workdir: Workdir) -> None:
    first = history.commit()
    history.git("update-ref", "refs/remotes/origin/topic", first)
    history.git("symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/topic")
    import_git(history.path, workdir, remote_branches=True)
    assert workdir.branches().keys() == {"main", "topic"}


def test_symlinks_modes_and_submodules_follow_the_policy(history: GitHistory, workdir: Workdir) -> None:
    history.commit(
        files={
            b"link": (SYMLINK, b"../target"),
            b"run": (EXECUTABLE, b"#!/bin/sh\n"),
            b"sub": (SUBMODULE, b"1" * 40),
        }
    )
    result = import_git(history.path, workdir)
    assert files_of(workdir) == {"link": b"../target", "run": b"#!/bin/sh\n"}
    assert (result.symlinks, result.executables, result.submodules) == (1, 1, 1)


def test_a_submodule_that_becomes_a_folder_gives_way(history: GitHistory, workdir: Workdir) -> None:
    first = history.commit(files={b"sub": (SUBMODULE, b"1" * 40)})
    history.commit(parents=[first], files={b"sub": None, b"sub/file": b"x"})
    import_git(history.path, workdir)
    assert files_of(workdir) == {"sub/file": b"x"}


def test_a_change_of_mode_alone_changes_no_file(history: GitHistory, workdir: Workdir) -> None:
    first = history.commit(files={b"run": b"x"})
    history.commit(parents=[first], files={b"run": (EXECUTABLE, b"x")})
    assert import_git(history.path, workdir).new_snapshots == 1


def test_paths_that_no_client_could_restore_are_escaped_and_counted(history: GitHistory, workdir: Workdir) -> None:
    history.commit(files={b"a\\b": b"1", b"caf\xe9": b"2", b"new\nline": b"3", b".MUSE/x": b"4", b"fine%5C": b"5"})
    result = import_git(history.path, workdir)
    assert files_of(workdir) == {
        "a%5Cb": b"1",
        "caf%E9": b"2",
        "new%0Aline": b"3",
        "%2EMUSE/x": b"4",
        "fine%5C": b"5",
    }
    assert result.escaped_paths == 4


def test_a_path_that_is_too_long_is_left_out_and_counted(history: GitHistory, workdir: Workdir) -> None:
    history.commit(files={b"/".join([b"d" * 200] * 21): b"1", b"ok": b"2"})
    result = import_git(history.path, workdir)
    assert (files_of(workdir), result.skipped_paths) == ({"ok": b"2"}, 1)


@pytest.mark.parametrize("path", [b"a\\b", b"\xff\xfe", b".muse/x", b"x/.Muse", b"a\r", b"\xe2\x80\xa8"])
def test_a_path_that_was_escaped_is_safe(path: bytes) -> None:
    assert unsafe_path(muse_path(path)) is None


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (b"0", "1970-01-01T00:00:00.000000+00:00"),
        (b"-1", "1969-12-31T23:59:59.000000+00:00"),
        (b"99999999999999", "9999-12-31T23:59:59.999999+00:00"),
    ],
)
def test_dates_are_utc_with_microseconds(seconds: bytes, expected: str) -> None:
    assert muse_date(seconds)[0] == expected


def test_commits_that_differ_in_their_author_alone_are_one(history: GitHistory, workdir: Workdir) -> None:
    base = history.commit(message=b"base")
    one = history.commit(parents=[base], author=b"One <1@x>", message=b"same")
    two = history.commit(ref="refs/heads/side", parents=[base], author=b"Two <2@x>", message=b"same")
    history.commit(parents=[one, two], message=b"merge")
    result = import_git(history.path, workdir)
    assert (result.commits, result.merged_commits) == (4, 1)
    assert head_record(workdir)["parent2_commit_id"] is None
    assert verify(workdir).problems == []


def test_dates_that_run_backwards_do_no_harm(history: GitHistory, workdir: Workdir) -> None:
    parents: list[str] = []
    for number in range(5):
        parents = [history.commit(parents=parents, date=2_000_000_000 - number, message=b"%d" % number)]
    import_git(history.path, workdir)
    assert verify(workdir).problems == []


def test_a_second_run_writes_nothing(history: GitHistory, workdir: Workdir) -> None:
    history.commit(files={b"a": b"1"})
    import_git(history.path, workdir)
    again = import_git(history.path, workdir)
    assert (again.new_commits, again.new_snapshots, again.new_blobs) == (0, 0, 0)


def test_a_second_run_brings_what_is_new(history: GitHistory, workdir: Workdir) -> None:
    first = history.commit(files={b"a": b"1"})
    import_git(history.path, workdir)
    history.commit(parents=[first], files={b"a": b"2"})
    assert import_git(history.path, workdir).new_commits == 1
    assert files_of(workdir) == {"a": b"2"}


def test_a_blob_over_a_mebibyte_streams_through(history: GitHistory, workdir: Workdir) -> None:
    content = bytes(range(256)) * 9_000
    history.commit(files={b"big": content})
    import_git(history.path, workdir)
    assert files_of(workdir) == {"big": content}


def test_many_blobs_in_one_commit_do_not_block(history: GitHistory, workdir: Workdir) -> None:
    files = {b"f%04d" % number: b"%d" % number * 300 for number in range(2_000)}
    history.commit(files=files)
    assert import_git(history.path, workdir).new_blobs == 2_000


def test_manifests_that_were_let_go_are_read_back(
    history: GitHistory, workdir: Workdir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("musehub_plugin.client.gitimport._MAX_KEPT_ROWS", 0)
    monkeypatch.setattr("musehub_plugin.client.gitmanifests._MAX_KEPT_ENTRIES", 0)
    base = history.commit(files={b"a": b"0"}, message=b"base")
    tip = base
    for number in range(3):
        tip = history.commit(parents=[tip], files={b"a": b"%d" % number}, message=b"%d" % number)
    history.commit(ref="refs/heads/side", parents=[base], files={b"b": b"1"}, message=b"late")
    import_git(history.path, workdir)
    assert files_of(workdir, "side") == {"a": b"0", "b": b"1"}


def test_the_repositorys_own_settings_change_nothing(history: GitHistory, workdir: Workdir) -> None:
    first = history.commit(files={b"a": b"1" * 50})
    history.commit(parents=[first], files={b"a": None, b"b": b"1" * 50})
    for key, value in {
        "diff.renames": "copies",
        "diff.orderFile": "/nonexistent",
        "log.showSignature": "true",
        "color.ui": "always",
        "core.abbrev": "4",
        "log.diffMerges": "off",
    }.items():
        history.git("config", key, value)
    import_git(history.path, workdir)
    assert files_of(workdir) == {"b": b"1" * 50}


def test_replacement_refs_are_not_followed(history: GitHistory, workdir: Workdir) -> None:
    name = history.commit(message=b"true")
    other = history.commit(ref="refs/replaced", message=b"false")
    history.git("replace", name, other)
    import_git(history.path, workdir)
    assert head_record(workdir)["message"] == "true"


@pytest.mark.parametrize("names", [(b"\xe9", b"%E9"), (b"%E9", b"\xe9")])
def test_of_two_names_that_become_the_same_the_second_is_left_out(
    history: GitHistory, workdir: Workdir, names: tuple[bytes, bytes]
) -> None:
    first = history.commit(files={names[0]: b"1"})
    second = history.commit(parents=[first], files={names[1]: b"2"})
    history.commit(parents=[second], files={names[1]: None})
    assert import_git(history.path, workdir).skipped_paths == 1
    assert files_of(workdir) == {"%E9": b"1"}


def test_the_commits_that_end_a_shallow_clone_are_counted(
    history: GitHistory, workdir: Workdir, tmp_path: Path
) -> None:
    history.commit(parents=[history.commit(files={b"a": b"1"})], files={b"a": b"2"})
    shallow = tmp_path / "shallow"
    history.git("clone", "--quiet", "--depth=1", history.path.as_uri(), str(shallow))
    done = import_git(shallow, workdir)
    assert (done.commits, done.cut_off_commits) == (1, 1)


def test_a_repository_without_commits_is_no_error(history: GitHistory, workdir: Workdir) -> None:
    assert import_git(history.path, workdir).commits == 0


def test_a_folder_that_is_no_repository_is_refused(tmp_path: Path, workdir: Workdir) -> None:
    with pytest.raises(GitImportError, match="git rev-parse failed"):
        import_git(tmp_path, workdir)


def test_a_repository_that_lacks_a_blob_is_refused(history: GitHistory, workdir: Workdir) -> None:
    history.commit(files={b"a": b"1"})
    name = history.git("rev-parse", "main:a").decode().strip()
    for pack in (history.path / "objects" / "pack").glob("*.pack"):
        moved = history.path / pack.name
        pack.rename(moved)
        pack.with_suffix(".idx").unlink()
        history.git("unpack-objects", "-q", stdin=moved.read_bytes())
    (history.path / "objects" / name[:2] / name[2:]).unlink()
    with pytest.raises(GitImportError, match=f"lacks blob {name}"):
        import_git(history.path, workdir)
    assert workdir.branches() == {}


def contents_of(workdir: Workdir) -> dict[str, object]:
    """Return everything that a working copy holds, but for what is each copy's own."""
    commits = {each: workdir.read_commit(each) for each in workdir.stored_ids("commits")}
    return {
        "commits": {each: {**record, "repo_id": ""} for each, record in commits.items()},
        "snapshots": {each: workdir.read_snapshot(each) for each in workdir.stored_ids("snapshots")},
        "blobs": {each: workdir.read_blob(each) for each in workdir.stored_ids("objects")},
        "refs": (workdir.branches(), workdir.tags(), workdir.head_branch()),
    }


@pytest.mark.parametrize("kept_entries", [0, 100, 1_000_000])
def test_a_pack_of_a_history_holds_what_its_files_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept_entries: int
) -> None:
    monkeypatch.setattr("musehub_plugin.client.gitmanifests._MAX_KEPT_ENTRIES", kept_entries)
    write_repository(tmp_path / "history.git", 300, seed=kept_entries)
    loose, packed = Workdir.create(tmp_path / "loose"), Workdir.create(tmp_path / "packed", bare=True)
    found = import_git(tmp_path / "history.git", packed)
    assert found == import_git(tmp_path / "history.git", loose)
    assert contents_of(packed) == contents_of(loose)
    assert [*packed.loose_ids("objects"), *packed.loose_ids("snapshots"), *packed.loose_ids("commits")] == []
    assert verify(packed).problems == []
    assert not list((packed.muse / "tmp").iterdir())


def test_every_import_into_packs_adds_one_of_what_is_new(history: GitHistory, tmp_path: Path) -> None:
    workdir = Workdir.create(tmp_path / "packed", bare=True)
    first = history.commit(files={b"a": b"1", b"b": b"2"})
    import_git(history.path, workdir)
    left = history.commit(parents=[first], files={b"a": b"3"})
    history.commit(ref="refs/heads/side", parents=[first], files={b"b": b"1"})
    done = import_git(history.path, workdir)
    assert (done.commits, done.new_commits, done.new_snapshots, done.new_blobs) == (2, 2, 2, 1)
    assert len(list(workdir.packs)) == 2
    (workdir.muse / "git-import.map").unlink()
    again = import_git(history.path, workdir)
    assert (again.commits, again.new_commits, len(list(workdir.packs))) == (3, 0, 2)
    history.commit(parents=[left], files={b"a": b"1"})
    assert import_git(history.path, workdir).new_commits == 1
    assert verify(workdir).problems == []


def test_a_history_that_no_mpack_can_hold_leaves_nothing_behind(history: GitHistory, tmp_path: Path) -> None:
    workdir = Workdir.create(tmp_path / "packed", bare=True)
    history.commit(files={b"a": b"1"}, message=b"x" * (1 << 20) + b"y")
    with pytest.raises(GitImportError, match="does not fit in an mpack"):
        import_git(history.path, workdir)
    assert (workdir.branches(), list(workdir.packs), list((workdir.muse / "tmp").iterdir())) == ({}, [], [])


@pytest.mark.parametrize("torn", [b"0" * 40, b"0" * 40 + b" " + b"1" * 30, b"\xff\x00"])
def test_a_line_of_the_map_that_a_kill_cut_off_counts_for_nothing(
    history: GitHistory, workdir: Workdir, torn: bytes
) -> None:
    first = history.commit(files={b"a": b"1"})
    import_git(history.path, workdir)
    whole = (workdir.muse / "git-import.map").read_bytes()
    (workdir.muse / "git-import.map").write_bytes(whole + torn)
    second = history.commit(parents=[first], files={b"a": b"2"})
    assert import_git(history.path, workdir).new_commits == 1
    lines = (workdir.muse / "git-import.map").read_text().splitlines()
    assert [line.partition(" ")[0] for line in lines] == [first, second]
