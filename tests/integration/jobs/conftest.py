"""A hub on PostgreSQL, Redis and files, and workers in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from flask import Flask
from sqlalchemy import select

from musehub_plugin.store.models import MusehubJob
from musehub_plugin.testing.apps import close_app, hub_of, make_app
from musehub_plugin.testing.factories import History, create_repo
from tests.exchange import Caller

HOST = """
import json, os
from pathlib import Path
from musehub_plugin.testing.apps import make_app

def create_app():
    return make_app(Path(os.environ["HOST_FOLDER"]), json.loads(os.environ["HOST_CONFIG"]))
"""

Work = Callable[[], str]


@pytest.fixture
def connection(musehub_redis_url: str) -> Iterator[redis.Redis]:
    """An empty Redis."""
    with redis.Redis.from_url(musehub_redis_url) as connection:
        connection.flushdb()
        yield connection


@pytest.fixture
def config(postgres_config: dict[str, Any], musehub_redis_url: str, tmp_path: Path) -> dict[str, Any]:
    """Settings of the hub."""
    return {
        **postgres_config,
        "MUSEHUB_STORAGE": (tmp_path / "objects").as_uri(),
        "MUSEHUB_REDIS_URL": musehub_redis_url,
        "MUSEHUB_INDEX_INLINE": 0,
        # One job a push: the other kind has tests of its own.
        "MUSEHUB_REPACK_PACKS": 0,
        # Longer than any test: what was put on the queue is not due again before a test says so.
        "MUSEHUB_SWEEP_INTERVAL": 600,
    }


@pytest.fixture
def app(config: dict[str, Any], connection: redis.Redis, tmp_path: Path) -> Iterator[Flask]:
    """The hub, with the empty repo `alice/songs`."""
    app = make_app(tmp_path, config)
    with app.app_context():
        create_repo(hub_of(app).sqlalchemy.session)
    yield app
    close_app(app)


@pytest.fixture
def caller(app: Flask) -> Caller:
    """The owner of the repo."""
    return Caller(app, "alice")


@pytest.fixture
def work(config: dict[str, Any], tmp_path: Path) -> Work:
    """Runs `flask musehub worker --burst` in a process of its own, and returns its log."""
    (tmp_path / "host.py").write_text(HOST)

    def run() -> str:
        done = subprocess.run(
            [sys.executable, "-m", "flask", "--app", str(tmp_path / "host.py"), "musehub", "worker", "--burst"],
            env={**os.environ, "HOST_FOLDER": str(tmp_path), "HOST_CONFIG": json.dumps(config)},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    return run


def push(caller: Caller, content: bytes, branch: str = "main") -> str:
    """Push a commit with one file as a root of its own, and return its id."""
    history = History()
    head = history.commit({"a.txt": content}, message=branch)
    response = caller.push("alice/songs", history.pack(), head, branch=branch)
    assert response.status_code == 200, response.get_data(as_text=True)
    return head


def job_states(app: Flask) -> list[str]:
    """Return the state of every job that is recorded."""
    with app.app_context():
        return list(hub_of(app).database().execute(select(MusehubJob.state).order_by(MusehubJob.created_at)).scalars())
