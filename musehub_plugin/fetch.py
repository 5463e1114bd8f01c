"""Fetch: plan the delta, make the mpack of it, answer with a presigned URL.

The delta is reach(want) - reach(have) for commits, the snapshots of those commits, and the blobs of those snapshots
minus the blobs of every snapshot that the have side must hold (the contract's section 2).
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import IO

from musehub_plugin import graph
from musehub_plugin.blobs import BlobReader, NotIndexed
from musehub_plugin.errors import HistoryDamaged, NotFound
from musehub_plugin.hub import Hub
from musehub_plugin.ids import from_digest
from musehub_plugin.mpack import MPackWriter, PackSummary, solid_order
from musehub_plugin.signals import reached, report_damage
from musehub_plugin.storage.temporary import temporary_room
from musehub_plugin.storage.uploads import mpack_url, put_mpack_file
from musehub_plugin.store import commits as commit_store
from musehub_plugin.store import contents, fetch_packs, locks
from musehub_plugin.store.session import Database

# Packs up to this size are made in memory; larger ones go through a temporary file.
_SPOOL_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class Plan:
    """What a fetch sends: ids, parents before children, blobs in the order of the solid frames."""

    commit_ids: Sequence[str]
    snapshot_ids: Sequence[str]
    object_ids: Sequence[str]


@dataclass(frozen=True)
class FetchAnswer:
    """The members of the answer to a fetch; the contract's section 2 names them."""

    mpack_url: str | None
    mpack_id: str | None
    commit_count: int
    snapshot_count: int
    blob_count: int
    object_count: int
    size_bytes: int
    expires_at: str | None


NOTHING_NEW = FetchAnswer(None, None, 0, 0, 0, 0, 0, None)


def fetch(hub: Hub, db: Database, repo_id: str, want: Sequence[str], have: Sequence[str]) -> FetchAnswer:
    """Answer a fetch of a repo that the caller may read.

    Args:
        hub: the app's plugin.
        db: the unit of work; only read.
        repo_id: the repo.
        want: ids of commits, at least one.
        have: ids of commits that the client holds with all their history; those that this repo does not hold are
            ignored, whether or not another repo does.

    Raises:
        NotFound: the repo does not hold a want.
        Unavailable: a needed blob is not indexed yet.
        HistoryDamaged: a commit or snapshot that the answer needs is not there.
        StorageUnavailable: object storage did not answer.
    """
    plan = plan_delta(db, repo_id, want, have)
    if plan is None:
        return NOTHING_NEW
    reached("fetch.planned")
    with (
        BlobReader(db, hub.storage, repo_id, retry_after=hub.settings.retry_after) as blobs,
        temporary_room(),
        tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as file,
    ):
        try:
            summary, mpack_id = _write_mpack(file, db, repo_id, plan, blobs)
        except (HistoryDamaged, NotIndexed):
            _refuse_missing_wants(commit_store.graph(db, repo_id), want)
            raise
        reached("fetch.packed")
        _keep_from_collection(db, mpack_id, summary.size_bytes)
        reached("fetch.kept")
        file.seek(0)
        put_mpack_file(hub.storage, mpack_id, file)
    reached("fetch.stored")
    ttl = hub.settings.presign_ttl
    expires_at = datetime.now(UTC) + timedelta(seconds=ttl)
    return FetchAnswer(
        mpack_url=mpack_url(hub.storage, hub.signer, mpack_id, ttl),
        mpack_id=mpack_id,
        commit_count=summary.commit_count,
        snapshot_count=summary.snapshot_count,
        blob_count=summary.blob_count,
        object_count=summary.blob_count,
        size_bytes=summary.size_bytes,
        expires_at=expires_at.isoformat(timespec="seconds"),
    )


def _keep_from_collection(db: Database, mpack_id: str, size_bytes: int) -> None:
    """Record the pack before it is stored, so that it is collected some time after its last URL and not before.

    In a unit of work of its own: a read must not commit what the host has half done.
    """
    if not db.may_write_apart:
        return
    with db.apart() as apart:

        def work() -> None:
            # A collection may be removing this very file, as a pushed mpack that nobody needs: wait for its end.
            locks.share_history(apart)
            fetch_packs.use_fetch_pack(apart, mpack_id, size_bytes)

        apart.transaction(work)


def plan_delta(db: Database, repo_id: str, want: Sequence[str], have: Sequence[str]) -> Plan | None:
    """Return what the caller lacks, or None where that is nothing.

    Raises:
        NotFound: the repo does not hold a want; the answer does not say whether another repo does.
        HistoryDamaged: a parent is neither stored nor in `have`, or a snapshot is not there.
    """
    nodes = commit_store.graph(db, repo_id)

    def parents(commit_id: str) -> Sequence[str]:
        return nodes[commit_id].parent_ids

    _refuse_missing_wants(nodes, want)
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


def _refuse_missing_wants(nodes: Container[str], want: Sequence[str]) -> None:
    """Raise where the repo does not hold a want: never did, or not any more since garbage was collected."""
    for position, commit_id in enumerate(want):
        if commit_id not in nodes:
            raise NotFound(f"want[{position}] is not a commit of this repo.", code="want-not-found")


def _refuse_holes(repo_id: str, ordered: Iterable[str], nodes: Mapping[str, commit_store.Node], have: set[str]) -> None:
    for commit_id in ordered:
        for parent_id in nodes[commit_id].parent_ids:
            if parent_id not in nodes and parent_id not in have:
                raise HistoryDamaged(f"repo {repo_id}: parent {parent_id} of commit {commit_id} is not stored")


def _lacking_objects(db: Database, repo_id: str, snapshot_ids: Sequence[str], held_snapshot_ids: set[str]) -> list[str]:
    first_seen: dict[str, tuple[str, int]] = {}
    for position, (snapshot_id, manifest) in enumerate(contents.manifests(db, repo_id, snapshot_ids)):
        if manifest is None:
            raise HistoryDamaged(f"repo {repo_id}: snapshot {snapshot_id} is not stored")
        for path, object_id in manifest.items():
            seen = first_seen.get(object_id)
            if seen is None or (seen[1] == position and path < seen[0]):
                first_seen[object_id] = (path, position)
    for snapshot_id, manifest in contents.manifests(db, repo_id, sorted(held_snapshot_ids)):
        if manifest is None:
            # Sending a blob that the client may have costs bytes; it is not an error of this answer.
            report_damage("snapshot-missing", snapshot_id, f"repo {repo_id} needs it")
            continue
        for object_id in manifest.values():
            first_seen.pop(object_id, None)
        if not first_seen:
            break
    return solid_order((path, position, object_id) for object_id, (path, position) in first_seen.items())


class HashingFile:
    """A file to write to that knows the SHA-256 of what went through: `digest`."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        """Append `data`.

        Raises:
            StorageUnavailable: there is no room for it.
        """
        self.digest.update(data)
        return self._file.write(data)


def _write_mpack(file: IO[bytes], db: Database, repo_id: str, plan: Plan, blobs: BlobReader) -> tuple[PackSummary, str]:
    out = HashingFile(file)
    writer = MPackWriter(out)
    for object_id, content in blobs.read(plan.object_ids):
        writer.add_blob(object_id, content)
    for snapshot_id, manifest in contents.manifests(db, repo_id, plan.snapshot_ids):
        if manifest is None:
            raise HistoryDamaged(f"repo {repo_id}: snapshot {snapshot_id} is not stored")
        writer.add_snapshot(snapshot_id, manifest)
    for record in commit_store.records(db, repo_id, plan.commit_ids):
        writer.add_commit(record)
    return writer.finish(), from_digest(out.digest.digest())
