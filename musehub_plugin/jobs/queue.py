"""Putting work on the queue."""

from __future__ import annotations

import logging
from functools import cache

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from rq import Queue
from rq.serializers import JSONSerializer
from sqlalchemy.exc import SQLAlchemyError

from musehub_plugin.errors import StorageUnavailable
from musehub_plugin.hub import Hub
from musehub_plugin.ids import to_hex
from musehub_plugin.index import index_mpack
from musehub_plugin.store.session import Database

logger = logging.getLogger(__name__)

INDEX_TASK = "musehub_plugin.jobs.tasks.index"
# A push must not wait for a Redis that is away; redis-py's own defaults retried for 3.8 s.
_ENQUEUE_TIMEOUT = 0.5
# Long enough to look at, short enough not to fill Redis: RQ's default is a year.
_FAILURE_TTL = 24 * 3600


def index_job_id(mpack_id: str) -> str:
    """Return the id of the RQ job that indexes an mpack; RQ allows neither ':' nor '.' in one."""
    return f"mpack-index-{to_hex(mpack_id)}"


def request_index(hub: Hub, db: Database, mpack_id: str) -> str:
    """See to it that a pushed mpack gets indexed, and return the job's id.

    Call it after the push is committed. Whatever fails here, the push stands: the mpack's row says `pending`, and that
    is enough for it to be found again.
    """
    job_id = index_job_id(mpack_id)
    if not hub.settings.redis_url:
        try:
            index_mpack(hub, db, mpack_id)
        except (StorageUnavailable, SQLAlchemyError) as error:
            db.rollback()
            logger.warning("index of mpack %s put off: %s", mpack_id, type(error).__name__)
        return job_id
    try:
        queue(hub).enqueue_call(
            INDEX_TASK,
            args=(mpack_id,),
            job_id=job_id,
            timeout=hub.settings.job_timeout,
            result_ttl=0,
            failure_ttl=_FAILURE_TTL,
            description=f"mpack.index {mpack_id}",
        )
    except RedisError as error:
        logger.warning("index of mpack %s put off: the queue is away: %s", mpack_id, type(error).__name__)
    return job_id


def queue(hub: Hub) -> Queue:
    """Return the queue, over a connection that fails fast. Nothing is sent until the queue is used."""
    return Queue(
        hub.settings.queue, connection=_fast_connection(hub.settings.redis_url), serializer=JSONSerializer
    )


@cache
def _fast_connection(url: str) -> Redis:
    """One pool per Redis and process; redis-py notices a fork by itself."""
    return Redis.from_url(
        url,
        socket_connect_timeout=_ENQUEUE_TIMEOUT,
        socket_timeout=_ENQUEUE_TIMEOUT,
        retry=Retry(NoBackoff(), 0),
    )
