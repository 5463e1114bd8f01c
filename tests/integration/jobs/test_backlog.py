"""How long work has been waiting, as monitoring sees it."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from musehub_plugin.store import jobs
from musehub_plugin.store.models import MusehubJob
from musehub_plugin.testing.apps import hub_of
from tests.environment import HubEnvironment

JOB = jobs.repack_job_id("7")
DAY = 24 * 3600


def oldest_after_it_begins_anew(hub: HubEnvironment, state: str) -> float:
    """Return the age of the oldest job, once a repo's job of yesterday, which came to `state`, is asked for again."""
    with hub.app.app_context():
        db = hub_of(hub.app).database()
        jobs.add_job(db, JOB, jobs.REPACK, "7")
        db.execute(update(MusehubJob).values(state=state, created_at=db.now(-DAY)))
        jobs.add_job(db, JOB, jobs.REPACK, "7")
        db.commit()
        return jobs.backlog(db).oldest_seconds


@pytest.mark.parametrize("state", ["done", "failed"])
def test_a_job_that_came_to_its_end_and_is_asked_for_again_is_new(hub: HubEnvironment, state: str) -> None:
    assert oldest_after_it_begins_anew(hub, state) < DAY / 2


@pytest.mark.parametrize("state", ["pending", "running"])
def test_a_job_that_has_not_come_to_its_end_stays_as_old_as_it_is(hub: HubEnvironment, state: str) -> None:
    assert oldest_after_it_begins_anew(hub, state) > DAY / 2


def test_a_job_that_failed_is_counted_and_waits_for_nothing(hub: HubEnvironment) -> None:
    with hub.app.app_context():
        db = hub_of(hub.app).database()
        jobs.add_job(db, JOB, jobs.REPACK, "7")
        db.execute(update(MusehubJob).values(state="failed", created_at=db.now(-DAY)))
        assert jobs.backlog(db) == jobs.Backlog({"failed": 1}, 0.0)
