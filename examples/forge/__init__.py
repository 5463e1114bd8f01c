"""A small forge: accounts, repos with pages, and Muse hosting by musehub-plugin.

    flask --app examples/forge run

Everything of a Flask host is here in a small form: an app factory, tables of its own, sessions and API tokens, forms
with CSRF tokens, its own error pages. What Muse hosting takes is in `add_muse_hosting` and nowhere else.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

from flask import Flask, render_template
from flask_wtf.csrf import CSRFProtect

from musehub_plugin import MuseHub
from musehub_plugin.auth.bearer import token_identity
from musehub_plugin.auth.chain import first_of
from musehub_plugin.auth.flask_login import flask_login_identity

from . import accounts, commands, pages
from .tables import db, find_repo, find_token


def create_app(config: dict[str, Any] | None = None) -> Flask:
    """Return the forge.

    Args:
        config: settings that go before those of the environment (`FORGE_...`, such as `FORGE_MUSEHUB_PUBLIC_URL`).
            `FORGE_DATA`, or `DATA` here, is the folder for the database, files and the session key; left out, it is
            `forge-data` in the current folder.
    """
    config = dict(config or {})
    data = Path(config.pop("DATA", os.environ.get("FORGE_DATA", "forge-data"))).absolute()
    data.mkdir(parents=True, exist_ok=True)
    app = Flask(__name__, instance_path=str(data), static_url_path="/-/static")
    app.config.update(
        SQLALCHEMY_DATABASE_URI="sqlite:///forge.db",
        SESSION_COOKIE_SAMESITE="Lax",
        SECRET_KEY=kept_key(data / "session.key"),
    )
    app.config.from_prefixed_env("FORGE")
    app.config.update(config)

    db.init_app(app)
    CSRFProtect(app)
    accounts.init_app(app)
    app.register_blueprint(pages.blueprint)
    app.cli.add_command(commands.forge)
    app.register_error_handler(404, lambda error: (render_template("not_found.html"), 404))
    add_muse_hosting(app)

    # A first look starts with one command; a real host runs `flask musehub db upgrade` when it is deployed.
    if app.config["SQLALCHEMY_DATABASE_URI"] == "sqlite:///forge.db" and not (data / "forge.db").exists():
        commands.make_tables(app)
    return app


def add_muse_hosting(app: Flask) -> None:
    """Put Muse hosting on the app: the plugin, who is calling, and which repo has a name."""
    musehub = MuseHub()
    musehub.identity_loader(first_of(token_identity(find_token), flask_login_identity(handle_attr="handle")))
    musehub.repo_loader(find_repo)
    musehub.init_app(app, db)


def kept_key(path: Path) -> str:
    """Return the key in a file that only its owner may read; make it where there is none."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text(encoding="ascii")
    key = secrets.token_hex(32)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(key)
    return key
