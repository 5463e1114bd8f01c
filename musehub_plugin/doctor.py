"""Doctor: is everything there that the plugin needs? For `flask musehub doctor`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from flask import current_app
from flask.testing import EnvironBuilder
from redis import Redis
from redis.exceptions import RedisError, ResponseError
from rq import Queue, Worker
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from werkzeug.exceptions import HTTPException

from musehub_plugin.errors import StorageUnavailable, first_line
from musehub_plugin.hub import Hub
from musehub_plugin.storage.base import Pings, ServedByPlugin, ask
from musehub_plugin.store import migrate
from musehub_plugin.store.session import commits_each_statement, only_reads, sqlite_journal_mode
from musehub_plugin.web.blueprint import BLUEPRINT_NAME

_TIMEOUT = 3
_NO_EVICTION = "noeviction"


@dataclass(frozen=True)
class Finding:
    """One line of the report; `verdict` is `ok`, `warning` or `wrong`."""

    what: str
    verdict: str
    says: str


def examine(hub: Hub) -> list[Finding]:
    """Look at each part in turn. A part that does not answer is a finding, never an exception."""
    return [finding for look in (_database, _storage, _urls, _routes, _queue, _hooks) for finding in look(hub)]


def _database(hub: Hub) -> Iterator[Finding]:
    key = hub.settings.bind_key
    engine = hub.sqlalchemy.engines.get(key)
    if engine is None:
        yield Finding("database", "wrong", f"there is no engine for bind key {key!r} (MUSEHUB_BIND_KEY)")
        return
    try:
        current, head = migrate.current(engine), migrate.head()
        takes_no_writes, in_autocommit = only_reads(engine), commits_each_statement(engine)
    except SQLAlchemyError as error:
        # The driver's own words name neither password nor statement.
        said = error.orig if isinstance(error, DBAPIError) else error
        yield Finding("database", "wrong", f"does not answer: {first_line(said)}")
        return
    if current is not None and not migrate.is_known(current):
        says = f"tables at {current}, which a newer version of the plugin made; the newest of this one is {head}"
        yield Finding("database", "warning", says)
    elif current != head:
        yield Finding("database", "wrong", f"tables at {current}, newest is {head}: run flask musehub db upgrade")
    else:
        yield Finding("database", "ok", f"{engine.dialect.name}, tables at {current}")
    if takes_no_writes:
        says = "only reads: it is a standby, or default_transaction_read_only is on; nobody can push"
        yield Finding("database", "wrong", says)
    if in_autocommit:
        says = "is in autocommit, a push would not be all or nothing: leave isolation_level out of the engine's options"
        yield Finding("database", "wrong", says)
    if engine.dialect.name == "sqlite":
        if sqlite_journal_mode(engine) == "delete":
            yield Finding("database", "warning", "SQLite's readers wait for writers: set PRAGMA journal_mode = WAL")
    elif not getattr(engine.pool, "_pre_ping", False):
        yield Finding(
            "database",
            "warning",
            "requests fail when the server has closed a connection: set SQLALCHEMY_ENGINE_OPTIONS pool_pre_ping",
        )


def _storage(hub: Hub) -> Iterator[Finding]:
    name = type(hub.storage).__name__
    if isinstance(hub.storage, Pings):
        try:
            ask(hub.storage.ping)
        except StorageUnavailable as error:
            yield Finding("storage", "wrong", f"{name}: {error}")
            return
    yield Finding("storage", "ok", name)


def _urls(hub: Hub) -> Iterator[Finding]:
    if (isinstance(hub.storage, ServedByPlugin) or not hub.storage.supports_presign) and not hub.settings.public_url:
        yield Finding(
            "urls",
            "warning",
            "MUSEHUB_PUBLIC_URL is not set: mpack URLs work from this machine only",
        )
    else:
        yield Finding("urls", "ok", hub.settings.public_url or hub.settings.s3_public_endpoint or "by the storage")


def _routes(hub: Hub) -> Iterator[Finding]:
    """Ask the host's own map where requests go: of two rules that are alike, the first one that was added answers."""
    where = hub.settings.public_url or None
    resources = list(_resources())
    found = [_endpoint(method, path, where) for method, path, _ in resources]
    for (method, path, endpoint), answering in zip(resources, found, strict=True):
        if answering not in {endpoint, None}:
            says = f"{method} {path} is answered by the host's {answering!r}: move either, the plugin's with"
            yield Finding("routes", "wrong", f"{says} MUSEHUB_URL_PREFIX")
            return
    if where is not None and None in found:
        yield Finding("routes", "warning", f"no rule answers at {where}: does the app match hosts (host_matching)?")
    else:
        yield Finding("routes", "ok", f"{hub.settings.url_prefix}/<owner>/<slug>/... leads to the plugin")


def _resources() -> Iterator[tuple[str, str, str]]:
    """Yield the method, a path and the endpoint of each resource of a repo."""
    for rule in current_app.url_map.iter_rules():
        if rule.endpoint.startswith(f"{BLUEPRINT_NAME}."):
            path = rule.rule.replace("<owner>", "owner").replace("<slug>", "slug")
            yield "GET" if "GET" in (rule.methods or ()) else "POST", path, rule.endpoint


def _endpoint(method: str, path: str, base_url: str | None) -> str | None:
    # Not by a request context, which would open a session of the host's.
    environ = EnvironBuilder(current_app, path, base_url=base_url, method=method).get_environ()
    try:
        adapter = current_app.create_url_adapter(current_app.request_class(environ))
        return None if adapter is None else str(adapter.match()[0])
    except HTTPException:
        return None


def _queue(hub: Hub) -> Iterator[Finding]:
    if not hub.settings.redis_url:
        yield Finding("queue", "ok", "none: jobs run in the web process (MUSEHUB_REDIS_URL is not set)")
        return
    try:
        with Redis.from_url(hub.settings.redis_url, socket_connect_timeout=_TIMEOUT, socket_timeout=_TIMEOUT) as redis:
            policy = _eviction_policy(redis)
            # A killed worker's name stays until another worker looks; what it said of itself goes with time.
            names = Worker.all_keys(queue=Queue(hub.settings.queue, connection=redis))
            workers = redis.exists(*names) if names else 0
    except RedisError as error:
        yield Finding("queue", "wrong", f"Redis does not answer: {first_line(error)}")
        return
    if policy != _NO_EVICTION:
        yield Finding("queue", "warning", f"Redis may drop jobs: maxmemory-policy is {policy}, set noeviction")
    if not workers:
        says = f"no worker of queue {hub.settings.queue!r} is running: start flask musehub worker"
        yield Finding("queue", "warning", says)
    else:
        yield Finding("queue", "ok", f"Redis answers, {workers} workers")


def _eviction_policy(redis: Redis) -> str:
    try:
        return str(redis.config_get("maxmemory-policy").get("maxmemory-policy", _NO_EVICTION))
    except ResponseError:
        # Hosted ones let nobody ask, and have a page of their own for it.
        return _NO_EVICTION


def _hooks(hub: Hub) -> Iterator[Finding]:
    if hub.hooks.load_identity is None:
        yield Finding("hooks", "warning", "no identity_loader: every caller is anonymous, nobody can push")
    else:
        yield Finding("hooks", "ok", "identity_loader is set")
