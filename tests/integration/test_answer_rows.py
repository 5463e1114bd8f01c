"""Answers that are ready, and the packs that clones begin with: rows, on both databases."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from musehub_plugin.ids import fake_id
from musehub_plugin.store import fetch_plans
from musehub_plugin.store.fetch_plans import ClonePack, ReadyPack
from musehub_plugin.store.models import Base, MusehubFetchPack, MusehubFetchPlan
from musehub_plugin.store.session import Database
from tests.environment import HubEnvironment

PLAN, OTHER = fake_id("a plan"), fake_id("another plan")
ONE, TWO = (ReadyPack(fake_id(name), 1, 2, 3, 4) for name in ("one", "two"))
TRAVELS = ReadyPack(fake_id("travels"), 1, 2, 3, 4, b"its bytes")


def ago(seconds: int) -> datetime:
    """Return the moment some seconds ago."""
    return datetime.now(UTC) - timedelta(seconds=seconds)


def stored(pack: ReadyPack, age: int = 0) -> MusehubFetchPack:
    """Return the row of a pack that was used so many seconds ago."""
    return MusehubFetchPack(mpack_id=pack.mpack_id, size_bytes=1, used_at=ago(age))


def answer(pack: ReadyPack, age: int = 0, *, key: str = PLAN, position: int = 0, count: int = 1) -> Base:
    """Return a row of an answer that was used so many seconds ago."""
    return MusehubFetchPlan(
        plan_key=key, position=position, repo_id="1", pack_count=count, used_at=ago(age), **pack._asdict()
    )


def ages(db: Database, *packs: ReadyPack) -> list[int]:
    """Return the minutes since packs were used."""
    rows = db.execute(select(MusehubFetchPack.mpack_id, MusehubFetchPack.used_at))
    found = {row.mpack_id: (datetime.now(UTC) - row.used_at).total_seconds() for row in rows}
    return [int(found[pack.mpack_id]) // 60 for pack in packs]


def keys(db: Database) -> set[str]:
    return set(db.execute(select(MusehubFetchPlan.plan_key)).scalars())


@pytest.mark.parametrize("packs", [[ONE, TWO], [TWO, ONE], [ONE, TRAVELS], [TRAVELS]])
def test_an_answer_is_found_in_its_order(hub: HubEnvironment, db: Database, packs: list[ReadyPack]) -> None:
    hub.add(stored(ONE), stored(TWO))
    fetch_plans.add_plans(db, [PLAN, OTHER], "1", packs)
    found = [fetch_plans.find_plan(db, key) for key in (PLAN, OTHER)]
    assert [None if plan is None else plan.packs for plan in found] == [packs] * 2


def test_an_answer_of_which_a_pack_was_collected_is_none(hub: HubEnvironment, db: Database) -> None:
    hub.add(stored(ONE))
    fetch_plans.add_plans(db, [PLAN], "1", [ONE, TWO])
    assert fetch_plans.find_plan(db, PLAN) is None


def test_an_answer_of_which_a_row_is_gone_is_none(hub: HubEnvironment, db: Database) -> None:
    hub.add(stored(ONE), answer(ONE, count=2))
    assert fetch_plans.find_plan(db, PLAN) is None


@pytest.mark.parametrize(("pack", "minutes"), [(ONE, 10), (TRAVELS, 1)], ids=["in storage", "in its row"])
def test_the_use_of_an_answer_is_that_of_its_pack_where_it_has_one(
    hub: HubEnvironment, db: Database, pack: ReadyPack, minutes: int
) -> None:
    hub.add(stored(ONE, 600), answer(pack, 60))
    found = fetch_plans.find_plan(db, PLAN)
    assert found is not None
    assert int(found.noted_ago) // 60 == minutes


def test_the_use_of_an_answer_is_that_of_the_pack_used_longest_ago(hub: HubEnvironment, db: Database) -> None:
    hub.add(stored(ONE, 60), stored(TWO, 600), answer(ONE, count=2), answer(TWO, position=1, count=2))
    found = fetch_plans.find_plan(db, PLAN)
    assert found is not None
    assert int(found.noted_ago) // 60 == 10


def test_a_use_is_noted_of_the_answer_s_own_packs(hub: HubEnvironment, db: Database) -> None:
    hub.add(stored(ONE, 600), stored(TWO, 600), answer(ONE, 600), answer(TWO, 600, key=OTHER))
    assert fetch_plans.note_use(db, PLAN, [ONE, TRAVELS])
    assert ages(db, ONE, TWO) == [0, 10]
    assert fetch_plans.forget_unused_plans(db, 300) == 1
    assert keys(db) == {PLAN}


@pytest.mark.parametrize("left", [stored, answer], ids=["its pack alone", "its row alone"])
def test_a_use_of_what_was_collected_is_told(
    hub: HubEnvironment, db: Database, left: Callable[[ReadyPack], Base]
) -> None:
    hub.add(left(ONE))
    assert not fetch_plans.note_use(db, PLAN, [ONE])


def test_of_answers_that_rows_hold_those_used_last_stay(hub: HubEnvironment, db: Database) -> None:
    hub.add(*(answer(TRAVELS, 60 * age, key=fake_id(f"{age}")) for age in range(4)), answer(ONE, 900, key=OTHER))
    fetch_plans.add_plans(db, [PLAN], "2", [TRAVELS])
    assert fetch_plans.forget_least_used_answers(db, "1", 2) == 2
    assert keys(db) == {fake_id("0"), fake_id("1"), OTHER, PLAN}


def test_the_chain_of_a_repo_is_replaced_from_a_place_on(db: Database) -> None:
    chain = [ClonePack(fake_id(f"head {number}"), pack) for number, pack in enumerate((TWO, ONE))]
    for repo_id in ("1", "2"):
        fetch_plans.replace_clone_packs(db, repo_id, 0, chain)
    new = [ClonePack(fake_id("new head"), ReadyPack(fake_id("new"), 9, 8, 7, 6))]
    fetch_plans.replace_clone_packs(db, "1", 1, new)
    assert (fetch_plans.clone_packs(db, "1"), fetch_plans.clone_packs(db, "2")) == ([chain[0], *new], chain)


def test_what_a_repo_had_ready_is_retired_and_its_packs_are_collected_later(hub: HubEnvironment, db: Database) -> None:
    hub.add(stored(ONE, 600), stored(TWO, 600))
    for repo_id, key in (("1", PLAN), ("2", OTHER)):
        fetch_plans.add_plans(db, [key], repo_id, [TWO])
        fetch_plans.replace_clone_packs(db, repo_id, 0, [ClonePack(fake_id("head"), ONE)])
    fetch_plans.retire_plans(db, "1")
    assert (keys(db), len(fetch_plans.clone_packs(db, "2"))) == ({OTHER}, 1)
    assert (fetch_plans.clone_packs(db, "1"), ages(db, ONE, TWO)) == ([], [0, 10])
