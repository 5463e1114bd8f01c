"""Who makes the mpack of a plan, and for how long: rows, on both databases."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from musehub_plugin.ids import fake_id
from musehub_plugin.store import builds
from musehub_plugin.store.fetch_plans import ReadyPack, find_plan
from musehub_plugin.store.models import MusehubBuild, MusehubFetchPack
from musehub_plugin.store.session import Database
from tests.environment import HubEnvironment

PLAN, OTHER = fake_id("a plan"), fake_id("another plan")
PACK = ReadyPack(fake_id("a pack"), 1, 2, 3, 4)


def holders(db: Database) -> dict[str, str]:
    """Return who holds which build."""
    return {row.plan_key: row.holder for row in db.execute(select(MusehubBuild.plan_key, MusehubBuild.holder))}


def test_a_build_is_leased_by_one(db: Database) -> None:
    assert [builds.lease_build(db, PLAN, "1", holder, 60) for holder in ("x", "y")] == [True, False]
    assert builds.lease_build(db, OTHER, "1", "y", 60)
    assert holders(db) == {PLAN: "x", OTHER: "y"}


def test_a_build_whose_lease_has_ended_is_leased_by_the_next_alone(db: Database) -> None:
    builds.lease_build(db, PLAN, "1", "x", -1)
    builds.lease_build(db, OTHER, "1", "x", -1)
    assert [builds.lease_build(db, PLAN, "1", holder, 60) for holder in ("y", "z")] == [True, False]
    assert holders(db) == {PLAN: "y", OTHER: "x"}


def test_builds_whose_lease_has_ended_are_not_under_way(db: Database) -> None:
    builds.lease_build(db, PLAN, "1", "x", 60)
    builds.lease_build(db, OTHER, "1", "x", -1)
    assert builds.builds_under_way(db) == 1


def test_builds_whose_lease_has_ended_leave_room_for_others(db: Database) -> None:
    builds.lease_build(db, PLAN, "1", "x", -1)
    db.commit()
    leased = builds.take_build(db, OTHER, "1", "y", 60, 1) or builds.lease_build(db, OTHER, "1", "y", 60)
    assert leased
    assert holders(db)[OTHER] == "y"


def test_a_build_that_was_taken_over_is_the_next_one_s_to_keep(db: Database) -> None:
    builds.lease_build(db, PLAN, "1", "x", -1)
    db.commit()
    assert builds.take_build(db, PLAN, "1", "y", -1, 9) or builds.lease_build(db, PLAN, "1", "y", -1)
    builds.keep_build(db, PLAN, "x", 60)
    assert builds.builds_under_way(db) == 0
    builds.keep_build(db, PLAN, "y", 60)
    assert builds.builds_under_way(db) == 1


def test_a_lease_that_is_taken_again_lasts_from_then_on(db: Database) -> None:
    for seconds in (-1, 60):
        assert builds.take_build(db, PLAN, "1", "x", seconds, 9) or builds.lease_build(db, PLAN, "1", "x", seconds)
        db.commit()
    assert builds.builds_under_way(db) == 1


@pytest.mark.parametrize("made", [True, False])
def test_only_its_holder_ends_a_build(db: Database, made: bool) -> None:
    builds.lease_build(db, PLAN, "1", "x", 60)
    builds.lease_build(db, OTHER, "1", "x", 60)
    builds.end_build(db, PLAN, "y", made=made)
    assert holders(db) == {PLAN: "x", OTHER: "x"}
    builds.end_build(db, PLAN, "x", made=made)
    assert holders(db) == {OTHER: "x"}


def test_what_a_job_is_to_make_is_known_until_it_is_made(db: Database) -> None:
    builds.note_request(db, PLAN, "1", b"a request")
    builds.lease_build(db, PLAN, "1", "x", 60)
    builds.end_build(db, PLAN, "x", made=False)
    assert (builds.noted_request(db, PLAN), builds.builds_under_way(db)) == (("1", b"a request"), 0)
    assert builds.lease_build(db, PLAN, "1", "y", 60)
    builds.end_build(db, PLAN, "y", made=True)
    assert builds.noted_request(db, PLAN) is None


def test_a_build_that_no_job_makes_has_no_request(db: Database) -> None:
    builds.lease_build(db, PLAN, "1", "x", 60)
    assert builds.noted_request(db, PLAN) is None


def test_a_request_leaves_who_is_at_it_alone(db: Database) -> None:
    builds.lease_build(db, PLAN, "1", "x", 60)
    for request in (b"a request", b"a later one"):
        builds.note_request(db, PLAN, "1", request)
    assert (holders(db), builds.builds_under_way(db)) == ({PLAN: "x"}, 1)
    assert builds.noted_request(db, PLAN) == ("1", b"a later one")


@pytest.mark.parametrize(("holder", "left"), [("x", {}), ("y", {PLAN: "y"})], ids=["its own", "another's"])
def test_a_settled_build_is_a_ready_answer_under_all_its_keys(
    hub: HubEnvironment, db: Database, holder: str, left: dict[str, str]
) -> None:
    hub.add(MusehubFetchPack(mpack_id=PACK.mpack_id, size_bytes=1))
    builds.lease_build(db, PLAN, "1", holder, 60)
    db.commit()
    builds.settle_build(db, PLAN, "x", [PLAN, OTHER], "1", PACK)
    found = [find_plan(db, key) for key in (PLAN, OTHER)]
    assert [None if plan is None else plan.packs for plan in found] == [[PACK]] * 2
    assert holders(db) == left
