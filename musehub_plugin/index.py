"""Index: record where in a pushed mpack each blob is, so that a fetch can find it.

The job `mpack.index`. It may run twice, also at once: rows that exist are left as they are. It resumes: what was
written before it was killed stays, and a lease in its row lets another worker take it up again.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator

from musehub_plugin.errors import StorageUnavailable
from musehub_plugin.hub import Hub, current_app_object
from musehub_plugin.mpack import MPackError, MPackReader
from musehub_plugin.signals import indexed, reached
from musehub_plugin.storage.uploads import open_mpack
from musehub_plugin.store import contents, jobs, mpacks
from musehub_plugin.store.session import Database

logger = logging.getLogger(__name__)

_BATCH = 5_000
# Seconds before the next attempt, by the number of attempts made; the last one repeats.
_BACKOFF = (1, 5, 30, 120, 300)
# Seconds before the next attempt where object storage was away.
_OUTAGE_WAIT = 5


def index_mpack(hub: Hub, db: Database, mpack_id: str) -> int:
    """Write the index rows of a pushed mpack and return how many blobs it holds.

    Returns 0 where there is nothing to do: nobody pushed such an mpack, it is indexed, or another worker is at it.
    An outage of object storage leaves the job pending for a later attempt, however many there were. An mpack that is
    missing or unreadable is tried again too, since storage may answer wrongly for a while, but after
    `MUSEHUB_JOB_ATTEMPTS` attempts the job is `failed`, with the reason in its row; so it is after as many attempts
    that did not end, since an mpack that kills its worker would kill one after the other.
    """
    job_id = jobs.index_job_id(mpack_id)
    if not jobs.claim_job(db, job_id, hub.settings.job_lease):
        db.rollback()
        return 0
    if jobs.give_up_job(db, job_id, hub.settings.job_attempts):
        db.commit()
        return 0
    db.commit()
    reached("index.claimed")
    try:
        total = _write_entries(hub, db, job_id, mpack_id)
    except StorageUnavailable as error:
        db.rollback()
        _try_later(hub, db, job_id, f"storage is away: {error}", may_fail=False)
        return 0
    except MPackError as error:
        db.rollback()
        _try_later(hub, db, job_id, str(error), may_fail=True)
        return 0
    jobs.settle_job(db, job_id, jobs.DONE)
    if hub.settings.redis_url and hub.settings.repack_packs:
        for repo_id in mpacks.repos_of(db, mpack_id):
            jobs.add_job(db, jobs.repack_job_id(repo_id), jobs.REPACK, repo_id)
    reached("index.settled")
    db.commit()
    reached("index.committed")
    indexed.send(current_app_object(), mpack_id=mpack_id, blob_count=total)
    return total


def _write_entries(hub: Hub, db: Database, job_id: str, mpack_id: str) -> int:
    file = open_mpack(hub.storage, mpack_id)
    if file is None:
        raise MPackError("the mpack is not in storage")
    with file:
        entries = index_entries(MPackReader(file))
        total = 0
        while batch := list(itertools.islice(entries, _BATCH)):
            contents.add_index_entries(db, mpack_id, batch)
            jobs.extend_lease(db, job_id, hub.settings.job_lease)
            reached("index.batch-written")
            db.commit()
            reached("index.batch-committed")
            total += len(batch)
    return total


def index_entries(reader: MPackReader) -> Iterator[contents.IndexEntry]:
    """Yield the index rows that an mpack's directory makes."""
    for entry in reader.directory():
        yield contents.IndexEntry(entry.object_id, entry.frame, entry.offset, entry.size)


def _try_later(hub: Hub, db: Database, job_id: str, reason: str, *, may_fail: bool) -> None:
    if not may_fail:
        logger.warning("job %s: %s; next attempt in %d s", job_id, reason, _OUTAGE_WAIT)
        jobs.settle_job(db, job_id, jobs.PENDING, error=reason, retry_in=_OUTAGE_WAIT, counts=False)
        db.commit()
        return
    job = jobs.find_job(db, job_id)
    attempts = 1 if job is None else job.attempts
    if attempts >= hub.settings.job_attempts:
        logger.error("job %s failed after %d attempts: %s", job_id, attempts, reason)
        jobs.settle_job(db, job_id, jobs.FAILED, error=reason)
    else:
        wait = _BACKOFF[min(attempts, len(_BACKOFF)) - 1]
        logger.warning("job %s: attempt %d: %s; next in %d s", job_id, attempts, reason, wait)
        jobs.settle_job(db, job_id, jobs.PENDING, error=reason, retry_in=wait)
    db.commit()
