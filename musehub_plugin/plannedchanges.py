"""What the snapshots of a plan change, one from the other, read from their rows.

A manifest that memory has no room for is in a file, and so are those after it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from musehub_plugin import ids
from musehub_plugin.changespool import PlannedChange
from musehub_plugin.errors import HistoryDamaged
from musehub_plugin.manifestlog import Difference, ManifestLog
from musehub_plugin.mpack.following import is_wide
from musehub_plugin.mpack.manifests import WIDE_TO_WRITE
from musehub_plugin.mpack.wide import WideManifest
from musehub_plugin.store import manifests, widemanifests
from musehub_plugin.store.session import Database
from musehub_plugin.widelog import WideDifference, WideLog

# Rows of up to 256 KiB each.
_SNAPSHOT_BATCH = 250


def read_changes(
    db: Database,
    repo_id: str,
    snapshot_ids: Sequence[str],
    border_ids: Collection[str] = (),
    met: dict[str, Mapping[str, str]] | None = None,
) -> Iterator[PlannedChange]:
    """Yield snapshots in the order given, each as what it changes from the one before it.

    Args:
        db: the unit of work.
        repo_id: the repo.
        snapshot_ids: the snapshots.
        border_ids: snapshots that the repo holds and that those given may rest on.
        met: where the manifests of these are put which have to be put together anyway.

    Raises:
        HistoryDamaged: the repo does not hold one of them, or what it rests on is not there.
    """
    log: ManifestLog | WideLog = ManifestLog()
    changes = manifests.RowChanges(db)

    def at_hand(one: str) -> bool:
        return log.reaches(one)

    for batch in manifests.batches_of(db, repo_id, snapshot_ids, _SNAPSHOT_BATCH, at_hand):
        for snapshot_id in batch.snapshot_ids:
            row = batch.rows.get(snapshot_id) if snapshot_id in batch.held else None
            if row is None:
                raise HistoryDamaged(f"repo {repo_id}: snapshot {snapshot_id} is not stored")
            if row.entry_count > WIDE_TO_WRITE and not isinstance(log, WideLog):
                log = WideLog(log)
            change: Difference | WideDifference | None
            if isinstance(log, WideLog):
                change = _pass_wide(db, repo_id, snapshot_id, batch.rows, changes, log)
            elif row.base_id is not None and log.reaches(row.base_id):
                change = changes.of(snapshot_id, row)
                if change is not None:
                    change = log.pass_from(snapshot_id, row.base_id, change.removed, change.changed)
            else:
                made: dict[str, dict[str, str]] = {}
                if row.base_id is not None and row.base_id in border_ids:
                    base = manifests.assembled(row.base_id, batch.rows, {}, changes)
                    made = {} if base is None else {row.base_id: base}
                whole = manifests.assembled(snapshot_id, batch.rows, made, changes)
                whole = whole or manifests.manifest(db, repo_id, snapshot_id)
                if met is not None:
                    met.update(made)
                change = None if whole is None else log.pass_whole(snapshot_id, whole)
            if change is None:
                raise HistoryDamaged(f"repo {repo_id}: snapshot {snapshot_id} rests on one that is not stored")
            derivable = row.verified or _is_hash_of(snapshot_id, log.manifest)
            yield PlannedChange(snapshot_id, change, derivable)


def _pass_wide(
    db: Database,
    repo_id: str,
    snapshot_id: str,
    rows: Mapping[str, manifests.StoredSnapshot],
    changes: manifests.RowChanges,
    log: WideLog,
) -> WideDifference | None:
    """Pass a manifest that may be too wide for memory; return what it changes, None where its chain is broken."""
    way = manifests.chain_of(snapshot_id, rows, log.reaches)
    whole: Mapping[str, str] | None
    if way is None or (whole := _assembled_wide(db, way, changes, log, snapshot_id)) is None:
        whole = widemanifests.manifest(db, repo_id, snapshot_id)
    if whole is None:
        return None
    change = log.between(log.manifest, whole)
    log.pass_change(snapshot_id, change.removed, change.changed)
    return change


def _assembled_wide(
    db: Database,
    way: Sequence[tuple[str, manifests.StoredSnapshot]],
    changes: manifests.RowChanges,
    log: WideLog,
    snapshot_id: str,
) -> WideManifest | None:
    base_id = way[-1][1].base_id if way else snapshot_id
    whole = log.as_wide({}) if base_id is None else log.manifest_of(base_id)
    for each, row in reversed(way):
        if row.is_large:
            if not widemanifests.follow_large_row(db, each, whole):
                return None
            continue
        change = changes.of(each, row)
        if change is None:
            return None
        whole.follow(change.removed, change.changed, full=False)
    return whole


def _is_hash_of(snapshot_id: str, manifest: Mapping[str, str]) -> bool:
    """Say whether a manifest hashes to an id."""
    return (manifest.snapshot_id() if is_wide(manifest) else ids.snapshot_id(manifest)) == snapshot_id
