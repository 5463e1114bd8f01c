"""What the rows of jobs say: who may take one, when it is due, and what its end makes of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import update

from musehub_plugin.store import jobs
from musehub_plugin.store.models import MusehubJob
from musehub_plugin.store.session import Database
from musehub_plugin.testing.apps import hub_of
from tests.environment import HubEnvironment

JOB = jobs.repack_job_id("7")
OTHER = jobs.repack_job_id("8")
DAY = 24 * 3600


@pytest.fixture
def db(hub: HubEnvironment) -> Iterator[Database]:
    """A unit of work in which the job of repo 7 waits."""
    with hub.app.app_context():
        db = hub_of(hub.app).database()
        jobs.add_job(db, JOB, jobs.REPACK, "7")
        db.commit()
        yield db


def state(db: Database, job_id: str = JOB) -> tuple[str, int]:
    """Return a job's state and how many attempts at it count."""
    job = jobs.find_job(db, job_id)
    assert job is not None
    return job.state, job.attempts


def due(db: Database) -> list[str]:
    """Return the ids of the jobs that are due, which are then not due for a day."""
    return [job.job_id for job in jobs.take_due_jobs(db, again_in=DAY)]


def lapse(db: Database) -> None:
    """Let the leases of all jobs lapse."""
    db.execute(update(MusehubJob).values(lease_until=db.now(-1)))


def test_a_job_that_another_is_at_is_nobody_s_to_take(db: Database) -> None:
    assert (jobs.claim_job(db, JOB, DAY), jobs.claim_job(db, JOB, DAY)) == (True, False)


def test_a_job_that_is_done_is_nobody_s_to_take(db: Database) -> None:
    jobs.claim_job(db, JOB, DAY)
    jobs.settle_job(db, JOB, jobs.DONE)
    lapse(db)
    assert not jobs.claim_job(db, JOB, DAY)


def test_the_end_of_an_attempt_says_nothing_of_a_job_that_began_anew_meanwhile(db: Database) -> None:
    jobs.claim_job(db, JOB, DAY)
    jobs.add_job(db, JOB, jobs.REPACK, "7")
    jobs.settle_job(db, JOB, jobs.DONE)
    assert state(db) == (jobs.PENDING, 0)


def test_a_job_that_began_anew_can_be_taken_whatever_lease_there_was(db: Database) -> None:
    jobs.claim_job(db, JOB, DAY)
    jobs.add_job(db, JOB, jobs.REPACK, "7")
    assert due(db) == [JOB]
    assert jobs.claim_job(db, JOB, DAY)


def test_an_attempt_that_an_outage_ended_does_not_count(db: Database) -> None:
    jobs.claim_job(db, JOB, DAY)
    jobs.settle_job(db, JOB, jobs.PENDING, counts=False)
    assert state(db) == (jobs.PENDING, 0)


def test_a_job_is_given_up_after_as_many_attempts_as_may_be_and_no_sooner(db: Database) -> None:
    given_up = []
    for _ in range(3):
        jobs.claim_job(db, JOB, DAY)
        given_up.append(jobs.give_up_job(db, JOB, 2))
        lapse(db)
    assert (given_up, state(db)) == ([False, False, True], (jobs.FAILED, 2))


def test_a_job_that_is_to_be_tried_later_is_not_due_before(db: Database) -> None:
    jobs.claim_job(db, JOB, DAY)
    jobs.settle_job(db, JOB, jobs.PENDING, retry_in=DAY)
    assert due(db) == []


def test_a_job_is_found_due_once_in_a_while(db: Database) -> None:
    assert (due(db), due(db)) == ([JOB], [])


def test_a_job_that_is_worked_on_is_due_once_its_lease_has_lapsed(db: Database) -> None:
    jobs.claim_job(db, JOB, DAY)
    before = due(db)
    lapse(db)
    assert (before, due(db), state(db)) == ([], [JOB], (jobs.PENDING, 1))


def test_due_are_those_alone_that_are_asked_about(db: Database) -> None:
    jobs.add_job(db, OTHER, jobs.REPACK, "8")
    asked_about = jobs.take_due_jobs(db, again_in=0, only=[JOB])
    assert [job.job_id for job in asked_about] == [JOB]


@pytest.mark.parametrize(("older", "younger"), [(JOB, OTHER), (OTHER, JOB)])
def test_due_are_the_oldest_jobs_first(db: Database, older: str, younger: str) -> None:
    jobs.add_job(db, OTHER, jobs.REPACK, "8")
    db.execute(update(MusehubJob).where(MusehubJob.job_id == older).values(created_at=db.now(-DAY)))
    assert [job.job_id for job in jobs.take_due_jobs(db, again_in=0, limit=1)] == [older]
    assert due(db) == [older, younger]


def test_a_lease_is_extended_for_a_job_that_is_worked_on_alone(db: Database) -> None:
    jobs.claim_job(db, JOB, 0)
    jobs.extend_lease(db, JOB, DAY)
    assert due(db) == []
    jobs.settle_job(db, JOB, jobs.PENDING)
    jobs.extend_lease(db, JOB, DAY)
    assert due(db) == [JOB]


@pytest.mark.parametrize(
    ("kind", "end", "age", "is_kept"),
    [
        (jobs.BUILD, jobs.DONE, DAY, False),
        (jobs.BUILD, jobs.FAILED, DAY, False),
        (jobs.BUILD, jobs.PENDING, DAY, True),
        (jobs.BUILD, jobs.DONE, 0, True),
        (jobs.INDEX, jobs.DONE, DAY, True),
    ],
)
def test_of_jobs_that_came_to_their_end_those_that_made_packs_for_fetches_are_forgotten(
    db: Database, kind: str, end: str, age: int, is_kept: bool
) -> None:
    jobs.add_job(db, OTHER, kind, "8", state=end)
    db.execute(update(MusehubJob).values(updated_at=db.now(-age)))
    jobs.drop_settled_builds(db, DAY // 2)
    assert (jobs.find_job(db, OTHER) is not None) == is_kept
