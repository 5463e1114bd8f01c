"""The working copy on disk: the public client's layout, and nothing outside of it."""

from __future__ import annotations

import json
import os
import subprocess
import time
import tomllib
from pathlib import Path

import pytest

from musehub_plugin import ids
from musehub_plugin.client import Workdir, WorkdirError, remotes, set_remote
from musehub_plugin.client.manifest import ManifestRows
from musehub_plugin.client.record import new_record
from musehub_plugin.names import bad_branch_name

DATE = "2026-01-02T03:04:05.000006+00:00"
SOME = ids.fake_id("some")
OTHER = ids.fake_id("other")


def record(**changes: object) -> dict[str, object]:
    values: dict[str, object] = {
        "commit_id": SOME,
        "repo_id": "r",
        "branch": "main",
        "snapshot_id": OTHER,
        "message": "m",
        "committed_at": DATE,
        "parent_ids": [],
        "author": "a",
        "metadata": {"k": "v"},
    }
    return new_record(**{**values, **changes})  # type: ignore[arg-type]  # the test's own keys


def test_head_names_the_branch_as_the_public_client_writes_it(workdir: Workdir) -> None:
    assert (workdir.muse / "HEAD").read_bytes() == b"ref: refs/heads/main\n"


def test_a_ref_is_bare_hex_without_a_newline(workdir: Workdir) -> None:
    workdir.set_branch("feature/x", SOME)
    assert (workdir.muse / "refs/heads/feature/x").read_text() == ids.to_hex(SOME)


def test_a_remote_head_is_kept_beside_the_branches(workdir: Workdir) -> None:
    workdir.set_remote_head("origin", "a/b", SOME)
    assert (workdir.muse / "remotes/origin/a/b").read_text() == ids.to_hex(SOME)
    assert workdir.remote_heads("origin") == {"a/b": SOME}


def test_a_blob_lies_under_its_first_two_digits(workdir: Workdir) -> None:
    object_id, _ = workdir.write_blob(b"content")
    digits = ids.to_hex(object_id)
    assert (workdir.muse / "objects" / digits[:2] / digits[2:]).read_bytes() == b"content"


def test_a_commit_file_has_the_public_clients_keys_in_order(workdir: Workdir) -> None:
    workdir.write_commit(record())
    text = (workdir.muse / "commits" / f"{ids.to_hex(SOME)}.json").read_text()
    assert list(json.loads(text)) == [
        "commit_id",
        "repo_id",
        "branch",
        "snapshot_id",
        "message",
        "committed_at",
        "parent_commit_id",
        "parent2_commit_id",
        "author",
        "metadata",
        "structured_delta",
        "sem_ver_bump",
        "breaking_changes",
        "agent_id",
        "model_id",
        "toolchain_id",
        "prompt_hash",
        "signature",
        "signer_key_id",
        "format_version",
        "reviewed_by",
        "test_runs",
    ]
    assert text == json.dumps(json.loads(text), indent=2) + "\n"


def test_a_snapshot_file_is_json_with_bare_ids(workdir: Workdir) -> None:
    rows = ManifestRows({"b": SOME, "a": OTHER})
    workdir.write_snapshot(rows, rows.snapshot_id(), DATE)
    path = workdir.muse / "snapshots" / f"{ids.to_hex(rows.snapshot_id())}.json"
    expected = {
        "snapshot_id": ids.to_hex(rows.snapshot_id()),
        "manifest": {"a": ids.to_hex(OTHER), "b": ids.to_hex(SOME)},
        "created_at": DATE,
    }
    assert path.read_text() == json.dumps(expected, indent=2) + "\n"
    assert workdir.read_snapshot(rows.snapshot_id()) == {"a": OTHER, "b": SOME}


def test_files_get_the_permissions_that_the_umask_leaves(workdir: Workdir) -> None:
    object_id, _ = workdir.write_blob(b"x")
    digits = ids.to_hex(object_id)
    mode = (workdir.muse / "objects" / digits[:2] / digits[2:]).stat().st_mode & 0o777
    assert mode == (workdir.muse / "repo.json").stat().st_mode & 0o777


def test_a_blob_is_new_once(workdir: Workdir) -> None:
    assert [workdir.write_blob(b"x")[1], workdir.write_blob(b"x")[1]] == [True, False]


def test_a_blob_that_a_crash_cut_off_is_written_again(workdir: Workdir) -> None:
    object_id, _ = workdir.write_blob(b"content")
    digits = ids.to_hex(object_id)
    (workdir.muse / "objects" / digits[:2] / digits[2:]).write_bytes(b"")
    workdir.write_blob(b"content")
    assert workdir.read_blob(object_id) == b"content"


def test_a_stream_that_is_not_what_was_expected_leaves_nothing(workdir: Workdir) -> None:
    workdir.write_blob_stream([b"a", b"b"], SOME)
    assert list(workdir.stored_ids("objects")) == []
    assert list((workdir.muse / "tmp").iterdir()) == []


def test_a_commit_that_is_there_stays_as_it_is(workdir: Workdir) -> None:
    workdir.write_commit(record(author="first"))
    workdir.write_commit(record(author="second"))
    assert workdir.read_commit(SOME)["author"] == "first"


@pytest.mark.parametrize("identifier", ["", "sha256:../../etc", "a" * 64, f"sha256:{'A' * 64}", f"{SOME}\n"])
def test_what_is_no_id_never_becomes_a_path(workdir: Workdir, identifier: str) -> None:
    for use in (workdir.has_blob, workdir.read_blob, workdir.has_snapshot, workdir.has_commit, workdir.read_commit):
        with pytest.raises(WorkdirError, match="not an id"):
            use(identifier)


@pytest.mark.parametrize("name", ["", "..", "a/../b", "/a", "a/", "a\0b", "a\nb", ".a", "a.lock/b", "-a", "HEAD"])
def test_a_branch_name_that_is_none_never_becomes_a_path(workdir: Workdir, name: str) -> None:
    with pytest.raises(WorkdirError, match="branch name"):
        workdir.set_branch(name, SOME)


BRANCH_NAMES = [
    "main", "a/b/c", "a.b", "a-b", "é", "a@b", "a{b", "x.lockx", "a" * 255, "{", "#1", "a,b", "'", '"', "$x", "%2e",
    "ü/ß", "@{", "a@{b", "@", "HEAD", "refs/heads/x", "-x", "x-", "a b", "a~1", "a^", "a:b", "a?", "a*", "a[b", "a\\b",
    "a..b", "a.", "a/.b", ".a", "a.lock", "a.lock/b", "a//b", "/a", "a/", "a\x7f", "a\x1f", "a/b.", "a./b", "HEAD/x",
]  # fmt: skip


def test_branch_names_are_those_that_git_takes() -> None:
    def git_takes(name: str) -> bool:
        asked = subprocess.run(["git", "check-ref-format", "--branch", name], capture_output=True)
        return asked.returncode == 0

    assert {name: bad_branch_name(name) is None for name in BRANCH_NAMES} == {
        name: git_takes(name) for name in BRANCH_NAMES
    }


def test_a_branch_name_over_255_bytes_is_refused() -> None:
    assert bad_branch_name("é" * 127 + "a") is None
    assert bad_branch_name("é" * 128) is not None


def test_a_branch_that_is_a_part_of_anothers_name_is_refused_in_words(workdir: Workdir) -> None:
    workdir.set_branch("a", SOME)
    with pytest.raises(WorkdirError, match="part of this one's"):
        workdir.set_branch("a/b", SOME)


def test_an_empty_ref_is_a_branch_without_commits(workdir: Workdir) -> None:
    (workdir.muse / "refs/heads/main").write_text("")
    assert (workdir.branch_head("main"), workdir.branches()) == (None, {})


@pytest.mark.parametrize("content", ["x", "A" * 64, "é"])
def test_a_damaged_ref_is_named(workdir: Workdir, content: str) -> None:
    (workdir.muse / "refs/heads/main").write_text(content)
    with pytest.raises(WorkdirError, match=r"refs/heads/main is damaged"):
        workdir.branches()


@pytest.mark.parametrize(
    "changes",
    [
        {"commit_id": ids.to_hex(OTHER)},
        {"snapshot_id": "../x"},
        {"message": None},
        {"parent_commit_id": "../x"},
        {"parent_ids": ["../x"]},
        {"parent_ids": 3},
        {"author": 1},
    ],
)
def test_a_damaged_commit_file_is_named(workdir: Workdir, changes: dict[str, object]) -> None:
    workdir.write_commit(record())
    path = workdir.muse / "commits" / f"{ids.to_hex(SOME)}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(WorkdirError, match=f"commit {SOME}"):
        workdir.read_commit(SOME)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"manifest": {"a": "../x"}}', '{"manifest": 1}', "[" * 100_000])
def test_a_damaged_snapshot_file_is_named(workdir: Workdir, content: str) -> None:
    (workdir.muse / "snapshots" / f"{ids.to_hex(SOME)}.json").write_text(content)
    with pytest.raises(WorkdirError, match=f"snapshot {SOME}"):
        workdir.read_snapshot(SOME)


def test_a_second_command_is_told_to_wait(workdir: Workdir) -> None:
    with workdir.lock(), pytest.raises(WorkdirError, match="another musehub command"), Workdir(workdir.root).lock():
        pass


@pytest.mark.parametrize(("age", "stays"), [(0, True), (2 * 3_600, False)])
def test_what_a_killed_command_of_the_same_number_left_is_removed_in_time(
    workdir: Workdir, age: int, *, stays: bool
) -> None:
    left = workdir.temp_path()
    left.write_bytes(b"half")
    os.utime(left, (time.time() - age,) * 2)
    with workdir.lock():
        assert left.exists() is stays


def test_a_working_copy_is_found_from_a_folder_inside(workdir: Workdir) -> None:
    inside = workdir.root / "a" / "b"
    inside.mkdir(parents=True)
    assert Workdir.discover(inside).root == workdir.root


def test_no_working_copy_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(WorkdirError, match="musehub clone"):
        Workdir.discover(tmp_path)


def test_a_working_copy_is_not_made_twice(workdir: Workdir) -> None:
    with pytest.raises(WorkdirError, match="already"):
        Workdir.create(workdir.root)


def test_the_public_clients_working_copy_is_read(tmp_path: Path) -> None:
    muse = tmp_path / ".muse"
    muse.mkdir()
    (muse / "repo.json").write_text('{"repo_id": "x", "schema_version": "0.1.5", "created_at": "", "domain": "code"}')
    (muse / "HEAD").write_text("ref: refs/heads/dev\n")
    workdir = Workdir(tmp_path)
    assert (workdir.repo_id, workdir.head_branch(), workdir.head_commit()) == ("x", "dev", None)


def test_a_remote_is_added_and_the_rest_of_the_settings_stays(workdir: Workdir) -> None:
    before = '# mine\n[user]\nname = "Ada"\n\n[remotes.old]\nurl = "https://old.example/a/b"\n\n[domain]\nx = 1\n'
    (workdir.muse / "config.toml").write_text(before)
    set_remote(workdir, "origin", "https://hub.example/ada/engine/")
    assert (workdir.muse / "config.toml").read_text() == (
        before + '\n[remotes.origin]\nurl = "https://hub.example/ada/engine"\nbranch = "main"\n'
    )


@pytest.mark.parametrize("branch", ["main", "\U0001f3b5", "é", "a\u2028b", "a\x85b", '"', "'"])
def test_a_remote_whose_branch_has_any_name_can_be_read_and_changed(workdir: Workdir, branch: str) -> None:
    set_remote(workdir, "origin", "https://a/b/c", branch)
    set_remote(workdir, "origin", "https://hub.example/ada/engine", branch)
    config = tomllib.loads((workdir.muse / "config.toml").read_bytes().decode())
    assert config == {"remotes": {"origin": {"url": "https://hub.example/ada/engine", "branch": branch}}}


def test_a_remotes_url_can_be_changed(workdir: Workdir) -> None:
    (workdir.muse / "config.toml").write_text('[remotes.origin]\nurl = "https://a/b/c"\n[user]\nname = "x"\n')
    set_remote(workdir, "origin", "https://hub.example/ada/engine")
    assert remotes(workdir) == {"origin": "https://hub.example/ada/engine"}
    assert '[user]\nname = "x"' in (workdir.muse / "config.toml").read_text()


def test_settings_that_cannot_be_changed_safely_are_left_to_the_user(workdir: Workdir) -> None:
    (workdir.muse / "config.toml").write_text('remotes = {origin = {url = "https://a/b/c"}}\n')
    with pytest.raises(WorkdirError, match="by hand"):
        set_remote(workdir, "origin", "https://hub.example/ada/engine")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://h/a/b",
        "hub.example/a/b",
        "https://",
        "https://ada:secret@h/a/b",
        "https://h/a/b?token=secret",
        "https://h/a/b#x",
        "https://h/a b",
        "https://h/a\nb",
        "https://[::1/a/b",
    ],
)
def test_a_url_that_is_none_or_holds_secrets_is_refused_without_repeating_it(workdir: Workdir, url: str) -> None:
    with pytest.raises(WorkdirError, match="a remote's URL must") as caught:
        set_remote(workdir, "origin", url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "..", "a/b", "-x", ".x", "a b", "a\n"])
def test_a_remote_name_that_is_none_is_refused(workdir: Workdir, name: str) -> None:
    with pytest.raises(WorkdirError, match="remote name"):
        set_remote(workdir, name, "https://h/a/b")
