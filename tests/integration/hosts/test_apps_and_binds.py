"""App factories, several apps in one process, bind keys, and hosts without a database of their own."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from flask_sqlalchemy.session import Session
from sqlalchemy import Engine, create_engine, func, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import NullPool

from musehub_plugin import MuseHub
from musehub_plugin.errors import ConfigError
from musehub_plugin.models import MusehubRepo
from musehub_plugin.store import migrate
from musehub_plugin.testing.apps import bearer_user
from musehub_plugin.testing.services import fresh_database
from tests.exchange import Caller
from tests.integration.hosts.hosting import close, hub_of, make_repo, make_tables, new_host, round_trip

Closing = Callable[[Flask], None]


def rows(file: Path, table: str) -> int | None:
    """Return how many rows a table has, by asking the file itself; None where there is no such table."""
    connection = sqlite3.connect(file)
    try:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone():
            return None
        count: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 - a name of ours
        return count
    finally:
        connection.close()


def test_an_app_factory_makes_apps_that_share_nothing_but_code(tmp_path: Path, closing: Closing) -> None:
    db, musehub = SQLAlchemy(), MuseHub()
    musehub.identity_loader(bearer_user)

    def create_app(name: str) -> Flask:
        directory = tmp_path / name
        directory.mkdir()
        app = new_host(directory, MUSEHUB_PRESIGN_TTL=100 if name == "one" else 200)
        db.init_app(app)
        musehub.init_app(app, db)
        closing(app)
        make_tables(app)
        return app

    one, two = create_app("one"), create_app("two")
    make_repo(one)
    round_trip(Caller(one, "alice"))
    assert Caller(two, "alice").refs("alice/songs").status_code == 404
    assert rows(tmp_path / "one/host.db", "musehub_commit") == 1
    assert rows(tmp_path / "two/host.db", "musehub_commit") == 0
    assert [hub_of(app).settings.presign_ttl for app in (one, two)] == [100, 200]


@pytest.fixture
def two_apps(tmp_path: Path, closing: Closing) -> tuple[Flask, Flask]:
    """An app whose plugin tables are on the bind `muse`, and one without, on one MuseHub and one SQLAlchemy."""
    db, musehub = SQLAlchemy(), MuseHub()
    musehub.identity_loader(bearer_user)
    apps = []
    for name, config in {
        "bound": {"MUSEHUB_BIND_KEY": "muse", "SQLALCHEMY_BINDS": {"muse": f"sqlite:///{tmp_path / 'bound/muse.db'}"}},
        "plain": {},
    }.items():
        (tmp_path / name).mkdir()
        app = new_host(tmp_path / name, **config)
        db.init_app(app)
        musehub.init_app(app, db)
        closing(app)
        make_tables(app)
        apps.append(app)
    return apps[0], apps[1]


def test_with_a_bind_key_every_row_of_a_push_goes_to_that_database(
    two_apps: tuple[Flask, Flask], tmp_path: Path
) -> None:
    for app in two_apps:
        make_repo(app)
        round_trip(Caller(app, "alice"), content=app.config["MUSEHUB_STORAGE"].encode())
    for table in ("musehub_repo", "musehub_commit", "musehub_commit_ref", "musehub_branch", "musehub_mpack_index"):
        assert rows(tmp_path / "bound/muse.db", table) == 1, table
        assert rows(tmp_path / "bound/host.db", table) is None, table
        assert rows(tmp_path / "plain/host.db", table) == 1, table


def test_statements_of_the_host_go_to_the_database_of_the_app_at_hand(two_apps: tuple[Flask, Flask]) -> None:
    bound, plain = two_apps
    make_repo(bound, "only-bound")
    found = {}
    for app in (bound, plain, bound):
        with app.app_context():
            session = hub_of(app).sqlalchemy.session
            by_orm = session.query(MusehubRepo).count()
            by_select = session.execute(select(func.count()).select_from(MusehubRepo)).scalar_one()
            # Flask-SQLAlchemy routes a Core statement where it changes a table, and no Core select for any bind key.
            statement = update(MusehubRepo.metadata.tables["musehub_repo"]).values(name="x")
            by_update = session.execute(statement.returning(MusehubRepo.repo_id)).all()
            found[app] = (by_orm, by_select, len(by_update))
    assert found == {bound: (1, 1, 1), plain: (0, 0, 0)}


def test_a_context_within_another_app_s_context_has_its_own_database(two_apps: tuple[Flask, Flask]) -> None:
    bound, plain = two_apps
    make_repo(bound)
    with plain.app_context():
        assert Caller(bound, "alice").refs("alice/songs").status_code == 200
        assert hub_of(plain).sqlalchemy.session.query(MusehubRepo).count() == 0


def test_a_bind_key_without_its_database_is_refused_by_its_name(tmp_path: Path) -> None:
    app = new_host(tmp_path, MUSEHUB_BIND_KEY="muse")
    with pytest.raises(ConfigError, match="MUSEHUB_BIND_KEY"):
        MuseHub(app, SQLAlchemy(app))


def test_a_session_class_of_a_host_s_own_chooses_the_database_of_every_question(
    tmp_path: Path, musehub_postgres_url: str
) -> None:
    class AllElsewhere(Session):
        def get_bind(self, *_: Any, **__: Any) -> Engine:
            return self._db.engines["elsewhere"]

    with fresh_database(musehub_postgres_url) as default, fresh_database(musehub_postgres_url) as elsewhere:
        app = new_host(tmp_path, SQLALCHEMY_BINDS={"elsewhere": elsewhere})
        app.config["SQLALCHEMY_DATABASE_URI"] = default
        db = SQLAlchemy(app, session_options={"class_": AllElsewhere})
        musehub = MuseHub()
        musehub.identity_loader(bearer_user)
        musehub.init_app(app, db)
        for url in (default, elsewhere):
            migrate.upgrade(create_engine(url, poolclass=NullPool))
        make_repo(app)
        assert Caller(app, "alice").refs("alice/songs").status_code == 200
        close(app)


def test_a_host_without_a_database_gets_one_in_its_instance_folder(tmp_path: Path, closing: Closing) -> None:
    app = Flask("host", instance_path=str(tmp_path / "instance"))
    musehub = MuseHub(app)
    musehub.identity_loader(bearer_user)
    closing(app)
    make_tables(app)
    make_repo(app)
    round_trip(Caller(app, "alice"))
    assert rows(tmp_path / "instance/musehub.db", "musehub_commit") == 1


def test_a_host_s_registered_database_is_found_without_being_handed_over(tmp_path: Path, closing: Closing) -> None:
    app = new_host(tmp_path)
    db = SQLAlchemy(app)
    MuseHub(app)
    closing(app)
    assert hub_of(app).sqlalchemy is db


def test_a_host_with_a_declarative_base_of_its_own_kind_works(tmp_path: Path, closing: Closing) -> None:
    class HostBase(DeclarativeBase):
        pass

    app = new_host(tmp_path)
    db = SQLAlchemy(app, model_class=HostBase)

    class Account(db.Model):  # type: ignore[name-defined,misc]  # Flask-SQLAlchemy makes the class at run time
        id: Mapped[int] = mapped_column(primary_key=True)

    musehub = MuseHub(app, db)
    musehub.identity_loader(bearer_user)
    closing(app)
    make_tables(app)
    make_repo(app)
    round_trip(Caller(app, "alice"))


def test_a_second_init_app_on_one_app_is_refused_with_a_way_out(tmp_path: Path, closing: Closing) -> None:
    app = new_host(tmp_path)
    musehub = MuseHub(app, SQLAlchemy(app))
    closing(app)
    with pytest.raises(RuntimeError, match=r"already initialised .* once per app"):
        musehub.init_app(app)


def test_init_app_connects_to_nothing(tmp_path: Path) -> None:
    app = Flask("host", instance_path=str(tmp_path / "instance"))
    app.config.update(
        SQLALCHEMY_DATABASE_URI="postgresql+psycopg2://nobody@127.0.0.1:1/nowhere",
        MUSEHUB_STORAGE="s3://bucket",
        MUSEHUB_S3_ENDPOINT="http://127.0.0.1:1",
        MUSEHUB_S3_ACCESS_KEY="access",
        MUSEHUB_S3_SECRET_KEY="secret",
        MUSEHUB_REDIS_URL="redis://127.0.0.1:1/0",
    )
    MuseHub(app, SQLAlchemy(app))
    assert not (tmp_path / "instance" / "musehub-storage").exists()


def test_the_plugin_s_parts_are_reached_only_within_an_app_that_has_them() -> None:
    from musehub_plugin.hub import current_hub

    with Flask("bare").app_context(), pytest.raises(RuntimeError, match=r"MuseHub\(\).init_app"):
        current_hub()
