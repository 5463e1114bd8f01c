"""Revision 0003 with rows in place: manifests become changes and whole again, and what they say stays."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgpack
import pytest
from sqlalchemy import Engine, select, text, update
from sqlalchemy.orm import Session

from musehub_plugin import ids
from musehub_plugin.history import GraphCache
from musehub_plugin.manifestlog import Difference
from musehub_plugin.models import MusehubCommitRef, MusehubSnapshot
from musehub_plugin.repack import rewrite_rows
from musehub_plugin.store import commits, manifests, migrate
from musehub_plugin.store.session import Database
from musehub_plugin.testing.factories import create_repo, make_commit

REPO = "the-repo"


def tree(number: int) -> dict[str, str]:
    """Return a manifest of which one file in thirty is another in each."""
    return {f"folder/{n}.txt": ids.fake_id(f"{n} {number if n == number % 30 else ''}") for n in range(30)}


TREES = [tree(number) for number in range(12)]


@pytest.fixture
def written(engine: Engine) -> Engine:
    """A database with a line of commits, written by hand."""
    migrate.upgrade(engine)
    with Session(engine) as session:
        create_repo(session, repo_id=REPO)
        made: list[str] = []
        for number, manifest in enumerate(TREES):
            made.append(make_commit(session, REPO, manifest, made[-1:], message=str(number), branch="main"))
    return engine


def rewrite(engine: Engine) -> None:
    """Turn whole manifests into changes, as a repack does."""
    with Session(engine) as session:
        assert rewrite_rows(Database(session), GraphCache(0), REPO)
        session.commit()


def columns(engine: Engine, names: str) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(text(f"SELECT {names} FROM musehub_snapshot")).all())  # noqa: S608 - our names


def whole_manifests(engine: Engine) -> dict[str, dict[str, str]]:
    """Return what `manifest_blob` says, by id, as an earlier release reads it."""
    found = columns(engine, "snapshot_id, manifest_blob")
    return {ids.from_digest(bytes(row[0])): msgpack.unpackb(bytes(row[1])) for row in found}


EXPECTED = {ids.snapshot_id(manifest): manifest for manifest in TREES}


def test_a_downgrade_writes_every_manifest_whole_again(written: Engine) -> None:
    rewrite(written)
    assert {row[0] is None for row in columns(written, "manifest_blob")} == {True}
    migrate.downgrade(written, "0002")
    assert whole_manifests(written) == EXPECTED


def test_rows_of_the_earlier_release_are_read_after_an_upgrade(written: Engine) -> None:
    rewrite(written)
    migrate.downgrade(written, "0002")
    migrate.upgrade(written)
    with Session(written) as session:
        assert dict(manifests.manifests(Database(session), REPO, list(EXPECTED))) == EXPECTED


def test_rows_of_the_earlier_release_become_changes_again(written: Engine) -> None:
    migrate.downgrade(written, "0002")
    migrate.upgrade(written)
    rewrite(written)
    assert [row for row in columns(written, "manifest_blob") if row[0] is not None] == []
    assert len([row for row in columns(written, "base_id") if row[0] is not None]) == len(TREES) - 1
    with Session(written) as session:
        assert dict(manifests.manifests(Database(session), REPO, list(EXPECTED))) == EXPECTED


def test_changes_that_rest_on_rows_which_stayed_whole_are_written_whole_by_a_downgrade(written: Engine) -> None:
    with Session(written) as session:
        db = Database(session)
        further = {**TREES[-1], "new.txt": ids.fake_id("new")}
        base = (ids.snapshot_id(TREES[-1]), manifests.Chain(0, 0))
        change = Difference([], {"new.txt": ids.fake_id("new")})
        manifests.add_snapshots(db, REPO, [manifests.new_snapshot(ids.snapshot_id(further), base, change, further)])
        session.commit()
    rewrite(written)
    migrate.downgrade(written, "0002")
    assert whole_manifests(written) == {**EXPECTED, ids.snapshot_id(further): further}


def test_whoever_loads_the_entity_sees_the_whole_manifest_and_its_folders(written: Engine) -> None:
    rewrite(written)
    for snapshot_id, manifest in EXPECTED.items():
        with Session(written) as session:
            row = session.get_one(MusehubSnapshot, snapshot_id)
            assert msgpack.unpackb(row.manifest_blob) == manifest
            assert row.directories == ["folder"]


def test_showing_a_manifest_whole_does_not_write_it(written: Engine) -> None:
    rewrite(written)
    with Session(written) as session:
        row = session.get_one(MusehubSnapshot, ids.snapshot_id(TREES[3]))
        row.entry_count = 7
        session.commit()
    assert [row for row in columns(written, "manifest_blob") if row[0] is not None] == []


def test_what_a_repo_says_of_a_commit_is_written_whole_by_a_downgrade(written: Engine) -> None:
    with Session(written) as session:
        said = list(commits.records(Database(session), REPO, held(written)))
        for record in said:
            record["author"] = f"another than {record['author']}"
            packed = commits.pack_own_fields(record, {**record, "author": "", "timestamp": datetime.now(UTC)})
            session.execute(
                update(MusehubCommitRef)
                .where(MusehubCommitRef.commit_id == record["commit_id"])
                .values(own_fields=packed)
            )
        session.commit()
    migrate.downgrade(written, "0002")
    with written.connect() as connection:
        kept = connection.execute(text("SELECT own_fields FROM musehub_commit_ref")).scalars()
        assert all(len(msgpack.unpackb(bytes(packed))) == 5 for packed in kept)
    migrate.upgrade(written)
    with Session(written) as session:
        assert list(commits.records(Database(session), REPO, held(written))) == said


def held(engine: Engine) -> list[str]:
    with Session(engine) as session:
        return sorted(session.execute(select(MusehubCommitRef.commit_id)).scalars())
