"""A long pushed history is taken a stretch at a time: nothing is left out, and nothing is needed before it is there."""

from __future__ import annotations

from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musehub_plugin import commitspool, ids
from musehub_plugin import stretches as module
from musehub_plugin.commitspool import CommitSpool
from musehub_plugin.descent import Descent
from musehub_plugin.manifestlog import ManifestLog
from musehub_plugin.mpack.digests import DigestTable
from musehub_plugin.store.manifests import NewSnapshot, StoredSnapshot, assembled
from musehub_plugin.stretches import FirstPaths, Introduced, stretches
from tests.dags import Dag, History, dags
from tests.unit.test_descent import deltas, no_large_rows


def spooled(history: History, order: Collection[str]) -> CommitSpool:
    """Return the commits of a history, come in some order."""
    spool = CommitSpool()
    for commit_id in order:
        spool.add(history.records[commit_id])
    return spool


@given(dags(), st.data())
def test_what_was_spooled_comes_back(dag: Dag, data: st.DataObject) -> None:
    history = dag.history()
    order = data.draw(st.permutations(history.order))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(commitspool, "_HELD", data.draw(st.sampled_from((0, 300, 1 << 20))))
        spool = spooled(history, order)
    assert list(spool) == order
    assert {spool.commit_id(n): spool.record(n) for n in spool.in_order_of_ids()} == history.records
    assert [spool.commit_id(n) for n in spool.in_order_of_ids()] == sorted(order)
    for commit_id in order:
        assert spool[commit_id]["parent_ids"] == history.parents(commit_id)
        assert spool[commit_id]["snapshot_id"] == history.records[commit_id]["snapshot_id"]


@given(dags(), st.data())
def test_a_spool_tells_parents_that_did_not_come(dag: Dag, data: st.DataObject) -> None:
    history = dag.history()
    came = data.draw(st.lists(st.sampled_from(history.order), unique=True))
    spool = spooled(history, came)
    outside = {parent for commit_id in came for parent in history.parents(commit_id)} - set(came)
    assert spool.outside_parents().keys() == outside
    assert all(parent in history.parents(child) for parent, child in spool.outside_parents().items())
    assert all(commit_id in spool for commit_id in came)
    assert not any(parent in spool for parent in outside)


@given(dags(), st.data())
def test_parents_come_before_their_children_in_whatever_order_they_came(dag: Dag, data: st.DataObject) -> None:
    history = dag.history()
    spool = spooled(history, data.draw(st.permutations(history.order)))
    seen: set[str] = set()
    for number in spool.history_order():
        commit_id = spool.commit_id(number)
        assert seen.issuperset(history.parents(commit_id))
        seen.add(commit_id)
    assert seen == set(history.order)


@given(dags(), st.data())
def test_rows_of_stretches_read_back_to_what_was_pushed_and_each_commit_introduces_what_is_new(
    dag: Dag, data: st.DataObject
) -> None:
    history = dag.history()
    spool = spooled(history, history.order)
    snapshot_order = data.draw(st.one_of(st.just(list(history.manifests)), st.permutations(list(history.manifests))))
    snapshots, objects = DigestTable(), DigestTable()
    for snapshot_id in snapshot_order:
        snapshots.number(ids.to_digest(snapshot_id))
    rows: dict[str, NewSnapshot] = {}

    def manifest(snapshot_id: str) -> dict[str, str] | None:
        stored = {each: StoredSnapshot(row.base_id, row.entry_count, row.packed, None) for each, row in rows.items()}
        return assembled(snapshot_id, stored, {}, no_large_rows())

    kept = data.draw(st.sampled_from((2, 1_000)))
    introduced, log = Introduced(objects), ManifestLog(kept_changes=kept)
    stream = iter(deltas(history, snapshot_order))
    placed: list[tuple[str, bool]] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "STRETCH", data.draw(st.integers(1, 4)))
        for stretch in stretches(spool, spool.history_order(), snapshots):
            parents = stretch.parent_snapshots({})
            chains = {each: rows[each].chain for each in parents.values() if each in rows}
            descent = Descent(stretch.records, stretch.positions, parents, chains, manifest, log=log)
            for made in descent.snapshots(next(stream) for _ in stretch.positions):
                rows[made.snapshot_id] = made
            found = descent.introduced()
            # Where the way back is forgotten, finding out may cost too much.
            assert found is not None or kept == 2
            introduced.extend((found or {}).get(commit_id, ()) for commit_id in stretch.records)
            placed += [(commit_id, found is not None) for commit_id in stretch.records]
    assert [commit_id for commit_id, _ in placed] == history.order
    assert rows.keys() == history.manifests.keys()
    assert all(manifest(each) == history.manifests[each] for each in rows)
    for place, (commit_id, is_known) in enumerate(placed):
        mine = history.manifests[history.records[commit_id]["snapshot_id"]]
        first = history.parents(commit_id)[:1]
        before = history.manifests[history.records[first[0]]["snapshot_id"]] if first else {}
        new = {object_id for path, object_id in mine.items() if before.get(path) != object_id}
        assert not is_known or new <= set(introduced[place]) <= set(mine.values())


def test_an_object_has_the_path_that_was_noted_first() -> None:
    paths = FirstPaths()
    paths.note(3, "a")
    paths.note(3, "b")
    paths.note(1, "b")
    assert [paths.first(number) for number in range(5)] == ["", "b", "", "a", ""]
