"""What a scrub says of packs, index rows and history that are not as they should be, and what it makes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from flask import Flask
from sqlalchemy import delete, select, update

from musehub_plugin import ids
from musehub_plugin.models import (
    MusehubCommit,
    MusehubCommitRef,
    MusehubMPackIndex,
    MusehubObjectRef,
    MusehubSnapshot,
)
from musehub_plugin.scrub import Scrubbed, scrub
from musehub_plugin.storage import MemoryStorage
from musehub_plugin.storage.base import Deletes
from musehub_plugin.store.models import MusehubJob, MusehubMPack, MusehubMPackRef
from musehub_plugin.testing.apps import hub_of
from musehub_plugin.testing.factories import History, create_repo
from tests.environment import HubEnvironment
from tests.exchange import Caller

REPO = "alice/songs"
ONE, TWO = ids.blob_id(b"one"), ids.blob_id(b"two")


def pushed(hub: HubEnvironment, repo: str = REPO, *contents: bytes) -> str:
    """Push a commit of some blobs, `one` and `two` where none are given; return the id of the pack."""
    hub.create_repo(repo)
    history = History()
    head = history.commit({str(n): content for n, content in enumerate(contents or (b"one", b"two"))}, message=repo)
    pack = history.pack()
    assert hub.caller(repo.split("/")[0]).push(repo, pack, head).status_code == 200
    hub.run_jobs()
    return ids.blob_id(pack)


def lose(hub: HubEnvironment, pack_id: str) -> None:
    storage = hub_of(hub.app).storage
    assert isinstance(storage, Deletes)
    storage.delete_mpack(pack_id)


def scrubbed(hub: HubEnvironment, *, repair: bool = False, repo_id: str | None = None) -> Scrubbed:
    with hub.app.app_context():
        return scrub(hub_of(hub.app), hub_of(hub.app).database(), repair=repair, repo_id=repo_id)


def said(found: Scrubbed) -> list[tuple[str, bool]]:
    return [(problem.kind, problem.repaired) for problem in found.problems]


def places(hub: HubEnvironment) -> dict[str, tuple[Any, ...]]:
    columns = (MusehubMPackIndex.frame, MusehubMPackIndex.frame_offset, MusehubMPackIndex.size_bytes)
    with hub.session() as session:
        rows = session.execute(select(MusehubMPackIndex.entity_id, *columns))
        return {row[0]: tuple(row[1:]) for row in rows}


def change(hub: HubEnvironment, *statements: Any) -> None:
    with hub.session() as session:
        for statement in statements:
            session.execute(statement)
        session.commit()


OF_ONE = MusehubMPackIndex.entity_id == ONE
WRONGS: dict[str, list[Any]] = {
    "a row is missing": [delete(MusehubMPackIndex).where(OF_ONE)],
    "a row says another place": [update(MusehubMPackIndex).where(OF_ONE).values(frame_offset=7)],
    "a row is of what is not in the pack": [
        update(MusehubMPackIndex).where(OF_ONE).values(entity_id=ids.fake_id("not in it"))
    ],
}


@pytest.mark.parametrize("wrong", WRONGS)
def test_an_index_that_is_wrong_is_said_and_left(hub: HubEnvironment, wrong: str) -> None:
    pushed(hub)
    change(hub, *WRONGS[wrong])
    before = hub.rows()
    assert said(scrubbed(hub))[0] == ("index-wrong", False)
    assert hub.rows() == before


@pytest.mark.parametrize("wrong", WRONGS)
def test_an_index_that_is_wrong_is_made_right_by_a_repair(hub: HubEnvironment, wrong: str) -> None:
    pushed(hub)
    right = places(hub)
    change(hub, *WRONGS[wrong])
    assert said(scrubbed(hub, repair=True)) == [("index-wrong", True)]
    assert places(hub) == right


def test_a_row_that_says_no_place_is_as_good_as_one_that_does(hub: HubEnvironment) -> None:
    pushed(hub)
    change(hub, update(MusehubMPackIndex).where(OF_ONE).values(frame=None, frame_offset=None, size_bytes=None))
    assert said(scrubbed(hub)) == []


def test_no_row_is_missed_of_a_blob_that_nobody_holds(hub: HubEnvironment) -> None:
    pack_id = pushed(hub)
    with hub.session() as session:
        session.execute(delete(MusehubMPackIndex).where(OF_ONE))
        session.execute(delete(MusehubObjectRef).where(MusehubObjectRef.object_id == ONE))
        session.commit()
    assert [problem for problem in scrubbed(hub).problems if problem.subject == pack_id] == []


def test_another_pack_in_the_place_of_one_is_damage(hub: HubEnvironment) -> None:
    pack_id, other = pushed(hub), History()
    other.commit({"0": b"one", "1": b"two"}, message="another")
    hub.storage.put_mpack(pack_id, other.pack())
    assert said(scrubbed(hub)) == [("mpack-damaged", False)]


def test_what_is_no_pack_is_damage_under_whatever_id(hub: HubEnvironment) -> None:
    rubbish = ids.blob_id(b"rubbish")
    hub.storage.put_mpack(rubbish, b"rubbish")
    hub.add(MusehubMPack(mpack_id=rubbish, size_bytes=7), MusehubMPackIndex(entity_id=ONE, mpack_id=rubbish))
    assert said(scrubbed(hub)) == [("mpack-damaged", False)]


def test_a_pack_whose_blobs_are_nowhere_else_is_asked_for_again_after_a_repair(hub: HubEnvironment) -> None:
    pack_id = pushed(hub)
    lose(hub, pack_id)
    before = hub.rows()
    assert said(scrubbed(hub)) == [("mpack-missing", False)]
    assert hub.rows() == before
    assert said(scrubbed(hub, repair=True)) == [("mpack-missing", False)]
    assert set(places(hub)) == {ONE, TWO}
    with hub.session() as session:
        assert session.execute(select(MusehubJob.state)).scalars().all() == ["failed"]


def test_a_pack_whose_blobs_are_elsewhere_is_looked_into_no_more_after_a_repair(hub: HubEnvironment) -> None:
    lost = pushed(hub, REPO, b"one", b"two")
    kept = pushed(hub, "bob/tunes", b"one", b"three")
    change(hub, delete(MusehubObjectRef).where(MusehubObjectRef.object_id == TWO))
    lose(hub, lost)
    before = hub.rows()
    found = scrubbed(hub)
    assert ("mpack-missing", False) in said(found)
    assert hub.rows() == before
    repaired = scrubbed(hub, repair=True)
    assert ("mpack-missing", True) in said(repaired)
    assert repaired.unrepaired == found.unrepaired - 1
    with hub.session() as session:
        assert set(session.execute(select(MusehubMPackIndex.mpack_id)).scalars()) == {kept}
        assert set(session.execute(select(MusehubJob.state)).scalars()) == {"done"}


def test_a_pack_that_could_not_be_indexed_and_is_good_is_done_after_a_repair(hub: HubEnvironment) -> None:
    pushed(hub)
    right = places(hub)
    change(hub, update(MusehubJob).values(state="failed", error="it was away"), delete(MusehubMPackIndex))
    before = hub.rows()
    nowhere = ("blob-missing", False)
    assert said(scrubbed(hub)) == [("index-failed", False), ("index-wrong", False), nowhere, nowhere]
    assert hub.rows() == before
    assert said(scrubbed(hub, repair=True)) == [("index-failed", True), ("index-wrong", True)]
    assert (said(scrubbed(hub)), places(hub)) == ([], right)


def test_of_one_repo_its_own_packs_are_looked_at(hub: HubEnvironment) -> None:
    pushed(hub)
    lose(hub, pushed(hub, "bob/tunes", b"three"))
    with hub.session() as session:
        repo_id = session.execute(
            select(MusehubObjectRef.repo_id).where(MusehubObjectRef.object_id == ONE)
        ).scalar_one()
    found = scrubbed(hub, repo_id=repo_id)
    assert (found.mpacks, found.repos, found.problems) == (1, 1, [])


def test_a_blob_that_storage_has_by_its_id_is_somewhere(hub: HubEnvironment) -> None:
    pack_id = pushed(hub)
    change(hub, delete(MusehubMPackIndex), delete(MusehubMPack), delete(MusehubMPackRef))
    hub.storage.put(ONE, b"one")
    assert [problem.subject for problem in scrubbed(hub).problems] == [TWO]
    assert pack_id not in places(hub)


@pytest.mark.parametrize("file", [None, b"rubbish"], ids=["gone", "unreadable"])
def test_a_pack_that_waits_and_cannot_be_read_holds_nothing(hub: HubEnvironment, file: bytes | None) -> None:
    pack_id = pushed(hub)
    change(hub, delete(MusehubMPackIndex), update(MusehubJob).values(state="pending"))
    if file is None:
        lose(hub, pack_id)
    else:
        hub.storage.put_mpack(pack_id, file)
    kind = "mpack-missing" if file is None else "mpack-damaged"
    assert [problem.kind for problem in scrubbed(hub).problems] == [kind, "blob-missing", "blob-missing"]


def chained(hub: HubEnvironment) -> tuple[History, str, str]:
    """Push a commit and one on it; return the history and both."""
    hub.create_repo(REPO)
    history = History()
    first = history.commit({"a.txt": b"one"})
    second = history.commit({"a.txt": b"two"}, [first])
    assert hub.caller("alice").push(REPO, history.pack(), second).status_code == 200
    return history, first, second


def test_history_that_is_not_what_its_ids_say_is_said(hub: HubEnvironment) -> None:
    history, first, second = chained(hub)
    tree = history.commits[second]["snapshot_id"]
    wrongs = {
        "parent-missing": (first, [delete(MusehubCommitRef).where(MusehubCommitRef.commit_id == first)]),
        "snapshot-missing": (tree, [delete(MusehubSnapshot).where(MusehubSnapshot.snapshot_id == tree)]),
    }
    altered = update(MusehubCommit).where(MusehubCommit.commit_id == second).values(message="another")
    change(hub, altered)
    assert [(problem.kind, problem.subject) for problem in scrubbed(hub).problems] == [("commit-damaged", second)]
    change(hub, altered.values(message=history.commits[second]["message"]))
    assert scrubbed(hub).problems == []
    for kind, (subject, statements) in wrongs.items():
        change(hub, *statements)
        assert (kind, subject) in [(problem.kind, problem.subject) for problem in scrubbed(hub).problems]


def test_a_commit_that_is_held_and_has_no_row_is_said_once(hub: HubEnvironment) -> None:
    _, first, _ = chained(hub)
    change(hub, delete(MusehubCommit).where(MusehubCommit.commit_id == first))
    assert [(problem.kind, problem.subject) for problem in scrubbed(hub).problems] == [("commit-damaged", first)]


def test_a_tree_under_an_id_that_is_not_its_hash_is_said(hub: HubEnvironment) -> None:
    history, _, second = chained(hub)
    tree = history.commits[second]["snapshot_id"]
    other = msgpack.packb({"b.txt": ONE})
    columns = {"manifest_blob": other, "delta_blob": None, "base_id": None, "chain_length": 0, "chain_bytes": 0}
    change(hub, update(MusehubSnapshot).where(MusehubSnapshot.snapshot_id == tree).values(**columns))
    kinds = {(problem.kind, problem.subject) for problem in scrubbed(hub).problems}
    assert ("snapshot-damaged", tree) in kinds


def test_storage_that_is_away_is_said_and_no_damage(musehub_make_app: Callable[..., Flask]) -> None:
    class Away(MemoryStorage):
        is_away = False

        def open_mpack(self, mpack_id: str) -> Any:
            if self.is_away:
                raise OSError("no route")
            return super().open_mpack(mpack_id)

        def exists(self, oid: str) -> bool:
            if self.is_away:
                raise OSError("no route")
            return super().exists(oid)

    storage = Away()
    app = musehub_make_app(MUSEHUB_STORAGE=storage)
    history = History()
    head = history.commit({"a.txt": b"one"})
    with app.app_context():
        create_repo(hub_of(app).sqlalchemy.session)
        assert Caller(app, "alice").push(REPO, history.pack(), head).status_code == 200
        hub_of(app).database().execute(delete(MusehubMPackIndex))
        hub_of(app).database().commit()
        storage.is_away = True
        found = scrub(hub_of(app), hub_of(app).database())
        storage.is_away = False
        # Of the pack, and of a blob that is in no index.
        assert said(found) == [("storage-away", False), ("storage-away", False)]
        scrub(hub_of(app), hub_of(app).database(), repair=True)
        assert said(scrub(hub_of(app), hub_of(app).database())) == []
