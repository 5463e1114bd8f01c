"""What is left of a repo when a branch that shares blobs with another one is collected."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from sqlalchemy import delete, select, text, update
from sqlalchemy.exc import OperationalError
from werkzeug.test import TestResponse

from musehub_plugin import ids
from musehub_plugin.gc import Collected, collect
from musehub_plugin.models import MusehubBranch, MusehubCommitRef, MusehubRepo, MusehubSnapshot
from musehub_plugin.push import BranchUpdate, move_branch
from musehub_plugin.scrub import scrub
from musehub_plugin.signals import step
from musehub_plugin.store import locks, manifests
from musehub_plugin.testing.apps import hub_of
from musehub_plugin.testing.factories import History
from tests.environment import HubEnvironment
from tests.exchange import Caller

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


def lost(hub: HubEnvironment) -> tuple[Caller, History, str, str]:
    """Push a commit, and force the branch away from another one on it that a collection has seen; all is indexed.

    Returns:
        Who pushed, the history, the commit that is kept and the one that is lost.
    """
    hub.create_repo(REPO)
    history = History()
    kept = history.commit({"a.txt": b"1"})
    gone = history.commit({"a.txt": b"2"}, [kept])
    caller = hub.caller("alice")
    assert caller.push(REPO, history.pack(want=[kept]), kept).status_code == 200
    assert caller.push(REPO, history.pack(want=[gone], have=[kept]), gone).status_code == 200
    assert caller.push(REPO, history.pack(want=[kept]), kept, force=True).status_code == 200
    hub.run_jobs()
    return caller, history, kept, gone


def collected_while(hub: HubEnvironment, something: Callable[[], None]) -> None:
    """Collect, while something happens between finding garbage and removing it, once."""
    happened = False

    def happen(_: object, name: str) -> None:
        nonlocal happened
        if name == "gc.planned" and not happened:
            happened = True
            with hub.make_app().app_context():
                something()

    with step.connected_to(happen):
        collected(hub)
    assert happened


def test_a_commit_that_is_brought_back_while_it_is_collected_stays(hub: HubEnvironment) -> None:
    caller, history, kept, gone = lost(hub)
    pack = history.pack(want=[gone], have=[kept])
    collected_while(hub, lambda: assert_pushed(caller.push(REPO, pack, gone)))
    assert hub.caller().pull(REPO, [gone]).commits == history.commits


def test_what_a_commit_needs_that_came_and_went_meanwhile_stays(hub: HubEnvironment) -> None:
    caller, history, kept, gone = lost(hub)
    # Without the bytes: the repo holds them.
    late = history.commit({"again.txt": b"2"}, [kept])
    pack = history.pack(want=[late], have=[gone])

    def come_and_go() -> None:
        assert_pushed(caller.push(REPO, pack, late))
        assert_pushed(caller.unpack(REPO, ids.blob_id(history.pack(want=[kept])), kept, force=True))

    collected_while(hub, come_and_go)
    with hub.app.app_context():
        scrubbed = scrub(hub_of(hub.app), hub_of(hub.app).database())
    assert scrubbed.problems == []


def assert_pushed(answer: TestResponse) -> None:
    assert answer.status_code == 200, answer.get_data(as_text=True)


@pytest.mark.parametrize("hub", ["postgresql+s3"], indirect=True)
def test_no_branch_moves_while_garbage_is_removed(hub: HubEnvironment) -> None:
    _, _, _, gone = lost(hub)
    with hub.app.app_context():
        plugin = hub_of(hub.app)
        database = plugin.database()
        repo_id = database.execute(select(MusehubRepo.repo_id)).scalar_one()
        database.execute(text("SET lock_timeout = '50ms'"))
        with database.apart() as collecting:
            assert locks.own_history(collecting)
            with pytest.raises(OperationalError, match="lock timeout"):
                move_branch(plugin, database, repo_id, BranchUpdate("main", gone, None, force=False))
        database.rollback()


def test_a_commit_that_is_reached_is_not_noted(hub: HubEnvironment) -> None:
    pushed(hub, 1)
    with hub.app.app_context():
        database = hub_of(hub.app).database()
        collect(hub_of(hub.app), database)
        noted = select(MusehubCommitRef.commit_id).where(MusehubCommitRef.unreachable_since.is_not(None))
        assert len(database.execute(noted).all()) == 1


def test_another_repo_is_still_said_to_hold_a_pack_of_which_one_lets_go(hub: HubEnvironment) -> None:
    caller, history, kept, _ = lost(hub)
    hub.create_repo("bob/tunes")
    pack = history.pack(want=[kept])
    assert_pushed(hub.caller("bob").push("bob/tunes", pack, kept))
    collected(hub)
    assert [
        each.presign(repo, pack).get_json()["uploaded"]
        for each, repo in ((caller, REPO), (hub.caller("bob"), "bob/tunes"))
    ] == [False, True]


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
