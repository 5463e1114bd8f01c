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

REPO = "alice/songs"


def deleted(hub: HubEnvironment) -> None:
    """Delete all repos, and collect."""
    hub.run_jobs()
    with hub.session() as session:
        session.execute(update(MusehubRepo).values(deleted_at=datetime(2026, 1, 1, tzinfo=UTC)))
        session.commit()
    with hub.app.app_context():
        collect(hub_of(hub.app), hub_of(hub.app).database(), grace=-1)


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
