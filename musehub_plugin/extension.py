"""`MuseHub`: what a host creates and initialises."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from flask import Flask, appcontext_pushed, has_request_context, request
from flask_sqlalchemy import SQLAlchemy

from musehub_plugin.access import Access, AccessPolicy, Hooks, IdentityLoader, RepoLoader
from musehub_plugin.answercache import AnswerCache
from musehub_plugin.cli import musehub as musehub_commands
from musehub_plugin.config import Settings, make_settings
from musehub_plugin.errors import ConfigError
from musehub_plugin.framecache import FrameCache
from musehub_plugin.history import GraphCache
from musehub_plugin.hub import EXTENSION_KEY, Hub, current_hub
from musehub_plugin.metrics import count_signals
from musehub_plugin.pushroom import PushRoom
from musehub_plugin.storage import FileStorage, UrlSigner, make_storage
from musehub_plugin.store.host_migrations import protect_from_autogenerate
from musehub_plugin.store.repos import find_repo
from musehub_plugin.store.session import make_sqlite_patient
from musehub_plugin.web.blueprint import (
    BLUEPRINT_NAME,
    MWP_BLUEPRINT_NAME,
    make_blueprint,
    make_mwp_blueprint,
)
from musehub_plugin.web.ops import make_ops_blueprint
from musehub_plugin.web.storage_routes import STORAGE_BLUEPRINT_NAME, make_storage_blueprint

logger = logging.getLogger(__name__)

# Small answers that a process keeps; some thousands.
_ANSWERS_BYTES = 8 * 1024 * 1024
_LOOPBACK = re.compile(r"(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]{1,5})?")

_I = TypeVar("_I", bound=IdentityLoader)
_R = TypeVar("_R", bound=RepoLoader)
_P = TypeVar("_P", bound=AccessPolicy)


class MuseHub:
    """Gives a Flask app Muse hosting.

        musehub = MuseHub()
        musehub.init_app(app, db)

    One instance may serve several apps: state is per app, in `app.extensions["musehub"]`; hooks are the instance's.

    Args:
        app: initialise this app at once.
        db: the host's Flask-SQLAlchemy instance; see `init_app`.
    """

    def __init__(self, app: Flask | None = None, db: SQLAlchemy | None = None) -> None:
        self._hooks = Hooks()
        if app is not None:
            self.init_app(app, db)

    def identity_loader(self, load: _I) -> _I:
        """Register the hook that says who is calling.

        `load(request)` returns an `Identity`, or None for an anonymous caller, or raises `InvalidCredentials` for
        credentials that are present and bad. Without a hook every caller is anonymous.
        """
        self._hooks.load_identity = load
        return load

    def repo_loader(self, load: _R) -> _R:
        """Register the hook that finds a repo in the host's own tables.

        `load(owner, slug)` returns anything with `repo_id`, `owner`, `slug`, `visibility` and `owner_user_id` (and,
        where it is not "main", `default_branch`), or None. Ids may be text, whole numbers or UUIDs: rows carry their
        text. Without a hook the plugin's own table is asked.
        """
        self._hooks.load_repo = load
        return load

    def access_policy(self, may: _P) -> _P:
        """Register the hook that decides.

        `may(identity, action, repo)` returns True to allow; `action` is "read", "write" or "admin". Without a hook a
        public repo is readable by all, and everything else is the owner's.
        """
        self._hooks.policy = may
        return may

    def init_app(self, app: Flask, db: SQLAlchemy | None = None) -> None:
        """Add the plugin to an app. Nothing is connected to.

        Args:
            app: the host's app. Its `MUSEHUB_*` keys are read and checked now (`musehub_plugin.config.Settings` lists
                them), and so is `SECRET_KEY`.
            db: the host's Flask-SQLAlchemy instance; left out, the one registered on `app`, and where there is none,
                one of the plugin's own on `SQLALCHEMY_DATABASE_URI` or a SQLite file in the instance folder.

        Raises:
            RuntimeError: the plugin is on this app already.
            ConfigError: a setting is wrong; the message names the key.
        """
        if EXTENSION_KEY in app.extensions:
            raise RuntimeError(
                "musehub-plugin is already initialised on this app: keep one MuseHub and call init_app once per app."
            )
        settings = make_settings(app.config, default_storage=_default_storage(app))
        if settings.bind_key is not None and settings.bind_key not in (app.config.get("SQLALCHEMY_BINDS") or {}):
            raise ConfigError(f"MUSEHUB_BIND_KEY: {settings.bind_key!r:.80} is not a key of SQLALCHEMY_BINDS")
        database = db or app.extensions.get("sqlalchemy") or _own_database(app)
        signer = UrlSigner(
            _signing_keys(app, settings),
            lambda: _base_url(app, settings),
            prefix=f"{settings.ops_prefix}/storage",
        )
        storage = make_storage(settings, signer)
        access = Access(self._hooks, lambda owner, slug: find_repo(current_hub().database(), owner, slug))
        app.extensions[EXTENSION_KEY] = Hub(
            settings,
            database,
            storage,
            signer,
            access,
            self._hooks,
            GraphCache(settings.graph_cache),
            FrameCache(settings.frame_cache),
            AnswerCache(_ANSWERS_BYTES),
            PushRoom(settings.push_room),
        )

        blueprint = make_blueprint(settings.url_prefix)
        storage_blueprint = make_storage_blueprint(
            lambda: storage, lambda: signer, retry_after=lambda: settings.retry_after
        )
        app.register_blueprint(blueprint)
        if settings.mwp_prefix is not None:
            app.register_blueprint(make_mwp_blueprint(settings.mwp_prefix))
        app.register_blueprint(storage_blueprint, url_prefix=settings.ops_prefix)
        app.register_blueprint(make_ops_blueprint(), url_prefix=settings.ops_prefix)
        count_signals()
        # When a context is pushed every extension of the host is there, whatever the order of their init_app.
        appcontext_pushed.connect(_exempt_from_csrf, app)
        # The entry point serves the flask command; this serves app.test_cli_runner().
        app.cli.add_command(musehub_commands)
        protect_from_autogenerate(app)


def _exempt_from_csrf(app: Flask, **_: Any) -> None:
    """Spare the plugin's routes Flask-WTF's tokens.

    Every POST needs a content type that no form can send, which is what a token would prove; a signed URL is
    permission by itself.
    """
    csrf = app.extensions.get("csrf")
    if csrf is not None:
        for name in (BLUEPRINT_NAME, MWP_BLUEPRINT_NAME, STORAGE_BLUEPRINT_NAME):
            if name in app.blueprints:
                csrf.exempt(app.blueprints[name])


def _default_storage(app: Flask) -> str:
    return (Path(app.instance_path) / "musehub-storage").as_uri()


def _own_database(app: Flask) -> SQLAlchemy:
    if not app.config.get("SQLALCHEMY_DATABASE_URI") and not app.config.get("SQLALCHEMY_BINDS"):
        app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///musehub.db"
    # A connection that a restarted server has closed is replaced, not answered with an error.
    app.config.setdefault("SQLALCHEMY_ENGINE_OPTIONS", {}).setdefault("pool_pre_ping", True)
    database = SQLAlchemy()
    database.init_app(app)
    with app.app_context():
        for engine in database.engines.values():
            make_sqlite_patient(engine)
    return database


def _signing_keys(app: Flask, settings: Settings) -> list[bytes]:
    """Return the keys of the plugin's own signed URLs: configured, else derived from SECRET_KEY, else kept in files."""
    if settings.signing_keys:
        return list(settings.signing_keys)
    secret = app.config.get("SECRET_KEY")
    if secret:
        older = app.config.get("SECRET_KEY_FALLBACKS") or []
        return [_derived_key(item) for item in (secret, *older)]
    if isinstance(settings.storage, FileStorage):
        return [settings.storage.own_key()]
    if isinstance(settings.storage, str) and settings.storage.startswith("file:"):
        return [FileStorage(unquote(urlsplit(settings.storage).path)).own_key()]
    logger.debug("no SECRET_KEY: URLs that the plugin signs hold for this process only")
    return [secrets.token_bytes(32)]


def _derived_key(secret: str | bytes) -> bytes:
    key = secret.encode() if isinstance(secret, str) else secret
    return hmac.new(key, b"musehub storage urls", hashlib.sha256).digest()


def _base_url(app: Flask, settings: Settings) -> str:
    """Return scheme and host for URLs that lead back to the plugin.

    They come from the configuration. A Host header is believed only where it names this very machine, so that a first
    look on a laptop works without any (ATTACKS S85).
    """
    if settings.public_url:
        return settings.public_url
    if not has_request_context():
        return "http://localhost"
    mount = request.environ.get("SCRIPT_NAME", "").rstrip("/")
    host = request.environ.get("HTTP_HOST", "")
    if _LOOPBACK.fullmatch(host):
        return f"{request.scheme}://{host}{mount}"
    logger.warning(
        "MUSEHUB_PUBLIC_URL is not set: URLs of files that the plugin serves name the address of this server"
    )
    return f"{request.scheme}://{request.environ['SERVER_NAME']}:{request.environ['SERVER_PORT']}{mount}"
