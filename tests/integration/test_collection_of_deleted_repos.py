"""What is left of a repo that was deleted."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import update

from musehub_plugin import ids
from musehub_plugin.gc import collect
from musehub_plugin.models import MusehubRepo
from musehub_plugin.mpack import build_wire_mpack, parse_wire_mpack
from musehub_plugin.testing.apps import hub_of
from musehub_plugin.testing.factories import History
from tests.environment import HubEnvironment
from tests.exchange import Caller

REPO = "alice/songs"


def deleted(hub: HubEnvironment, *, grace: int = -1) -> None:
    """Delete Alice's repos, long ago, and collect."""
    with hub.session() as session:
        session.execute(
            update(MusehubRepo).where(MusehubRepo.owner == "alice").values(deleted_at=datetime(2026, 1, 1, tzinfo=UTC))
        )
        session.commit()
    with hub.app.app_context():
        collect(hub_of(hub.app), hub_of(hub.app).database(), grace=grace)


def test_nothing_stays_of_a_pack_that_holds_what_no_commit_names(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    history = History()
    head = history.commit({"a.txt": b"1"})
    parts = parse_wire_mpack(history.pack())
    loose = {"b.txt": ids.blob_id(b"2")}
    for content in (b"2", b"3"):
        parts["blobs"].append({"object_id": ids.blob_id(content), "content": content})
    parts["snapshots"].append({"snapshot_id": ids.snapshot_id(loose), "manifest": loose})
    assert hub.caller("alice").push(REPO, build_wire_mpack(**parts), head).status_code == 200
    deleted(hub)
    assert (hub.stored_keys(), set(hub.row_counts().values())) == (set(), {0})


def test_nothing_stays_of_a_pack_that_waits_to_be_indexed(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    history = History()
    head = history.commit({"a.txt": b"1"})
    caller = Caller(hub.make_app(MUSEHUB_REDIS_URL="redis://127.0.0.1:1", MUSEHUB_INDEX_INLINE=0), "alice")
    assert caller.push(REPO, history.pack(), head).status_code == 200
    # Its row is younger than the repo's end.
    deleted(hub, grace=3600)
    hub.run_jobs()
    deleted(hub)
    assert (hub.stored_keys(), set(hub.row_counts().values())) == (set(), {0})


def test_a_tree_that_was_stored_as_what_it_changes_stays_whole_for_another_repo(hub: HubEnvironment) -> None:
    hub.create_repo(REPO)
    hub.create_repo("bob/tunes")
    tree = {f"{number}.txt": b"the same" for number in range(30)}
    history = History()
    head = history.commit({**tree, "a.txt": b"2"}, [history.commit({**tree, "a.txt": b"1"})])
    alone = History()
    bobs = alone.commit({**tree, "a.txt": b"2"})
    assert hub.caller("alice").push(REPO, history.pack(), head).status_code == 200
    assert hub.caller("bob").push("bob/tunes", alone.pack(), bobs).status_code == 200
    deleted(hub)
    assert hub.caller().pull("bob/tunes", [bobs]).snapshots == alone.snapshots
