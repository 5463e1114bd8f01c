"""What the hub knows of its queue: which workers are running, whatever Redis lets be asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from flask import Flask
from redis import Redis
from rq import Queue, Worker
from rq.serializers import JSONSerializer

from musehub_plugin.doctor import examine
from musehub_plugin.jobs.worker import worker_class_for
from musehub_plugin.testing.apps import close_app, hub_of, make_app


@pytest.fixture
def worker(app: Flask, connection: Redis) -> Worker:
    """A worker of the hub's queue that has said that it is there."""
    return born(Worker, connection, hub_of(app).settings.queue)


def born(kind: type[Worker], connection: Redis, queue: str) -> Worker:
    worker = kind([Queue(queue, connection=connection)], connection=connection, serializer=JSONSerializer)
    worker.register_birth()  # type: ignore[no-untyped-call]  # untyped in RQ
    return worker


def verdict(app: Flask) -> str:
    """Return what `flask musehub doctor` says of the queue."""
    with app.app_context():
        (found,) = (finding for finding in examine(hub_of(app)) if finding.what == "queue")
    return f"{found.verdict}: {found.says}"


def test_a_worker_that_is_there_is_counted(app: Flask, worker: Worker) -> None:
    assert verdict(app) == "ok: Redis answers, 1 workers"


def test_a_worker_that_was_killed_is_not_running(app: Flask, worker: Worker, connection: Redis) -> None:
    # What it last said of itself ends by itself; its name stays until another worker looks.
    connection.delete(worker.key)
    assert verdict(app).startswith("warning: no worker of queue 'musehub' is running")


def test_a_worker_of_the_host_s_own_jobs_is_none_of_the_hub_s(app: Flask, connection: Redis) -> None:
    born(Worker, connection, "default")
    assert verdict(app).startswith("warning: no worker")


def test_a_worker_is_known_again_to_a_redis_that_came_back_empty(app: Flask, connection: Redis) -> None:
    worker = born(worker_class_for(app), connection, hub_of(app).settings.queue)
    connection.flushdb()
    worker.heartbeat()
    worker.run_maintenance_tasks()  # type: ignore[no-untyped-call]  # untyped in RQ
    assert verdict(app) == "ok: Redis answers, 1 workers"


def test_a_redis_that_does_not_say_how_it_is_set_up_answers_all_the_same(
    app: Flask, config: dict[str, Any], connection: Redis, worker: Worker, tmp_path: Path
) -> None:
    connection.acl_setuser("tenant", enabled=True, nopass=True, keys="*", categories=["+@all"], commands=["-config"])
    parts = urlsplit(config["MUSEHUB_REDIS_URL"])
    url = urlunsplit(parts._replace(netloc=f"tenant:any@{parts.netloc.rpartition('@')[2]}"))
    hosted = make_app(tmp_path, {**config, "MUSEHUB_REDIS_URL": url})
    assert verdict(hosted) == "ok: Redis answers, 1 workers"
    connection.acl_deluser("tenant")
    close_app(hosted)
