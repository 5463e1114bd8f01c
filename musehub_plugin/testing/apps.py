"""Small Flask hosts with the plugin, for tests: SQLite, object storage in memory, callers known by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import Flask, Request
from flask.testing import FlaskClient
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import select

from musehub_plugin import Identity, InvalidCredentials, MuseHub
from musehub_plugin.auth.bearer import bearer_token
from musehub_plugin.hub import EXTENSION_KEY, Hub
from musehub_plugin.index import index_mpack
from musehub_plugin.models import Base
from musehub_plugin.store.jobs import INDEX, PENDING
from musehub_plugin.store.models import MusehubJob

if TYPE_CHECKING:
    from rq import SimpleWorker

BAD_TOKEN = "bad-token"  # noqa: S105 - what a test sends for credentials that do not hold
"""The token that `bearer_user` refuses, for tests of a 401."""


def bearer_user(request: Request) -> Identity | None:
    """Take the bearer token for the caller's user id: an identity loader for tests, which proves nothing.

    Raises:
        InvalidCredentials: the token is `BAD_TOKEN`, or none.
    """
    token = bearer_token(request)
    if token == BAD_TOKEN:
        raise InvalidCredentials("the token that never holds")
    return None if token is None else Identity(token, handle=token)


def make_app(directory: Path, config: Mapping[str, Any] | None = None, *, create_tables: bool = True) -> Flask:
    """Return a new app with the plugin on it; no context stays pushed.

    Args:
        directory: an empty folder for the database, where `config` names no other, and for the instance.
        config: Flask's and the plugin's settings. The defaults: a SQLite file, storage in memory, jobs in the process.
        create_tables: whether to make the plugin's tables where they are missing.
    """
    app = Flask("musehub_test_host", instance_path=str(directory.absolute()))
    app.config.update(
        TESTING=True,
        SECRET_KEY="musehub-test-host-secret-key",  # noqa: S106 - signs nothing outside of a test
        SQLALCHEMY_DATABASE_URI=f"sqlite:///{directory.absolute() / 'host.db'}",
        MUSEHUB_STORAGE="memory://",
    )
    app.config.update(config or {})
    db = SQLAlchemy()
    db.init_app(app)
    musehub = MuseHub()
    musehub.identity_loader(bearer_user)
    musehub.init_app(app, db)
    if create_tables:
        with app.app_context():
            Base.metadata.create_all(db.engines[hub_of(app).settings.bind_key])
    return app


def hub_of(app: Flask) -> Hub:
    """Return the plugin's parts on an app: settings, storage, hooks."""
    hub: Hub = app.extensions[EXTENSION_KEY]
    return hub


def close_app(app: Flask) -> None:
    """Close the database connections of an app."""
    with app.app_context():
        for engine in hub_of(app).sqlalchemy.engines.values():
            engine.dispose()


def client_for(app: Flask, identity: str | None = None) -> FlaskClient:
    """Return a test client that speaks for a user, on an app whose identity loader is `bearer_user`.

    Args:
        app: the app.
        identity: the user id, of characters that a bearer token may have (RFC 6750, section 2.1); None: anonymous.
    """
    client = app.test_client()
    if identity is not None:
        client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {identity}"
    return client


def run_jobs(app: Flask) -> int:
    """Do in this process what a worker would; return how many mpacks waited to be indexed.

    With Redis, what is on the queue is worked off first; then whatever its row says is not done, queued or not.
    """
    hub = hub_of(app)
    waiting = _waiting_mpacks(app)
    if hub.settings.redis_url:
        worker = _worker(app, hub)
        try:
            worker.work(burst=True, logging_level="WARNING")
        finally:
            worker.connection.close()
    for mpack_id in _waiting_mpacks(app):
        with app.app_context():
            index_mpack(hub, hub.database(), mpack_id)
    return len(waiting)


def _waiting_mpacks(app: Flask) -> list[str]:
    with app.app_context():
        rows = (
            hub_of(app)
            .database()
            .execute(
                select(MusehubJob.subject)
                .where(MusehubJob.kind == INDEX, MusehubJob.state == PENDING)
                .order_by(MusehubJob.created_at, MusehubJob.job_id)
            )
        )
        return list(rows.scalars())


def _worker(app: Flask, hub: Hub) -> SimpleWorker:
    from redis import Redis
    from rq import Queue, SimpleWorker
    from rq.job import Job
    from rq.serializers import JSONSerializer
    from rq.timeouts import TimerDeathPenalty

    class AppJob(Job):
        """A job that runs in the app's context, and in this process: its connections stay."""

        def perform(self) -> Any:
            with app.app_context():
                return super().perform()

    class InProcessWorker(SimpleWorker):
        """A worker whose time limit leaves SIGALRM to the test runner's."""

        death_penalty_class = TimerDeathPenalty

    connection = Redis.from_url(hub.settings.redis_url)
    queue = Queue(hub.settings.queue, connection=connection, serializer=JSONSerializer, job_class=AppJob)
    return InProcessWorker([queue], connection=connection, serializer=JSONSerializer, job_class=AppJob)
