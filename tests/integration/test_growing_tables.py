"""What is asked while a hub serves is found by an index, in tables that get a row for every push."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import event, text

from musehub_plugin.ids import fake_id
from musehub_plugin.store import garbage, jobs, mpacks
from musehub_plugin.store.session import Database
from musehub_plugin.testing.apps import close_app, hub_of, make_app

# Enough for PostgreSQL to prefer an index.
ROWS = 20_000
REPO = "repo-1"
PACK = fake_id("no pack")
ASKED: dict[str, Callable[[Database], Any]] = {
    "how much waits": jobs.backlog,
    "what a fetch waits for": lambda db: jobs.unfinished_index_jobs(db, REPO),
    "what a sweep puts on the queue": lambda db: jobs.take_due_jobs(db, again_in=30),
    "whose a pack is": lambda db: mpacks.repos_of(db, PACK),
    "whether a repo has a pack": lambda db: mpacks.repo_holds_mpack(db, REPO, PACK),
    "what a repack retires": lambda db: mpacks.retire_packs(db, REPO, keep=()),
    "whether a pack is useless": lambda db: garbage.take_useless_mpack(db, PACK),
}


@pytest.fixture(scope="module")
def grown(migrated_postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    """A hub of many pushes, all of them done; its tables are emptied by whoever comes next."""
    folder: Path = tmp_path_factory.mktemp("grown")
    app = make_app(folder, {"SQLALCHEMY_DATABASE_URI": migrated_postgres_url}, create_tables=False)
    with app.app_context():
        session = hub_of(app).sqlalchemy.session
        session.execute(text("TRUNCATE musehub_job, musehub_mpack, musehub_mpack_ref, musehub_mpack_index"))
        values = f"FROM generate_series(1, {ROWS}) AS n"
        digest = "decode(repeat('d', 56) || lpad(to_hex(n), 8, '0'), 'hex')"
        for statement in (
            "INSERT INTO musehub_job (job_id, kind, subject, state, attempts, not_before, created_at, updated_at)"
            f" SELECT 'mpack-index-' || n, 'mpack.index', n::text, 'done', 1, now(), now(), now() {values}",
            "INSERT INTO musehub_mpack (mpack_id, size_bytes, commit_count, snapshot_count, blob_count, storage_uri,"
            f" created_at) SELECT {digest}, 1, 1, 1, 1, '', now() {values}",
            "INSERT INTO musehub_mpack_ref (repo_id, mpack_id, user_id, created_at)"
            f" SELECT 'repo-' || n % 1000, {digest}, '', now() {values}",
            "INSERT INTO musehub_mpack_index (entity_id, mpack_id, entity_type)"
            f" SELECT {digest}, {digest}, 'object' {values}",
            "ANALYZE musehub_job, musehub_mpack, musehub_mpack_ref, musehub_mpack_index",
        ):
            session.execute(text(statement))
        session.commit()
    yield app
    close_app(app)


@contextmanager
def noted_statements(engine: Any) -> Iterator[list[tuple[str, Any]]]:
    """Note what an engine sends while the block runs, with its values."""
    noted: list[tuple[str, Any]] = []

    def note(connection: object, cursor: object, statement: str, values: Any, *rest: object) -> None:
        noted.append((statement, values))

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield noted
    finally:
        event.remove(engine, "before_cursor_execute", note)


@pytest.mark.parametrize("what", ASKED)
def test_no_table_is_read_whole(grown: Flask, what: str) -> None:
    with grown.app_context():
        db = hub_of(grown).database()
        engine = hub_of(grown).sqlalchemy.engine
        with noted_statements(engine) as noted:
            ASKED[what](db)
        db.rollback()
        assert noted
        with engine.connect() as connection:
            for statement, values in noted:
                plan = connection.exec_driver_sql(f"EXPLAIN {statement}", values).scalars().all()
                assert not [line for line in plan if "Seq Scan" in line], "\n".join(plan)
