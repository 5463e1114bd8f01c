"""Brings an mpack into a working copy, believing nothing that it says."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Protocol

from musehub_plugin.client.applied import Applied
from musehub_plugin.client.errors import BadMPack
from musehub_plugin.client.held import Held
from musehub_plugin.client.manifest import ManifestRows
from musehub_plugin.client.progress import Progress, silent
from musehub_plugin.client.record import commit_hashes_to, record_from_wire
from musehub_plugin.client.workdir import Workdir
from musehub_plugin.mpack import BaseProvider, Blob, Limits, MPackError, MPackReader

if TYPE_CHECKING:
    from musehub_plugin.client.widerows import WideRows

# Blobs up to this size are read whole: most are, and a file less is opened for each.
_WHOLE: Final = 1 << 20


class Store(Protocol):
    """Where the entities of an mpack go once they have been verified.

    The three `add` calls take what has the id that it must have, and say whether it is new there.
    """

    def has(self, kind: str, entity_id: str) -> bool:
        """Say whether an entity (`objects`, `snapshots`, `commits`) is in the mpack's part that was added, or here."""
        ...

    def add_blob(self, blob: Blob) -> bool:
        """Add a blob.

        Raises:
            BadMPack: its bytes are not what its id says.
        """
        ...

    def add_snapshot(self, rows: ManifestRows | WideRows, snapshot_id: str) -> bool:
        """Add a snapshot."""
        ...

    def add_commit(self, commit: dict[str, Any]) -> bool:
        """Add a commit in its wire form; its parents were added before."""
        ...


class LooseStore:
    """Writes every entity as a file of its own.

    Args:
        workdir: the working copy.
    """

    def __init__(self, workdir: Workdir) -> None:
        self._workdir = workdir
        # Not part of an id, and not on the wire: it says when this copy got to know a snapshot.
        self._created_at = datetime.now(UTC).isoformat(timespec="microseconds")

    def has(self, kind: str, entity_id: str) -> bool:
        """Say whether an entity is in the working copy."""
        return self._workdir.has(kind, entity_id)

    def add_blob(self, blob: Blob) -> bool:
        """Write a blob."""
        if blob.size <= _WHOLE:
            object_id, new = self._workdir.write_blob(blob.read(), blob.object_id)
        else:
            object_id, new = self._workdir.write_blob_stream(blob.chunks(), blob.object_id)
        require_id(blob, object_id)
        return new

    def add_snapshot(self, rows: ManifestRows | WideRows, snapshot_id: str) -> bool:
        """Write a snapshot."""
        return self._workdir.write_snapshot(rows, snapshot_id, self._created_at)

    def add_commit(self, commit: dict[str, Any]) -> bool:
        """Write a commit."""
        return self._workdir.write_commit(record_from_wire(commit, repo_id=self._workdir.repo_id))


def require_id(blob: Blob, found: str) -> None:
    """Raise `BadMPack` unless a blob hashes to its id."""
    if found != blob.object_id:
        raise BadMPack(f"blob {blob.object_id} of the mpack hashes to {found}")


def apply_mpack(
    workdir: Workdir,
    source: bytes | Path | BinaryIO,
    *,
    limits: Limits | None = None,
    progress: Progress = silent,
) -> Applied:
    """Store what an mpack holds in a working copy, each entity as a file of its own; no ref is moved.

    Every blob, snapshot and commit is hashed, and every object, snapshot and parent that they name must be in the
    mpack or in the working copy. What fails is not stored, nor is anything that names it: blobs are written first,
    then snapshots, then commits, parents before children. So a commit that is there has all that it reaches, and a
    second application, also of an mpack whose first one broke off, completes it.

    Args:
        workdir: the working copy.
        source: the mpack: its bytes, its file's path, or a seekable binary file.
        limits: what is accepted; None: what `musehub_plugin.mpack` accepts by default.
        progress: told about blobs, snapshots and commits done.

    Raises:
        BadMPack: the mpack is malformed, something in it is not what its id says, or something is missing.
    """
    store, bases = LooseStore(workdir), Held(workdir)
    if isinstance(source, Path):
        with source.open("rb") as file:
            return apply_to(store, file, limits=limits, progress=progress, bases=bases, folder=workdir.temp_folder)
    opened = io.BytesIO(source) if isinstance(source, bytes) else source
    return apply_to(store, opened, limits=limits, progress=progress, bases=bases, folder=workdir.temp_folder)


def apply_to(
    store: Store,
    file: BinaryIO,
    *,
    limits: Limits | None = None,
    progress: Progress = silent,
    bases: BaseProvider | None = None,
    folder: Path | None = None,
) -> Applied:
    """Verify an mpack, and give a store what it holds: the rules of `apply_mpack`, whatever the store does.

    Args:
        store: where it goes.
        file: the mpack, seekable.
        limits: what is accepted.
        progress: told about blobs, snapshots and commits done.
        bases: what a thin mpack may start from.
        folder: where ids are kept that memory has no room for; None: where the system has such files.

    Raises:
        BadMPack: as `apply_mpack`.
    """
    try:
        # One frame at a time: blobs are read in their order, and each frame may take 16 MiB.
        reader = MPackReader(file, limits=limits, cached_frames=1, bases=bases, folder=folder)
        application = _Application(store, reader, progress)
        return Applied(
            reader.commit_count,
            reader.snapshot_count,
            reader.blob_count,
            new_blobs=application.blobs(),
            new_snapshots=application.snapshots(),
            new_commits=application.commits(),
        )
    except MPackError as error:
        raise BadMPack(f"the mpack is malformed: {error}") from None


class _Application:
    """The three steps, in the order in which they must be taken; each returns how many entities were new."""

    def __init__(self, store: Store, reader: MPackReader, progress: Progress) -> None:
        self._store = store
        self._reader = reader
        self._progress = progress

    def blobs(self) -> int:
        new_count = 0
        for done, blob in enumerate(self._reader.blobs(), 1):
            new_count += self._store.add_blob(blob)
            self._progress("blobs", done, self._reader.blob_count)
        return new_count

    def snapshots(self) -> int:
        rows: ManifestRows | WideRows = ManifestRows()
        new_count = 0
        for done, delta in enumerate(self._reader.snapshot_deltas(), 1):
            for object_id in delta.changed.values():
                if not self._store.has("objects", object_id):
                    raise BadMPack(
                        f"snapshot {delta.snapshot_id} of the mpack names blob {object_id}, which is neither in the "
                        "mpack nor here"
                    )
            if delta.is_wide:
                rows = self._wide(rows)
                rows.follow(delta)
            elif delta.full or not isinstance(rows, ManifestRows):
                rows = ManifestRows(delta.changed)
            else:
                for path in delta.removed:
                    rows.remove(path)
                for path, object_id in delta.changed.items():
                    rows.set(path, object_id)
            # An id that the mpack does not state was computed from the manifest by the reader.
            if delta.id_is_stored and rows.snapshot_id() != delta.snapshot_id:
                raise BadMPack(f"snapshot {delta.snapshot_id} of the mpack hashes to {rows.snapshot_id()}")
            new_count += self._store.add_snapshot(rows, delta.snapshot_id)
            self._progress("snapshots", done, self._reader.snapshot_count)
        return new_count

    def _wide(self, rows: ManifestRows | WideRows) -> WideRows:
        # Here and not above: hardly any manifest is wide.
        from musehub_plugin.client.widerows import WideRows

        return rows if isinstance(rows, WideRows) else WideRows(rows, self._reader.folder)

    def commits(self) -> int:
        new_count = 0
        for done, commit in enumerate(self._checked_commits(), 1):
            new_count += self._store.add_commit(commit)
            self._progress("commits", done, self._reader.commit_count)
        return new_count

    def _checked_commits(self) -> Iterator[dict[str, Any]]:
        """Check all commits, then give them, parents before children."""
        # Named by ids and not here: few, as what the pack holds has numbers, and what it leans on is here.
        awaited: set[str] = set()
        in_order = True
        for read in self._reader.read_commits():
            commit = read.record
            commit_id = commit["commit_id"]
            if not commit_hashes_to(commit):
                raise BadMPack(f"commit {commit_id} of the mpack does not hash to its id")
            if not self._store.has("snapshots", commit["snapshot_id"]):
                raise BadMPack(
                    f"commit {commit_id} of the mpack names snapshot {commit['snapshot_id']}, which is neither in the "
                    "mpack nor here"
                )
            in_order = in_order and commit_id not in awaited
            awaited.update(parent for parent in read.outside_parents if not self._store.has("commits", parent))
        missing = awaited.copy()
        for commit in self._reader.commits() if missing else ():
            missing.discard(commit["commit_id"])
        if missing:
            raise BadMPack(
                f"a commit of the mpack has the parent {min(missing)}, which is neither in the mpack nor here"
            )
        # Hubs send parents first; another order costs the memory to turn it round.
        return self._reader.commits() if in_order else _parents_first(self._reader.commits())


def _parents_first(commits: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    by_id = {commit["commit_id"]: commit for commit in commits}
    placed: set[str] = set()
    for start in by_id:
        stack = [start]
        while stack:
            commit = by_id[stack[-1]]
            waiting = [parent for parent in commit["parent_ids"] if parent in by_id and parent not in placed]
            if waiting and stack[-1] not in placed:
                # No cycle can get this far: no text holds its own SHA-256.
                stack += waiting
                continue
            if stack[-1] not in placed:
                placed.add(stack[-1])
                yield commit
            stack.pop()
