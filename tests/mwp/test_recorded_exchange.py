"""What the released command asks, in its order and form, and what it gets."""

from __future__ import annotations

import uuid
from typing import Any

import msgpack
import pytest

from tests.environment import HubEnvironment
from tests.mwp.conftest import NewRemote
from tests.mwp.muse import BATCH, Copy, Refused, Remote, sha256


def pushed(remote: Remote) -> Copy:
    """Push three commits of two files, and return the working copy."""
    local = Copy()
    local.commit({"a.txt": b"one"})
    local.commit({"a.txt": b"one", "b/c.txt": b"two"})
    local.commit({"a.txt": b"three", "b/c.txt": b"two"}, message="Third\n\nwith a body")
    local.push(remote)
    remote.asked.clear()
    return local


def test_a_first_push_asks_and_is_answered_as_recorded(remote: Remote) -> None:
    local = Copy()
    local.commit({"a.txt": b"one"})
    local.commit({"a.txt": b"one", "b/c.txt": b"two"})
    tip = local.commit({"a.txt": b"three", "b/c.txt": b"two"})
    assert local.push(remote) == {
        "ok": True,
        "message": "pushed 3 commit(s) to 'main'",
        "branch_heads": {"main": tip},
        "remote_head": tip,
    }
    assert remote.asked == ["refs", "filter-objects", "push/objects", "push"]


def test_what_was_pushed_is_what_a_clone_gets(remote: Remote) -> None:
    local = pushed(remote)
    clone = Copy.clone(remote)
    assert remote.asked == ["refs", "fetch"]
    assert (clone.snapshots, clone.objects, clone.heads) == (local.snapshots, local.objects, local.heads)
    assert clone.commits.keys() == local.commits.keys()


def test_every_field_of_a_commit_comes_back_as_it_was_sent(remote: Remote) -> None:
    local = Copy()
    fields: dict[str, Any] = {
        "author": "Ada <ada@example.org>",
        "metadata": {"section": "chorus", "tempo": "120"},
        "structured_delta": {"ops": [{"op": "insert", "path": "a", "content": None, "at": [1, 2.5, True, b"\x00"]}]},
        "sem_ver_bump": "minor",
        "breaking_changes": ["the key of E"],
        "agent_id": "composer",
        "model_id": "m-1",
        "toolchain_id": "t-1",
        "prompt_hash": "f" * 64,
        "signature": "c2ln",
        "signer_key_id": "key-1",
        "format_version": 5,
        "reviewed_by": ["bob", "carol"],
        "test_runs": 17,
        "a_field_of_a_later_version": {"nested": [None]},
    }
    tip = local.commit({"a": b"1"}, **fields)
    local.push(remote)
    found = Copy.clone(remote).commits[tip]
    assert {**found, "repo_id": local.repo_id} == local.commits[tip]


def change_of(size: int) -> dict[str, Any]:
    """Return a `structured_delta` of at least so many bytes, of many changes."""
    change = {"op": "insert", "address": "dir/file.txt", "position": None, "content_id": "f" * 64}
    return {"domain": "code", "ops": [change] * (size // 120)}


def test_the_changes_of_a_commit_of_thousands_of_files_are_kept(remote: Remote) -> None:
    local = Copy()
    tip = local.commit({"a": b"1"}, structured_delta=change_of(800_000))
    local.push(remote)
    assert Copy.clone(remote).commits[tip]["structured_delta"] == change_of(800_000)


def test_changes_that_are_too_many_to_keep_are_no_reason_to_refuse_a_push(remote: Remote) -> None:
    local = Copy()
    tip = local.commit({"a": b"1"}, structured_delta=change_of(5_000_000), agent_id="composer")
    answer = local.push(remote)
    assert answer is not None
    assert answer["message"] == "pushed 1 commit(s) to 'main'; 1 without a structured_delta of more than 921600 bytes"
    found = Copy.clone(remote).commits[tip]
    assert (found["structured_delta"], found["agent_id"]) == (None, "composer")


def test_the_repo_id_of_an_answer_is_the_hubs(hub: HubEnvironment, new_remote: NewRemote) -> None:
    repo_id = hub.create_repo()
    remote = new_remote()
    local = Copy()
    local.commit({"a": b"1"})
    local.push(remote)
    refs = remote.get("refs")
    assert (refs["repo_id"], refs["domain"], refs["default_branch"]) == (repo_id, "code", "main")
    assert str(uuid.UUID(refs["repo_id"])) == repo_id
    assert {commit["repo_id"] for commit in Copy.clone(remote).commits.values()} == {repo_id}


def test_an_empty_author_is_filled_with_the_pushers_name(remote: Remote) -> None:
    local = pushed(remote)
    assert {commit["author"] for commit in Copy.clone(remote).commits.values()} == {"alice"}
    assert {commit["author"] for commit in local.commits.values()} == {""}


def test_an_empty_author_of_a_signed_commit_stays_empty(remote: Remote) -> None:
    local = Copy()
    tip = local.commit({"a": b"1"}, signature="c2ln", signer_key_id="k")
    local.push(remote)
    assert Copy.clone(remote).commits[tip]["author"] == ""


def test_a_push_of_what_the_remote_has_asks_for_refs_alone(remote: Remote) -> None:
    local = pushed(remote)
    assert local.push(remote) is None
    assert remote.asked == ["refs"]


def test_a_push_without_new_blobs_sends_none(remote: Remote) -> None:
    local = pushed(remote)
    local.commit({"renamed.txt": b"three"})
    assert local.push(remote) is not None
    assert remote.asked == ["refs", "filter-objects", "push"]
    assert Copy.clone(remote).files() == {"renamed.txt": b"three"}


def test_a_large_blob_is_sent_like_the_others(remote: Remote) -> None:
    local = Copy()
    content = bytes(range(256)) * 300
    local.commit({"large": content, "small": b"1"})
    local.push(remote)
    assert remote.asked == ["refs", "filter-objects", "presign", "push/objects", "push"]
    assert Copy.clone(remote).files()["large"] == content


def test_blobs_come_in_batches_four_at_once(remote: Remote) -> None:
    local = Copy()
    local.commit({f"dir{number % 7}/file{number}": b"%d" % number for number in range(4 * BATCH + 1)})
    local.push(remote)
    assert remote.asked.count("push/objects") == 5
    assert Copy.clone(remote).files() == local.files()


def test_commits_that_a_push_after_a_merge_sends_again_are_accepted(remote: Remote) -> None:
    local = pushed(remote)
    base = local.heads["main"]
    side = local.commit({"a.txt": b"side"}, [base], branch="side")
    ours = local.commit({"a.txt": b"ours"}, [base])
    local.push(remote)
    local.push(remote, "side")
    merge = local.commit({"a.txt": b"both"}, [ours, side])
    sent = local.walk(merge, [])
    assert len(sent) == 6
    snapshots = [local.commits[commit_id]["snapshot_id"] for commit_id in sent]
    content = b"both"
    remote.get("push/objects", {"objects": [{"object_id": sha256(content), "content": content}]})
    bundle = {
        "commits": [local.commits[commit_id] for commit_id in sent],
        "snapshots": [{"snapshot_id": item, "manifest": local.snapshots[item], "created_at": ""} for item in snapshots],
        "objects": [],
    }
    answer = remote.get("push", {"bundle": bundle, "branch": "main", "force": False})
    assert answer["message"] == "pushed 1 commit(s) to 'main'"
    assert answer["branch_heads"] == {"main": merge, "side": side}
    assert Copy.clone(remote).commits.keys() == local.commits.keys()


def test_c07_the_same_push_twice_succeeds_twice(remote: Remote) -> None:
    local = Copy()
    tip = local.commit({"a": b"1"})
    snapshot_id = local.commits[tip]["snapshot_id"]
    bundle = {
        "commits": [local.commits[tip]],
        "snapshots": [{"snapshot_id": snapshot_id, "manifest": local.snapshots[snapshot_id], "created_at": ""}],
        "objects": [],
    }
    body = {"bundle": bundle, "branch": "main", "force": False}
    remote.get("push/objects", {"objects": [{"object_id": sha256(b"1"), "content": b"1"}]})
    first, second = remote.get("push", body), remote.get("push", body)
    assert first["branch_heads"] == second["branch_heads"] == {"main": tip}


def test_blobs_may_come_with_the_push_itself(remote: Remote) -> None:
    local = Copy()
    tip = local.commit({"a": b"1"})
    snapshot_id = local.commits[tip]["snapshot_id"]
    bundle = {
        "objects": [{"object_id": sha256(b"1"), "content": b"1", "path": "a"}],
        "snapshots": [{"snapshot_id": snapshot_id, "manifest": local.snapshots[snapshot_id]}],
        "commits": [local.commits[tip]],
    }
    remote.get("push", {"branch": "main", "bundle": bundle})
    assert Copy.clone(remote).files() == {"a": b"1"}


def test_a_known_commit_can_become_another_branch(remote: Remote) -> None:
    local = pushed(remote)
    commit_id = local.heads["main"]
    bundle = {"commits": [local.commits[commit_id]], "snapshots": [], "objects": []}
    answer = remote.get("push", {"bundle": bundle, "branch": "feature/x", "force": False})
    assert answer["branch_heads"] == {"feature/x": commit_id, "main": commit_id}


def test_a_fetch_brings_what_is_new_and_no_more(remote: Remote) -> None:
    local = pushed(remote)
    clone = Copy.clone(remote)
    tip = local.commit({"a.txt": b"four", "b/c.txt": b"two", "empty": b""})
    local.push(remote)
    remote.asked.clear()
    answer = clone.fetch(remote)
    assert remote.asked == ["refs", "fetch"]
    assert answer is not None
    assert [commit["commit_id"] for commit in answer["commits"]] == [tip]
    assert len(answer["snapshots"]) == 1
    assert {sent["object_id"]: sent["content"] for sent in answer["objects"]} == {
        sha256(b"four"): b"four",
        sha256(b""): b"",
    }
    assert {sent["path"] for sent in answer["objects"]} == {""}
    assert answer["branch_heads"] == {"main": tip}


def test_a_fetch_of_what_is_known_asks_for_refs_alone(remote: Remote) -> None:
    local = pushed(remote)
    assert local.fetch(remote) is None
    assert remote.asked == ["refs"]


def test_nothing_new_is_three_empty_lists(remote: Remote) -> None:
    local = pushed(remote)
    tip = local.heads["main"]
    assert remote.get("fetch", {"want": [tip], "have": [tip]}) == {
        "commits": [],
        "snapshots": [],
        "objects": [],
        "branch_heads": {"main": tip},
    }


def test_a_pull_negotiates_in_rounds_of_64(remote: Remote) -> None:
    local = pushed(remote)
    clone = Copy.clone(remote)
    for number in range(70):
        clone.commit({"only": b"%d" % number}, message="never pushed", branch="mine")
    tip = local.commit({"a.txt": b"four"})
    local.push(remote)
    remote.asked.clear()
    answer = clone.pull(remote)
    assert remote.asked[:2] == ["refs", "negotiate"]
    assert remote.asked[-1] == "fetch"
    assert [commit["commit_id"] for commit in answer["commits"]] == [tip]
    assert clone.files() == {"a.txt": b"four"}


def test_a_negotiation_names_the_common_base(remote: Remote) -> None:
    local = pushed(remote)
    base = local.heads["main"]
    tip = local.commit({"a.txt": b"four"})
    local.push(remote)
    answer = remote.get("negotiate", {"want": [tip], "have": [sha256(b"unknown"), base]})
    assert answer == {"ack": [base], "common_base": base, "ready": True}


def test_a_negotiation_of_what_one_has_is_never_ready(remote: Remote) -> None:
    local = pushed(remote)
    tip = local.heads["main"]
    have = local.walk(tip, [])
    answer = remote.get("negotiate", {"want": [tip], "have": have})
    assert answer == {"ack": have, "common_base": None, "ready": False}


def test_c08_a_push_that_would_drop_commits_is_409_in_the_recorded_words(remote: Remote) -> None:
    local = pushed(remote)
    other = Copy("other")
    other.commit({"b.txt": b"unrelated"})
    with pytest.raises(Refused) as refused:
        other.push(remote)
    answer = refused.value.answer
    assert answer.status == 409
    assert answer.headers["content-type"] == "application/json"
    assert answer.data.startswith(b'{"detail":"non-fast-forward push to \'main\' - use force=true to overwrite"')
    assert len(answer.data) <= 400
    assert remote.get("refs")["branch_heads"] == local.heads


def test_c08_force_overwrites(remote: Remote) -> None:
    pushed(remote)
    other = Copy("other")
    tip = other.commit({"b.txt": b"unrelated"})
    answer = other.push(remote, force=True)
    assert answer is not None
    assert answer["branch_heads"] == {"main": tip}
    assert Copy.clone(remote).files() == {"b.txt": b"unrelated"}


def test_c04_refs_are_json_for_who_asks_for_json(hub: HubEnvironment, remote: Remote) -> None:
    local = pushed(remote)
    answer = hub.caller().get("/mwp/alice/songs/refs")
    assert answer.content_type == "application/json"
    assert answer.get_json()["branch_heads"] == local.heads


def test_c03_an_empty_repo_has_no_branches(remote: Remote) -> None:
    assert remote.get("refs")["branch_heads"] == {}


def test_a_fetch_is_msgpack_whatever_is_asked_for(hub: HubEnvironment, remote: Remote) -> None:
    local = pushed(remote)
    answer = hub.caller().post("/mwp/alice/songs/fetch", {"want": [local.heads["main"]]})
    assert answer.content_type == "application/x-msgpack"
    assert len(msgpack.unpackb(answer.data)["commits"]) == 3


def test_a_private_repo_is_for_its_owner(new_remote: NewRemote) -> None:
    remote = new_remote("alice/secret", new=True, visibility="private")
    local = pushed(remote)
    assert local.fetch(remote) is None
    for user in (None, "bob"):
        with pytest.raises(Refused) as refused:
            Copy().fetch(new_remote("alice/secret", user))
        assert refused.value.answer.status == 404


def test_c28_the_command_clones_without_its_token(new_remote: NewRemote) -> None:
    remote = new_remote("alice/secret", new=True, visibility="private")
    pushed(remote)
    with pytest.raises(Refused) as refused:
        Copy.clone(remote)
    assert refused.value.answer.status == 404


def test_the_date_of_a_snapshot_is_that_of_its_commit(remote: Remote) -> None:
    local = pushed(remote)
    answer = remote.get("fetch", {"want": [local.heads["main"]], "have": []})
    dates = {commit["snapshot_id"]: commit["committed_at"] for commit in answer["commits"]}
    assert {item["snapshot_id"]: item["created_at"] for item in answer["snapshots"]} == dates
