"""The host of a race: callers are known by a bearer token that is their user id, settings come from the environment."""

from __future__ import annotations

import json
import os

from flask import Flask, Response, request
from flask_sqlalchemy import SQLAlchemy

from musehub_plugin import MuseHub
from musehub_plugin.access import text_id
from musehub_plugin.hub import current_hub
from musehub_plugin.repack import repack
from musehub_plugin.testing.apps import bearer_user

CONFIG_VARIABLE = "MUSEHUB_BENCH_CONFIG"
"""Holds Flask's and the plugin's settings as a JSON object."""

CEILING = "/-/ceiling"
"""A view that reads a small body and says "ok": nothing in Flask can answer faster."""

PACK_ANEW = "benchmarks.racing.host.pack_anew"
"""What a worker runs to pack all of a repo anew."""


def create_app() -> Flask:
    """Return the host."""
    app = Flask("musehub_bench_host", instance_path=os.getcwd())  # noqa: PTH109 - Flask wants text
    app.config.update(json.loads(os.environ[CONFIG_VARIABLE]))
    db = SQLAlchemy()
    db.init_app(app)
    musehub = MuseHub()
    musehub.identity_loader(bearer_user)
    musehub.init_app(app, db)

    @app.post(CEILING)
    def ceiling() -> Response:
        return Response(b"ok" if request.get_data() else b"empty", content_type="application/x-msgpack")

    return app


def pack_anew(owner: str, slug: str) -> float:
    """Pack all of a repo anew, in the app context that the worker provides; return the seconds that it took."""
    hub = current_hub()
    found = hub.access.find(owner, slug)
    if found is None:
        raise ValueError(f"there is no repo {owner}/{slug}")
    return repack(hub, hub.database(), text_id(found.repo_id), whole=True).seconds
