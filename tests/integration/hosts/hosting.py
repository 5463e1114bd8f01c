"""Hosts put together by hand, and a round trip that shows that the plugin works in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flask import Flask

from musehub_plugin.hub import EXTENSION_KEY, Hub
from musehub_plugin.store import migrate
from musehub_plugin.testing.factories import History, create_repo
from tests.exchange import Caller, Pulled


def new_host(directory: Path, **config: Any) -> Flask:
    """Return a host without the plugin, whose database and instance folder are in `directory`."""
    app = Flask("host", instance_path=str(directory))
    app.config.update(
        TESTING=True,
        SECRET_KEY="the secret key of a host in tests",
        SQLALCHEMY_DATABASE_URI=f"sqlite:///{directory / 'host.db'}",
        MUSEHUB_STORAGE=(directory / "objects").as_uri(),
    )
    app.config.update(config)
    return app


def hub_of(app: Flask) -> Hub:
    """Return the plugin's parts on an app."""
    hub: Hub = app.extensions[EXTENSION_KEY]
    return hub


def make_tables(app: Flask) -> None:
    """Make the plugin's tables by its migrations, where the app keeps them."""
    hub = hub_of(app)
    with app.app_context():
        migrate.upgrade(hub.sqlalchemy.engines[hub.settings.bind_key])


def make_repo(app: Flask, slug: str = "songs", **options: Any) -> str:
    """Make the repo `alice/<slug>` and return its id."""
    with app.app_context():
        return create_repo(hub_of(app).sqlalchemy.session, "alice", slug, **options).repo_id


def close(app: Flask) -> None:
    """Close the database connections."""
    with app.app_context():
        for engine in hub_of(app).sqlalchemy.engines.values():
            engine.dispose()


def round_trip(caller: Caller, repo: str = "alice/songs", content: bytes = b"la la la") -> Pulled:
    """Push a commit with one file to `repo`, fetch it back, and return what came."""
    history = History()
    head = history.commit({"song.txt": content})
    response = caller.push(repo, history.pack(), head)
    assert response.status_code == 200, response.get_data(as_text=True)
    pulled = caller.pull(repo, [head])
    assert list(pulled.blobs.values()) == [content]
    return pulled
