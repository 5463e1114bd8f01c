"""The plugin's migrations: up, down, twice, at once, and exactly what the models say."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine.interfaces import ReflectedIndex
from sqlalchemy.orm import Session

from musehub_plugin.ids import fake_id
from musehub_plugin.models import Base, MusehubBranch, MusehubRepo
from musehub_plugin.store import migrate
from musehub_plugin.store.host_migrations import VERSION_TABLE
from musehub_plugin.testing.services import fresh_database


def schema(engine: Engine) -> Mapping[str, Any]:
    """Return what the database itself says of each of the plugin's tables."""
    found = inspect(engine)
    return {
        name: {
            "columns": [
                (column["name"], str(column["type"]), column["nullable"], column["default"])
                for column in sorted(found.get_columns(name), key=lambda column: str(column["name"]))
            ],
            "primary key": found.get_pk_constraint(name),
            "indexes": sorted(map(_index, found.get_indexes(name))),
            "foreign keys": found.get_foreign_keys(name),
            "unique": found.get_unique_constraints(name),
        }
        for name in sorted(found.get_table_names())
        if name.startswith("musehub_") and name != VERSION_TABLE
    }


def _index(index: ReflectedIndex) -> tuple[str, str, bool, list[tuple[str, str]]]:
    # A partial index's condition is an object that equals no other.
    options = sorted((name, str(value)) for name, value in index.get("dialect_options", {}).items())
    return str(index["name"]), str(index["column_names"]), index["unique"], options


def test_after_upgrade_the_tables_are_as_the_models_say(engine: Engine) -> None:
    migrate.upgrade(engine)
    assert migrate.current(engine) == migrate.head()
    assert migrate.differences(engine) == []


def test_create_all_and_the_migrations_make_the_same_tables(engine: Engine, new_engine: Callable[[], Engine]) -> None:
    migrated, created = engine, new_engine()
    migrate.upgrade(migrated)
    Base.metadata.create_all(created)
    assert schema(migrated) == schema(created)
    assert schema(migrated).keys() == Base.metadata.tables.keys()


def test_downgrade_to_base_leaves_no_table_and_upgrade_makes_them_again(engine: Engine) -> None:
    migrate.upgrade(engine)
    before = schema(engine)
    migrate.downgrade(engine, "base")
    assert schema(engine) == {}
    assert migrate.current(engine) is None
    migrate.upgrade(engine)
    assert schema(engine) == before


def test_r35_each_revision_can_be_left_and_entered_again_with_rows_in_place(engine: Engine) -> None:
    migrate.upgrade(engine)
    with Session(engine) as session:
        session.add(MusehubRepo(repo_id="r", owner="alice", slug="songs", owner_user_id="1"))
        session.add(MusehubBranch(repo_id="r", name="main", head_commit_id=fake_id("head")))
        session.commit()
    while True:
        migrate.downgrade(engine, "-1")
        if migrate.current(engine) is None:
            break
        here = migrate.current(engine)
        migrate.upgrade(engine, "+1")
        migrate.downgrade(engine, str(here))
    migrate.upgrade(engine)
    assert migrate.differences(engine) == []


def test_upgrading_twice_changes_nothing(engine: Engine) -> None:
    migrate.upgrade(engine)
    with Session(engine) as session:
        session.add(MusehubRepo(repo_id="r", owner="alice", slug="songs", owner_user_id="1"))
        session.commit()
    before = schema(engine)
    migrate.upgrade(engine)
    with Session(engine) as session:
        assert session.get_one(MusehubRepo, "r").slug == "songs"
    assert schema(engine) == before


def test_the_host_s_tables_and_revision_stay_as_they_are(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('f00d')"))
        connection.execute(text("CREATE TABLE account (id INTEGER PRIMARY KEY)"))
    migrate.upgrade(engine)
    assert migrate.differences(engine) == []
    migrate.downgrade(engine, "base")
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == ["f00d"]
    assert set(inspect(engine).get_table_names()) - {VERSION_TABLE} == {"alembic_version", "account"}


def test_tables_of_create_all_can_be_stamped(engine: Engine) -> None:
    Base.metadata.create_all(engine)
    assert migrate.current(engine) is None
    migrate.stamp(engine)
    migrate.upgrade(engine)
    assert migrate.current(engine) == migrate.head()


def test_a_difference_is_found(engine: Engine) -> None:
    migrate.upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE musehub_object ADD COLUMN stray INTEGER"))
    assert "stray" in str(migrate.differences(engine))


DEPLOY = """
import sys
from sqlalchemy import create_engine
from musehub_plugin.store import migrate
engine = create_engine(sys.argv[1])
migrate.upgrade(engine)
print(migrate.current(engine))
"""
# The key that migrations/env.py locks.
ADVISORY_LOCK = 0x6D757365


def test_deployments_that_upgrade_at_once_take_turns(musehub_postgres_url: str) -> None:
    with fresh_database(musehub_postgres_url) as url, ExitStack() as stack:
        engine = create_engine(url)
        stack.callback(engine.dispose)
        with engine.connect() as holder, engine.connect() as watcher:
            holder.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
            deployments = [
                stack.enter_context(
                    subprocess.Popen([sys.executable, "-c", DEPLOY, url], stdout=subprocess.PIPE, text=True)
                )
                for _ in range(2)
            ]
            waiting = text(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
            while watcher.execute(waiting).scalar_one() < 2:
                assert [deployment.poll() for deployment in deployments] == [None, None]
                watcher.execute(text("SELECT pg_sleep(0.02)"))
        outcomes = [deployment.communicate(timeout=60)[0].strip() for deployment in deployments]
        assert outcomes == [migrate.head()] * 2
        assert migrate.differences(engine) == []


def test_the_host_s_time_limits_do_not_end_a_migration(musehub_postgres_url: str) -> None:
    limits = {"options": "-c statement_timeout=60s -c lock_timeout=60s"}
    with fresh_database(musehub_postgres_url) as url:
        engine = create_engine(url, connect_args=limits)
        found: dict[str, tuple[str, str]] = {}

        @event.listens_for(engine, "before_cursor_execute")
        def note(connection: object, cursor: Any, statement: str, *rest: object) -> None:
            if "pg_advisory_xact_lock" in statement or "CREATE TABLE musehub_branch" in statement:
                cursor.execute("SELECT current_setting('statement_timeout'), current_setting('lock_timeout')")
                found["its turn" if "lock" in statement else "its work"] = cursor.fetchone()

        try:
            migrate.upgrade(engine)
        finally:
            engine.dispose()
    assert found == {"its turn": ("0", "0"), "its work": ("0", "10s")}


def test_an_upgrade_that_fails_leaves_nothing_half_done(engine: Engine) -> None:
    with engine.begin() as connection:
        # In the way of one of the last tables that the first revision makes.
        connection.execute(text("CREATE TABLE musehub_snapshot_ref (id INTEGER PRIMARY KEY)"))
    with pytest.raises(Exception, match="musehub_snapshot_ref"):
        migrate.upgrade(engine)
    assert schema(engine).keys() == {"musehub_snapshot_ref"}
    assert migrate.current(engine) is None


def test_a_step_back_that_fails_half_way_leaves_all_as_it_was(engine: Engine) -> None:
    migrate.upgrade(engine)
    before = schema(engine)

    @event.listens_for(engine, "before_cursor_execute")
    def fail(connection: object, cursor: object, statement: str, *rest: object) -> None:
        if "DROP TABLE musehub_graph_segment" in statement:
            raise RuntimeError("the lights went out")

    with pytest.raises(RuntimeError, match="the lights went out"):
        migrate.downgrade(engine, "0002")
    assert schema(engine) == before
    assert migrate.current(engine) == migrate.head()


def test_a_host_that_begins_sqlite_s_transactions_itself_can_migrate(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'host.db'}")

    @event.listens_for(engine, "connect")
    def leave_transactions(connection: Any, record: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    try:
        migrate.upgrade(engine)
        migrate.downgrade(engine, "0002")
        migrate.upgrade(engine)
        assert migrate.differences(engine) == []
    finally:
        engine.dispose()
