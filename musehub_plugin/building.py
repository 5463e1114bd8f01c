"""Making an mpack of a plan, from what the repo holds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import IO

from musehub_plugin.blobs import BlobReader
from musehub_plugin.hub import Hub
from musehub_plugin.ids import from_digest
from musehub_plugin.mpack import MPackWriter
from musehub_plugin.plan import Plan, read_changes
from musehub_plugin.store import commits as commit_store
from musehub_plugin.store.fetch_plans import ReadyPack
from musehub_plugin.store.session import Database

# Who needs more blobs than this reads most of each frame anyway.
_FEW_BLOBS = 500


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


def write_mpack(
    file: IO[bytes],
    hub: Hub,
    db: Database,
    repo_id: str,
    plan: Plan,
    *,
    thin: bool = False,
    threads: int = 1,
    alive: Callable[[], None] = lambda: None,
) -> ReadyPack:
    """Write the mpack of a plan, in bounded memory; return what it is.

    Args:
        file: where it goes; only appended to.
        hub: the app's plugin.
        db: the unit of work; only read.
        repo_id: the repo.
        plan: what goes into it.
        thin: whether it may lean on what the have side holds.
        threads: how many compress.
        alive: called every so often: whoever holds a lease on this work extends it.

    Raises:
        HistoryDamaged: a commit or snapshot is not there.
        NotIndexed: a blob is nowhere to be found yet.
        StorageUnavailable: object storage did not answer.
    """
    out = HashingFile(file)
    writer = MPackWriter(out, threads=threads)
    frames = hub.frames if len(plan.object_ids) <= _FEW_BLOBS else None
    with BlobReader(db, hub.storage, repo_id, retry_after=hub.settings.retry_after, frames=frames) as blobs:
        for object_id, content in blobs.read(plan.object_ids):
            writer.add_blob(object_id, content)
            alive()
    for snapshot_id, change, derivable in plan.changes or read_changes(db, repo_id, plan.snapshot_ids):
        writer.add_snapshot_delta(snapshot_id, change.removed, change.changed, derivable=derivable)
        alive()
    for record in commit_store.records(db, repo_id, plan.commit_ids):
        writer.add_commit(record)
        alive()
    summary = writer.finish()
    return ReadyPack(
        mpack_id=from_digest(out.digest.digest()),
        size_bytes=summary.size_bytes,
        commit_count=summary.commit_count,
        snapshot_count=summary.snapshot_count,
        blob_count=summary.blob_count,
    )
