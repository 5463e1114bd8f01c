"""The worker: RQ's, bound to an app."""

from __future__ import annotations

import gc
import logging
from typing import Any

from flask import Flask
from redis import Redis
from rq import Queue, Worker
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.worker_registration import register
from sqlalchemy.exc import SQLAlchemyError

from musehub_plugin.hub import EXTENSION_KEY, Hub
from musehub_plugin.jobs.queue import sweep
from musehub_plugin.repack import rehearse_repack_job
from musehub_plugin.store.session import hide_values

logger = logging.getLogger(__name__)


def job_class_for(app: Flask) -> type[Job]:
    """Return a job class whose jobs run in the app's context.

    The worker forks for each job, and a pooled connection that is used on both sides of a fork breaks both
    conversations; the child therefore starts with pools of its own.
    """

    class AppJob(Job):
        def perform(self) -> Any:
            hub: Hub = app.extensions[EXTENSION_KEY]
            # What a job keeps goes with its process: to compress a frame takes longer than to read it once more.
            hub.frames.passing = True
            # What the worker has imported stays: to look through it for garbage took up to a tenth of a repack's CPU.
            gc.freeze()
            # Hardly anything that it makes is not freed by itself: another 3 %.
            gc.set_threshold(20_000, 20, 20)
            with app.app_context():
                for engine in hub.sqlalchemy.engines.values():
                    engine.dispose(close=False)
                try:
                    return super().perform()
                except SQLAlchemyError as error:
                    # RQ logs it, and keeps it in Redis.
                    hide_values(error)
                    raise

    return AppJob


def worker_class_for(app: Flask) -> type[Worker]:
    """Return a worker class that sweeps whenever RQ does its own maintenance."""

    class SweepingWorker(Worker):
        def run_maintenance_tasks(self) -> None:
            super().run_maintenance_tasks()  # type: ignore[no-untyped-call]  # untyped in RQ
            # A worker says once that it is there, and a Redis that came back empty does not know it any more.
            register(self)
            sweep_quietly(app)

    return SweepingWorker


def sweep_quietly(app: Flask) -> None:
    """Sweep; a database that is away is logged, since the next sweep is soon."""
    hub: Hub = app.extensions[EXTENSION_KEY]
    with app.app_context():
        try:
            found = sweep(hub, hub.database())
        except SQLAlchemyError as error:
            logger.warning("sweep put off: %s", type(error).__name__)
        else:
            if found:
                logger.info("sweep: %d jobs were due", found)


def rehearse_quietly(app: Flask) -> None:
    """Rehearse, so that the processes of jobs begin with what that leaves; a database that is away is logged."""
    hub: Hub = app.extensions[EXTENSION_KEY]
    with app.app_context():
        try:
            rehearse_repack_job(hub, hub.database())
        except SQLAlchemyError as error:
            logger.warning("jobs begin slowly: %s", type(error).__name__)


def run_worker(app: Flask, *, burst: bool = False) -> None:
    """Work on the plugin's queue until told to stop, or with `burst` until it is empty.

    One worker serves one queue: RQ loses a job whose worker dies between two queues at the wrong moment.

    Raises:
        RuntimeError: no Redis is configured, so that jobs run in the web process.
    """
    hub: Hub = app.extensions[EXTENSION_KEY]
    if not hub.settings.redis_url:
        raise RuntimeError("MUSEHUB_REDIS_URL is not set: jobs run in the process that takes the push.")
    sweep_quietly(app)
    rehearse_quietly(app)
    job_class = job_class_for(app)
    connection = Redis.from_url(hub.settings.redis_url)
    queue = Queue(hub.settings.queue, connection=connection, serializer=JSONSerializer, job_class=job_class)
    worker = worker_class_for(app)(
        [queue],
        connection=connection,
        serializer=JSONSerializer,
        job_class=job_class,
        maintenance_interval=hub.settings.sweep_interval,
        # RQ waits for a job for 15 seconds less than this, and does its maintenance between waits.
        worker_ttl=hub.settings.sweep_interval + 15,
    )
    worker.work(burst=burst)
