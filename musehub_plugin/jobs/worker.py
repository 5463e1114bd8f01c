"""The worker: RQ's, bound to an app."""

from __future__ import annotations

import logging
from typing import Any

from flask import Flask
from redis import Redis
from rq import Queue, Worker
from rq.job import Job
from rq.serializers import JSONSerializer

from musehub_plugin.hub import EXTENSION_KEY, Hub
from musehub_plugin.jobs.queue import request_index
from musehub_plugin.store import mpacks

logger = logging.getLogger(__name__)


def job_class_for(app: Flask) -> type[Job]:
    """Return a job class whose jobs run in the app's context.

    The worker forks for each job, and a pooled connection that is used on both sides of a fork breaks both
    conversations; the child therefore starts with pools of its own.
    """

    class AppJob(Job):
        def perform(self) -> Any:
            hub: Hub = app.extensions[EXTENSION_KEY]
            with app.app_context():
                for engine in hub.sqlalchemy.engines.values():
                    engine.dispose(close=False)
                return super().perform()

    return AppJob


def requeue_pending(hub: Hub) -> int:
    """Put every mpack that its row calls `pending` on the queue again, and return how many there were."""
    db = hub.database()
    waiting = mpacks.pending_mpacks(db)
    db.rollback()
    for mpack_id in waiting:
        request_index(hub, db, mpack_id)
    return len(waiting)


def run_worker(app: Flask, *, burst: bool = False) -> None:
    """Work on the plugin's queue until told to stop, or with `burst` until it is empty.

    One worker serves one queue: RQ loses a job whose worker dies between two queues at the wrong moment.

    Raises:
        RuntimeError: no Redis is configured, so that jobs run in the web process.
    """
    hub: Hub = app.extensions[EXTENSION_KEY]
    if not hub.settings.redis_url:
        raise RuntimeError("MUSEHUB_REDIS_URL is not set: jobs run in the process that takes the push.")
    with app.app_context():
        found = requeue_pending(hub)
    if found:
        logger.info("worker: %d mpacks were waiting to be indexed", found)
    job_class = job_class_for(app)
    connection = Redis.from_url(hub.settings.redis_url)
    queue = Queue(hub.settings.queue, connection=connection, serializer=JSONSerializer, job_class=job_class)
    Worker([queue], connection=connection, serializer=JSONSerializer, job_class=job_class).work(burst=burst)
