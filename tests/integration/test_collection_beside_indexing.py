"""Garbage collection while what was pushed still waits to be indexed."""

from __future__ import annotations

from sqlalchemy import update

from musehub_plugin.gc import Collected, collect
from musehub_plugin.store.models import MusehubJob
from musehub_plugin.testing.apps import hub_of
from musehub_plugin.testing.factories import History
from tests.environment import HubEnvironment
from tests.exchange import Caller


def collected(hub: HubEnvironment, *, dry_run: bool = False) -> Collected:
    """Collect without any grace, as if it had passed since the last time."""
    with hub.app.app_context():
        return collect(hub_of(hub.app), hub_of(hub.app).database(), grace=0, dry_run=dry_run)


def overwritten(hub: HubEnvironment) -> tuple[Caller, bytes, str]:
    """Push a commit, and another one over it by force, with no worker; return who did it, the first pack and commit."""
    hub.create_repo()
    caller = Caller(hub.make_app(MUSEHUB_REDIS_URL="redis://127.0.0.1:1"), "alice")
    history = History()
    first = history.commit({"a.txt": b"one"})
    pack = history.pack()
    second = history.commit({"a.txt": b"two"})
    caller.push("alice/songs", pack, first)
    caller.push("alice/songs", history.pack(want=[second]), second, force=True)
    collected(hub)
    return caller, pack, first


def test_a_pack_that_waited_while_its_commits_were_garbage_can_be_pushed_again(hub: HubEnvironment) -> None:
    caller, pack, first = overwritten(hub)
    collected(hub)
    assert caller.push("alice/songs", pack, first, force=True).status_code == 200


def test_a_repo_whose_packs_wait_is_left_for_the_next_collection(hub: HubEnvironment) -> None:
    overwritten(hub)
    plan, done = collected(hub, dry_run=True), collected(hub)
    assert [(each.commits, each.busy_repos) for each in (plan, done)] == [(0, 1), (0, 1)]


def test_a_repo_one_of_whose_packs_could_not_be_indexed_is_collected(hub: HubEnvironment) -> None:
    overwritten(hub)
    with hub.session() as session:
        session.execute(update(MusehubJob).values(state="failed"))
        session.commit()
    assert collected(hub).commits == 1


def test_a_repo_whose_packs_are_indexed_is_collected(hub: HubEnvironment) -> None:
    overwritten(hub)
    hub.run_jobs()
    assert collected(hub).commits == 1
