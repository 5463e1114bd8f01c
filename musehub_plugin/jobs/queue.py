"""Putting work on the queue."""

from __future__ import annotations

import logging

from sqlalchemy.exc import SQLAlchemyError

from musehub_plugin.build_job import order_build, run_build_job
from musehub_plugin.fetch import Build
from musehub_plugin.hub import Hub
from musehub_plugin.index import index_mpack
from musehub_plugin.repack import run_repack_job
from musehub_plugin.signals import swept
from musehub_plugin.store import jobs
from musehub_plugin.store.session import Database

logger = logging.getLogger(__name__)

INDEX_TASK = "musehub_plugin.jobs.tasks.index"
BUILD_TASK = "musehub_plugin.jobs.tasks.build"
REPACK_TASK = "musehub_plugin.jobs.tasks.repack"


def request_index(hub: Hub, db: Database, mpack_id: str) -> bool:
    """See to it that a pushed mpack gets indexed soon, and say whether it is already.

    Call it after the push is committed. Whatever fails here, the push stands: the job's row says `pending`, and that
    is enough for the sweeper to find it.
    """
    job_id = jobs.index_job_id(mpack_id)
    if not hub.settings.redis_url:
        try:
            index_mpack(hub, db, mpack_id)
        except SQLAlchemyError as error:
            db.rollback()
            logger.warning("job %s put off: %s", job_id, type(error).__name__)
            return False
        job = jobs.find_job(db, job_id)
        return job is not None and job.state == jobs.DONE
    _enqueue(hub, INDEX_TASK, mpack_id, job_id, jobs.INDEX)
    return False


def request_repack(hub: Hub, repo_id: str) -> None:
    """See to it that a repo's packs are put in order soon. Call it after the push is committed.

    Without a queue nobody does that but `flask musehub repack`: a push shall not wait for it.
    """
    if hub.settings.redis_url and hub.settings.repack_packs:
        _enqueue(hub, REPACK_TASK, repo_id, jobs.repack_job_id(repo_id), jobs.REPACK)


def request_build(hub: Hub, db: Database, build: Build) -> None:
    """See to it that a job makes a pack, in a unit of work of its own: a read must not commit the host's."""
    with db.apart() as apart:
        is_new = apart.transaction(lambda: order_build(apart, build))
    if is_new:
        _enqueue(hub, BUILD_TASK, build.key, jobs.build_job_id(build.key), jobs.BUILD)


def _enqueue(hub: Hub, task: str, subject: str, job_id: str, kind: str) -> None:
    # Here and not above, as below: to import RQ takes as long as a short command does without it.
    from musehub_plugin.jobs.broker import put

    put(hub, task, subject, job_id, f"{kind} {subject}")


def _request(hub: Hub, db: Database, job: jobs.JobRow) -> None:
    if job.kind == jobs.INDEX:
        request_index(hub, db, job.subject)
        return
    task, run = (REPACK_TASK, run_repack_job) if job.kind == jobs.REPACK else (BUILD_TASK, run_build_job)
    if hub.settings.redis_url:
        _enqueue(hub, task, job.subject, job.job_id, job.kind)
    else:
        # On record from when there was a queue: nobody else would ever do it.
        run(hub, db, job.subject)


def sweep(hub: Hub, db: Database) -> int:
    """Put every job that its row calls due on the queue again, and return how many there were.

    It needs nothing that Redis held; without a queue the jobs are run here and now. Due are jobs that wait and have not
    been put on the queue for `MUSEHUB_SWEEP_INTERVAL` seconds, and jobs whose worker let its lease lapse.
    """
    due = jobs.take_due_jobs(db, again_in=hub.settings.sweep_interval)
    db.commit()
    for job in due:
        _request(hub, db, job)
    if due:
        swept.send(None, count=len(due))
    return len(due)


def rearm(hub: Hub, db: Database, repo_id: str) -> bool:
    """Put the index jobs that a fetch of a repo waits for on the queue again; say whether one of them has failed.

    A job is put there at most once in `MUSEHUB_SWEEP_INTERVAL` seconds, however many clients wait. It is done in a
    unit of work of its own: a read must not commit what the host has half done.
    """
    unfinished = jobs.unfinished_index_jobs(db, repo_id)
    waiting = [job.job_id for job in unfinished if job.state != jobs.FAILED]
    if waiting and db.may_write_apart:
        with db.apart() as apart:
            due = jobs.take_due_jobs(apart, again_in=hub.settings.sweep_interval, only=waiting)
            apart.commit()
            for job in due:
                request_index(hub, apart, job.subject)
    return len(waiting) < len(unfinished)


def queue_answers(hub: Hub) -> bool:
    """Say whether Redis answers, within half a second."""
    from musehub_plugin.jobs.broker import answers

    return answers(hub)
