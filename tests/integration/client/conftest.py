"""A hub on a loopback port, and git histories to bring to it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from flask import Flask
from werkzeug.serving import make_server

from musehub_plugin.client import HubTransport
from musehub_plugin.models import MusehubRepo
from musehub_plugin.testing.apps import close_app, hub_of, make_app

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


@dataclass
class LiveHub:
    """A hub that answers on a socket; the bearer token of a user is the user's name."""

    app: Flask
    origin: str

    def add_repo(self, slug: str, *, owner: str = "ada", visibility: str = "public") -> str:
        """Make a repo and return its URL."""
        with self.app.app_context():
            session = hub_of(self.app).sqlalchemy.session
            session.add(MusehubRepo(owner=owner, slug=slug, name=slug, visibility=visibility, owner_user_id=owner))
            session.commit()
        return f"{self.origin}/{owner}/{slug}"

    def transport(self, url: str, token: str | None = "ada") -> HubTransport:  # noqa: S107 - a user's name
        """Return a connection that never waits for long."""
        return HubTransport(url, token=token, timeout=120.0, wait_budget=20.0)


def _closed(app: Flask) -> WSGIApplication:
    """Return an app whose answers are closed when their client is gone.

    Werkzeug's server does not get to it where the connection was reset, as it is by a client that is killed.
    """

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        pieces = app(environ, start_response)
        try:
            yield from pieces
        finally:
            if hasattr(pieces, "close"):
                pieces.close()

    return answer


@pytest.fixture
def live_hub(tmp_path: Path) -> Iterator[LiveHub]:
    """A hub on SQLite and files."""
    folder = tmp_path / "hub"
    folder.mkdir()
    app = make_app(folder, {"MUSEHUB_STORAGE": (folder / "storage").as_uri()})
    server = make_server("127.0.0.1", 0, _closed(app), threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield LiveHub(app, f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    thread.join()
    server.server_close()
    close_app(app)
