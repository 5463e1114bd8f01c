"""Blobs that a push sends ahead: nobody else's, bounded, and gone when they are of no use."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgpack
import pytest
from sqlalchemy import select, update

from musehub_plugin.gc import collect
from musehub_plugin.storage.uploads import staged_id
from musehub_plugin.store.models import MusehubUpload
from musehub_plugin.testing.apps import hub_of
from tests.environment import HubEnvironment
from tests.exchange import Caller
from tests.mwp.conftest import NewRemote
from tests.mwp.muse import Copy, Refused, Remote, sha256

A_DAY = 24 * 3600


def objects(*contents: bytes) -> dict[str, Any]:
    """Return a body of `push/objects`."""
    return {"objects": [{"object_id": sha256(content), "content": content} for content in contents]}


def missing(remote: Remote, *contents: bytes) -> list[str]:
    """Ask which of some blobs are missing."""
    object_ids = [sha256(content) for content in contents]
    found: list[str] = remote.get("filter-objects", {"object_ids": object_ids})["missing"]
    return found


def let_tickets_expire(hub: HubEnvironment, ago: timedelta) -> None:
    """Move the end of every ticket into the past."""
    with hub.session() as session:
        session.execute(update(MusehubUpload).values(expires_at=datetime.now(UTC) - ago))
        session.commit()


def test_what_was_sent_is_not_asked_for_again(remote: Remote) -> None:
    assert missing(remote, b"1", b"2") == [sha256(b"1"), sha256(b"2")]
    assert remote.get("push/objects", objects(b"1")) == {"stored": 1, "skipped": 0}
    assert missing(remote, b"1", b"2") == [sha256(b"2")]
    assert remote.get("push/objects", objects(b"1", b"2", b"2")) == {"stored": 1, "skipped": 2}


def test_s17_what_another_user_sent_is_missing_all_the_same(hub: HubEnvironment, new_remote: NewRemote) -> None:
    remote = new_remote(new=True)
    app = hub_of(hub.app)
    app.hooks.policy = lambda identity, action, repo: True
    remote.get("push/objects", objects(b"1"))
    assert missing(new_remote(user="bob"), b"1") == [sha256(b"1")]


def test_s17_what_another_repo_holds_is_missing_all_the_same(new_remote: NewRemote) -> None:
    secret = new_remote("alice/secret", new=True, visibility="private")
    local = Copy()
    local.commit({"a": b"1"})
    local.push(secret)
    secret.get("push/objects", objects(b"2"))
    assert missing(new_remote("bob/own", "bob", new=True), b"1", b"2") == [sha256(b"1"), sha256(b"2")]


def test_s04_a_blob_of_another_repo_is_not_had_by_its_name(new_remote: NewRemote) -> None:
    secret = new_remote("alice/secret", new=True, visibility="private")
    local = Copy()
    local.commit({"a": b"the secret"})
    local.push(secret)
    thief = new_remote("bob/own", "bob", new=True)
    answers = []
    for content in (b"the secret", b"what nobody has"):
        copy = Copy()
        tip = copy.commit({"a": content})
        snapshot_id = copy.commits[tip]["snapshot_id"]
        bundle = {
            "commits": [copy.commits[tip]],
            "snapshots": [{"snapshot_id": snapshot_id, "manifest": copy.snapshots[snapshot_id]}],
            "objects": [],
        }
        answer = thief.ask("push", {"bundle": bundle, "branch": "main", "force": False})
        answers.append((answer.status, answer.data.replace(sha256(content).encode(), b"ID")))
    assert answers[0] == answers[1]
    assert answers[0][0] == 422
    assert thief.get("refs")["branch_heads"] == {}


def test_a_push_leaves_nothing_staged(hub: HubEnvironment, remote: Remote) -> None:
    local = Copy()
    local.commit({"a": b"1", "b": b"2"})
    local.push(remote)
    counts = hub.row_counts()
    assert counts["musehub_staged_blob"] == counts["musehub_upload"] == 0
    assert len(hub.stored_keys()) == 1


def test_what_a_push_did_not_name_stays_for_the_next(hub: HubEnvironment, remote: Remote) -> None:
    remote.get("push/objects", objects(b"for later"))
    local = Copy()
    local.commit({"a": b"1"})
    local.push(remote)
    assert missing(remote, b"for later") == []
    local.commit({"a": b"for later"})
    local.push(remote)
    assert hub.row_counts()["musehub_upload"] == 0


def test_a_409_leaves_nothing_behind(hub: HubEnvironment, remote: Remote) -> None:
    local = Copy()
    local.commit({"a": b"1"})
    local.push(remote)
    rows, keys = hub.rows(), hub.stored_keys()
    other = Copy("other")
    other.commit({"b": b"unrelated", "c": b"more"})
    with pytest.raises(Refused) as refused:
        other.push(remote)
    assert refused.value.answer.status == 409
    assert (hub.rows(), hub.stored_keys()) == (rows, keys)


def test_a_push_with_a_false_commit_leaves_nothing_behind(hub: HubEnvironment, remote: Remote) -> None:
    rows, keys = hub.rows(), hub.stored_keys()
    local = Copy()
    tip = local.commit({"a": b"1"})
    local.commits[tip]["message"] = "another one"
    with pytest.raises(Refused) as refused:
        local.push(remote)
    assert refused.value.answer.status == 422
    assert b"hash-mismatch" in refused.value.answer.data
    assert (hub.rows(), hub.stored_keys()) == (rows, keys)


def test_what_is_never_pushed_is_collected(hub: HubEnvironment, remote: Remote) -> None:
    rows, keys = hub.rows(), hub.stored_keys()
    remote.get("push/objects", objects(b"1", b"2"))
    assert hub.stored_keys() != keys
    let_tickets_expire(hub, timedelta(days=2))
    with hub.app.app_context():
        found = collect(hub_of(hub.app), hub_of(hub.app).database(), grace=A_DAY)
    assert found.uploads == 1
    assert (hub.rows(), hub.stored_keys()) == (rows, keys)


def test_what_is_staged_is_not_collected_while_its_ticket_holds(hub: HubEnvironment, remote: Remote) -> None:
    remote.get("push/objects", objects(b"1"))
    keys = hub.stored_keys()
    with hub.app.app_context():
        collect(hub_of(hub.app), hub_of(hub.app).database(), grace=1)
    assert hub.stored_keys() == keys
    assert missing(remote, b"1") == []


def test_what_expired_is_missing_and_makes_room(hub: HubEnvironment, remote: Remote) -> None:
    remote.get("push/objects", objects(b"1"))
    keys = hub.stored_keys()
    let_tickets_expire(hub, timedelta(seconds=1))
    assert missing(remote, b"1") == [sha256(b"1")]
    remote.get("push/objects", objects(b"1"))
    assert missing(remote, b"1") == []
    assert len(hub.stored_keys()) == 1
    assert hub.stored_keys() != keys


def test_more_than_may_wait_is_413(hub: HubEnvironment) -> None:
    hub.create_repo()
    app = hub.make_app(MUSEHUB_MWP_MAX_STAGED=100)
    alice = Caller(app, "alice")
    first = alice.post_bytes("/mwp/alice/songs/push/objects", msgpack.packb(objects(b"x" * 60)))
    second = alice.post_bytes("/mwp/alice/songs/push/objects", msgpack.packb(objects(b"y" * 60)))
    assert (first.status_code, second.status_code) == (200, 413)
    assert second.get_json()["limit"] == 100
    assert len(hub.stored_keys()) == 1


def test_staged_bytes_that_changed_are_found_out(hub: HubEnvironment, remote: Remote) -> None:
    local = Copy()
    tip = local.commit({"a": b"12345"})
    remote.get("push/objects", objects(b"12345"))
    with hub.session() as session:
        key = session.execute(select(MusehubUpload.upload_key)).scalar_one()
    hub.storage.put_mpack(staged_id(key), b"54321")
    snapshot_id = local.commits[tip]["snapshot_id"]
    bundle = {
        "commits": [local.commits[tip]],
        "snapshots": [{"snapshot_id": snapshot_id, "manifest": local.snapshots[snapshot_id]}],
        "objects": [],
    }
    answer = remote.ask("push", {"bundle": bundle, "branch": "main", "force": False})
    assert answer.status == 422
    assert missing(remote, b"12345") == [sha256(b"12345")]
    local.push(remote)
    assert Copy.clone(remote).files() == {"a": b"12345"}
