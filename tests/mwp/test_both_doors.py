"""What one door takes, the other one gives: every field of every commit, every manifest, every byte."""

from __future__ import annotations

from typing import Any

from musehub_plugin import ids
from musehub_plugin.mpack import build_wire_mpack
from musehub_plugin.testing import History
from tests.environment import HubEnvironment
from tests.exchange import Caller
from tests.mwp.conftest import NewRemote
from tests.mwp.muse import DEFAULTS, Copy, Remote, sha256

REPO = "alice/songs"


def prefixed(commit: dict[str, Any]) -> dict[str, Any]:
    """Return a commit of the released command in the form of the contract."""
    parents = [commit["parent_commit_id"], commit["parent2_commit_id"]]
    kept = {"branch", "message", "committed_at", *DEFAULTS}
    return {
        "commit_id": ids.PREFIX + commit["commit_id"],
        "snapshot_id": ids.PREFIX + commit["snapshot_id"],
        "parent_ids": [ids.PREFIX + parent for parent in parents if parent],
        **{key: value for key, value in commit.items() if key in kept},
    }


def merged_history() -> Copy:
    """Return a working copy whose history has a merge, a rename and an empty file."""
    local = Copy()
    base = local.commit({"a": b"1", "dir/b": b"2"}, author="Ada", metadata={"k": "v"})
    side = local.commit({"a": b"1", "dir/c": b"2"}, [base], branch="side", author="Bob", signature="c2ln")
    ours = local.commit({"a": b"one", "dir/b": b"2"}, [base], author="Ada", test_runs=3)
    local.commit({"a": b"one", "dir/c": b"2", "empty": b""}, [ours, side], author="Ada", sem_ver_bump="major")
    del local.heads["side"]
    return local


def pulled(caller: Caller, tip: str) -> dict[str, Any]:
    """Fetch everything by the contract's fetch."""
    pack = caller.pull(REPO, [tip])
    return {"commits": pack.commits, "snapshots": pack.snapshots, "blobs": pack.blobs}


def test_what_the_command_pushes_is_fetched_by_the_contract(hub: HubEnvironment, remote: Remote) -> None:
    local = merged_history()
    local.push(remote)
    found = pulled(hub.caller("alice"), ids.PREFIX + local.heads["main"])
    assert found["commits"] == {ids.PREFIX + key: prefixed(commit) for key, commit in local.commits.items()}
    assert found["snapshots"] == {
        ids.PREFIX + key: {path: ids.PREFIX + object_id for path, object_id in manifest.items()}
        for key, manifest in local.snapshots.items()
    }
    assert found["blobs"] == {ids.PREFIX + key: content for key, content in local.objects.items()}


def test_what_the_command_pushes_needs_no_job(hub: HubEnvironment, remote: Remote) -> None:
    local = merged_history()
    local.push(remote)
    assert hub.run_jobs() == 0


def test_what_the_contract_pushes_is_cloned_by_the_command(hub: HubEnvironment, new_remote: NewRemote) -> None:
    remote = new_remote(new=True)
    local = merged_history()
    assert hub.caller("alice").push(REPO, packed(local), ids.PREFIX + local.heads["main"]).status_code == 200
    hub.run_jobs()
    clone = Copy.clone(remote)
    assert (clone.snapshots, clone.objects, clone.heads) == (local.snapshots, local.objects, local.heads)
    for key, commit in local.commits.items():
        assert {**clone.commits[key], "repo_id": local.repo_id} == commit


def packed(local: Copy) -> bytes:
    """Return a working copy's history as an mpack."""
    order = reversed(local.walk(local.heads["main"], []))
    return build_wire_mpack(
        commits=[prefixed(local.commits[key]) for key in order],
        snapshots=[
            {
                "snapshot_id": ids.PREFIX + key,
                "manifest": {path: ids.PREFIX + object_id for path, object_id in manifest.items()},
            }
            for key, manifest in local.snapshots.items()
        ],
        blobs=[{"object_id": ids.PREFIX + key, "content": content} for key, content in local.objects.items()],
    )


def test_a_commit_that_says_nothing_more_has_every_field_of_the_command(
    hub: HubEnvironment, new_remote: NewRemote
) -> None:
    remote = new_remote(new=True)
    history = History()
    tip = history.commit({"a": b"1"})
    hub.caller("alice").push(REPO, history.pack(), tip)
    hub.run_jobs()
    (commit,) = Copy.clone(remote).commits.values()
    local = Copy()
    assert commit.keys() == local.commits[local.commit({"a": b"1"})].keys()
    assert {key: commit[key] for key in DEFAULTS} == {**DEFAULTS, "author": "Alice"}


def test_a_commit_whose_id_covers_its_author_keeps_it_empty(hub: HubEnvironment, remote: Remote) -> None:
    history = History()
    tip = history.commit({"a": b"1"}, author="", hashed="author")
    (record,) = history.commits.values()
    (snapshot_id,) = history.snapshots
    bare = {
        "commit_id": ids.to_hex(tip),
        "snapshot_id": ids.to_hex(snapshot_id),
        "message": record["message"],
        "committed_at": record["committed_at"],
        "author": "",
        "branch": "main",
        "parent_commit_id": None,
        "parent2_commit_id": None,
    }
    content = {"object_id": sha256(b"1"), "content": b"1"}
    manifest = {"snapshot_id": bare["snapshot_id"], "manifest": {"a": sha256(b"1")}}
    bundle = {"commits": [bare], "snapshots": [manifest], "objects": [content]}
    remote.get("push", {"bundle": bundle, "branch": "main", "force": False})
    assert hub.caller().pull(REPO, [tip]).commits[tip]["author"] == ""


def test_a_merge_of_three_is_refused_to_who_can_hold_two(hub: HubEnvironment, new_remote: NewRemote) -> None:
    remote = new_remote(new=True)
    history = History()
    roots = [history.commit({"a": b"%d" % number}) for number in range(3)]
    tip = history.commit({"a": b"merged"}, roots)
    hub.caller("alice").push(REPO, history.pack(), tip)
    hub.run_jobs()
    answer = remote.ask("fetch", {"want": [ids.to_hex(tip)], "have": []})
    assert answer.status == 406
    assert b"use musehub" in answer.data


def test_u04_one_history_in_two_repos_is_whole_in_both(remote: Remote, new_remote: NewRemote) -> None:
    local = merged_history()
    local.push(remote)
    other = new_remote("bob/copy", "bob", new=True)
    local.push(other)
    assert other.asked == ["refs", "filter-objects", "push/objects", "push"]
    clones = [Copy.clone(remote), Copy.clone(other)]
    for clone in clones:
        assert (clone.snapshots, clone.objects) == (local.snapshots, local.objects)
        assert clone.commits.keys() == local.commits.keys()
    assert {commit["repo_id"] for commit in clones[0].commits.values()} != {
        commit["repo_id"] for commit in clones[1].commits.values()
    }


def test_s10_what_an_id_does_not_cover_is_each_repos_own(remote: Remote, new_remote: NewRemote) -> None:
    other = new_remote("bob/copy", "bob", new=True)
    for target, author, signature in ((remote, "Ada", "true"), (other, "Mallory", "forged")):
        local = Copy()
        local.commit({"a": b"1"}, author=author, signature=signature)
        local.push(target)
    (commit,) = Copy.clone(remote).commits.values()
    (copied,) = Copy.clone(other).commits.values()
    assert commit["commit_id"] == copied["commit_id"]
    assert (commit["author"], commit["signature"]) == ("Ada", "true")
    assert (copied["author"], copied["signature"]) == ("Mallory", "forged")
