"""Verifies an mpack that is kept as it came, by the rules of `apply_mpack`, and collects its index; nothing is written.

What `apply_mpack` asks for each entity on its own is here settled by the format itself: a manifest's objects are the
pack's blobs or are listed as lying outside it, and an id that the pack does not state was computed by the reader.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from musehub_plugin import ids
from musehub_plugin.client.applied import Applied
from musehub_plugin.client.beside import Beside, processes_beside
from musehub_plugin.client.entities import EntityFiles
from musehub_plugin.client.errors import BadMPack
from musehub_plugin.client.packindex import IndexBuilder
from musehub_plugin.client.progress import Progress, silent
from musehub_plugin.client.record import commit_hashes_to
from musehub_plugin.mpack import Limits, MPackError, MPackReader, blob_shares, verify_blobs, verify_snapshots
from musehub_plugin.mpack.history import IdRule

# Decompressed bytes of blobs from which on another process is worth its start.
_BESIDE_BYTES: Final = 16 << 20
# How often progress is told.
_STEP: Final = 256


def check_pack(
    files: EntityFiles, path: Path, *, limits: Limits | None = None, progress: Progress = silent
) -> tuple[IndexBuilder, Applied]:
    """Hash everything in an mpack, look for what it names outside itself, and return its index and what is new.

    Args:
        files: what the working copy holds.
        path: the mpack's file.
        limits: what is accepted.
        progress: told about blobs, snapshots and commits verified.

    Raises:
        BadMPack: as `apply_mpack`.
    """
    with path.open("rb") as file, ExitStack() as stack:
        try:
            reader = MPackReader(_Positioned(file.fileno()), limits=limits, cached_frames=1)
            processes = processes_beside() if reader.raw_size >= _BESIDE_BYTES else 0
            if processes:
                check = partial(verify_blobs, reader)
                beside = stack.enter_context(Beside(check, blob_shares(reader, processes), [file.fileno()]))
            else:
                verify_blobs(reader)
                progress("blobs", reader.blob_count, reader.blob_count)
            checked = _Checked(files, reader, progress)
            if processes:
                progress("blobs", 0, reader.blob_count)
                beside.finish()
                progress("blobs", reader.blob_count, reader.blob_count)
        except MPackError as error:
            raise BadMPack(f"the mpack is malformed: {error}") from None
    return checked.builder, checked.applied


class _Checked:
    """What an mpack's snapshots and commits are, and its index; its blobs are verified elsewhere."""

    def __init__(self, files: EntityFiles, reader: MPackReader, progress: Progress) -> None:
        self._files = files
        self._reader = reader
        self._progress = progress
        self.builder = IndexBuilder()
        self.builder.add_blobs(reader.blob_digests(), reader.blob_places())
        for object_id in reader.outside_objects():
            self._require("objects", object_id, "a snapshot of the mpack names blob")
        snapshots = self._snapshots()
        commits = self._commits(snapshots)
        blobs = reader.blob_digests()
        self.applied = Applied(
            reader.commit_count,
            reader.snapshot_count,
            reader.blob_count,
            new_blobs=self._new("objects", [blobs[start : start + 32] for start in range(0, len(blobs), 32)]),
            new_snapshots=self._new("snapshots", snapshots),
            new_commits=self._new("commits", commits),
        )

    def _snapshots(self) -> set[bytes]:
        passed: set[bytes] = set()
        stated = False
        for done, delta in enumerate(self._reader.snapshot_deltas(), 1):
            digest = ids.to_digest(delta.snapshot_id)
            passed.add(digest)
            self.builder.add_snapshot(digest)
            stated = stated or delta.id_is_stored
            if done % _STEP == 0:
                self._progress("snapshots", done, self._reader.snapshot_count)
        if stated:
            verify_snapshots(self._reader)
        return passed

    def _commits(self, snapshots: Collection[bytes]) -> set[bytes]:
        passed: set[bytes] = set()
        awaited: set[bytes] = set()
        for done, (commit, rule) in enumerate(self._reader.commits_with_rule(), 1):
            commit_id, snapshot_id = commit["commit_id"], commit["snapshot_id"]
            if rule == IdRule.STORED and not commit_hashes_to(commit):
                raise BadMPack(f"commit {commit_id} of the mpack does not hash to its id")
            if ids.to_digest(snapshot_id) not in snapshots:
                self._require("snapshots", snapshot_id, f"commit {commit_id} of the mpack names snapshot")
            digest = ids.to_digest(commit_id)
            passed.add(digest)
            self.builder.add_commit(commit, digest)
            awaited.update(map(ids.to_digest, commit["parent_ids"]))
            if done % _STEP == 0:
                self._progress("commits", done, self._reader.commit_count)
        for parent in sorted(awaited - passed):
            self._require("commits", ids.from_digest(parent), "a commit of the mpack has the parent")
        return passed

    def _require(self, kind: str, entity_id: str, what: str) -> None:
        if not self._files.has(kind, entity_id):
            raise BadMPack(f"{what} {entity_id}, which is neither in the mpack nor here")

    def _new(self, kind: str, digests: Collection[bytes]) -> int:
        if self._files.holds_nothing():
            return len(digests)
        return sum(not self._files.has(kind, ids.from_digest(digest)) for digest in digests)


class _Positioned:
    """A file that several processes read without moving one another's position."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._position = 0

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a place, counted from the start (0) or the end (2)."""
        self._position = offset + (os.fstat(self._handle).st_size if whence == os.SEEK_END else 0)
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes."""
        data = os.pread(self._handle, size, self._position)
        self._position += len(data)
        return data
