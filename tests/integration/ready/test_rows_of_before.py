"""Rows that hold whole manifests, as an earlier release or somebody's hand wrote them."""

from __future__ import annotations

import msgpack
import pytest
from sqlalchemy import delete, select

from musehub_plugin import ids, stretches
from musehub_plugin.history import GraphCache
from musehub_plugin.models import MusehubSnapshot
from musehub_plugin.repack import repack
from musehub_plugin.store import commits, manifests
from musehub_plugin.store.models import MusehubFetchPlan, MusehubGraphSegment
from musehub_plugin.testing.apps import hub_of
from musehub_plugin.testing.factories import History, make_commit
from tests.environment import HubEnvironment
from tests.exchange import Caller

REPO = "alice/songs"
FILES = {f"{number}.txt": f"content {number}\n".encode() for number in range(20)}


def tree(number: int) -> dict[str, bytes]:
    """Return a tree of twenty files of which one is another in each."""
    return {**FILES, "0.txt": f"version {number}".encode()}


def manifest_of(files: dict[str, bytes]) -> dict[str, str]:
    return {path: ids.blob_id(content) for path, content in files.items()}


def stored_manifest(hub: HubEnvironment, repo_id: str, files: dict[str, bytes]) -> dict[str, str] | None:
    with hub.app.app_context():
        return manifests.manifest(hub_of(hub.app).database(), repo_id, ids.snapshot_id(manifest_of(files)))


def repacked(hub: HubEnvironment, repo_id: str) -> None:
    with hub.app.app_context():
        repack(hub_of(hub.app), hub_of(hub.app).database(), repo_id)


def written_by_hand(hub: HubEnvironment, repo_id: str, count: int) -> list[str]:
    """Write a line of commits as rows."""
    made: list[str] = []
    with hub.session() as session:
        for number in range(count):
            made.append(make_commit(session, repo_id, tree(number), made[-1:], message=str(number), branch="main"))
    return made


def whole_rows(hub: HubEnvironment) -> int:
    """Return how many rows hold `{path: object_id}`."""
    with hub.session() as session:
        return len(
            session.execute(select(MusehubSnapshot.snapshot_id).where(MusehubSnapshot.manifest_blob.is_not(None))).all()
        )


def test_rows_without_segments_are_served(hub: HubEnvironment) -> None:
    made = written_by_hand(hub, hub.create_repo(REPO), 5)
    pulled = hub.caller().pull(REPO, [made[-1]], [made[1]])
    assert pulled.commits.keys() == set(made[2:])
    assert pulled.blobs == {ids.blob_id(tree(number)["0.txt"]): tree(number)["0.txt"] for number in (2, 3, 4)}


def test_a_repack_turns_whole_manifests_into_changes_that_read_back(hub: HubEnvironment) -> None:
    repo_id = hub.create_repo(REPO)
    written_by_hand(hub, repo_id, 6)
    repacked(hub, repo_id)
    assert whole_rows(hub) == 0
    assert [stored_manifest(hub, repo_id, tree(number)) for number in range(6)] == [
        manifest_of(tree(number)) for number in range(6)
    ]


def test_a_repack_packs_the_history_of_rows(hub: HubEnvironment) -> None:
    repo_id = hub.create_repo(REPO)
    written_by_hand(hub, repo_id, 6)
    repacked(hub, repo_id)
    with hub.session() as session:
        assert session.execute(select(MusehubGraphSegment.commit_count)).scalars().all() == [6]


def test_history_of_rows_is_packed_the_same_a_stretch_at_a_time(
    hub: HubEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo_id = hub.create_repo(REPO)
    made = written_by_hand(hub, repo_id, 7)
    wrong = ids.snapshot_id(manifest_of(tree(3)))
    with hub.session() as session:
        # Its id is not its manifest's hash: it stays as it is, and what follows must not rest on another.
        session.get_one(MusehubSnapshot, wrong).manifest_blob = msgpack.packb(manifest_of(tree(2)))
        made.append(make_commit(session, repo_id, tree(7), [made[4], made[2]], message="7", branch="side"))
    monkeypatch.setattr(stretches, "STRETCH", 2)
    repacked(hub, repo_id)
    assert whole_rows(hub) == 1
    assert [stored_manifest(hub, repo_id, tree(number)) for number in range(8)] == [
        manifest_of(tree(2 if number == 3 else number)) for number in range(8)
    ]
    with hub.app.app_context():
        db = hub_of(hub.app).database()
        packed = GraphCache(0).load(db, repo_id)
        rows = commits.graph(db, repo_id)
        assert {
            packed.commit_id(each): ([*map(packed.commit_id, packed.parents(each))], packed.snapshot_id(each))
            for each in range(len(packed))
        } == {commit_id: tuple(node) for commit_id, node in rows.items()}


def test_rows_are_read_whole_however_many_batches_that_takes(
    hub: HubEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo_id = hub.create_repo(REPO)
    written_by_hand(hub, repo_id, 6)
    monkeypatch.setattr(commits, "_NODE_BATCH", 3)
    with hub.app.app_context():
        db = hub_of(hub.app).database()
        assert dict(commits.nodes(db, repo_id)) == commits.graph(db, repo_id)


def test_the_same_fetch_is_answered_before_and_after_the_rows_are_rewritten(hub: HubEnvironment) -> None:
    repo_id = hub.create_repo(REPO)
    made = written_by_hand(hub, repo_id, 6)
    before = hub.caller().pull(REPO, [made[-1]], [made[2]])
    repacked(hub, repo_id)
    with hub.session() as session:
        session.execute(delete(MusehubFetchPlan))
        session.commit()
    assert hub.caller().pull(REPO, [made[-1]], [made[2]]).data == before.data


def test_a_row_whose_id_is_not_its_manifest_s_hash_stays_as_it_is(hub: HubEnvironment) -> None:
    repo_id = hub.create_repo(REPO)
    written_by_hand(hub, repo_id, 3)
    snapshot_id = ids.snapshot_id(manifest_of(tree(1)))
    with hub.session() as session:
        row = session.get_one(MusehubSnapshot, snapshot_id)
        row.manifest_blob = msgpack.packb(manifest_of(tree(2)))
        session.commit()
    repacked(hub, repo_id)
    assert whole_rows(hub) == 1
    assert stored_manifest(hub, repo_id, tree(1)) == manifest_of(tree(2))
    assert stored_manifest(hub, repo_id, tree(2)) == manifest_of(tree(2))


def push(caller: Caller, repo: str, *trees: int, head: str = "main") -> tuple[History, str]:
    history = History()
    tip: list[str] = []
    for number in trees:
        tip = [history.commit(tree(number), tip)]
    response = caller.push(repo, history.pack(), tip[0], branch=head)
    assert response.status_code == 200, response.get_data(as_text=True)
    return history, tip[0]


@pytest.mark.parametrize("repo", ["alice/drums", REPO], ids=["another repo", "the same repo"])
def test_rows_that_rest_on_a_whole_one_keep_it_whatever_history_says(hub: HubEnvironment, repo: str) -> None:
    repo_id = hub.create_repo(REPO)
    other_id = hub.create_repo(repo) if repo != REPO else repo_id
    (root,) = written_by_hand(hub, repo_id, 1)
    caller = hub.caller("alice")
    history = History()
    history.commit(tree(0), message="0")
    # Tree 1 rests on the whole row of tree 0 ...
    tip = history.commit(tree(1), [root])
    assert caller.push(REPO, history.pack(have=[root]), tip, branch="main").status_code == 200
    # ... and elsewhere tree 0 comes after tree 1.
    push(caller, repo, 1, 0, head="turned")
    for each in (other_id, repo_id):
        with hub.session() as session:
            session.execute(delete(MusehubGraphSegment))
            session.commit()
        hub.run_jobs()
        repacked(hub, each)
    for number in (0, 1):
        assert stored_manifest(hub, repo_id, tree(number)) == manifest_of(tree(number))
        assert stored_manifest(hub, other_id, tree(number)) == manifest_of(tree(number))
