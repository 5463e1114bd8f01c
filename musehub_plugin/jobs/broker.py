"""The queue itself, in Redis.

Apart from `jobs.queue`, which imports it where it is used: Redis' client and RQ take 0.15 s of CPU to import and
7 MiB of memory, and most commands, and hosts without a queue, need neither.
"""

from __future__ import annotations

import logging
from functools import cache

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from rq import Queue
from rq.serializers import JSONSerializer

from musehub_plugin.hub import Hub

logger = logging.getLogger(__name__)

# A push must not wait for a Redis that is away; redis-py's own defaults retried for 3.8 s.
_ENQUEUE_TIMEOUT = 0.5
# A job may be on the queue twice, since a sweep does not know what waits there; when the second run ends, RQ looks the
# job up, and counts it as failed where the first one's end has removed it.
_RESULT_TTL = 600
# Long enough to look at, short enough not to fill Redis: RQ's default is a year.
_FAILURE_TTL = 24 * 3600


def put(hub: Hub, task: str, subject: str, job_id: str, description: str) -> None:
    """Put a job on the queue; a Redis that is away is logged, since the sweeper finds the job by its row.

    Args:
        hub: the app's plugin.
        task: the function that the worker runs, by its full name.
        subject: its one argument.
        job_id: the job's id, in its row and in Redis.
        description: what people see who look into the queue.
    """
    try:
        queue(hub).enqueue_call(
            task,
            args=(subject,),
            job_id=job_id,
            timeout=hub.settings.job_timeout,
            result_ttl=_RESULT_TTL,
            failure_ttl=_FAILURE_TTL,
            description=description,
        )
    except RedisError as error:
        logger.warning("job %s put off: the queue is away: %s", job_id, type(error).__name__)


def answers(hub: Hub) -> bool:
    """Say whether Redis answers, within half a second."""
    try:
        return bool(_fast_connection(hub.settings.redis_url).ping())
    except RedisError:
        return False


def queue(hub: Hub) -> Queue:
    """Return the queue, over a connection that fails fast. Nothing is sent until the queue is used."""
    return Queue(hub.settings.queue, connection=_fast_connection(hub.settings.redis_url), serializer=JSONSerializer)


@cache
def _fast_connection(url: str) -> Redis:
    """One pool per Redis and process; redis-py notices a fork by itself."""
    return Redis.from_url(
        url,
        socket_connect_timeout=_ENQUEUE_TIMEOUT,
        socket_timeout=_ENQUEUE_TIMEOUT,
        retry=Retry(NoBackoff(), 0),
    )
