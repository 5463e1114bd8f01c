"""A small host whose processes the fault tests start, hold, starve and kill.

`create_app` is what `flask --app tests.faults.forge_app` and gunicorn find; `serve` and `work` are the processes that
the laboratory forks, which takes a tenth of the time.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from werkzeug.serving import make_server

from musehub_plugin import MuseHub, fetch, index
from musehub_plugin.gc import collect
from musehub_plugin.hub import current_hub
from musehub_plugin.jobs.queue import sweep
from musehub_plugin.jobs.worker import run_worker
from musehub_plugin.models import MusehubRepo
from musehub_plugin.storage import s3
from musehub_plugin.store import locks
from musehub_plugin.testing.apps import bearer_user
from tests.faults.control import obey

CONFIG_VARIABLE = "MUSEHUB_FAULTS_CONFIG"
"""Path of a JSON file with the arguments of `create_app`."""


def create_app(config: Mapping[str, Any] | None = None, *, control: str = "", role: str = "web") -> Flask:
    """Return the host.

    Args:
        config: Flask's and the plugin's settings, and `LAB_...` of our own; left out: all arguments come from the file
            that the environment names.
        control: the folder of rules to obey; empty: none.
        role: what kind of process this is.
    """
    if config is None:
        given = json.loads(Path(os.environ[CONFIG_VARIABLE]).read_text())
        _tune(given["config"])
        return create_app(given["config"], control=given["control"], role=given["role"])
    app = Flask("musehub_faults_forge", instance_path=config["LAB_INSTANCE"])
    app.config.update(SECRET_KEY="the same in every process of the laboratory", **config)
    musehub = MuseHub()
    musehub.identity_loader(bearer_user)
    if config.get("LAB_OWN_DATABASE"):
        musehub.init_app(app)
    else:
        database = SQLAlchemy()
        database.init_app(app)
        musehub.init_app(app, database)
    if control:
        obey(Path(control), role, config["SQLALCHEMY_DATABASE_URI"])
    _add_routes(app)
    return app


def _tune(config: Mapping[str, Any]) -> None:
    """Change what is constant in the plugin, for all of this process."""
    # So that an mpack of a few blobs is indexed in several batches.
    index._BATCH = 2
    fetch._SPOOL_BYTES = config.get("LAB_SPOOL_BYTES", fetch._SPOOL_BYTES)
    locks._PATIENCE = config.get("LAB_PATIENCE", locks._PATIENCE)
    s3.READ_SECONDS = config.get("LAB_READ_SECONDS", s3.READ_SECONDS)
    if config.get("LAB_CLOCK_AHEAD"):
        _set_clock_ahead(timedelta(seconds=config["LAB_CLOCK_AHEAD"]))


def _add_routes(app: Flask) -> None:
    """Give the races what a host or an operator does, in the web process."""

    @app.post("/lab/index/<mpack_id>")
    def run_index(mpack_id: str) -> dict[str, int]:
        hub = current_hub()
        return {"blobs": index.index_mpack(hub, hub.database(), mpack_id)}

    @app.post("/lab/gc")
    def run_collection() -> dict[str, Any]:
        hub = current_hub()
        return dict(collect(hub, hub.database()).__dict__)

    @app.post("/lab/sweep")
    def run_sweep() -> dict[str, int]:
        hub = current_hub()
        return {"due": sweep(hub, hub.database())}

    @app.post("/lab/delete/<repo_id>")
    def delete_repo(repo_id: str) -> dict[str, str]:
        return _change_repo(repo_id, deleted_at=datetime.now(UTC))

    @app.post("/lab/hide/<repo_id>")
    def hide_repo(repo_id: str) -> dict[str, str]:
        return _change_repo(repo_id, visibility="private")

    def _change_repo(repo_id: str, **values: Any) -> dict[str, str]:
        session = current_hub().sqlalchemy.session
        repo = session.get(MusehubRepo, repo_id)
        for name, value in values.items():
            setattr(repo, name, value)
        session.commit()
        return {"repo_id": repo_id}


def _set_clock_ahead(by: timedelta) -> None:
    """Have the plugin see another time than the database does."""

    class Ahead(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]  # a plain datetime is what callers get
            return datetime.now(tz) + by

    for name, module in list(sys.modules.items()):
        if name.startswith("musehub_plugin.") and getattr(module, "datetime", None) is datetime:
            module.datetime = Ahead  # type: ignore[attr-defined]  # it has one, as was just seen


def serve(config: Mapping[str, Any], control: str, log: str, started: Connection) -> None:
    """Serve the host on a loopback port, which is sent through `started`; never returns."""
    _log_to(log)
    _tune(config)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, create_app(config, control=control), threaded=True)
    started.send(server.server_port)
    server.serve_forever()


def work(config: Mapping[str, Any], control: str, log: str, burst: bool) -> None:
    """Run a worker until it is stopped, or until the queue is empty."""
    _log_to(log)
    _tune(config)
    run_worker(create_app(config, control=control, role="worker"), burst=burst)


def _log_to(log: str) -> None:
    # A group of its own: what a test ends takes its children along.
    os.setsid()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
