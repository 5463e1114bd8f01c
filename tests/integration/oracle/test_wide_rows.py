"""Rows of manifests that are too wide for memory: the same as those of others, on both databases."""

from __future__ import annotations

from collections.abc import Mapping

import msgpack
import pytest
from sqlalchemy import insert, text

from musehub_plugin import ids
from musehub_plugin.manifestlog import ManifestLog
from musehub_plugin.mpack.wide import WideManifest
from musehub_plugin.store import largevalues, manifests, widemanifests
from musehub_plugin.store.manifests import NewSnapshot
from musehub_plugin.store.models import MusehubSnapshot
from musehub_plugin.store.session import Database
from musehub_plugin.widelog import WideLog

FILES = 3_000


@pytest.fixture(autouse=True)
def _in_many_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(widemanifests, "WIDE_PATHS", 1_000)
    for module in (widemanifests, largevalues):
        monkeypatch.setattr(module, "PIECE", 4_096)


@pytest.fixture(params=["postgresql", "sqlite"])
def db(request: pytest.FixtureRequest, databases: Mapping[str, Database]) -> Database:
    found = databases[request.param]
    found.rollback()
    return found


@pytest.fixture
def run() -> list[dict[str, str]]:
    """Three manifests: whole, with half of it changed, and with a few paths changed."""
    whole = {f"{number % 7}/é{number}": ids.fake_id(str(number)) for number in range(FILES)}
    half = {**dict(list(whole.items())[10:]), **{path: ids.fake_id(path) for path in list(whole)[10 : FILES // 2]}}
    few = {**dict(list(half.items())[:-3]), "new": ids.fake_id("new")}
    return [whole, half, few]


def stored(db: Database, run: list[dict[str, str]]) -> list[str]:
    log, rows = WideLog(ManifestLog()), list[NewSnapshot]()
    for manifest in run:
        snapshot_id = ids.snapshot_id(manifest)
        log.pass_whole(snapshot_id, manifest)
        base = rows[-1] if rows else None
        change = log.difference_from(base.snapshot_id) if base else log.between({}, {})
        start = None if base is None else (base.snapshot_id, base.chain)
        rows.append(widemanifests.new_wide_snapshot(snapshot_id, start, *change, log.manifest))
    widemanifests.add_snapshots(db, "r", rows)
    return [row.snapshot_id for row in rows]


def test_a_wide_manifest_is_read_as_it_was_written_piece_by_piece(db: Database, run: list[dict[str, str]]) -> None:
    for snapshot_id, manifest in zip(stored(db, run), run, strict=True):
        found = widemanifests.manifest(db, "r", snapshot_id)
        assert isinstance(found, WideManifest)
        assert dict(found) == manifest


def test_rows_of_wide_manifests_are_rows_like_others(db: Database, run: list[dict[str, str]]) -> None:
    snapshot_ids = stored(db, run)
    assert [manifests.manifest(db, "r", snapshot_id) for snapshot_id in snapshot_ids] == run
    chains = manifests.chains(db, snapshot_ids)
    assert [chains[snapshot_id].length for snapshot_id in snapshot_ids] == [0, 1, 2]


def test_a_wide_manifest_of_another_repo_is_not_read(db: Database, run: list[dict[str, str]]) -> None:
    assert [widemanifests.manifest(db, "other", snapshot_id) for snapshot_id in stored(db, run)] == [None] * 3


def test_wide_rows_that_are_there_stay_and_are_held_by_who_pushes_them_too(
    db: Database, run: list[dict[str, str]]
) -> None:
    snapshot_ids = stored(db, run)
    assert stored(db, run) == snapshot_ids
    manifests.hold_snapshots(db, "other", snapshot_ids)
    assert manifests.held_snapshots(db, "other", snapshot_ids) == set(snapshot_ids)


def test_a_wide_manifest_in_a_row_written_by_hand_is_read(db: Database, run: list[dict[str, str]]) -> None:
    snapshot_id = ids.snapshot_id(run[0])
    row = {"snapshot_id": snapshot_id, "manifest_blob": msgpack.packb(run[0]), "entry_count": FILES}
    db.execute(insert(MusehubSnapshot), row)
    manifests.hold_snapshots(db, "r", [snapshot_id])
    assert widemanifests.manifest(db, "r", snapshot_id) == run[0]


def test_no_large_object_is_left_over(databases: Mapping[str, Database], run: list[dict[str, str]]) -> None:
    db = databases["postgresql"]
    db.rollback()
    stored(db, run)
    assert db.execute(text("SELECT count(*) FROM pg_largeobject_metadata")).scalar_one() == 0
