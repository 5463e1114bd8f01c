"""Jobs as rows: what is to be done, who is at it, and what became of it.

Times are the database's own where it is a server, so that hosts whose clocks differ agree on leases.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, case, delete, func, or_, select, true, update

from musehub_plugin.ids import to_hex
from musehub_plugin.store.models import MusehubJob, MusehubMPackRef
from musehub_plugin.store.session import Database, batches

logger = logging.getLogger(__name__)

INDEX = "mpack.index"
REPACK = "mpack.repack"
BUILD = "mpack.build"

PENDING = "pending"
RUNNING = "running"
DONE = "done"
FAILED = "failed"

NOT_DONE = (PENDING, RUNNING, FAILED)
"""Asked for by name: of jobs that are done there are as many as packs, and an index finds none by what it is not."""


class JobRow(NamedTuple):
    """A job as it is recorded."""

    job_id: str
    kind: str
    subject: str
    state: str
    attempts: int
    error: str | None


_COLUMNS = (
    MusehubJob.job_id,
    MusehubJob.kind,
    MusehubJob.subject,
    MusehubJob.state,
    MusehubJob.attempts,
    MusehubJob.error,
)


def index_job_id(mpack_id: str) -> str:
    """Return the id of the job that indexes an mpack."""
    return f"mpack-index-{to_hex(mpack_id)}"


def repack_job_id(repo_id: str) -> str:
    """Return the id of the job that repacks a repo: a host's own ids may hold what RQ does not allow."""
    return f"mpack-repack-{hashlib.sha256(repo_id.encode()).hexdigest()}"


def build_job_id(plan_key: str) -> str:
    """Return the id of the job that makes the mpack of a plan."""
    return f"mpack-build-{to_hex(plan_key)}"


def add_job(
    db: Database, job_id: str, kind: str, subject: str, *, state: str = PENDING, error: str | None = None
) -> None:
    """Record a job. One that is recorded already begins anew, whatever became of it.

    That it was done once says nothing: what it wrote may have been collected as garbage since. It is as old as what
    waits: from now on where it had come to its end, from when it was asked for where it had not.

    Args:
        db: the unit of work; the job exists once that commits.
        job_id: letters, digits, `_` and `-`: RQ allows nothing else.
        kind: such as `mpack.index`.
        subject: what it is about, such as an mpack's id.
        state: `pending`, or `done` for work that this very transaction does.
        error: what is wrong, where the state is `failed`.
    """
    # Times are the database's: a host whose own clock is ahead would put the job off for as long.
    is_new = db.insert_one(
        MusehubJob,
        {
            "job_id": job_id,
            "kind": kind,
            "subject": subject,
            "state": state,
            "error": error,
            "not_before": db.now(),
            "created_at": db.now(),
            "updated_at": db.now(),
        },
    )
    if is_new:
        return
    db.change(
        update(MusehubJob)
        .where(MusehubJob.job_id == job_id)
        .values(
            state=state,
            attempts=0,
            error=error,
            lease_until=None,
            not_before=db.now(),
            created_at=case((MusehubJob.state.in_([DONE, FAILED]), db.now()), else_=MusehubJob.created_at),
            updated_at=db.now(),
        )
        .execution_options(synchronize_session=False)
    )


def find_job(db: Database, job_id: str) -> JobRow | None:
    """Return the job of that id, or None."""
    row = db.execute(select(*_COLUMNS).where(MusehubJob.job_id == job_id)).first()
    return None if row is None else JobRow(*tuple(row))


def claim_job(db: Database, job_id: str, lease_seconds: int) -> bool:
    """Take a job that is pending or whose lease has lapsed; say whether it was there to take. Commits nothing."""
    return (
        db.change(
            update(MusehubJob)
            .where(MusehubJob.job_id == job_id, _open_to_take(db))
            .values(
                state=RUNNING,
                attempts=MusehubJob.attempts + 1,
                lease_until=db.now(lease_seconds),
                updated_at=db.now(),
            )
            .execution_options(synchronize_session=False)
        )
        == 1
    )


def give_up_job(db: Database, job_id: str, most: int) -> bool:
    """Settle a job that was claimed a moment ago as failed, where `most` attempts before did not end; say whether so.

    What kills its worker, or takes longer than a job may, would do so to one worker after the other. Commits nothing.
    """
    job = find_job(db, job_id)
    if job is None or job.attempts <= most:
        return False
    reason = f"{job.attempts - 1} attempts did not end: the worker died or ran out of time"
    logger.error("job %s failed: %s", job_id, reason)
    settle_job(db, job_id, FAILED, error=reason, counts=False)
    return True


def settle_job(
    db: Database, job_id: str, state: str, *, error: str | None = None, retry_in: int = 0, counts: bool = True
) -> None:
    """Record how an attempt ended, unless the job began anew in the meantime.

    Args:
        db: the unit of work.
        job_id: the job.
        state: `done`, `failed`, or `pending` for another attempt.
        error: what went wrong.
        retry_in: seconds before another attempt.
        counts: whether the attempt says something about the job, which it does not where a server was away.
    """
    db.change(
        update(MusehubJob)
        .where(MusehubJob.job_id == job_id, MusehubJob.attempts > 0)
        .values(
            state=state,
            attempts=MusehubJob.attempts - (0 if counts else 1),
            error=error,
            lease_until=None,
            not_before=db.now(retry_in),
            updated_at=db.now(),
        )
        .execution_options(synchronize_session=False)
    )


def take_due_jobs(
    db: Database, *, again_in: int, limit: int = 1_000, only: Sequence[str] | None = None
) -> list[JobRow]:
    """Return jobs that wait or whose lease lapsed, the oldest first, and keep them from being found for a while.

    Two sweepers at once get different jobs.

    Args:
        db: the unit of work; commit it before the jobs are put on a queue.
        again_in: seconds until a job that is still not done is found again.
        limit: how many at most.
        only: ids of the jobs to look at; None for all.
    """
    among = true() if only is None else MusehubJob.job_id.in_(only)
    found = [
        JobRow(*tuple(row))
        for row in db.execute(
            select(*_COLUMNS)
            .where(
                among,
                or_(
                    and_(MusehubJob.state == PENDING, MusehubJob.not_before <= db.now()),
                    and_(MusehubJob.state == RUNNING, MusehubJob.lease_until <= db.now()),
                ),
            )
            .order_by(MusehubJob.created_at, MusehubJob.job_id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
    ]
    if found:
        db.change(
            update(MusehubJob)
            .where(MusehubJob.job_id.in_([job.job_id for job in found]))
            .values(state=PENDING, lease_until=None, not_before=db.now(again_in), updated_at=db.now())
            .execution_options(synchronize_session=False)
        )
    return found


def extend_lease(db: Database, job_id: str, lease_seconds: int) -> None:
    """Keep a job that is being worked on from being taken by another worker."""
    db.change(
        update(MusehubJob)
        .where(MusehubJob.job_id == job_id, MusehubJob.state == RUNNING)
        .values(lease_until=db.now(lease_seconds), updated_at=db.now())
        .execution_options(synchronize_session=False)
    )


def drop_settled_builds(db: Database, settled_for: int) -> None:
    """Forget jobs that made the mpack of a fetch, or could not, more than `settled_for` seconds ago.

    The same fetch asked again begins another. Of other jobs there are as many as there are packs and repos.
    """
    db.change(
        delete(MusehubJob)
        .where(
            MusehubJob.kind == BUILD,
            MusehubJob.state.in_([DONE, FAILED]),
            MusehubJob.updated_at < db.now(-settled_for),
        )
        .execution_options(synchronize_session=False)
    )


def waiting_for_index(db: Database) -> list[str]:
    """Return the mpacks whose `mpack.index` jobs are pending or running."""
    return list(
        db.execute(
            select(MusehubJob.subject)
            .where(MusehubJob.kind == INDEX, MusehubJob.state.in_([PENDING, RUNNING]))
            .order_by(MusehubJob.created_at, MusehubJob.job_id)
        ).scalars()
    )


def unfinished_index_jobs(db: Database, repo_id: str) -> list[JobRow]:
    """Return the `mpack.index` jobs that are not done, of mpacks that were pushed to a repo; the oldest first."""
    open_jobs = [
        JobRow(*tuple(row))
        for row in db.execute(
            select(*_COLUMNS)
            .where(MusehubJob.kind == INDEX, MusehubJob.state.in_(NOT_DONE))
            .order_by(MusehubJob.created_at, MusehubJob.job_id)
        )
    ]
    held: set[str] = set()
    for batch in batches({job.subject for job in open_jobs}):
        held.update(
            db.execute(
                select(MusehubMPackRef.mpack_id).where(
                    MusehubMPackRef.repo_id == repo_id, MusehubMPackRef.mpack_id.in_(batch)
                )
            ).scalars()
        )
    return [job for job in open_jobs if job.subject in held]


class Backlog(NamedTuple):
    """How much is waiting: jobs by state, and the age of the oldest that is pending or running, in seconds."""

    counts: dict[str, int]
    oldest_seconds: float


def backlog(db: Database) -> Backlog:
    """Return what is not done."""
    rows = db.execute(
        select(MusehubJob.state, func.count().label("jobs"), func.min(MusehubJob.created_at).label("first"))
        .where(MusehubJob.state.in_(NOT_DONE))
        .group_by(MusehubJob.state)
    )
    counts: dict[str, int] = {}
    oldest = 0.0
    for row in rows:
        counts[row.state] = row.jobs
        if row.state != FAILED:
            oldest = max(oldest, (datetime.now(UTC) - row.first).total_seconds())
    return Backlog(counts, oldest)


def _open_to_take(db: Database) -> ColumnElement[bool]:
    return or_(
        MusehubJob.state == PENDING,
        and_(MusehubJob.state == RUNNING, MusehubJob.lease_until <= db.now()),
    )
