"""A hub on real parts, and what tests can observe of it from outside of its code."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import minio
import psycopg2
from flask import Flask
from sqlalchemy import event, func, select
from sqlalchemy.orm import Session, scoped_session
from sqlalchemy.pool import Pool
from werkzeug.test import TestResponse

from musehub_plugin.config import Settings
from musehub_plugin.models import Base
from musehub_plugin.storage import FileStorage, Storage
from musehub_plugin.store import graphs
from musehub_plugin.testing.apps import close_app, hub_of, make_app, run_jobs
from musehub_plugin.testing.factories import create_repo
from tests.exchange import Caller

VARYING_HEADERS = {"Date", "X-Request-Id"}


@dataclass(frozen=True)
class Observed:
    """An answer, and what it took: SQL statements and calls of object storage, in their order."""

    response: TestResponse
    statements: tuple[str, ...]
    storage_calls: tuple[str, ...]

    @property
    def visible(self) -> tuple[int, bytes, list[tuple[str, str]]]:
        """What the caller sees: status, body, headers; without those that differ between any two answers."""
        headers = [(name, value) for name, value in self.response.headers.items() if name not in VARYING_HEADERS]
        return self.response.status_code, self.response.data, sorted(headers)


def assert_same(one: Observed, other: Observed) -> None:
    """Assert that two answers cannot be told apart, by what is in them or by what they took."""
    assert one.visible == other.visible
    assert one.statements == other.statements
    assert one.storage_calls == other.storage_calls


class HubEnvironment:
    """A hub whose database and object storage are real and empty.

    Args:
        name: which parts it has.
        directory: an empty folder.
        config: settings that name the parts; the tables are there.

    Attributes:
        app: the hub's app.
        storage: its object storage, whose calls `observe` sees.
    """

    def __init__(self, name: str, directory: Path, config: Mapping[str, Any]) -> None:
        self.name = name
        self._directory = directory
        self._config = dict(config)
        self._closing = ExitStack()
        self._apps = 0
        self._storage_calls: list[str] = []
        self.app = self.make_app()
        self.storage: Storage = hub_of(self.app).storage
        _record_calls(self.storage, self._storage_calls)

    def make_app(self, **config: Any) -> Flask:
        """Return another app on the same database and storage, with further settings."""
        directory = self._directory / f"app-{self._apps}"
        directory.mkdir()
        self._apps += 1
        # Two phases, so that what a fetch answers between them can be seen.
        app = make_app(directory, {"MUSEHUB_INDEX_INLINE": 0, **self._config, **config}, create_tables=False)
        self._closing.callback(close_app, app)
        return app

    def close(self) -> None:
        """Close every connection to the database."""
        self._closing.close()

    @property
    def settings(self) -> Settings:
        """The checked settings."""
        return hub_of(self.app).settings

    def caller(self, user: str | None = None) -> Caller:
        """Return somebody who talks to the hub; None is anonymous."""
        return Caller(self.app, user)

    @contextmanager
    def session(self) -> Iterator[Session | scoped_session[Any]]:
        """Give the host's database session, in an app context that ends with the block."""
        with self.app.app_context():
            yield hub_of(self.app).sqlalchemy.session

    def create_repo(self, repo: str = "alice/songs", **options: Any) -> str:
        """Make the repo `owner/slug`, which its owner's namesake owns, and return its id."""
        owner, slug = repo.split("/")
        with self.session() as session:
            return create_repo(session, owner, slug, **options).repo_id

    def add(self, *rows: Base) -> None:
        """Write rows as they are."""
        with self.session() as session:
            session.add_all(rows)
            session.commit()

    def run_jobs(self) -> int:
        """Do what a worker would."""
        return run_jobs(self.app)

    def observe(self, request: Callable[[], TestResponse]) -> Observed:
        """Send a request and note what it takes."""
        statements: list[str] = []
        history = f"EXECUTE {graphs.SEGMENT_DATA.name} "

        def note(statement: str) -> None:
            # A process reads a repo's packed history once, whoever asks for it first, and a connection makes each
            # statement ready once.
            if not statement.startswith(("PREPARE ", history)) and "musehub_graph_segment.data" not in statement:
                statements.append(statement)

        class NotingCursor(psycopg2.extensions.cursor):
            def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002 - its name there
                note(str(query))
                super().execute(query, vars)

        def note_core(connection: object, cursor: object, statement: str, *rest: object) -> None:
            note(statement)

        def note_all(connection: Any, *rest: object) -> None:
            connection.cursor_factory = NotingCursor

        def note_no_more(connection: Any, *rest: object) -> None:
            connection.cursor_factory = psycopg2.extensions.cursor

        with self.app.app_context():
            engines = list(hub_of(self.app).sqlalchemy.engines.values())
        self._storage_calls.clear()
        listeners: list[tuple[Any, str, Callable[..., None]]]
        if engines[0].dialect.name == "postgresql":
            # Not every statement goes by way of SQLAlchemy, nor every one to the host's own engine.
            listeners = [(Pool, "checkout", note_all), (Pool, "checkin", note_no_more)]
        else:
            listeners = [(engine, "before_cursor_execute", note_core) for engine in engines]
        for listener in listeners:
            event.listen(*listener)
        try:
            response = request()
            # A file is sent while it is read.
            response.get_data()
            response.close()
        finally:
            for listener in listeners:
                event.remove(*listener)
        return Observed(response, tuple(statements), tuple(self._storage_calls))

    def row_counts(self, *, besides: Iterable[str] = ()) -> dict[str, int]:
        """Return how many rows each table has.

        Args:
            besides: names of tables that are left out.
        """
        tables = [table for table in Base.metadata.sorted_tables if table.name not in besides]
        with self.session() as session:
            counts = {table.name: session.execute(select(func.count()).select_from(table)) for table in tables}
            return {name: count.scalar_one() for name, count in counts.items()}

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return every row of every table, sorted by its text."""
        with self.session() as session:
            return {
                table.name: sorted((tuple(row) for row in session.execute(select(table))), key=repr)
                for table in Base.metadata.sorted_tables
            }

    def stored_keys(self) -> set[str]:
        """Return the names of all that object storage holds, uploads included."""
        if isinstance(self.storage, FileStorage):
            files = (path for path in self.storage.root.rglob("*") if path.is_file())
            return {str(path.relative_to(self.storage.root)) for path in files}
        prefix = self._prefix()
        found = self._minio().list_objects(self._bucket(), prefix=prefix, recursive=True)
        return {str(item.object_name).removeprefix(prefix) for item in found}

    def replace_upload(self, upload_url: str, data: bytes) -> None:
        """Put other bytes where a ticket's upload goes, past every check of the upload itself."""
        path = unquote(urlsplit(upload_url).path)
        if isinstance(self.storage, FileStorage):
            self.storage.receive_upload(path.rpartition("/")[2], BytesIO(data), size=None, digest=None)
        else:
            key = path.removeprefix(f"/{self._bucket()}/")
            self._minio().put_object(self._bucket(), key, BytesIO(data), len(data))

    def _bucket(self) -> str:
        return urlsplit(str(self.settings.storage)).netloc

    def _prefix(self) -> str:
        return urlsplit(str(self.settings.storage)).path.strip("/") + "/"

    def _minio(self) -> minio.Minio:
        settings = self.settings
        endpoint = urlsplit(settings.s3_endpoint)
        return minio.Minio(
            endpoint.netloc,
            settings.s3_access_key,
            settings.s3_secret_key,
            region=settings.s3_region,
            secure=endpoint.scheme == "https",
        )


def _record_calls(storage: Storage, calls: list[str]) -> None:
    """Note the names of the methods that are called on `storage` from now on, its own calls of itself included."""

    def recorded(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return method(*args, **kwargs)

        return call

    for name in dir(type(storage)):
        if not name.startswith("_") and callable(getattr(type(storage), name)):
            setattr(storage, name, recorded(name, getattr(storage, name)))
