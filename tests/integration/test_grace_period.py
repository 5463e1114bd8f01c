"""How long what is garbage stays, and what other rows keep it: one row of each kind at each age, on both databases."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from musehub_plugin.ids import fake_id
from musehub_plugin.store import builds, fetch_packs, fetch_plans, garbage
from musehub_plugin.store.models import (
    Base,
    MusehubBuild,
    MusehubClonePack,
    MusehubCommitRef,
    MusehubFetchPack,
    MusehubFetchPlan,
    MusehubMPack,
    MusehubMPackIndex,
    MusehubMPackRef,
    MusehubRepo,
    MusehubUpload,
)
from musehub_plugin.store.session import Database
from tests.environment import HubEnvironment

GRACE = 3600
AGES = {"old": 2 * GRACE, "young": GRACE // 2, "to come": -GRACE // 2}
PACK = fake_id("a pack")
COUNTS = {"commit_count": 0, "snapshot_count": 0, "blob_count": 0}


def ago(seconds: int) -> datetime:
    """Return the moment some seconds ago."""
    return datetime.now(UTC) - timedelta(seconds=seconds)


def upload(name: str, expires_at: datetime, mpack_id: str = PACK) -> MusehubUpload:
    return MusehubUpload(
        upload_key=name, repo_id="1", user_id="1", mpack_id=mpack_id, size_bytes=1, expires_at=expires_at
    )


def answer(name: str, used_at: datetime, mpack_id: str = PACK) -> MusehubFetchPlan:
    return MusehubFetchPlan(
        plan_key=fake_id(name),
        position=0,
        repo_id="1",
        pack_count=1,
        mpack_id=mpack_id,
        size_bytes=1,
        used_at=used_at,
        **COUNTS,
    )


def test_a_ticket_stays_until_it_expired_a_grace_period_ago(hub: HubEnvironment, db: Database) -> None:
    hub.add(*(upload(name, ago(age)) for name, age in AGES.items()))
    assert [each.upload_key for each in garbage.expired_uploads(db, GRACE, 10)] == ["old"]


def test_a_deleted_repo_stays_a_grace_period(hub: HubEnvironment, db: Database) -> None:
    hub.add(*(MusehubRepo(repo_id=name, owner="a", slug=name, deleted_at=ago(age)) for name, age in AGES.items()))
    hub.create_repo("a/there")
    assert garbage.deleted_repos(db, GRACE) == ["old"]


def test_a_commit_stays_a_grace_period_after_its_own_repo_lost_sight_of_it(hub: HubEnvironment, db: Database) -> None:
    hub.add(
        *(MusehubCommitRef(repo_id="1", commit_id=fake_id(name), unreachable_since=ago(AGES[name])) for name in AGES),
        MusehubCommitRef(repo_id="1", commit_id=fake_id("reached")),
        MusehubCommitRef(repo_id="2", commit_id=fake_id("another repo's"), unreachable_since=ago(2 * GRACE)),
    )
    assert garbage.long_unreachable(db, "1", GRACE) == {fake_id("old")}


def test_since_when_a_commit_is_out_of_sight_is_noted_once_and_forgotten_once_it_is_reached(
    hub: HubEnvironment, db: Database
) -> None:
    lost, found, others = fake_id("lost"), fake_id("found"), fake_id("another repo's")
    hub.add(
        MusehubCommitRef(repo_id="1", commit_id=lost, unreachable_since=ago(2 * GRACE)),
        MusehubCommitRef(repo_id="1", commit_id=found, unreachable_since=ago(2 * GRACE)),
        MusehubCommitRef(repo_id="2", commit_id=found, unreachable_since=ago(2 * GRACE)),
        MusehubCommitRef(repo_id="2", commit_id=lost),
        MusehubCommitRef(repo_id="1", commit_id=others),
    )
    garbage.mark_unreachable(db, "1", {lost})
    noted = select(MusehubCommitRef.repo_id, MusehubCommitRef.commit_id).where(
        MusehubCommitRef.unreachable_since.is_not(None)
    )
    assert {tuple(row) for row in db.execute(noted)} == {("1", lost), ("2", found)}
    assert garbage.long_unreachable(db, "1", GRACE) == {lost}


def test_a_fetch_pack_stays_a_grace_period_after_its_last_use(hub: HubEnvironment, db: Database) -> None:
    hub.add(*(MusehubFetchPack(mpack_id=fake_id(name), size_bytes=1, used_at=ago(AGES[name])) for name in AGES))
    assert fetch_packs.stale_fetch_packs(db, GRACE, 10) == [fake_id("old")]
    assert [fetch_packs.take_fetch_pack(db, fake_id(name), GRACE) for name in AGES] == [True, False, False]


@pytest.mark.parametrize("keep", [fetch_packs.keep_fetch_pack, fetch_packs.use_fetch_pack])
def test_a_fetch_pack_that_is_made_again_stays_a_grace_period_from_then_on(
    hub: HubEnvironment, db: Database, keep: Callable[[Database, str, int], None]
) -> None:
    hub.add(MusehubFetchPack(mpack_id=PACK, size_bytes=1, used_at=ago(2 * GRACE)))
    keep(db, PACK, 1)
    assert fetch_packs.stale_fetch_packs(db, GRACE, 10) == []


def test_the_answers_that_name_a_fetch_pack_go_with_it(hub: HubEnvironment, db: Database) -> None:
    hub.add(
        MusehubFetchPack(mpack_id=PACK, size_bytes=1, used_at=ago(2 * GRACE)),
        answer("of it", ago(0)),
        answer("of another", ago(0), fake_id("another pack")),
    )
    fetch_packs.take_fetch_pack(db, PACK, GRACE)
    assert set(db.execute(select(MusehubFetchPlan.plan_key)).scalars()) == {fake_id("of another")}


def test_an_answer_stays_a_grace_period_after_its_last_use(hub: HubEnvironment, db: Database) -> None:
    hub.add(*(answer(name, ago(age)) for name, age in AGES.items()))
    assert fetch_plans.forget_unused_plans(db, GRACE) == 1


def test_a_build_stays_until_its_lease_lapsed_a_grace_period_ago(hub: HubEnvironment, db: Database) -> None:
    hub.add(
        *(
            MusehubBuild(plan_key=fake_id(name), repo_id="1", holder="", lease_until=ago(age))
            for name, age in AGES.items()
        )
    )
    assert builds.drop_lapsed_builds(db, GRACE) == 1


def test_a_pushed_pack_stays_a_grace_period(hub: HubEnvironment, db: Database) -> None:
    hub.add(*(MusehubMPack(mpack_id=fake_id(name), size_bytes=1, created_at=ago(AGES[name])) for name in AGES))
    assert garbage.useless_mpacks(db, GRACE, 10, "") == [fake_id("old")]


@pytest.mark.parametrize("kind", ["a repo's", "indexed"])
def test_a_pushed_pack_stays_as_long_as_a_row_needs_it(hub: HubEnvironment, db: Database, kind: str) -> None:
    rows: dict[str, Base] = {
        "a repo's": MusehubMPackRef(repo_id="1", mpack_id=PACK),
        "indexed": MusehubMPackIndex(entity_id=fake_id("a blob"), mpack_id=PACK),
    }
    hub.add(MusehubMPack(mpack_id=PACK, size_bytes=1, created_at=ago(2 * GRACE)), rows[kind])
    assert (garbage.useless_mpacks(db, GRACE, 10, ""), garbage.take_useless_mpack(db, PACK)) == ([], False)


@pytest.mark.parametrize("kind", ["pushed", "fetched", "cloned", "uploaded"])
def test_a_file_is_needed_as_long_as_one_row_names_it(hub: HubEnvironment, db: Database, kind: str) -> None:
    before = fetch_packs.is_file_needed(db, PACK)
    rows: dict[str, Base] = {
        "pushed": MusehubMPack(mpack_id=PACK, size_bytes=1),
        "fetched": MusehubFetchPack(mpack_id=PACK, size_bytes=1),
        "cloned": MusehubClonePack(
            repo_id="1", position=0, head_commit_id=fake_id("a head"), mpack_id=PACK, size_bytes=1, **COUNTS
        ),
        "uploaded": upload("one", ago(0)),
    }
    hub.add(rows[kind])
    assert (before, fetch_packs.is_file_needed(db, PACK)) == (False, True)
