"""The planner: what a fetch sends, exactly, at the cost of the answer.

Commits: what the wants reach and the haves do not. Snapshots: those of these commits. Blobs: those of these snapshots,
less those of every snapshot that the have side must hold (the contract's section 2).

Where the repo's history is packed (`commitgraph`), that costs what the difference between the two sides costs, and the
statements are few. Else the rows of the whole repo are read, to the same answer.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from musehub_plugin import graph, ids
from musehub_plugin.changespool import ChangeSpool, PlannedChange
from musehub_plugin.errors import HistoryDamaged, NotFound
from musehub_plugin.history import GraphCache, History
from musehub_plugin.mpack import solid_order
from musehub_plugin.placedblobs import distinct_ids, placed_blobs
from musehub_plugin.plannedchanges import read_changes
from musehub_plugin.signals import report_damage
from musehub_plugin.storage.temporary import temporary_room
from musehub_plugin.store import commits as commit_store
from musehub_plugin.store import manifests
from musehub_plugin.store.session import Database

# Commits from the newest on that others are likely to ask for as well.
_RECENT = 256
# Plans of up to so many snapshots keep what those change, so that it need not be read twice.
_KEPT_CHANGES = 1_000
# Blobs of a plan, likewise: some 300 bytes each.
_KEPT_BLOBS = 20_000


class CopiedPack(NamedTuple):
    """An mpack that another one takes over as it is.

    Attributes:
        commit_ids: its commits, in its order.
        snapshot_ids: likewise.
    """

    mpack_id: str
    commit_ids: Sequence[str]
    snapshot_ids: Sequence[str]


@dataclass(frozen=True)
class Plan:
    """What a fetch sends: ids, parents before children, blobs in the order of the solid frames.

    Attributes:
        border_ids: snapshots of the have side from which the lacking commits start, in the order in which those come;
            empty where that was not looked for.
        border_manifests: those of them that were met where the plan was made.
        changes: what the snapshots change, for a small plan; None: to be read.
        spooled: likewise for a large plan, where that was read already.
        is_recent: whether the wants are among the newest commits, which others are likely to ask for as well.
        haves_are_known: whether the repo holds all the haves, so that the answer will be the same tomorrow.
        begins_with: a clone pack that the mpack of this plan is to begin with, whose entities are not in the plan.
    """

    commit_ids: Sequence[str]
    snapshot_ids: Sequence[str]
    object_ids: Sequence[str]
    border_ids: Sequence[str] = ()
    border_manifests: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    changes: Sequence[PlannedChange] | None = None
    spooled: ChangeSpool | None = None
    is_recent: bool = True
    haves_are_known: bool = False
    begins_with: CopiedPack | None = None


@temporary_room()
def plan_delta(
    db: Database, repo_id: str, want: Sequence[str], have: Sequence[str], cache: GraphCache | None = None
) -> Plan | None:
    """Return what the caller lacks, or None where that is nothing.

    Args:
        db: the unit of work; only read.
        repo_id: the repo.
        want: ids of commits.
        have: ids of commits that the caller holds with all their history; those that the repo does not hold are
            ignored.
        cache: packed histories that this process has read.

    Raises:
        NotFound: the repo does not hold a want; the answer does not say whether another repo does.
        HistoryDamaged: a parent is neither stored nor in `have`, or a snapshot is not there.
        StorageUnavailable: the disk has no room for what a large plan keeps in files.
    """
    history = History(db, cache or GraphCache(0), repo_id)
    packed = history.packed([*want, *have])
    if packed is None:
        return _plan_by_rows(db, repo_id, want, have, history.rows())
    refuse_missing_wants(packed, want)
    packed_graph = history.graph
    wanted = [packed[commit_id] for commit_id in want]
    walk = packed_graph.walk(wanted, (packed[commit_id] for commit_id in have if commit_id in packed))
    if not walk.lacking:
        return None
    ordered = packed_graph.history_order(walk.lacking, wanted)
    snapshot_ids = _ids(packed_graph.snapshot_digest, ordered)
    border = (
        packed_graph.snapshot_id(parent)
        for commit in ordered
        for parent in packed_graph.parents(commit)
        if parent in walk.border
    )
    lacking = map(packed_graph.blob_digest, walk.lacking_blobs())
    is_small = len(snapshot_ids) <= _KEPT_CHANGES and walk.introduced_count <= _KEPT_BLOBS
    border_ids = list(dict.fromkeys(border))
    met: dict[str, Mapping[str, str]] = {}
    changes = read_changes(db, repo_id, snapshot_ids, border_ids if is_small else (), met)
    kept: list[PlannedChange] | None = None
    spool: ChangeSpool | None = None
    object_ids: Sequence[str]
    try:
        if is_small:
            kept = list(changes)
            object_ids = _in_solid_order(set(map(ids.from_digest, lacking)), kept)
        else:
            spool = ChangeSpool(lacking)
            object_ids = placed_blobs(spool, changes)
    except KeyError as missing:
        raise HistoryDamaged(f"repo {repo_id}: no manifest has blob {missing.args[0]}") from None
    return Plan(
        commit_ids=_ids(packed_graph.commit_digest, ordered),
        snapshot_ids=snapshot_ids,
        object_ids=object_ids,
        border_ids=border_ids,
        border_manifests=met,
        changes=kept,
        spooled=spool,
        is_recent=len(packed_graph) - min(wanted) <= _RECENT,
        haves_are_known=packed.keys() >= set(have),
    )


def _ids(digest: Callable[[int], bytes], commits: Sequence[int]) -> Sequence[str]:
    """Return ids of commits, each once; of many, in less memory than a list takes."""
    if len(commits) > _KEPT_CHANGES:
        return distinct_ids(map(digest, commits))
    return list(dict.fromkeys(map(ids.from_digest, map(digest, commits))))


def _in_solid_order(lacking: set[str], changes: Iterable[PlannedChange]) -> Sequence[str]:
    """Return blobs in the order in which a pack has them; KeyError with one that no snapshot has."""
    first_seen: dict[str, tuple[int, str]] = {}
    for position, planned in enumerate(changes):
        for path, object_id in planned.change.changed.items():
            if object_id in lacking:
                place = (position, path)
                seen = first_seen.get(object_id)
                if seen is None or place < seen:
                    first_seen[object_id] = place
    if len(first_seen) < len(lacking):
        raise KeyError(min(lacking - first_seen.keys()))
    return solid_order((path, position, object_id) for object_id, (position, path) in first_seen.items())


def begun_with(plan: Plan, pack: CopiedPack) -> Plan:
    """Return the plan of an mpack that begins with another one; a snapshot of both, as after a revert, comes once."""
    copied = set(pack.snapshot_ids)
    snapshot_ids = [snapshot_id for snapshot_id in plan.snapshot_ids if snapshot_id not in copied]
    # What a snapshot changes is told from the one before it, which may be among those left out.
    are_all = len(snapshot_ids) == len(plan.snapshot_ids)
    changes, spooled = (plan.changes, plan.spooled) if are_all else (None, None)
    return replace(plan, snapshot_ids=snapshot_ids, changes=changes, spooled=spooled, begins_with=pack)


def planned_order(cache: GraphCache, db: Database, repo_id: str, head: str) -> tuple[Sequence[str], Sequence[str]]:
    """Return the commits that a head reaches and their snapshots in the order in which a plan of them has them."""
    packed_graph = cache.load(db, repo_id)
    tip = packed_graph.find(head)
    if tip is None:
        raise HistoryDamaged(f"repo {repo_id}: commit {head} is not in the packed history")
    ordered = packed_graph.history_order(packed_graph.walk([tip], ()).lacking, [tip])
    return _ids(packed_graph.commit_digest, ordered), _ids(packed_graph.snapshot_digest, ordered)


def refuse_missing_wants(known: Container[str], want: Sequence[str]) -> None:
    """Raise where the repo does not hold a want: never did, or not any more since garbage was collected."""
    for position, commit_id in enumerate(want):
        if commit_id not in known:
            raise NotFound(f"want[{position}] is not a commit of this repo.", code="want-not-found")


def _plan_by_rows(
    db: Database, repo_id: str, want: Sequence[str], have: Sequence[str], nodes: Mapping[str, commit_store.Node]
) -> Plan | None:
    def parents(commit_id: str) -> Sequence[str]:
        return nodes[commit_id].parent_ids

    refuse_missing_wants(nodes, want)
    held = graph.reachable(nodes, parents, have)
    lacking = graph.reachable(nodes, parents, want) - held
    if not lacking:
        return None
    ordered = graph.history_order(lacking, parents, want)
    _refuse_holes(repo_id, ordered, nodes, set(have))
    snapshot_ids = list(dict.fromkeys(nodes[commit_id].snapshot_id for commit_id in ordered))
    held_snapshot_ids = {nodes[commit_id].snapshot_id for commit_id in held}
    object_ids = _lacking_objects(db, repo_id, snapshot_ids, held_snapshot_ids)
    return Plan(ordered, snapshot_ids, object_ids)


def _refuse_holes(repo_id: str, ordered: Iterable[str], nodes: Mapping[str, commit_store.Node], have: set[str]) -> None:
    for commit_id in ordered:
        for parent_id in nodes[commit_id].parent_ids:
            if parent_id not in nodes and parent_id not in have:
                raise HistoryDamaged(f"repo {repo_id}: parent {parent_id} of commit {commit_id} is not stored")


def _lacking_objects(db: Database, repo_id: str, snapshot_ids: Sequence[str], held_snapshot_ids: set[str]) -> list[str]:
    first_seen: dict[str, tuple[str, int]] = {}
    for position, (snapshot_id, manifest) in enumerate(manifests.manifests(db, repo_id, snapshot_ids)):
        if manifest is None:
            raise HistoryDamaged(f"repo {repo_id}: snapshot {snapshot_id} is not stored")
        for path, object_id in manifest.items():
            seen = first_seen.get(object_id)
            if seen is None or (seen[1] == position and path < seen[0]):
                first_seen[object_id] = (path, position)
    for snapshot_id, manifest in manifests.manifests(db, repo_id, sorted(held_snapshot_ids)):
        if manifest is None:
            # Sending a blob that the client may have costs bytes; it is not an error of this answer.
            report_damage("snapshot-missing", snapshot_id, f"repo {repo_id} needs it")
            continue
        for object_id in manifest.values():
            first_seen.pop(object_id, None)
        if not first_seen:
            break
    return solid_order((path, position, object_id) for object_id, (path, position) in first_seen.items())
