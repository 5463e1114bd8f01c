"""What a fetch plans, over rows of PostgreSQL and SQLite alike, against the naive oracle."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete, event, update
from sqlalchemy.orm import Session

from musehub_plugin import commitgraph, ids, plannedchanges, widelog
from musehub_plugin import plan as plan_module
from musehub_plugin.errors import HistoryDamaged, NotFound
from musehub_plugin.history import GraphCache
from musehub_plugin.manifestlog import ManifestLog
from musehub_plugin.models import MusehubCommitGraph
from musehub_plugin.plan import Plan, plan_delta
from musehub_plugin.plannedchanges import read_changes
from musehub_plugin.repack import rewrite_rows
from musehub_plugin.store import manifests as manifest_rows
from musehub_plugin.store.prepared import Question
from musehub_plugin.store.session import Database
from tests.dags import CONTENTS, DATES, Dag, History, dags, random_dag
from tests.effort import effort
from tests.integration.oracle.rows import broad_history, write, write_changes, written

Databases = Mapping[str, Database]


def plan(databases: Databases, repo_id: str, want: Sequence[str], have: Sequence[str]) -> Plan:
    """Return the plan, which both databases agree on to the order; an empty one where nothing is lacking.

    It is the same by the packed history as by rows.
    """
    plans = [found(db, repo_id, want, have) for db in databases.values()]
    plans += [found_packed(db, repo_id, want, have) for db in databases.values()]
    assert all(each == plans[0] for each in plans)
    return plans[0]


def found(db: Database, repo_id: str, want: Sequence[str], have: Sequence[str]) -> Plan:
    planned = plan_delta(db, repo_id, want, have)
    if planned is None:
        return Plan([], [], [])
    return Plan(list(planned.commit_ids), list(planned.snapshot_ids), list(planned.object_ids))


def found_packed(db: Database, repo_id: str, want: Sequence[str], have: Sequence[str]) -> Plan:
    """Return the plan as it is once the repo's rows are packed; the rows are then as they were."""
    savepoint = db.session.begin_nested()
    try:
        assert rewrite_rows(db, GraphCache(0), repo_id)
        small = found(db, repo_id, want, have)
        with pytest.MonkeyPatch.context() as patched:
            # As a plan of many blobs is made.
            patched.setattr(plan_module, "_KEPT_BLOBS", 0)
            patched.setattr(commitgraph, "_FEW_INTRODUCED", 0)
            assert found(db, repo_id, want, have) == small
        return small
    finally:
        savepoint.rollback()


def agrees(found: Plan, history: History, want: Sequence[str], have: Sequence[str]) -> bool:
    commits, snapshots, blobs = history.delta(want, have)
    return (
        sorted(found.commit_ids) == sorted(commits)
        and sorted(found.snapshot_ids) == sorted(snapshots)
        and sorted(found.object_ids) == sorted(blobs)
    )


def drawn(data: st.DataObject, ids_: Sequence[str], *, at_least: int = 0) -> list[str]:
    return data.draw(st.lists(st.sampled_from(ids_), min_size=at_least, max_size=5))


@effort(100)
@given(dags(), st.data())
def test_n01_n04_the_plan_is_the_oracle_s(databases: Databases, dag: Dag, data: st.DataObject) -> None:
    history = dag.history()
    foreign = History()
    # Another repo's commit on top of one of ours, which this repo does not hold, and an id that nobody has.
    theirs = foreign.commit([data.draw(st.sampled_from(history.order))], {}, "theirs")
    want = drawn(data, history.order, at_least=1)
    have = drawn(data, [*history.order, theirs, ids.fake_id("nobody")])
    with written(databases, ours=history, theirs=foreign):
        assert agrees(plan(databases, "ours", want, have), history, want, have)


def test_n05_over_a_thousand_random_graphs_agree_with_the_oracle(databases: Databases) -> None:
    chance = random.Random(2026)
    for batch in range(24):
        histories = {
            f"r{batch}-{number}": random_dag(chance, 12, f"{batch} {number} ").history() for number in range(50)
        }
        db = databases["postgresql" if batch % 10 == 0 else "sqlite"]
        for repo_id, history in histories.items():
            write(db, repo_id, history)
        for repo_id, history in histories.items():
            want = chance.choices(history.order, k=chance.randint(1, 3))
            have = chance.choices(history.order, k=chance.randint(0, 3))
            assert agrees(found(db, repo_id, want, have), history, want, have), (batch, repo_id, want, have)
            assert rewrite_rows(db, GraphCache(0), repo_id)
            packed = found(db, repo_id, want, have)
            assert agrees(packed, history, want, have), (batch, repo_id, want, have)
        db.rollback()


@pytest.mark.parametrize("kept_changes", [3, 50_000], ids=["what is at hand is soon forgotten", "all is at hand"])
@pytest.mark.parametrize("wide", [1 << 17, 3, 0], ids=["in memory", "some in a file", "in a file"])
@pytest.mark.parametrize("together", [1 << 18, 60, 0], ids=["small rows", "some large rows", "large rows"])
def test_what_snapshots_change_leads_to_their_manifests_however_they_are_read(
    databases: Databases, monkeypatch: pytest.MonkeyPatch, kept_changes: int, wide: int, together: int
) -> None:
    monkeypatch.setattr(plannedchanges, "_SNAPSHOT_BATCH", 2)
    monkeypatch.setattr(plannedchanges, "WIDE_TO_WRITE", wide)
    monkeypatch.setattr(widelog, "_KEPT_MANIFESTS", min(kept_changes, 64))
    monkeypatch.setattr(manifest_rows, "_READ_TOGETHER", together)
    for question in ("_rows", "_chain", "_chains"):
        monkeypatch.setattr(manifest_rows, question.upper(), Question(getattr(manifest_rows, question)))
    monkeypatch.setattr(plannedchanges, "ManifestLog", partial(ManifestLog, kept_changes))
    chance = random.Random(2026)
    for name, db in databases.items():
        for number in range(8):
            repo_id = f"batches {name} {number}"
            history = broad_history(chance, 20, repo_id)
            write_changes(db, repo_id, history)
            write(db, repo_id, history)
            assert rewrite_rows(db, GraphCache(0), repo_id)
            planned = plan_delta(db, repo_id, history.order, [])
            assert planned is not None
            manifest: dict[str, str] = {}
            for snapshot_id, change, _ in read_changes(db, repo_id, planned.snapshot_ids):
                manifest = {path: manifest[path] for path in manifest.keys() - change.removed} | dict(change.changed)
                assert manifest == history.manifests[snapshot_id]
        db.rollback()


@pytest.fixture
def diamond() -> History:
    """r, then p1 and p2 on it, then m on both; each brings a blob."""
    trees = (("a.txt", 0),), (("a.txt", 1),), (("a.txt", 2),), (("a.txt", 1), ("b.txt", 2))
    return Dag(((), (0,), (0,), (1, 2)), trees, (DATES[1],) * 4).history()


def test_n02_a_have_above_the_want_plans_nothing(databases: Databases, diamond: History) -> None:
    r, p1, _, m = diamond.order
    with written(databases, ours=diamond):
        assert plan(databases, "ours", [p1, r], [m]) == Plan([], [], [])


def test_n03_the_want_itself_as_a_have_plans_nothing(databases: Databases, diamond: History) -> None:
    with written(databases, ours=diamond):
        assert all(plan_delta(db, "ours", [diamond.order[3]], [diamond.order[3]]) is None for db in databases.values())


def test_n05_the_root_of_a_diamond_is_not_sent_again(databases: Databases, diamond: History) -> None:
    _, p1, p2, m = diamond.order
    with written(databases, ours=diamond):
        assert plan(databases, "ours", [m], [p2]).commit_ids == [p1, m]


def test_n06_a_sibling_and_an_unrelated_root_as_haves(databases: Databases, diamond: History) -> None:
    _, p1, p2, _ = diamond.order
    lone = diamond.commit([], {}, "lone")
    with written(databases, ours=diamond):
        assert plan(databases, "ours", [p1], [p2, lone]).commit_ids == [p1]


def test_n08_the_plan_does_not_depend_on_the_order_of_the_wants_and_haves(
    databases: Databases, diamond: History
) -> None:
    r, p1, p2, m = diamond.order
    above = [diamond.commit([m], {"a.txt": ids.blob_id(CONTENTS[number])}, f"tip {number}") for number in range(3)]
    with written(databases, ours=diamond):
        plans = [
            plan(databases, "ours", list(want), [*have, have[0]])
            for want in itertools.permutations([*above, p1])
            for have in ([r, p2], [p2, r])
        ]
    assert all(found == plans[0] for found in plans)


def test_n09_redundant_haves_change_nothing(databases: Databases, diamond: History) -> None:
    r, p1, _, m = diamond.order
    with written(databases, ours=diamond):
        assert plan(databases, "ours", [m], [p1, r, p1]) == plan(databases, "ours", [m], [p1])


def test_n10_pairs_of_the_grid_follow_the_rule(databases: Databases) -> None:
    size = 10
    grid = History()
    cells: dict[tuple[int, int], str] = {}
    for x, y in itertools.product(range(size), repeat=2):
        parents = [cells[left, down] for left, down in ((x - 1, y), (x, y - 1)) if left >= 0 and down >= 0]
        cells[x, y] = grid.commit(parents, {}, f"{x},{y}")
    chance = random.Random(6600)
    pairs = chance.sample(list(itertools.product(cells, repeat=2)), 60)
    with written(databases, ours=grid):
        for (wx, wy), (hx, hy) in pairs:
            expected = {
                commit_id for (x, y), commit_id in cells.items() if x <= wx and y <= wy and not (x <= hx and y <= hy)
            }
            found = plan(databases, "ours", [cells[wx, wy]], [cells[hx, hy]])
            assert set(found.commit_ids) == expected, ((wx, wy), (hx, hy))


def test_n11_a_blob_that_came_back_is_not_sent_to_who_has_its_history(databases: Databases) -> None:
    first, second = ({"a.txt": ids.blob_id(CONTENTS[number])} for number in (1, 2))
    history = History()
    a = history.commit([], first, "a")
    x = history.commit([a], second, "x")
    c = history.commit([x], first, "c")
    with written(databases, ours=history):
        found = plan(databases, "ours", [c], [x])
    assert (found.commit_ids, found.snapshot_ids, found.object_ids) == ([c], [ids.snapshot_id(first)], [])


def test_n12_a_blob_under_many_paths_and_commits_is_sent_once(databases: Databases) -> None:
    blob = ids.blob_id(CONTENTS[3])
    history = History()
    one = history.commit([], {"a.txt": blob, "b.txt": blob}, "one")
    two = history.commit([one], {"c/d.txt": blob}, "two")
    with written(databases, ours=history):
        assert plan(databases, "ours", [two], []).object_ids == [blob]


def test_n13_a_snapshot_of_several_commits_is_sent_once(databases: Databases) -> None:
    manifest = {"a.txt": ids.blob_id(CONTENTS[3])}
    history = History()
    tip = history.commit([history.commit([], manifest, "one")], manifest, "two")
    with written(databases, ours=history):
        found = plan(databases, "ours", [tip], [])
    assert (len(found.commit_ids), len(found.snapshot_ids), len(found.object_ids)) == (2, 1, 1)


def test_n14_a_commit_without_a_change_is_sent_without_blobs(databases: Databases) -> None:
    manifest = {"a.txt": ids.blob_id(CONTENTS[3])}
    history = History()
    one = history.commit([], manifest, "one")
    two = history.commit([one], manifest, "two")
    with written(databases, ours=history):
        assert plan(databases, "ours", [two], [one]) == Plan([two], [ids.snapshot_id(manifest)], [])


def test_n15_the_empty_manifest_and_the_empty_blob_are_planned(databases: Databases) -> None:
    history = History()
    one = history.commit([], {}, "one")
    two = history.commit([one], {"a.txt": ids.blob_id(b"")}, "two")
    with written(databases, ours=history):
        found = plan(databases, "ours", [two], [])
    assert found.object_ids == [ids.blob_id(b"")]
    assert found.snapshot_ids[0] == ids.snapshot_id({})


def test_n19_a_parent_that_is_not_stored_is_an_error_and_no_hole(databases: Databases, diamond: History) -> None:
    r, *_, m = diamond.order
    for db in databases.values():
        write(db, "ours", diamond, without=[r])
        with pytest.raises(HistoryDamaged):
            plan_delta(db, "ours", [m], [])
        db.rollback()


def test_n19_a_parent_that_the_client_has_need_not_be_stored(databases: Databases, diamond: History) -> None:
    r, p1, p2, m = diamond.order
    for db in databases.values():
        write(db, "ours", diamond, without=[r])
        found = plan_delta(db, "ours", [m], [r])
        assert found is not None
        assert set(found.commit_ids) == {p1, p2, m}
        db.rollback()


def test_n19_a_hole_on_the_have_side_is_not_the_answer_s_concern(databases: Databases, diamond: History) -> None:
    r, p1, p2, m = diamond.order
    for db in databases.values():
        write(db, "ours", diamond, without=[r])
        found = plan_delta(db, "ours", [m], [p1, p2])
        assert found is not None
        assert list(found.commit_ids) == [m]
        db.rollback()


def test_n19_a_parent_that_only_another_repo_holds_is_a_hole(databases: Databases, diamond: History) -> None:
    m = diamond.order[3]
    for db in databases.values():
        write(db, "theirs", diamond)
        write(db, "ours", diamond, without=[diamond.order[0]])
        with pytest.raises(HistoryDamaged):
            plan_delta(db, "ours", [m], [])
        db.rollback()


def test_s01_a_want_of_another_repo_is_not_found(databases: Databases, diamond: History) -> None:
    ours = History()
    ours.commit([], {}, "ours")
    with written(databases, theirs=diamond, ours=ours):
        for db in databases.values():
            with pytest.raises(NotFound):
                plan_delta(db, "ours", [ours.order[0], diamond.order[3]], [])


GENERATIONS = {"complete": None, "absent": "delete", "half": "half", "too high": 10**12, "too low": -7}


@effort(15)
@given(dags(), st.data())
@pytest.mark.parametrize("state", GENERATIONS)
def test_n20_the_plan_does_not_depend_on_generations(
    databases: Databases, state: str, dag: Dag, data: st.DataObject
) -> None:
    history = dag.history()
    want, have = drawn(data, history.order, at_least=1), drawn(data, history.order)
    with written(databases, ours=history):
        for db in databases.values():
            change = GENERATIONS[state]
            if change == "delete":
                db.change(delete(MusehubCommitGraph))
            elif change == "half":
                half = history.order[::2]
                db.change(delete(MusehubCommitGraph).where(MusehubCommitGraph.commit_id.in_(half)))
            elif change is not None:
                db.change(update(MusehubCommitGraph).values(generation=change))
        assert agrees(plan(databases, "ours", want, have), history, want, have)


@pytest.mark.parametrize(
    "dates",
    [DATES[::-1], (DATES[1],) * 5, (DATES[4], DATES[0], DATES[4], DATES[0], DATES[3])],
    ids=["children older", "all the same", "to and fro"],
)
def test_n21_the_plan_does_not_depend_on_dates(databases: Databases, dates: tuple[str, ...]) -> None:
    history = Dag(((), (0,), (0,), (1, 2), (3,)), ((),) * 5, dates).history()
    with written(databases, ours=history):
        for want, have in itertools.product(history.order, repeat=2):
            assert agrees(plan(databases, "ours", [want], [have]), history, [want], [have])


@effort(25)
@given(dags(), st.data())
def test_n28_a_further_have_never_adds_and_a_further_want_never_removes(
    databases: Databases, dag: Dag, data: st.DataObject
) -> None:
    history = dag.history()
    want, have = drawn(data, history.order, at_least=1), drawn(data, history.order)
    further = data.draw(st.sampled_from(history.order))
    with written(databases, ours=history):
        before = plan(databases, "ours", want, have)
        less = plan(databases, "ours", want, [*have, further])
        more = plan(databases, "ours", [*want, further], have)
        rest = plan(databases, "ours", want, [*have, *before.commit_ids])
    assert set(less.commit_ids) <= set(before.commit_ids) <= set(more.commit_ids)
    assert set(less.object_ids) <= set(before.object_ids) <= set(more.object_ids)
    assert rest == Plan([], [], [])


@effort(25)
@given(dags(), st.data())
def test_n29_two_fetches_bring_what_one_brings(databases: Databases, dag: Dag, data: st.DataObject) -> None:
    history = dag.history()
    first, second = drawn(data, history.order, at_least=1), drawn(data, history.order, at_least=1)
    with written(databases, ours=history):
        parts = [plan(databases, "ours", first, []), plan(databases, "ours", second, first)]
        whole = plan(databases, "ours", [*first, *second], [])
    for kind in ("commit_ids", "snapshot_ids", "object_ids"):
        assert {item for part in parts for item in getattr(part, kind)} == set(getattr(whole, kind)), kind


def statements(db: Database, repo_id: str, want: str) -> int:
    session = db.session
    assert isinstance(session, Session)
    engine = session.get_bind()
    counted = 0

    def count(*_: object) -> None:
        nonlocal counted
        counted += 1

    event.listen(engine, "before_cursor_execute", count)
    try:
        plan_delta(db, repo_id, [want], [])
    finally:
        event.remove(engine, "before_cursor_execute", count)
    return counted


def line(length: int) -> History:
    history = History()
    tip: list[str] = []
    for number in range(length):
        tip = [history.commit(tip, {"a.txt": ids.blob_id(CONTENTS[number % 10])}, f"line {length} {number}")]
    return history


def test_c18_a_hundred_times_the_commits_take_no_more_statements(databases: Databases) -> None:
    short, long = line(10), line(1_000)
    with written(databases, short=short, long=long):
        for dialect, db in databases.items():
            few, many = statements(db, "short", short.order[-1]), statements(db, "long", long.order[-1])
            # Ten snapshots are shared by all the commits: one batch of manifests in either.
            assert few == many, dialect
            assert many <= 6, dialect


def test_n24_ten_thousand_commits_with_five_thousand_haves(databases: Databases) -> None:
    chance = random.Random(24)
    history = History()
    for number in range(10_000):
        recent = history.order[-8:]
        parents = recent[-1:]
        if number % 3 == 0 and recent:
            parents.append(chance.choice(recent))
        history.commit(parents, {}, f"wide {number}")
    have = history.order[:10_000:2]
    db = databases["sqlite"]
    write(db, "ours", history)
    found = plan_delta(db, "ours", [history.order[-1]], have)
    db.rollback()
    assert found is not None
    assert set(found.commit_ids) == history.delta([history.order[-1]], have)[0]
