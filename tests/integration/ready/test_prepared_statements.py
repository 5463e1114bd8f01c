"""The short way to the database: what it reads, and what happens where it is not to be had."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg2.extensions
import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.pool import NullPool

from musehub_plugin.history import GraphCache
from musehub_plugin.ids import PREFIX, fake_id, from_digest
from musehub_plugin.repack import rehearse_repack_job, run_repack_job
from musehub_plugin.store import jobs
from musehub_plugin.store.builds import take_build
from musehub_plugin.store.commits import held_commits
from musehub_plugin.store.fetch_packs import is_file_needed, keep_fetch_pack
from musehub_plugin.store.fetch_plans import find_plan
from musehub_plugin.store.manifests import manifests
from musehub_plugin.store.repos import find_repo
from musehub_plugin.store.session import Database
from musehub_plugin.testing.apps import hub_of
from musehub_plugin.testing.factories import History, create_repo
from tests.environment import HubEnvironment

_MANY_COMMITS = """
    INSERT INTO musehub_commit_ref (repo_id, commit_id)
    SELECT 'a repo', sha256(number::text::bytea) FROM generate_series(1, 20000) AS number
"""


# Twenty chains of a hundred rows, each of which changes nothing.
_CHAINS = """
    INSERT INTO musehub_snapshot (snapshot_id, base_id, delta_blob, entry_count, directories, created_at)
    SELECT sha256(number::text::bytea),
           CASE WHEN number % 100 > 0 THEN sha256((number - 1)::text::bytea) END,
           '\\x939090c400'::bytea, 0, '[]', now()
    FROM generate_series(0, 1999) AS number
"""
_HELD = """
    INSERT INTO musehub_snapshot_ref (repo_id, snapshot_id) SELECT 'a repo', snapshot_id FROM musehub_snapshot
"""
_SCANS = "SELECT seq_scan FROM pg_stat_xact_user_tables WHERE relname = 'musehub_snapshot'"


@pytest.fixture
def hub(tmp_path: Path, postgres_config: dict[str, Any], files_config: dict[str, Any]) -> Iterator[HubEnvironment]:
    """A hub on PostgreSQL with one repo."""
    environment = HubEnvironment("postgresql", tmp_path, {**postgres_config, **files_config})
    environment.create_repo("alice/songs")
    yield environment
    environment.close()


def finds(database: Database, slug: str) -> bool:
    return find_repo(database, "alice", slug) is not None


def on_all_connections(hub: HubEnvironment, statement: str) -> None:
    """Run a statement on every connection that the app has, behind its back."""
    with hub.session() as session:
        engine: Any = session.get_bind()
        held: list[Any] = [engine.raw_connection() for _ in range(engine.pool.checkedin())]
        for pooled in held:
            pooled.dbapi_connection.autocommit = True
            pooled.dbapi_connection.cursor().execute(statement)
            pooled.dbapi_connection.autocommit = False
        for pooled in held:
            pooled.close()


def cut_connections(hub: HubEnvironment, url: str) -> None:
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )


def notes(hub: HubEnvironment, database: Database, name: str) -> bool:
    """Note that a pack is about to be stored, and say whether another connection sees it."""
    mpack_id = fake_id(name)
    keep_fetch_pack(database, mpack_id, 1)
    with hub.session() as session:
        return is_file_needed(Database(session), mpack_id)


def pushed(hub: HubEnvironment) -> tuple[str, list[str]]:
    """Push two commits, one after the other; return the repo's id, and theirs."""
    history = History()
    made: list[str] = []
    for number in range(2):
        before, made = made, [*made, history.commit({"a.txt": f"{number}".encode()}, made)]
        assert hub.caller("alice").push("alice/songs", history.pack(have=before), made[-1]).status_code == 200
    with hub.session() as session:
        found = find_repo(Database(session), "alice", "songs")
        assert found is not None
        return found.repo_id, made


def test_history_that_is_read_anew_begins_no_unit_of_work(hub: HubEnvironment) -> None:
    repo_id, made = pushed(hub)
    with hub.session() as session:
        database = Database(session)
        assert len(GraphCache(1 << 20).load(database, repo_id)) == len(made)
        assert not database.has_begun


def test_a_job_that_has_little_to_do_compiles_nothing_after_a_rehearsal(hub: HubEnvironment) -> None:
    repo_id, _ = pushed(hub)
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    with hub.app.app_context():
        plugin = hub_of(hub.app)
        database = plugin.database()
        jobs.add_job(database, jobs.repack_job_id(repo_id), jobs.REPACK, repo_id)
        database.commit()
        with hub.session() as session:
            engine = session.get_bind()
        event.listen(engine, "before_cursor_execute", note)
        try:
            rehearse_repack_job(plugin, database)
            rehearsed = set(statements)
            statements.clear()
            run_repack_job(plugin, database, repo_id)
        finally:
            event.remove(engine, "before_cursor_execute", note)
    assert statements
    assert set(statements) <= rehearsed


def test_a_rehearsal_leaves_nothing_behind(hub: HubEnvironment) -> None:
    pushed(hub)
    with hub.app.app_context():
        database = hub_of(hub.app).database()
        rehearse_repack_job(hub_of(hub.app), database)
        assert (database.has_begun, find_plan(database, from_digest(bytes(32)))) == (False, None)


def test_a_note_is_permanent_and_begins_no_unit_of_work(hub: HubEnvironment) -> None:
    with hub.session() as session:
        database = Database(session)
        assert notes(hub, database, "a")
        assert not database.has_begun


def test_a_note_has_no_part_in_a_unit_of_work_that_has_begun(hub: HubEnvironment) -> None:
    with hub.session() as session:
        database = Database(session)
        session.execute(text("UPDATE musehub_repo SET slug = 'renamed'"))
        assert notes(hub, database, "a")
        session.rollback()
        assert finds(database, "songs")


def test_a_note_is_made_where_a_pooler_did_not_keep_its_statement(hub: HubEnvironment) -> None:
    with hub.session() as session:
        database = Database(session)
        assert notes(hub, database, "a")
        on_all_connections(hub, "DEALLOCATE ALL")
        assert notes(hub, database, "b")


def test_a_note_is_made_where_its_connection_was_cut(hub: HubEnvironment, postgres_config: dict[str, Any]) -> None:
    with hub.session() as session:
        database = Database(session)
        assert notes(hub, database, "a")
        cut_connections(hub, postgres_config["SQLALCHEMY_DATABASE_URI"])
        assert notes(hub, database, "b")


def test_a_build_is_taken_by_one_and_again_by_the_same(hub: HubEnvironment) -> None:
    with hub.session() as session:
        database = Database(session)
        took = [take_build(database, fake_id("a"), "a repo", holder, 60, 9) for holder in ("x", "y", "x")]
    assert took == [True, False, True]


def test_a_build_is_taken_over_where_the_lease_has_ended(hub: HubEnvironment) -> None:
    with hub.session() as session:
        database = Database(session)
        took = [take_build(database, fake_id("a"), "a repo", holder, -1, 9) for holder in ("x", "y")]
    assert took == [True, True]


def test_builds_whose_lease_has_ended_are_not_counted(hub: HubEnvironment) -> None:
    with hub.session() as session:
        database = Database(session)
        took = [
            take_build(database, fake_id(name), "a repo", "x", seconds, 1) for name, seconds in (("a", -1), ("b", 60))
        ]
    assert took == [True, True]


def test_no_more_builds_are_taken_than_may_be_made(hub: HubEnvironment) -> None:
    with hub.session() as session:
        database = Database(session)
        took = [take_build(database, fake_id(name), "a repo", "x", 60, 2) for name in ("a", "b", "c")]
    assert took == [True, True, False]


def test_a_question_of_one_value_is_not_planned_anew_each_time(hub: HubEnvironment) -> None:
    with hub.session() as session:
        session.execute(text(_MANY_COMMITS))
        session.commit()
        session.execute(text("ANALYZE musehub_commit_ref"))
        session.commit()
        session.get_bind().engine.dispose()
        database = Database(session)
        for number in range(12):
            held_commits(database, "a repo", [fake_id(f"{number}")])
        planned = session.execute(
            text("SELECT custom_plans FROM pg_prepared_statements WHERE statement LIKE '%musehub_commit_ref%'")
        ).scalar_one()
    # PostgreSQL looks at five plans of their own before it keeps one for all.
    assert planned <= 5


@pytest.mark.parametrize("numbers", [(99,), (99, 199), (99, 199, 299)], ids=["one", "two", "three"])
def test_chains_of_snapshots_are_followed_without_reading_the_whole_table(
    hub: HubEnvironment, numbers: tuple[int, ...]
) -> None:
    with hub.session() as session:
        for statement in (_CHAINS, _HELD, "ANALYZE musehub_snapshot"):
            session.execute(text(statement))
        session.commit()
        # From here on by the session's transaction, which can be asked what it did.
        before = session.execute(text(_SCANS)).scalar_one()
        snapshot_ids = [PREFIX + sha256(str(number).encode()).hexdigest() for number in numbers]
        found = dict(manifests(Database(session), "a repo", snapshot_ids))
        scans = session.execute(text(_SCANS)).scalar_one() - before
    assert (found, scans) == ({snapshot_id: {} for snapshot_id in snapshot_ids}, 0)


def test_a_question_begins_no_unit_of_work(hub: HubEnvironment) -> None:
    with hub.session() as session:
        database = Database(session)
        assert finds(database, "songs")
        assert not database.has_begun


def test_what_a_unit_of_work_has_written_is_found_in_it(hub: HubEnvironment) -> None:
    with hub.session() as session:
        database = Database(session)
        session.execute(text("UPDATE musehub_repo SET slug = 'renamed'"))
        assert finds(database, "renamed")
        session.rollback()
        assert not finds(database, "renamed")


def test_what_another_has_committed_is_found_at_once(hub: HubEnvironment) -> None:
    with hub.session() as session:
        database = Database(session)
        assert not finds(database, "more")
        with hub.app.app_context():
            create_repo(session, "alice", "more")
        assert finds(database, "more")


def test_a_host_that_comes_after_a_question_has_its_transactions(hub: HubEnvironment) -> None:
    with hub.session() as session:
        assert finds(Database(session), "songs")
        session.execute(text("UPDATE musehub_repo SET slug = 'renamed'"))
        session.rollback()
        assert finds(Database(session), "songs")


def test_a_host_that_comes_after_a_block_of_questions_has_its_transactions(hub: HubEnvironment) -> None:
    with hub.session() as session:
        database = Database(session)
        with database.questions():
            assert [finds(database, "songs") for _ in range(2)] == [True, True]
        session.execute(text("UPDATE musehub_repo SET slug = 'renamed'"))
        session.rollback()
        assert finds(database, "songs")


def test_a_host_that_comes_after_a_question_that_cannot_be_asked_has_its_transactions(hub: HubEnvironment) -> None:
    with hub.session() as session:
        with pytest.raises(ValueError, match="not an id"):
            held_commits(Database(session), "a repo", ["nonsense"])
        session.execute(text("UPDATE musehub_repo SET slug = 'renamed'"))
        session.rollback()
        assert finds(Database(session), "songs")


def test_what_a_block_of_questions_finds_in_a_unit_of_work_is_what_was_written_in_it(hub: HubEnvironment) -> None:
    with hub.session() as session:
        database = Database(session)
        with database.questions():
            assert not finds(database, "renamed")
            session.execute(text("UPDATE musehub_repo SET slug = 'renamed'"))
            assert finds(database, "renamed")
        session.rollback()


def test_a_connection_that_somebody_closed_is_replaced_by_another(hub: HubEnvironment) -> None:
    with hub.session() as session:
        engine: Any = session.get_bind()
        pooled = engine.raw_connection()
        connection = pooled.dbapi_connection
        pooled.close()
        connection.close()
        assert finds(Database(session), "songs")


def test_statements_that_a_pooler_did_not_keep_are_asked_in_the_ordinary_way(hub: HubEnvironment) -> None:
    with hub.session() as session:
        database = Database(session)
        assert finds(database, "songs")
        on_all_connections(hub, "DEALLOCATE ALL")
        assert finds(database, "songs")
        session.rollback()
        # To make them ready again each time would cost more than it saves.
        assert finds(database, "songs")
        assert database.has_begun


def test_a_cut_connection_is_replaced_by_another(hub: HubEnvironment, postgres_config: dict[str, Any]) -> None:
    with hub.session() as session:
        database = Database(session)
        assert finds(database, "songs")
        cut_connections(hub, postgres_config["SQLALCHEMY_DATABASE_URI"])
        assert finds(database, "songs")


class CountingCursor(psycopg2.extensions.cursor):
    """Counts what is asked of the database."""

    asked = 0

    def execute(self, *given: Any) -> None:
        CountingCursor.asked += 1
        super().execute(*given)


@pytest.fixture
def pinging_hub(
    tmp_path: Path, postgres_config: dict[str, Any], files_config: dict[str, Any]
) -> Iterator[HubEnvironment]:
    """A hub on PostgreSQL with one repo, whose pool asks each connection that it gives away whether it lives."""
    options = {"pool_pre_ping": True, "connect_args": {"cursor_factory": CountingCursor}}
    environment = HubEnvironment(
        "postgresql", tmp_path, {**postgres_config, **files_config, "SQLALCHEMY_ENGINE_OPTIONS": options}
    )
    environment.create_repo("alice/songs")
    yield environment
    environment.close()


def asked_by(work: Callable[[], object]) -> int:
    before = CountingCursor.asked
    work()
    return CountingCursor.asked - before


def test_a_question_is_all_that_is_asked_where_the_pool_looks_after_connections(pinging_hub: HubEnvironment) -> None:
    with pinging_hub.session() as session:
        database = Database(session)
        assert finds(database, "songs")
        assert asked_by(lambda: finds(database, "songs")) == 1


def test_a_note_is_written_on_a_connection_that_was_asked_whether_it_lives(pinging_hub: HubEnvironment) -> None:
    with pinging_hub.session() as session:
        database = Database(session)
        keep_fetch_pack(database, fake_id("a"), 1)
        assert asked_by(lambda: keep_fetch_pack(database, fake_id("b"), 1)) == 2


def test_a_cut_connection_is_replaced_in_a_pool_that_looks_after_connections(
    pinging_hub: HubEnvironment, postgres_config: dict[str, Any]
) -> None:
    with pinging_hub.session() as session:
        database = Database(session)
        assert finds(database, "songs")
        cut_connections(pinging_hub, postgres_config["SQLALCHEMY_DATABASE_URI"])
        assert finds(database, "songs")


def test_a_hosts_own_connection_is_asked_whether_it_lives_after_a_question_was_not(
    pinging_hub: HubEnvironment, postgres_config: dict[str, Any]
) -> None:
    with pinging_hub.session() as session:
        assert finds(Database(session), "songs")
        cut_connections(pinging_hub, postgres_config["SQLALCHEMY_DATABASE_URI"])
        assert session.execute(text("SELECT 1")).scalar() == 1


def test_a_connection_that_is_cut_between_the_last_question_and_the_end_of_a_block_is_replaced(
    tmp_path: Path, postgres_config: dict[str, Any], files_config: dict[str, Any]
) -> None:
    # With a level of its own the driver asks the database when autocommit is turned off.
    options = {"SQLALCHEMY_ENGINE_OPTIONS": {"isolation_level": "SERIALIZABLE"}}
    hub = HubEnvironment("postgresql", tmp_path, {**postgres_config, **files_config, **options})
    hub.create_repo("alice/songs")
    with hub.session() as session:
        database = Database(session)
        with database.questions():
            assert finds(database, "songs")
            cut_connections(hub, postgres_config["SQLALCHEMY_DATABASE_URI"])
        assert finds(database, "songs")
    hub.close()


def test_a_table_that_has_changed_since_is_read_as_it_is_now(
    hub: HubEnvironment, postgres_config: dict[str, Any]
) -> None:
    engine = create_engine(postgres_config["SQLALCHEMY_DATABASE_URI"], poolclass=NullPool)
    with hub.session() as session:
        database = Database(session)
        assert finds(database, "songs")
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE musehub_repo ALTER visibility TYPE text"))
        try:
            assert finds(database, "songs")
        finally:
            session.rollback()
            with engine.begin() as connection:
                connection.execute(text("ALTER TABLE musehub_repo ALTER visibility TYPE varchar(32)"))


def test_a_connection_that_a_host_left_in_a_transaction_is_not_dropped(hub: HubEnvironment) -> None:
    with hub.session() as session:
        engine: Any = session.get_bind()
        engine.dispose()
        made: list[object] = []

        def prepare(connection: Any, _: object) -> None:
            made.append(connection)
            connection.cursor().execute("SET application_name = 'a host'")

        event.listen(engine, "connect", prepare)
        for _ in range(3):
            assert finds(Database(session), "songs")
            session.rollback()
        assert len(made) == 1
