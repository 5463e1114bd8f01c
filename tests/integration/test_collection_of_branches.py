"""What is left of a repo when a branch that shares blobs with another one is collected."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import delete, update

from musehub_plugin.gc import Collected, collect
from musehub_plugin.models import MusehubBranch, MusehubCommitRef, MusehubRepo, MusehubSnapshot
from musehub_plugin.store import manifests
from musehub_plugin.testing.apps import hub_of
from musehub_plugin.testing.factories import History
from tests.environment import HubEnvironment

REPO = "alice/songs"


def pushed(hub: HubEnvironment, pairs: int) -> tuple[History, str]:
    """Push a history of pairs of commits that have a blob of their own each, and a branch that has all of these.

    Each pair rests on the first commit, and is reached by the next one as a second parent.

    Returns:
        The history, and its head; the branch is deleted.
    """
    hub.create_repo(REPO)
    always = {f"{number}.txt": b"the same" for number in range(30)}
    history = History()
    root = head = history.commit(always)
    for number in range(0, 2 * pairs, 2):
        first = history.commit({**always, "a.txt": b"%d" % number}, [root, head])
        head = history.commit({**always, "a.txt": b"%d" % (number + 1)}, [first])
    side = History()
    tip = side.commit({f"{number}": b"%d" % number for number in range(2 * pairs)})
    caller = hub.caller("alice")
    assert caller.push(REPO, history.pack(), head).status_code == 200
    assert caller.push(REPO, side.pack(), tip, branch="side").status_code == 200
    hub.run_jobs()
    with hub.session() as session:
        session.execute(delete(MusehubBranch).where(MusehubBranch.name == "side"))
        session.commit()
    return history, head


def collected(hub: HubEnvironment) -> Collected:
    with hub.app.app_context():
        database = hub_of(hub.app).database()
        collect(hub_of(hub.app), database, grace=-1)
        return collect(hub_of(hub.app), database, grace=-1)


def test_a_blob_that_one_of_many_kept_snapshots_has_is_kept(
    hub: HubEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    # They are read some at a time, in the order of their ids, and rest on one another.
    monkeypatch.setattr(manifests, "_MANIFEST_BATCH", 3)
    history, head = pushed(hub, 20)
    collected(hub)
    assert hub.caller().pull(REPO, [head]).blobs == history.blobs


def test_no_blob_goes_while_a_kept_snapshot_cannot_be_read(hub: HubEnvironment) -> None:
    history, _ = pushed(hub, 1)
    lost = next(iter(history.snapshots))
    with hub.session() as session:
        session.execute(delete(MusehubSnapshot).where(MusehubSnapshot.snapshot_id == lost))
        session.commit()
    before = hub.row_counts()["musehub_object_ref"]
    collected(hub)
    assert hub.row_counts()["musehub_object_ref"] == before


def test_a_snapshot_of_a_lost_commit_is_kept_for_a_kept_one(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    history = History()
    head = history.commit({"a.txt": b"1"})
    lost = history.commit(history.commits[head]["snapshot_id"], [head])
    caller = hub.caller("alice")
    assert caller.push(REPO, history.pack(want=[head]), head).status_code == 200
    assert caller.push(REPO, history.pack(want=[lost], have=[head]), lost, branch="side").status_code == 200
    hub.run_jobs()
    with hub.session() as session:
        session.execute(delete(MusehubBranch).where(MusehubBranch.name == "side"))
        session.commit()
    collected(hub)
    assert hub.row_counts()["musehub_commit"] == 1
    assert hub.caller().pull(REPO, [head]).snapshots == history.snapshots


def test_what_a_lost_commit_stands_on_stays_as_long_as_that_commit(hub: HubEnvironment) -> None:
    repo_id = hub.create_repo(REPO)
    history = History()
    old = history.commit({"a.txt": b"1"})
    young = history.commit({"a.txt": b"2"}, [old])
    assert hub.caller("alice").push(REPO, history.pack(), young).status_code == 200
    hub.run_jobs()
    with hub.session() as session:
        session.execute(delete(MusehubBranch).where(MusehubBranch.repo_id == repo_id))
        lost = update(MusehubCommitRef).where(MusehubCommitRef.commit_id == old)
        session.execute(lost.values(unreachable_since=datetime(2026, 1, 1, tzinfo=UTC)))
        session.commit()
        plugin = hub_of(hub.app)
        assert collect(plugin, plugin.database(), grace=3600).commits == 0


@pytest.mark.parametrize("way", ["the repo is deleted", "its branch is deleted"])
def test_what_another_repo_holds_as_well_is_kept_for_it(hub: HubEnvironment, way: str) -> None:
    fork = "bob/fork"
    history = History()
    root = history.commit({"a.txt": b"1"})
    head = history.commit({"a.txt": b"2"}, [root])
    repo_id = hub.create_repo(REPO)
    hub.create_repo(fork)
    for user, repo in (("alice", REPO), ("bob", fork)):
        assert hub.caller(user).push(repo, history.pack(), head).status_code == 200
    hub.run_jobs()
    before = hub.rows()
    with hub.session() as session:
        if way == "the repo is deleted":
            deleted = update(MusehubRepo).where(MusehubRepo.repo_id == repo_id)
            session.execute(deleted.values(deleted_at=MusehubRepo.created_at))
        else:
            session.execute(delete(MusehubBranch).where(MusehubBranch.repo_id == repo_id))
        session.commit()
    collected(hub)
    after = hub.rows()
    for table in ("commit", "commit_graph", "snapshot", "object", "mpack_index"):
        assert after[f"musehub_{table}"] == before[f"musehub_{table}"]
    assert hub.caller().pull(fork, [head]).blobs == history.blobs
    # The other repo's own rows are half of what there was.
    assert [len(after[f"musehub_{table}_ref"]) for table in ("commit", "snapshot", "object")] == [2, 2, 2]
