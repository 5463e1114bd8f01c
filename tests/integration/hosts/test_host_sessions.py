"""The host's database session: what the plugin reads and writes through it, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask, Request, request
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.pool import NullPool
from werkzeug.test import TestResponse

from musehub_plugin import Identity, MuseHub
from musehub_plugin.models import MusehubObject
from musehub_plugin.testing.apps import bearer_user
from musehub_plugin.testing.factories import History
from musehub_plugin.testing.services import fresh_database
from tests.exchange import Caller
from tests.integration.hosts.conftest import MakeHost
from tests.integration.hosts.hosting import close, hub_of, make_repo, make_tables, new_host, round_trip


class Visited:
    """A host that adds a row for each visit in its identity loader, and commits it where it says so itself."""

    def __init__(self, folder: Path, database: str) -> None:
        self.app = new_host(folder)
        self.app.config["SQLALCHEMY_DATABASE_URI"] = database
        self.db = SQLAlchemy(self.app)
        db = self.db

        class Visit(db.Model):  # type: ignore[name-defined,misc]  # Flask-SQLAlchemy makes the class at run time
            id: Mapped[int] = mapped_column(primary_key=True)

        self.recording = False
        musehub = MuseHub()

        @musehub.identity_loader
        def load(request: Request) -> Identity | None:
            if self.recording:
                db.session.add(Visit())
                db.session.flush()
            return bearer_user(request)

        musehub.init_app(self.app, db)
        make_tables(self.app)
        with self.app.app_context():
            db.create_all()
        make_repo(self.app)
        self.caller = Caller(self.app, "alice")

    def visits(self) -> int:
        """Return how many visits another connection sees, as anything but this app would."""
        engine = create_engine(self.app.config["SQLALCHEMY_DATABASE_URI"], poolclass=NullPool)
        with engine.connect() as connection:
            return int(connection.execute(text("SELECT count(*) FROM visit")).scalar_one())

    def checked_out(self) -> int:
        """Return how many database connections are in use."""
        with self.app.app_context():
            return int(self.db.engine.pool.checkedout())  # type: ignore[attr-defined]  # a pool that counts


@pytest.fixture
def visited(tmp_path: Path, closing: Callable[[Flask], None]) -> Visited:
    host = Visited(tmp_path, f"sqlite:///{tmp_path / 'visited.db'}")
    closing(host.app)
    return host


@pytest.fixture
def visited_on_postgres(tmp_path: Path, musehub_postgres_url: str) -> Iterator[Visited]:
    with fresh_database(musehub_postgres_url) as url:
        host = Visited(tmp_path, url)
        yield host
        close(host.app)


@pytest.fixture(params=["visited", "visited_on_postgres"])
def visited_on_either(request: pytest.FixtureRequest) -> Visited:
    host: Visited = request.getfixturevalue(request.param)
    return host


Ask = Callable[[Caller, str], TestResponse]
READS: dict[str, Ask] = {
    "refs": lambda caller, head: caller.refs("alice/songs"),
    "negotiate": lambda caller, head: caller.negotiate("alice/songs", [head], [head]),
    "fetch": lambda caller, head: caller.fetch("alice/songs", [head]),
    "fetch of nothing new": lambda caller, head: caller.fetch("alice/songs", [head], [head]),
    "fetch of what is not there": lambda caller, head: caller.fetch("alice/songs", [head[:-1] + "0"]),
    "refs of no repo": lambda caller, head: caller.refs("alice/none"),
}


@pytest.mark.parametrize("read", READS)
def test_a_read_commits_nothing_of_the_host_s(visited_on_either: Visited, read: str) -> None:
    head = next(iter(round_trip(visited_on_either.caller).commits))
    visited_on_either.recording = True
    assert READS[read](visited_on_either.caller, head).status_code in {200, 404}
    assert visited_on_either.visits() == 0


def test_a_fetch_that_has_to_wait_for_the_index_commits_nothing_of_the_host_s(visited_on_either: Visited) -> None:
    host = visited_on_either
    history = History()
    head = history.commit({"a.txt": b"one"})
    host.caller.push("alice/songs", history.pack(), head)
    with host.app.app_context():
        host.db.session.execute(text("DELETE FROM musehub_mpack_index"))
        host.db.session.execute(text("UPDATE musehub_job SET state = 'pending'"))
        host.db.session.commit()
    host.recording = True
    assert host.caller.fetch("alice/songs", [head]).status_code == 503
    assert host.visits() == 0


@pytest.mark.parametrize("read", READS)
def test_no_answer_keeps_a_connection(visited: Visited, read: str) -> None:
    head = next(iter(round_trip(visited.caller).commits))
    READS[read](visited.caller, head)
    assert visited.checked_out() == 0


def refused_push(caller: Caller) -> TestResponse:
    history = History()
    head = history.commit({"a.txt": b"one"})
    return caller.push("alice/songs", history.pack(leave_out=list(history.blobs)), head)


def test_a_refused_push_keeps_no_transaction_and_no_connection(visited: Visited) -> None:
    assert refused_push(visited.caller).status_code == 422
    assert visited.checked_out() == 0


def test_a_refused_push_leaves_nothing_in_the_host_s_session(visited: Visited) -> None:
    left: list[tuple[bool, int, int]] = []

    @visited.app.after_request
    def look(response: TestResponse) -> TestResponse:
        if request.path.endswith("unpack-mpack"):
            session = visited.db.session
            left.append((session().in_transaction(), len(session.new), len(session.dirty)))
        return response

    assert refused_push(visited.caller).status_code == 422
    assert left == [(False, 0, 0)]


def test_a_refused_push_does_not_keep_the_host_from_working_on(visited: Visited) -> None:
    assert refused_push(visited.caller).status_code == 422
    round_trip(visited.caller)


def test_a_view_of_the_host_can_use_the_plugin_s_models_in_its_own_transaction(visited: Visited) -> None:
    object_id = next(iter(round_trip(visited.caller).blobs))
    with visited.app.app_context():
        session = visited.db.session
        session.get_one(MusehubObject, object_id).path = "renamed"
        session.rollback()
        assert session.get_one(MusehubObject, object_id).path == "song.txt"


def test_a_host_that_disposes_of_its_engine_may_drop_the_database(
    tmp_path: Path, musehub_postgres_url: str, closing: Callable[[Flask], None]
) -> None:
    with fresh_database(musehub_postgres_url) as url:
        app = new_host(tmp_path)
        app.config["SQLALCHEMY_DATABASE_URI"] = url
        db, musehub = SQLAlchemy(app), MuseHub()
        musehub.identity_loader(bearer_user)
        # The session is in use when the fetch needs a connection besides.
        musehub.access_policy(lambda identity, action, repo: bool(db.session.execute(text("SELECT true")).scalar()))
        musehub.init_app(app, db)
        closing(app)
        make_tables(app)
        make_repo(app)
        round_trip(Caller(app, "alice"))
        with app.app_context():
            db.engine.dispose()
        server = create_engine(musehub_postgres_url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        with server.connect() as connection:
            # PostgreSQL refuses while anybody is connected, after having waited for them for five seconds.
            connection.execute(text(f"DROP DATABASE {make_url(url).database}"))


def test_sqlite_with_a_pool_of_one_connection_serves_fetches(make_host: MakeHost) -> None:
    options = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 0.1}
    app = make_host(SQLALCHEMY_ENGINE_OPTIONS=options)
    round_trip(Caller(app, "alice"))


def test_the_app_s_context_ends_with_the_session_removed(visited: Visited) -> None:
    with visited.app.app_context():
        first = visited.db.session()
        hub_of(visited.app).database().dialect  # noqa: B018 - looks up the session
    with visited.app.app_context():
        assert visited.db.session() is not first
