"""Clones of what a repack made ready."""

from __future__ import annotations

import pytest
from sqlalchemy import delete, select

from musehub_plugin.ids import fake_id
from musehub_plugin.models import MusehubCommit, MusehubCommitRef, MusehubObjectRef
from musehub_plugin.repack import repack
from musehub_plugin.signals import integrity_error, step
from musehub_plugin.storage.base import Deletes
from musehub_plugin.store.models import MusehubClonePack
from musehub_plugin.testing.apps import hub_of
from musehub_plugin.testing.factories import History, make_commit
from tests.environment import HubEnvironment
from tests.exchange import Caller
from tests.integration.ready.receiving import ALL_CAPABILITIES, Receiver

REPO = "alice/songs"

ways = pytest.mark.parametrize("capabilities", [(), ("inline",), ("mpacks",)], ids=["one", "in the answer", "several"])


@pytest.fixture
def repacked(hub: HubEnvironment) -> tuple[str, str]:
    """A repo whose clone is ready: its id, and its only commit."""
    repo_id = hub.create_repo(REPO)
    history = History()
    first = history.commit({"a.txt": b"one"})
    assert hub.caller("alice").push(REPO, history.pack(), first).status_code == 200
    hub.run_jobs()
    with hub.app.app_context():
        repack(hub_of(hub.app), hub_of(hub.app).database(), repo_id)
    return repo_id, first


@pytest.mark.parametrize("capabilities", [(), ("inline",), ("mpacks",)], ids=["one pack", "in the answer", "several"])
def test_a_tree_that_came_back_after_a_repack_is_cloned(hub: HubEnvironment, capabilities: tuple[str, ...]) -> None:
    repo_id = hub.create_repo(REPO)
    caller = hub.caller("alice")
    history = History()
    first = history.commit({"a.txt": b"one"})
    second = history.commit({"a.txt": b"two"}, [first])
    assert caller.push(REPO, history.pack(), second).status_code == 200
    hub.run_jobs()
    with hub.app.app_context():
        repack(hub_of(hub.app), hub_of(hub.app).database(), repo_id)
    between = history.commit({"a.txt": b"three"}, [second])
    reverted = history.commit({"a.txt": b"one"}, [between])
    last = history.commit({"a.txt": b"four", "b.txt": b"one"}, [reverted])
    assert caller.push(REPO, history.pack(have=[second]), last).status_code == 200
    hub.run_jobs()
    receiver = Receiver(caller, REPO)
    received = receiver.fetch([last], [], capabilities)
    assert received.commits == history.commits.keys()
    assert receiver.manifests == history.snapshots
    assert receiver.blobs == history.blobs


@ways
def test_f07_a_want_that_the_repo_lacks_is_404_where_its_clone_is_ready(
    hub: HubEnvironment, repacked: tuple[str, str], capabilities: tuple[str, ...]
) -> None:
    for want in ([fake_id("never")], [repacked[1], fake_id("never")]):
        answer = hub.caller().fetch(REPO, want, [], capabilities)
        assert (answer.status_code, answer.get_json()["code"]) == (404, "want-not-found")


@ways
def test_a_commit_that_was_written_by_hand_on_what_is_ready_is_cloned(
    hub: HubEnvironment, repacked: tuple[str, str], capabilities: tuple[str, ...]
) -> None:
    repo_id, first = repacked
    with hub.session() as session:
        by_hand = make_commit(session, repo_id, {"b.txt": b"two"}, [first])
    received = Receiver(hub.caller(), REPO).fetch([by_hand], [], capabilities)
    assert received.commits == {first, by_hand}


@pytest.mark.parametrize("lost", [MusehubCommit, MusehubObjectRef], ids=["its commits", "its blobs"])
def test_a_commit_that_is_collected_while_its_pack_is_made_is_404(
    hub: HubEnvironment, lost: type[MusehubCommit] | type[MusehubObjectRef]
) -> None:
    repo_id = hub.create_repo(REPO)
    with hub.session() as session:
        head = make_commit(session, repo_id, {"a.txt": b"one"})

    def collect(_: object, name: str) -> None:
        if name == "fetch.planned":
            with hub.app.app_context():
                db = hub_of(hub.app).database()
                for table in (MusehubCommitRef, lost):
                    db.execute(delete(table))
                db.commit()

    with step.connected_to(collect):
        answer = hub.caller().fetch(REPO, [head])
    assert (answer.status_code, answer.get_json()["code"]) == (404, "want-not-found")


def gone_on(hub: HubEnvironment, first: str) -> tuple[Caller, str]:
    """Push a commit on top of what was repacked; return who did, and its id."""
    history = History()
    assert history.commit({"a.txt": b"one"}) == first
    second = history.commit({"a.txt": b"two"}, [first])
    caller = hub.caller("alice")
    assert caller.push(REPO, history.pack(have=[first]), second).status_code == 200
    hub.run_jobs()
    return caller, second


def test_a_clone_of_one_pack_and_a_fetch_of_what_came_since_are_not_the_same(
    hub: HubEnvironment, repacked: tuple[str, str]
) -> None:
    first = repacked[1]
    caller, second = gone_on(hub, first)
    assert set(caller.pull(REPO, [second], [first]).commits) == {second}
    assert set(caller.pull(REPO, [second]).commits) == {first, second}


def test_each_way_of_cloning_is_answered_in_its_own(hub: HubEnvironment, repacked: tuple[str, str]) -> None:
    first = repacked[1]
    caller, second = gone_on(hub, first)
    for _ in range(2):
        for capabilities in ALL_CAPABILITIES:
            received = Receiver(caller, REPO).fetch([second], [], capabilities)
            assert (received.commits, len(received.packs)) == ({first, second}, 1 + ("mpacks" in capabilities))


@pytest.mark.parametrize(
    ("left", "kind"), [(None, "mpack-missing"), (b"not what it was", "mpack-damaged")], ids=["lost", "damaged"]
)
def test_a_clone_that_begins_with_a_pack_that_cannot_be_read_is_503_and_told_to_the_host(
    hub: HubEnvironment, repacked: tuple[str, str], left: bytes | None, kind: str
) -> None:
    first = repacked[1]
    caller, second = gone_on(hub, first)
    with hub.session() as session:
        (mpack_id,) = session.scalars(select(MusehubClonePack.mpack_id))
    assert isinstance(hub.storage, Deletes)
    hub.storage.delete_mpack(mpack_id)
    if left is not None:
        hub.storage.put_mpack(mpack_id, left)
    told: list[tuple[str, str]] = []

    def note(_: object, kind: str, subject: str) -> None:
        told.append((kind, subject))

    with integrity_error.connected_to(note):
        answer = caller.fetch(REPO, [second])
    assert (answer.status_code, answer.get_json()["code"]) == (503, "storage-unavailable")
    assert told == [(kind, mpack_id)]
