"""How a pushed pack's snapshots are laid out along history, whatever their order in the pack, against the manifests."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musehub_plugin import descent, ids
from musehub_plugin.descent import Descent
from musehub_plugin.manifestlog import ManifestLog, difference
from musehub_plugin.mpack import SnapshotDelta
from musehub_plugin.store.manifests import MAX_CHAIN, Chain, NewSnapshot, RowChanges, StoredSnapshot, assembled
from musehub_plugin.store.session import Database
from tests.dags import CONTENTS, Dag, History, dags
from tests.effort import effort


@dataclass
class Rows:
    """What a repo has of snapshots."""

    history: History
    rows: dict[str, NewSnapshot] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    # The first snapshot of a push that is too wide for memory, by its place in the order of the pack.
    wide_from: int | None = None

    def push(self, commit_ids: Sequence[str], order: Sequence[str]) -> dict[str, Collection[str]] | None:
        """Take in commits whose snapshots come in some order; return what each commit introduces."""
        records = {commit_id: self.history.records[commit_id] for commit_id in commit_ids}
        outside = {parent for record in records.values() for parent in record["parent_ids"]} - records.keys()
        stored = {parent: self.history.records[parent]["snapshot_id"] for parent in outside}
        positions = {snapshot_id: position for position, snapshot_id in enumerate(order)}
        known = {*order, *stored.values()}
        chains = {snapshot_id: row.chain for snapshot_id, row in self.rows.items() if snapshot_id in known}
        laid_out = Descent(records, positions, stored, chains, self.manifest)
        for made in laid_out.snapshots(deltas(self.history, order, self.wide_from)):
            spooled = made.spooled
            row = made if spooled is None else made._replace(packed=spooled.read(0, spooled.size), spooled=None)
            self.rows.setdefault(made.snapshot_id, row)
        self.held.update(order)
        return laid_out.introduced()

    def manifest(self, snapshot_id: str) -> dict[str, str] | None:
        """Return a manifest by its chain."""
        rows = {each: StoredSnapshot(row.base_id, row.entry_count, row.packed, None) for each, row in self.rows.items()}
        return assembled(snapshot_id, rows, {}, no_large_rows()) if snapshot_id in self.held else None

    def chain(self, snapshot_id: str) -> Chain:
        """Return how long a chain is, counted."""
        length = size = 0
        at: NewSnapshot = self.rows[snapshot_id]
        while at.base_id is not None:
            length, size = length + 1, size + len(at.packed)
            at = self.rows[at.base_id]
        return Chain(length, size)


def no_large_rows() -> RowChanges:
    """Return what unpacks rows of which none is so large that it is asked for apart."""
    return RowChanges(cast(Database, None))


def deltas(history: History, order: Iterable[str], wide_from: int | None = None) -> Iterable[SnapshotDelta]:
    """Yield snapshots as a pack's reader gives them: the first one whole, the others against the one before."""
    before: Mapping[str, str] = {}
    for ordinal, snapshot_id in enumerate(order):
        manifest = history.manifests[snapshot_id]
        removed, changed = difference(before, manifest)
        full = ordinal % 5 == 0
        yield SnapshotDelta(
            ordinal,
            snapshot_id,
            full,
            [] if full else removed,
            dict(manifest) if full else changed,
            len(manifest),
            False,
            # One that is given whole may be narrow again.
            wide_from is not None and ordinal >= wide_from and ordinal // 5 % 3 != 2,
        )
        before = manifest


def pushed(data: st.DataObject, history: History) -> tuple[Rows, dict[str, Collection[str]]]:
    """Push a history in random pieces, the snapshots of each in any order, some again and some for nothing."""
    rows = Rows(history)
    introduced: dict[str, Collection[str]] = {}
    cuts = sorted(data.draw(st.sets(st.integers(1, len(history.order)), max_size=3)))
    for start, end in zip([0, *cuts], [*cuts, len(history.order)], strict=True):
        commits = history.order[start:end]
        if commits:
            needed = {history.records[commit_id]["snapshot_id"] for commit_id in commits}
            # What the repo has need not come again, and what no commit needs may come.
            optional = sorted(needed & rows.held) + sorted(set(history.manifests) - needed)
            brought = (needed - rows.held) | data.draw(
                st.sets(st.sampled_from(optional)) if optional else st.just(set())
            )
            order = data.draw(st.permutations(sorted(brought)))
            rows.wide_from = data.draw(st.none() | st.integers(0, 6))
            found = rows.push(commits, order)
            assert found is not None
            introduced.update(found)
    return rows, introduced


@effort(300)
@given(dags(max_commits=10), st.data())
def test_rows_read_back_to_the_manifests_that_were_pushed(dag: Dag, data: st.DataObject) -> None:
    history = dag.history()
    rows, _ = pushed(data, history)
    for snapshot_id in rows.held:
        assert rows.manifest(snapshot_id) == history.manifests[snapshot_id]


@effort(300)
@given(dags(max_commits=10), st.data())
def test_a_commit_introduces_what_its_first_parent_has_not_and_nothing_that_it_has_not_itself(
    dag: Dag, data: st.DataObject
) -> None:
    history = dag.history()
    _, introduced = pushed(data, history)
    assert introduced.keys() == history.records.keys()
    for commit_id, object_ids in introduced.items():
        manifest = history.manifests[history.records[commit_id]["snapshot_id"]]
        parents = history.parents(commit_id)
        before = history.manifests[history.records[parents[0]]["snapshot_id"]] if parents else {}
        assert set(difference(before, manifest).changed.values()) <= set(object_ids) <= set(manifest.values())


@effort(200)
@given(dags(max_commits=10), st.data())
def test_where_the_way_back_is_forgotten_rows_read_back_and_a_commit_introduces_all_that_it_must(
    dag: Dag, data: st.DataObject
) -> None:
    history = dag.history()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(descent, "ManifestLog", lambda: ManifestLog(kept_changes=2))
        rows = Rows(history, wide_from=data.draw(st.none() | st.integers(0, 6)))
        order = data.draw(st.permutations(sorted(history.manifests)))
        introduced = rows.push(history.order, order)
    assert all(rows.manifest(each) == history.manifests[each] for each in order)
    for commit_id, object_ids in (introduced or {}).items():
        manifest = history.manifests[history.records[commit_id]["snapshot_id"]]
        parents = history.parents(commit_id)
        before = history.manifests[history.records[parents[0]]["snapshot_id"]] if parents else {}
        assert set(difference(before, manifest).changed.values()) <= set(object_ids) <= set(manifest.values())


@effort(100)
@given(dags(max_commits=10), st.data())
def test_rows_know_how_far_they_are_from_a_whole_manifest(dag: Dag, data: st.DataObject) -> None:
    history = dag.history()
    rows, _ = pushed(data, history)
    for snapshot_id, row in rows.rows.items():
        assert row.chain == rows.chain(snapshot_id)
        assert row.entry_count == len(history.manifests[snapshot_id])


def long_line(commits: int, files: int) -> History:
    history = History()
    manifest = {f"{number}.txt": ids.blob_id(CONTENTS[0]) for number in range(files)}
    tip: list[str] = []
    for number in range(commits):
        manifest[f"{number % files}.txt"] = ids.fake_id(str(number))
        tip = [history.commit(tip, manifest, str(number))]
    return history


def snapshots_of(history: History) -> list[str]:
    return [history.records[commit_id]["snapshot_id"] for commit_id in history.order]


def test_a_chain_is_never_longer_than_its_bound_in_one_push() -> None:
    history = long_line(3 * MAX_CHAIN, 300)
    rows = Rows(history)
    rows.push(history.order, snapshots_of(history))
    lengths = [rows.chain(snapshot_id).length for snapshot_id in rows.rows]
    assert max(lengths) == MAX_CHAIN
    assert lengths.count(0) == 3


def test_a_chain_is_never_longer_than_its_bound_in_many_pushes() -> None:
    history = long_line(2 * MAX_CHAIN + 10, 300)
    rows = Rows(history)
    for commit_id in history.order:
        rows.push([commit_id], [history.records[commit_id]["snapshot_id"]])
    assert max(rows.chain(snapshot_id).length for snapshot_id in rows.rows) == MAX_CHAIN


def test_a_chain_of_changes_takes_no_more_bytes_than_two_whole_manifests() -> None:
    history = long_line(60, 4)
    rows = Rows(history)
    rows.push(history.order, snapshots_of(history))
    assert all(rows.chain(snapshot_id).size_bytes <= 120 * 4 for snapshot_id in rows.rows)


def test_children_before_parents_read_back() -> None:
    history = long_line(40, 10)
    rows = Rows(history)
    rows.push(history.order, snapshots_of(history)[::-1])
    assert all(rows.manifest(each) == manifest for each, manifest in history.manifests.items())
