"""The client against a live hub: what git had is what a clone has."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete

from musehub_plugin import ids
from musehub_plugin.client import (
    HubRefused,
    HubTransport,
    NotFastForwardError,
    Workdir,
    WorkdirError,
    clone,
    fetch,
    import_git,
    pull,
    push,
    verify,
)
from musehub_plugin.client.manifest import ManifestRows
from musehub_plugin.client.pulling import DivergedError
from musehub_plugin.client.record import record_from_wire
from musehub_plugin.models import MusehubBranch
from musehub_plugin.testing.apps import hub_of
from tests.integration.client.conftest import LiveHub
from tests.unit.client.git_histories import EXECUTABLE, SYMLINK, GitHistory


def add_commit(
    workdir: Workdir, files: dict[str, bytes], *, parents: list[str] | None = None, branch: str = "main", **further: Any
) -> str:
    """Commit these files on a branch of a working copy and return the commit's id."""
    head = workdir.branch_head(branch)
    parent_ids = parents if parents is not None else [head] if head is not None else []
    rows = ManifestRows({path: workdir.write_blob(content)[0] for path, content in files.items()})
    snapshot_id = rows.snapshot_id()
    number = sum(1 for _ in workdir.stored_ids("commits"))
    date = f"2026-01-01T00:{number // 60:02}:{number % 60:02}.000000+00:00"
    commit = {
        "commit_id": ids.commit_id(parent_ids, snapshot_id, f"{branch} {number}", date),
        "parent_ids": parent_ids,
        "snapshot_id": snapshot_id,
        "branch": branch,
        "message": f"{branch} {number}",
        "author": "Ada <ada@example.com>",
        "committed_at": date,
        **further,
    }
    workdir.write_snapshot(rows, snapshot_id, date)
    workdir.write_commit(record_from_wire(commit, repo_id=workdir.repo_id))
    workdir.set_branch(branch, commit["commit_id"])
    return str(commit["commit_id"])


def commits_of(workdir: Workdir) -> dict[str, dict[str, Any]]:
    """Return every commit's file, without what is each working copy's own."""
    return {
        commit_id: {key: value for key, value in workdir.read_commit(commit_id).items() if key != "repo_id"}
        for commit_id in workdir.stored_ids("commits")
    }


def contents_of(workdir: Workdir) -> tuple[dict[str, dict[str, str]], dict[str, bytes]]:
    """Return every manifest and every blob."""
    return (
        {snapshot_id: dict(workdir.read_snapshot(snapshot_id)) for snapshot_id in workdir.stored_ids("snapshots")},
        {object_id: workdir.read_blob(object_id) for object_id in workdir.stored_ids("objects")},
    )


@pytest.fixture
def local(tmp_path: Path) -> Workdir:
    """A working copy with one commit."""
    workdir = Workdir.create(tmp_path / "local")
    add_commit(workdir, {"a": b"1"})
    return workdir


def test_a_git_history_comes_back_whole(live_hub: LiveHub, tmp_path: Path) -> None:
    history = GitHistory(tmp_path / "history.git")
    base = history.commit(files={b"a": b"1", b"empty": b"", b"run": (EXECUTABLE, b"x"), b"l": (SYMLINK, b"a")})
    left = history.commit(parents=[base], files={b"a": b"2", b"d/e/f": b"3"}, message=b"left \xc3\xa9\n")
    right = history.commit(ref="refs/heads/side", parents=[base], files={b"empty": None}, message=b"")
    third = history.commit(ref="refs/heads/third", parents=[base], files={b"big": bytes(range(256)) * 9_000})
    history.commit(parents=[left, right, third], files={b"a": b"1"}, message=b"octopus")
    origin = Workdir.create(tmp_path / "imported")
    import_git(history.path, origin)
    url = live_hub.add_repo("engine")
    push(origin, live_hub.transport(url), branches=["main", "side", "third"])

    copy = clone(live_hub.transport(url, token=None), tmp_path / "copy").workdir
    assert copy.branches() == origin.branches()
    assert commits_of(copy) == commits_of(origin)
    assert contents_of(copy) == contents_of(origin)
    assert verify(copy).problems == []
    files = {
        path.name: path.read_bytes() for path in copy.root.rglob("*") if path.is_file() and ".muse" not in path.parts
    }
    assert files == {"a": b"1", "empty": b"", "run": b"x", "l": b"a", "f": b"3"}


def test_fields_that_the_hub_does_not_know_survive_push_and_clone(
    live_hub: LiveHub, local: Workdir, tmp_path: Path
) -> None:
    head = add_commit(
        local, {"a": b"2"}, signature="s", test_runs=3, structured_delta={"x": [1]}, weather={"b": b"\xff"}
    )
    url = live_hub.add_repo("engine")
    push(local, live_hub.transport(url))
    first = clone(live_hub.transport(url), tmp_path / "first").workdir
    second_url = live_hub.add_repo("second")
    push(first, live_hub.transport(second_url))
    second = clone(live_hub.transport(second_url), tmp_path / "second").workdir
    assert commits_of(second)[head] == commits_of(local)[head]
    assert second.read_commit(head)["weather"] == {"b": {"$bytes": "/w=="}}


def test_a_second_push_sends_what_is_new_alone(live_hub: LiveHub, local: Workdir) -> None:
    hub = live_hub.transport(live_hub.add_repo("engine"))
    push(local, hub)
    add_commit(local, {"a": b"1", "b": b"2"})
    pushed = push(local, hub)
    assert (pushed.commit_count, pushed.snapshot_count, pushed.blob_count) == (1, 1, 1)


def test_a_push_with_nothing_new_sends_nothing(live_hub: LiveHub, local: Workdir) -> None:
    hub = live_hub.transport(live_hub.add_repo("engine"))
    push(local, hub)
    assert push(local, hub).branches == []


def test_a_push_notes_where_the_remote_is(live_hub: LiveHub, local: Workdir) -> None:
    push(local, live_hub.transport(live_hub.add_repo("engine")), remote="hub")
    assert local.remote_heads("hub") == local.branches()


def test_a_new_branch_at_a_known_commit_is_pushed(live_hub: LiveHub, local: Workdir) -> None:
    hub = live_hub.transport(live_hub.add_repo("engine"))
    push(local, hub)
    head = local.branch_head("main")
    assert head is not None
    local.set_branch("release/1", head)
    pushed = push(local, hub, branches=["main", "release/1"])
    assert [(done.branch, pushed.commit_count) for done in pushed.branches] == [("release/1", 0)]
    assert hub.get("refs")["branch_heads"] == {"main": head, "release/1": head}


def test_a_fetch_brings_what_was_pushed_since(live_hub: LiveHub, local: Workdir, tmp_path: Path) -> None:
    url = live_hub.add_repo("engine")
    push(local, live_hub.transport(url))
    copy = clone(live_hub.transport(url), tmp_path / "copy").workdir
    before = copy.branch_head("main")
    head = add_commit(local, {"a": b"1", "b": b"2"})
    push(local, live_hub.transport(url))
    fetched = fetch(copy, live_hub.transport(url))
    assert (fetched.new_commits, fetched.new_snapshots, fetched.new_blobs) == (1, 1, 1)
    assert fetched.updated == {"main": (before, head)}
    assert (copy.remote_heads("origin"), copy.branch_head("main")) == ({"main": head}, before)
    assert verify(copy).problems == []


def test_a_fetch_with_nothing_new_brings_nothing(live_hub: LiveHub, local: Workdir, tmp_path: Path) -> None:
    url = live_hub.add_repo("engine")
    push(local, live_hub.transport(url))
    copy = clone(live_hub.transport(url), tmp_path / "copy").workdir
    fetched = fetch(copy, live_hub.transport(url))
    assert (fetched.updated, fetched.received_bytes) == ({}, 0)


def test_copies_that_went_apart_find_what_they_share(live_hub: LiveHub, local: Workdir, tmp_path: Path) -> None:
    url = live_hub.add_repo("engine")
    for number in range(5):
        add_commit(local, {"a": b"%d" % number})
    push(local, live_hub.transport(url))
    copy = clone(live_hub.transport(url), tmp_path / "copy").workdir
    for number in range(400):
        add_commit(copy, {"c": b"%d" % number})
    head = add_commit(local, {"a": b"new"})
    push(local, live_hub.transport(url))
    # Without its notes the copy knows nothing of what the hub has but by asking.
    copy.forget_remote_head("origin", "main")
    fetched = fetch(copy, live_hub.transport(url))
    assert (fetched.new_commits, fetched.updated) == (1, {"main": (None, head)})
    assert fetched.received_bytes < 2_000


def test_a_push_that_would_drop_commits_is_refused_before_anything_is_sent(
    live_hub: LiveHub, local: Workdir, tmp_path: Path
) -> None:
    url = live_hub.add_repo("engine")
    push(local, live_hub.transport(url))
    copy = clone(live_hub.transport(url), tmp_path / "copy").workdir
    theirs = add_commit(local, {"a": b"theirs"})
    push(local, live_hub.transport(url))
    add_commit(copy, {"a": b"mine"})
    with pytest.raises(NotFastForwardError, match="musehub fetch"):
        push(copy, live_hub.transport(url))
    assert live_hub.transport(url).get("refs")["branch_heads"] == {"main": theirs}


def test_a_push_that_is_refused_names_the_remote_and_the_branch_to_force(
    live_hub: LiveHub, local: Workdir, tmp_path: Path
) -> None:
    hub = live_hub.transport(live_hub.add_repo("engine"))
    push(local, hub)
    add_commit(local, {"a": b"mine"}, parents=[])
    with pytest.raises(NotFastForwardError, match="musehub push --force backup main"):
        push(local, hub, remote="backup")


def test_force_moves_the_branch_all_the_same(live_hub: LiveHub, local: Workdir, tmp_path: Path) -> None:
    url = live_hub.add_repo("engine")
    push(local, live_hub.transport(url))
    copy = clone(live_hub.transport(url), tmp_path / "copy").workdir
    add_commit(local, {"a": b"theirs"})
    push(local, live_hub.transport(url))
    mine = add_commit(copy, {"a": b"mine"})
    push(copy, live_hub.transport(url), force=True)
    assert live_hub.transport(url).get("refs")["branch_heads"] == {"main": mine}


def test_a_fetch_after_a_forced_push_follows(live_hub: LiveHub, local: Workdir, tmp_path: Path) -> None:
    url = live_hub.add_repo("engine")
    push(local, live_hub.transport(url))
    old = local.branch_head("main")
    copy = clone(live_hub.transport(url), tmp_path / "copy").workdir
    new = add_commit(local, {"z": b"rewritten"}, parents=[])
    push(local, live_hub.transport(url), force=True)
    assert fetch(copy, live_hub.transport(url)).updated == {"main": (old, new)}
    assert verify(copy).problems == []


def test_a_private_repo_is_the_owners(live_hub: LiveHub, local: Workdir, tmp_path: Path) -> None:
    url = live_hub.add_repo("secret", visibility="private")
    push(local, live_hub.transport(url))
    for token in (None, "mallory"):
        with pytest.raises(HubRefused) as caught:
            clone(live_hub.transport(url, token=token), tmp_path / "stolen")
        assert caught.value.status == 404
        assert not (tmp_path / "stolen").exists()
    assert clone(live_hub.transport(url), tmp_path / "copy").head == local.branch_head("main")


@pytest.mark.parametrize(("token", "status"), [(None, 401), ("mallory", 403)])
def test_a_push_by_another_is_refused(live_hub: LiveHub, local: Workdir, token: str | None, status: int) -> None:
    hub = live_hub.transport(live_hub.add_repo("engine"), token=token)
    with pytest.raises(HubRefused) as caught:
        push(local, hub)
    assert caught.value.status == status


def test_a_repo_that_is_not_there_is_404(live_hub: LiveHub, tmp_path: Path) -> None:
    with pytest.raises(HubRefused, match="no such repo"):
        clone(live_hub.transport(f"{live_hub.origin}/ada/absent"), tmp_path / "copy")


def test_an_empty_repo_makes_an_empty_copy_that_can_push(live_hub: LiveHub, tmp_path: Path) -> None:
    hub = live_hub.transport(live_hub.add_repo("engine"))
    cloned = clone(hub, tmp_path / "copy")
    assert (cloned.head, cloned.branch) == (None, "main")
    head = add_commit(cloned.workdir, {"a": b"1"})
    push(cloned.workdir, hub)
    assert hub.get("refs")["branch_heads"] == {"main": head}


def test_another_branch_can_be_checked_out(live_hub: LiveHub, local: Workdir, tmp_path: Path) -> None:
    head = local.branch_head("main")
    assert head is not None
    add_commit(local, {"side": b"2"}, parents=[head], branch="side")
    hub = live_hub.transport(live_hub.add_repo("engine"))
    push(local, hub, branches=["main", "side"])
    copy = clone(hub, tmp_path / "copy", branch="side").workdir
    assert (copy.head_branch(), (copy.root / "side").read_bytes(), (copy.root / "a").exists()) == ("side", b"2", False)


def test_a_branch_that_is_not_there_is_answered_with_those_that_are(
    live_hub: LiveHub, local: Workdir, tmp_path: Path
) -> None:
    hub = live_hub.transport(live_hub.add_repo("engine"))
    push(local, hub)
    with pytest.raises(WorkdirError, match="it has: main"):
        clone(hub, tmp_path / "copy", branch="absent")
    assert not (tmp_path / "copy").exists()


def test_prune_forgets_what_the_remote_no_longer_has(live_hub: LiveHub, local: Workdir) -> None:
    hub = live_hub.transport(live_hub.add_repo("engine"))
    push(local, hub)
    local.set_remote_head("origin", "gone", local.branches()["main"])
    assert fetch(local, hub, prune=True).pruned == ["gone"]
    assert local.remote_heads("origin") == local.branches()


def test_repair_brings_back_what_is_damaged_or_missing(live_hub: LiveHub, local: Workdir, tmp_path: Path) -> None:
    add_commit(local, {"a": b"2", "b": b"3"})
    hub = live_hub.transport(live_hub.add_repo("engine"))
    push(local, hub)
    copy = clone(hub, tmp_path / "copy").workdir
    blobs = sorted((copy.muse / "objects").glob("*/*"))
    blobs[0].write_bytes(b"?")
    blobs[1].unlink()
    min((copy.muse / "commits").iterdir()).unlink()
    snapshot = min((copy.muse / "snapshots").iterdir())
    snapshot.write_text(json.dumps({**json.loads(snapshot.read_text()), "manifest": {}}))
    assert len(verify(copy).problems) >= 3
    fetch(copy, hub, repair=True)
    assert verify(copy).problems == []


def test_more_branches_than_one_request_may_want_are_all_cloned(
    live_hub: LiveHub, local: Workdir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By its module's name: the package has a function of the same one.
    monkeypatch.setattr(importlib.import_module("musehub_plugin.client.fetching"), "MAX_WANTS", 2)
    head = local.branch_head("main")
    assert head is not None
    names = [f"b{number}" for number in range(5)]
    for name in names:
        add_commit(local, {"a": name.encode()}, parents=[head], branch=name)
    hub = live_hub.transport(live_hub.add_repo("engine"))
    push(local, hub, branches=["main", *names])
    copy = clone(hub, tmp_path / "copy").workdir
    assert copy.branches() == local.branches()
    assert verify(copy).problems == []


@pytest.fixture
def behind(live_hub: LiveHub, local: Workdir, tmp_path: Path) -> Workdir:
    """A clone that lacks what was pushed since: a change, a new file, a file that went."""
    add_commit(local, {"a": b"1", "gone": b"x"})
    hub = live_hub.transport(live_hub.add_repo("engine"))
    push(local, hub)
    copy = clone(hub, tmp_path / "behind").workdir
    add_commit(local, {"a": b"2", "new": b"y"})
    push(local, hub)
    return copy


def engine(live_hub: LiveHub) -> HubTransport:
    return live_hub.transport(f"{live_hub.origin}/ada/engine")


def test_a_pull_moves_the_branch_and_its_files_forward(live_hub: LiveHub, local: Workdir, behind: Workdir) -> None:
    pulled = pull(behind, engine(live_hub))
    assert behind.branches() == local.branches()
    assert (pulled.files.written, pulled.files.removed) == (2, 1)
    assert {path.name: path.read_bytes() for path in behind.root.iterdir() if path.is_file()} == {
        "a": b"2",
        "new": b"y",
    }
    assert pull(behind, engine(live_hub)).moved == {}


@pytest.mark.parametrize("name", ["a", "new"])
def test_a_pull_does_not_go_over_what_is_not_saved(live_hub: LiveHub, behind: Workdir, name: str) -> None:
    before = behind.branches()
    (behind.root / name).write_bytes(b"mine")
    with pytest.raises(WorkdirError, match="not saved"):
        pull(behind, engine(live_hub))
    assert (behind.branches(), (behind.root / name).read_bytes()) == (before, b"mine")
    assert (behind.root / "gone").exists()


def test_a_pull_of_what_went_apart_moves_nothing(live_hub: LiveHub, behind: Workdir) -> None:
    mine = add_commit(behind, {"a": b"mine"})
    with pytest.raises(DivergedError, match="musehub pull --force origin"):
        pull(behind, engine(live_hub))
    assert behind.branch_head("main") == mine


def test_a_pull_with_commits_to_push_says_so(live_hub: LiveHub, behind: Workdir) -> None:
    pull(behind, engine(live_hub))
    add_commit(behind, {"a": b"mine"})
    assert pull(behind, engine(live_hub)).ahead == ["main"]


def test_a_pull_of_all_makes_new_branches(live_hub: LiveHub, local: Workdir, behind: Workdir) -> None:
    add_commit(local, {"side": b"1"}, branch="side")
    push(local, engine(live_hub), branches=["side"])
    assert sorted(pull(behind, engine(live_hub), every_branch=True).moved) == ["main", "side"]
    assert behind.branches() == local.branches()


def without_main(live_hub: LiveHub) -> None:
    """Have the hub's repo lose its branch `main`."""
    with live_hub.app.app_context():
        session = hub_of(live_hub.app).sqlalchemy.session
        session.execute(delete(MusehubBranch).where(MusehubBranch.name == "main"))
        session.commit()


def test_a_pull_of_a_branch_that_the_remote_has_no_longer_says_so(live_hub: LiveHub, behind: Workdir) -> None:
    without_main(live_hub)
    with pytest.raises(WorkdirError, match="origin has no branch 'main'"):
        pull(behind, engine(live_hub))


def test_a_pull_of_all_does_not_make_a_branch_that_the_remote_has_no_longer(live_hub: LiveHub, behind: Workdir) -> None:
    without_main(live_hub)
    (behind.muse / "refs/heads/main").unlink()
    assert pull(behind, engine(live_hub), every_branch=True).moved == {}


def test_a_forced_pull_follows_a_branch_that_was_rewritten(live_hub: LiveHub, local: Workdir, behind: Workdir) -> None:
    add_commit(behind, {"a": b"mine"})
    (behind.root / "a").write_bytes(b"mine")
    pulled = pull(behind, engine(live_hub), force=True)
    assert behind.branches() == local.branches()
    assert (pulled.files.kept, (behind.root / "a").read_bytes()) == ([], b"2")


def test_a_forced_pull_does_not_go_over_what_is_not_saved(live_hub: LiveHub, behind: Workdir) -> None:
    mine = add_commit(behind, {"a": b"mine"})
    (behind.root / "a").write_bytes(b"not saved")
    with pytest.raises(WorkdirError, match="not saved"):
        pull(behind, engine(live_hub), force=True)
    assert (behind.branch_head("main"), (behind.root / "a").read_bytes()) == (mine, b"not saved")


def test_a_forced_pull_of_all_makes_a_mirror_what_the_remote_is(
    live_hub: LiveHub, local: Workdir, tmp_path: Path
) -> None:
    hub = live_hub.transport(live_hub.add_repo("engine"))
    first = local.branch_head("main")
    for branch in ("main", "side"):
        add_commit(local, {branch: b"1"}, parents=[str(first)], branch=branch)
    push(local, hub, branches=["main", "side"])
    mirror = clone(hub, tmp_path / "mirror", bare=True).workdir
    for branch in ("main", "side"):
        add_commit(local, {branch: b"2"}, parents=[str(first)], branch=branch)
    push(local, hub, branches=["main", "side"], force=True)
    pull(mirror, hub, every_branch=True, force=True)
    assert mirror.branches() == local.branches()
