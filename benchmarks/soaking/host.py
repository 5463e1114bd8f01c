"""The host of a soak: callers are known by a bearer token that is their user id, settings come from the environment."""

from __future__ import annotations

import json
import os

from flask import Flask
from flask_sqlalchemy import SQLAlchemy

from musehub_plugin import MuseHub
from musehub_plugin.testing.apps import bearer_user

CONFIG_VARIABLE = "MUSEHUB_SOAK_CONFIG"
"""Holds Flask's and the plugin's settings as a JSON object."""

# As docs/operations.md recommends them.
ENGINE_OPTIONS = {
    "pool_pre_ping": True,
    "pool_timeout": 10,
    "connect_args": {"connect_timeout": 3, "options": "-c lock_timeout=10s -c statement_timeout=60s"},
}


def create_app() -> Flask:
    """Return the host."""
    app = Flask("musehub_soak_host", instance_path=os.getcwd())  # noqa: PTH109 - Flask wants text
    app.config.update(json.loads(os.environ[CONFIG_VARIABLE]), SQLALCHEMY_ENGINE_OPTIONS=ENGINE_OPTIONS)
    db = SQLAlchemy()
    db.init_app(app)
    musehub = MuseHub()
    musehub.identity_loader(bearer_user)
    musehub.init_app(app, db)
    return app
