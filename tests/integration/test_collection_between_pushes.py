"""A collection needs a moment without a push under way, and waits for one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Connection, create_engine

from musehub_plugin import gc
from musehub_plugin.ids import fake_id
from musehub_plugin.models import MusehubRepo
from musehub_plugin.store import locks
from musehub_plugin.store.models import MusehubUpload
from musehub_plugin.testing.apps import close_app, hub_of, make_app

UPLOADS = 3


@pytest.fixture
def app(postgres_config: dict[str, Any], tmp_path: Path) -> Iterator[Flask]:
    """A hub with expired tickets, and a deleted repo that holds nothing."""
    app = make_app(tmp_path, postgres_config, create_tables=False)
    long_ago = datetime.now(UTC) - timedelta(days=3)
    with app.app_context():
        session = hub_of(app).sqlalchemy.session
        session.add(MusehubRepo(owner="alice", slug="gone", deleted_at=long_ago))
        for number in range(UPLOADS):
            session.add(
                MusehubUpload(
                    upload_key=f"{number:064}",
                    repo_id="1",
                    user_id="1",
                    mpack_id=fake_id(str(number)),
                    size_bytes=1,
                    expires_at=long_ago,
                )
            )
        session.commit()
    yield app
    close_app(app)


@pytest.fixture
def push(postgres_config: dict[str, Any]) -> Iterator[Connection]:
    """The database's connection of a push that is under way."""
    engine = create_engine(postgres_config["SQLALCHEMY_DATABASE_URI"])
    with engine.connect() as connection:
        connection.execute(locks.SHARE_HISTORY)
        yield connection
    engine.dispose()


def collected(app: Flask) -> gc.Collected:
    with app.app_context():
        return gc.collect(hub_of(app), hub_of(app).database())


def test_a_removal_waits_for_a_moment_between_pushes(
    app: Flask, push: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(_: float) -> None:
        push.rollback()

    monkeypatch.setattr("musehub_plugin.gc.time.sleep", end)
    done = collected(app)
    assert (done.uploads, done.repos, done.busy_repos) == (UPLOADS, 1, 0)


def test_a_collection_does_not_wait_for_ever_for_a_push_that_takes_long(
    app: Flask, push: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("musehub_plugin.gc.time.sleep", pauses.append)
    monkeypatch.setattr(gc, "_MOMENTS", 4)
    monkeypatch.setattr(gc, "_ALL_MOMENTS", 10)
    done = collected(app)
    assert (done.uploads, done.repos, done.busy_repos) == (0, 0, 1)
    assert len(pauses) == 10
