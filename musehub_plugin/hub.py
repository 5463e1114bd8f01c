"""What one app's plugin consists of, once `init_app` has put it together."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Flask, current_app, g
from flask_sqlalchemy import SQLAlchemy

from musehub_plugin.access import Access, Hooks
from musehub_plugin.answercache import AnswerCache
from musehub_plugin.config import Settings
from musehub_plugin.framecache import FrameCache
from musehub_plugin.history import GraphCache
from musehub_plugin.pushroom import PushRoom
from musehub_plugin.storage.base import Storage
from musehub_plugin.storage.signing import UrlSigner
from musehub_plugin.store.session import Database, flask_route

EXTENSION_KEY = "musehub"
_DATABASE = "_musehub_database"


@dataclass(frozen=True)
class Hub:
    """One app's plugin: settings, parts and hooks. It lives in `app.extensions["musehub"]`."""

    settings: Settings
    sqlalchemy: SQLAlchemy
    storage: Storage
    signer: UrlSigner
    access: Access
    hooks: Hooks
    graphs: GraphCache
    frames: FrameCache
    answers: AnswerCache
    pushes: PushRoom

    def database(self) -> Database:
        """Return the unit of work on the host's session of the current app context."""
        # The object itself: each look through Flask's proxies takes 2 us.
        context = g._get_current_object()
        database: Database | None = context.get(_DATABASE)
        if database is None:
            database = Database(self.sqlalchemy.session, lambda: flask_route(self.sqlalchemy, self.settings.bind_key))
            setattr(context, _DATABASE, database)
        return database


def current_hub() -> Hub:
    """Return the hub of the current app.

    Raises:
        RuntimeError: the plugin is not initialised on the app.
    """
    hub: Hub | None = current_app_object().extensions.get(EXTENSION_KEY)
    if hub is None:
        raise RuntimeError("musehub-plugin is not initialised on this app: call MuseHub().init_app(app, db)")
    return hub


def current_app_object() -> Flask:
    """Return the current app itself, as the sender of a signal: the proxy would not compare equal to it."""
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]  # the proxy's own method
    return app
