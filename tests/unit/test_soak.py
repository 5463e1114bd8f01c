"""The soak's plan and account: a soak that cannot fail proves nothing."""

from __future__ import annotations

from itertools import islice

import pytest

from benchmarks.soaking.ledger import Ledger
from benchmarks.soaking.plan import TRACKS, faults


@pytest.mark.parametrize("track", TRACKS)
def test_the_same_seed_plans_the_same_faults(track: str) -> None:
    assert list(islice(faults(7, track, 600), 50)) == list(islice(faults(7, track, 600), 50))


@pytest.mark.parametrize("track", TRACKS)
def test_another_seed_plans_other_faults(track: str) -> None:
    assert list(islice(faults(7, track, 600), 50)) != list(islice(faults(8, track, 600), 50))


@pytest.mark.parametrize("track", TRACKS)
def test_every_kind_of_fault_comes_in_every_round(track: str) -> None:
    kinds = TRACKS[track]
    assert {fault.kind for fault in islice(faults(7, track, 600), len(kinds))} == set(kinds)


def test_a_branch_that_stands_elsewhere_than_acknowledged_is_lost() -> None:
    ledger = Ledger()
    ledger.acknowledged("ada/one", "topic", "second", seconds=0.1)
    ledger.compare("ada/one", {"topic": "first"})
    assert len(ledger.lost) == 1


def test_a_branch_that_is_gone_is_lost() -> None:
    ledger = Ledger()
    ledger.acknowledged("ada/one", "topic", "first", seconds=0.1)
    ledger.compare("ada/one", {})
    assert len(ledger.lost) == 1


def test_a_branch_that_stands_as_acknowledged_is_not_lost() -> None:
    ledger = Ledger()
    ledger.acknowledged("ada/one", "topic", "first", seconds=0.1)
    ledger.acknowledged("ada/one", "topic", "second", seconds=0.1)
    ledger.compare("ada/one", {"topic": "second", "other": "first"})
    assert ledger.lost == []


def test_a_client_answers_for_its_own_branches_alone() -> None:
    ledger = Ledger()
    ledger.acknowledged("ada/one", "mine", "first", seconds=0.1)
    ledger.acknowledged("ada/one", "yours", "first", seconds=0.1)
    ledger.compare("ada/one", {"mine": "first"}, mine=["mine"])
    assert ledger.lost == []


def test_an_acknowledged_commit_that_a_shared_branch_dropped_is_lost() -> None:
    ledger = Ledger()
    for commit_id in ("first", "second"):
        ledger.acknowledged("ada/one", "main", commit_id, seconds=0.1, shared=True)
    ledger.compare_shared("ada/one", "main", {"second"})
    assert ledger.lost == ["ada/one: main does not hold the acknowledged first"]
