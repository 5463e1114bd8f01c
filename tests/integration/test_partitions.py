"""The ref tables in partitions, as the page on scaling tells operators to make them: everything works on them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import MetaData, create_engine, event, text
from sqlalchemy.pool import NullPool

from musehub_plugin.gc import collect
from musehub_plugin.store import migrate, prepared
from musehub_plugin.store.host_migrations import exclude_plugin_tables
from musehub_plugin.testing import History, services
from musehub_plugin.testing.apps import hub_of
from tests.docs.pages import blocks
from tests.environment import HubEnvironment

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"
TABLES = ("musehub_commit_ref", "musehub_snapshot_ref", "musehub_object_ref")
REPO = "alice/songs"


def partition(url: str) -> None:
    """Run what the page says."""
    (script,) = (block.text for block in blocks(PAGE) if block.comment == "file: partitions.sql")
    connection = psycopg2.connect(services.libpq_url(url))
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(script)
    finally:
        connection.close()


@pytest.fixture
def hub(musehub_postgres_url: str, s3_config: dict[str, Any], tmp_path: Path) -> Iterator[HubEnvironment]:
    """A hub with a repo of two commits, pushed before its tables were parted."""
    with services.fresh_database(musehub_postgres_url) as url:
        migrate.upgrade(create_engine(url, poolclass=NullPool))
        hub = HubEnvironment("partitions", tmp_path, {**s3_config, "SQLALCHEMY_DATABASE_URI": url})
        hub.create_repo(REPO, visibility="public")
        hub.create_repo("alice/other", visibility="public")
        partition(url)
        yield hub
        hub.close()


def push(hub: HubEnvironment, history: History, head: str, *, repo: str = REPO, force: bool = False) -> None:
    response = hub.caller("alice").push(repo, history.pack(), head, force=force)
    assert response.status_code == 200, response.get_data(as_text=True)
    hub.run_jobs()


def two_commits() -> tuple[History, str, str]:
    history = History()
    first = history.commit({f"{number}.txt": f"first {number}".encode() for number in range(5)})
    return history, first, history.commit({"0.txt": b"second", "1.txt": b"first 1"}, [first])


def test_rows_from_before_are_still_there(musehub_postgres_url: str, s3_config: dict[str, Any], tmp_path: Path) -> None:
    history, _, head = two_commits()
    with services.fresh_database(musehub_postgres_url) as url:
        migrate.upgrade(create_engine(url, poolclass=NullPool))
        hub = HubEnvironment("partitions", tmp_path, {**s3_config, "SQLALCHEMY_DATABASE_URI": url})
        hub.create_repo(REPO, visibility="public")
        push(hub, history, head)
        before = {table: rows for table, rows in hub.rows().items() if table in TABLES}
        hub.close()
        partition(url)
        assert {table: rows for table, rows in hub.rows().items() if table in TABLES} == before
        assert hub.caller().pull(REPO, [head]).commits.keys() == history.commits.keys()
        hub.close()


def test_a_push_to_partitions_is_fetched_whole(hub: HubEnvironment) -> None:
    history, _, head = two_commits()
    push(hub, history, head)
    pulled = hub.caller().pull(REPO, [head])
    assert pulled.commits.keys() == history.commits.keys()
    assert pulled.blobs == history.blobs


def test_a_delta_from_partitions_has_what_the_have_side_lacks(hub: HubEnvironment) -> None:
    history, first, head = two_commits()
    push(hub, history, head)
    assert list(hub.caller().pull(REPO, [head], [first]).blobs.values()) == [b"second"]


def test_garbage_in_partitions_is_collected_and_what_another_repo_holds_stays(hub: HubEnvironment) -> None:
    history, first, head = two_commits()
    push(hub, history, head)
    push(hub, history, first, repo="alice/other")
    kept = History()
    root = kept.commit({"kept.txt": b"kept"})
    push(hub, kept, root, force=True)
    for _ in range(2):
        # It looks once to find what nobody reaches, and once more after the grace.
        age(hub)
        with hub.app.app_context():
            collected = collect(hub_of(hub.app), hub_of(hub.app).database(), grace=1)
    # Two of the repo, and the one that came to the other with its pack and that no branch of it reaches.
    assert collected.commits == 3
    assert hub.caller().pull("alice/other", [first]).commits.keys() == {first}
    assert hub.caller().fetch(REPO, [head]).status_code == 404


def age(hub: HubEnvironment) -> None:
    """Make every mark of garbage a day older."""
    with hub.session() as session:
        session.execute(text("UPDATE musehub_commit_ref SET unreachable_since = unreachable_since - interval '1 day'"))
        session.commit()


def test_the_models_and_the_partitions_are_the_same_tables(hub: HubEnvironment) -> None:
    with hub.app.app_context():
        assert migrate.differences(hub_of(hub.app).sqlalchemy.engine) == []


def test_a_host_s_autogenerate_leaves_the_partitions_alone(hub: HubEnvironment) -> None:
    with hub.app.app_context(), hub_of(hub.app).sqlalchemy.engine.connect() as connection:
        host = MigrationContext.configure(connection, opts={"include_name": exclude_plugin_tables})
        assert compare_metadata(host, MetaData()) == []


def test_what_reads_for_a_repo_looks_into_one_partition(hub: HubEnvironment, monkeypatch: pytest.MonkeyPatch) -> None:
    # By way of the session, where statements can be seen with their values.
    monkeypatch.setattr(prepared, "_connection", lambda db, *, pings: None)
    history, first, second = two_commits()
    # So many blobs that they would be in many partitions, were these made by another column.
    head = history.commit({f"new {number}.txt": f"new {number}".encode() for number in range(20)}, [second])
    push(hub, history, head)
    plans = explained(hub, lambda: hub.caller().pull(REPO, [head], [first]))
    assert plans
    for statement, plan in plans:
        for table in TABLES:
            looked_into = set(re.findall(rf"\b{table}_\d+\b", plan))
            assert len(looked_into) <= 1, f"{statement}\n{plan}"
    # A fetch that asks none of them would prove nothing.
    assert any(re.search(r"musehub_object_ref_\d+", plan) for _, plan in plans)


def explained(hub: HubEnvironment, action: Any) -> list[tuple[str, str]]:
    """Return what an action selects from the ref tables, and how PostgreSQL does that."""
    seen: list[tuple[str, Any]] = []

    def note(connection: object, cursor: object, statement: str, parameters: Any, *rest: object) -> None:
        if statement.lstrip().startswith("SELECT") and any(table in statement for table in TABLES):
            seen.append((statement, parameters))

    with hub.app.app_context():
        engine = hub_of(hub.app).sqlalchemy.engine
    event.listen(engine, "before_cursor_execute", note)
    action()
    event.remove(engine, "before_cursor_execute", note)
    plans = []
    with engine.connect() as connection:
        for statement, parameters in seen:
            rows: Sequence[Any] = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).fetchall()
            plans.append((statement, "\n".join(row[0] for row in rows)))
    return plans
