"""A deleted repo is collected some at a time, so that pushes to others need not wait until all of it is gone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from musehub_plugin import gc
from musehub_plugin.gc import collect
from musehub_plugin.models import MusehubRepo
from musehub_plugin.scrub import scrub
from musehub_plugin.store import garbage
from musehub_plugin.testing.apps import hub_of
from tests.environment import HubEnvironment
from tests.integration.ready.test_repack import Growing

KEPT = "alice/kept"


class Killed(BaseException):
    """What ends a collection half way."""


@pytest.fixture
def kept(hub: HubEnvironment, monkeypatch: pytest.MonkeyPatch) -> Growing:
    """A repo beside one that is deleted, has half of its history, and is collected three entities at a time."""
    monkeypatch.setattr(gc, "_PART", 3)
    growing, deleted = Growing(hub, KEPT), Growing(hub, "alice/deleted")
    growing.push(4)
    deleted.history, deleted.made = growing.history, list(growing.made)
    whole = growing.history.pack()
    assert deleted.caller.push(deleted.repo, whole, growing.made[-1]).status_code == 200
    deleted.push(4)
    with hub.session() as session:
        long_ago = datetime.now(UTC) - timedelta(days=3)
        session.execute(update(MusehubRepo).where(MusehubRepo.slug == "deleted").values(deleted_at=long_ago))
        session.commit()
    return growing


def collected(hub: HubEnvironment) -> gc.Collected:
    with hub.app.app_context():
        return collect(hub_of(hub.app), hub_of(hub.app).database(), grace=-1)


def assert_only_what_is_kept_is_there(hub: HubEnvironment, kept: Growing) -> None:
    counts = hub.row_counts()
    kinds = ("commit", "commit_ref", "snapshot", "snapshot_ref", "object_ref", "object")
    assert [counts[f"musehub_{kind}"] for kind in kinds] == [4, 4, 4, 4, 8, 8]
    assert counts["musehub_repo"] == 1
    assert hub.caller().pull(KEPT, [kept.made[3]]).commits.keys() == set(kept.made[:4])
    with hub.app.app_context():
        assert scrub(hub_of(hub.app), hub_of(hub.app).database()).problems == []


def test_a_deleted_repo_goes_in_parts_and_another_one_keeps_all(hub: HubEnvironment, kept: Growing) -> None:
    done = collected(hub)
    assert (done.repos, done.commits, done.snapshots, done.blobs, done.busy_repos) == (1, 8, 8, 16, 0)
    assert_only_what_is_kept_is_there(hub, kept)


@pytest.mark.parametrize("after", [1, 6, 8, 11])
def test_a_collection_that_is_killed_between_two_parts_goes_on(
    hub: HubEnvironment, kept: Growing, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    calls = 0
    let_go = garbage.let_go

    def dying(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls > after:
            raise Killed
        let_go(*arguments)  # type: ignore[arg-type]  # as it was called

    with monkeypatch.context() as patched:
        patched.setattr(garbage, "let_go", dying)
        with pytest.raises(Killed):
            collected(hub)
    with hub.app.app_context():
        assert scrub(hub_of(hub.app), hub_of(hub.app).database()).problems == []
    assert collected(hub).repos == 1
    assert_only_what_is_kept_is_there(hub, kept)
