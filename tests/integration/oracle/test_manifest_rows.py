"""Manifests read back from rows of changes, in whatever order and however many at a time."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from math import ceil

import pytest
from sqlalchemy import delete, event

from musehub_plugin.models import MusehubSnapshot
from musehub_plugin.store import manifests as manifest_rows
from musehub_plugin.store.manifests import make_whole, manifests, resting_on
from musehub_plugin.store.session import Database
from tests.dags import History
from tests.integration.oracle.rows import broad_history, write_changes


@pytest.fixture(params=["postgresql", "sqlite"])
def db(request: pytest.FixtureRequest, databases: Mapping[str, Database]) -> Iterator[Database]:
    found = databases[request.param]
    yield found
    found.rollback()


def histories(
    db: Database, monkeypatch: pytest.MonkeyPatch, batch: int, name: str
) -> Iterator[tuple[random.Random, History]]:
    """Write ten histories, whose manifests are read so many at a time; yield each, and what draws for it."""
    monkeypatch.setattr(manifest_rows, "_MANIFEST_BATCH", batch)
    chance = random.Random(batch)
    for number in range(10):
        history = broad_history(chance, 12, f"{name} {batch} {number}")
        write_changes(db, "r", history)
        yield chance, history


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_manifests_are_read_in_any_order_in_batches_of_any_size(
    db: Database, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    for chance, history in histories(db, monkeypatch, batch, "any order"):
        order = chance.sample(list(history.manifests), len(history.manifests))
        assert dict(manifests(db, "r", order)) == history.manifests


@pytest.mark.parametrize("batch", [1, 2, 50])
def test_what_rests_on_snapshots_that_go_stays_as_it_is(
    db: Database, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    for chance, history in histories(db, monkeypatch, batch, "gone"):
        gone = chance.sample(list(history.manifests), len(history.manifests) // 2)
        make_whole(db, resting_on(db, gone))
        db.change(delete(MusehubSnapshot).where(MusehubSnapshot.snapshot_id.in_(gone)))
        kept = [snapshot_id for snapshot_id in history.manifests if snapshot_id not in gone]
        assert dict(manifests(db, "r", kept)) == {each: history.manifests[each] for each in kept}


def test_manifests_in_another_order_than_that_of_history_take_two_statements_a_batch(
    databases: Mapping[str, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    db = databases["sqlite"]
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    engine = db.session.get_bind()
    event.listen(engine, "before_cursor_execute", note)
    try:
        for chance, history in histories(db, monkeypatch, 3, "counted"):
            order = chance.sample(list(history.manifests), len(history.manifests))
            statements.clear()
            assert dict(manifests(db, "r", order)) == history.manifests
            assert len(statements) <= 2 * ceil(len(order) / 3)
    finally:
        event.remove(engine, "before_cursor_execute", note)
        db.rollback()
