"""The job `mpack.build`: the mpack of a large fetch, which its client has been told to come back for."""

from __future__ import annotations

import logging

import msgpack

from musehub_plugin.errors import HubError, StorageUnavailable, for_operators
from musehub_plugin.fetch import Build, make_for_job
from musehub_plugin.hub import Hub
from musehub_plugin.repack import heartbeat
from musehub_plugin.store import builds, jobs
from musehub_plugin.store.session import Database

logger = logging.getLogger(__name__)

_OUTAGE_WAIT = 5
_RETRY = 10


def order_build(db: Database, build: Build) -> bool:
    """Record that a pack is to be made; say whether the job is new. Its failure is recorded, too, and begins it anew.

    Part of a transaction that the caller ends.
    """
    job_id = jobs.build_job_id(build.key)
    job = jobs.find_job(db, job_id)
    if job is not None and job.state in {jobs.PENDING, jobs.RUNNING}:
        return False
    request = msgpack.packb([list(build.want), list(build.have), list(build.capabilities)])
    builds.note_request(db, build.key, build.repo_id, request)
    jobs.add_job(db, job_id, jobs.BUILD, build.key)
    return True


def run_build_job(hub: Hub, db: Database, plan_key: str) -> bool:
    """Make the pack of a plan; say whether it is there now. Another worker may be at it."""
    job_id = jobs.build_job_id(plan_key)
    if not jobs.claim_job(db, job_id, hub.settings.job_lease):
        db.rollback()
        return False
    given_up = jobs.give_up_job(db, job_id, hub.settings.job_attempts)
    noted = builds.noted_request(db, plan_key)
    db.commit()
    if given_up:
        return False
    state, error, retry_in, counts = jobs.DONE, "", 0, True
    try:
        if noted is not None:
            want, have, capabilities = msgpack.unpackb(noted[1])
            make_for_job(hub, db, Build(plan_key, noted[0], want, have, capabilities), heartbeat(hub, db, job_id))
    except StorageUnavailable as raised:
        state, error, retry_in, counts = jobs.PENDING, str(raised), _OUTAGE_WAIT, False
    except HubError as raised:
        job = jobs.find_job(db, job_id)
        failed = job is not None and job.attempts >= hub.settings.job_attempts
        state, error, retry_in = jobs.FAILED if failed else jobs.PENDING, for_operators(raised), _RETRY
    if error:
        logger.warning("job %s: %s", job_id, error)
    db.rollback()
    jobs.settle_job(db, job_id, state, error=error or None, retry_in=retry_in, counts=counts)
    db.commit()
    return state == jobs.DONE
