"""Verifies an mpack that is kept as it came, by the rules of `apply_mpack`, and collects its index; nothing is written.

What `apply_mpack` asks for each entity on its own is here settled by the format itself: a manifest's objects are the
pack's blobs or are listed as lying outside it, and an id that the pack does not state was computed by the reader.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from musehub_plugin import ids
from musehub_plugin.client.applied import Applied
from musehub_plugin.client.entities import EntityFiles
from musehub_plugin.client.errors import BadMPack
from musehub_plugin.client.packindex import IndexBuilder
from musehub_plugin.client.progress import Progress, silent
from musehub_plugin.client.record import commit_hashes_to
from musehub_plugin.mpack import Limits, MPackError, MPackReader, verify_blobs, verify_snapshots
from musehub_plugin.mpack.history import IdRule
from musehub_plugin.mpack.zstd import keep_memory

if TYPE_CHECKING:
    from musehub_plugin.client.together import Together

# Decompressed bytes of blobs from which on another process is worth its start.
_BESIDE_BYTES: Final = 16 << 20
# How often progress is told.
_STEP: Final = 256


def check_pack(
    files: EntityFiles,
    path: Path,
    *,
    limits: Limits | None = None,
    progress: Progress = silent,
    is_held: bool = False,
) -> tuple[IndexBuilder, Applied]:
    """Hash everything in an mpack, look for what it names outside itself, and return its index and what is new.

    Args:
        files: what the working copy holds.
        path: the mpack's file.
        limits: what is accepted.
        progress: told about blobs, snapshots and commits verified.
        is_held: the mpack is one that the working copy holds; nothing in it is new.

    Raises:
        BadMPack: as `apply_mpack`.
    """
    with path.open("rb") as file:
        try:
            reader = MPackReader(_Positioned(file.fileno()), limits=limits, cached_frames=1, folder=files.temp_folder)
            with ExitStack() as stack:
                together = None
                if reader.raw_size >= _BESIDE_BYTES:
                    keep_memory()
                    # Here and not above: small packs are checked by this process alone.
                    from musehub_plugin.client.together import Together
                    from musehub_plugin.forks import processes_beside

                    # This process is one of them.
                    if (processes := processes_beside() - 1) > 0:
                        together = stack.enter_context(Together(reader, file.fileno(), processes, progress))
                checked = _Checked(files, reader, progress, together, is_held=is_held)
                progress("blobs", 0, reader.blob_count)
                if together is None:
                    verify_blobs(reader)
                else:
                    together.finish()
                progress("blobs", reader.blob_count, reader.blob_count)
        except MPackError as error:
            raise BadMPack(f"the mpack is malformed: {error}") from None
    return checked.builder, checked.applied


class _Checked:
    """What an mpack's snapshots and commits are, and its index; its blobs are verified elsewhere."""

    def __init__(
        self,
        files: EntityFiles,
        reader: MPackReader,
        progress: Progress,
        together: Together | None,
        *,
        is_held: bool,
    ) -> None:
        self._files = files
        self._reader = reader
        self._together = together
        self._progress = progress
        # None: what is new is looked for.
        self._all_new = False if is_held else files.holds_nothing() or None
        self.builder = IndexBuilder(files.temp_folder)
        self.builder.add_blobs(reader.placed_digests())
        for object_id in reader.outside_objects():
            self._require("objects", object_id, "a snapshot of the mpack names blob")
        self.applied = Applied(
            reader.commit_count,
            reader.snapshot_count,
            reader.blob_count,
            new_snapshots=self._snapshots(),
            new_commits=self._commits(),
            new_blobs=self._new_blobs(),
        )

    def _new_blobs(self) -> int:
        if self._all_new is not None:
            return self._reader.blob_count if self._all_new else 0
        return sum(self._is_new("objects", digest) for digest, _ in self._reader.placed_digests())

    def _snapshots(self) -> int:
        """Check all snapshots, and return how many are new."""
        new_count = 0
        stated = False
        for digest, is_stated in self._hashed_snapshots():
            self.builder.add_snapshot(digest)
            new_count += self._is_new("snapshots", digest)
            stated = stated or is_stated
        if stated:
            verify_snapshots(self._reader)
        return new_count

    def _hashed_snapshots(self) -> Iterator[tuple[bytes, bool]]:
        """Yield the 32 bytes of each snapshot's id, and whether the pack states it."""
        joined = None if self._together is None else self._together.snapshots()
        if joined is not None:
            yield from joined
            return
        # One after the other: for what cannot be shared, and for what is wrong, which is found and named here.
        for done, hashed in enumerate(self._reader.hashed_snapshots(), 1):
            yield hashed
            if done % _STEP == 0:
                self._progress("snapshots", done, self._reader.snapshot_count)

    def _commits(self) -> int:
        """Check all commits, and return how many are new."""
        new_count = 0
        # Named by ids and not here: few, as what the pack holds has numbers, and what it leans on is here.
        parents: set[str] = set()
        snapshots: dict[str, str] = {}
        for done, read in enumerate(self._reader.read_commits(), 1):
            commit = read.record
            commit_id, snapshot_id = commit["commit_id"], commit["snapshot_id"]
            if read.rule == IdRule.STORED and not commit_hashes_to(commit):
                raise BadMPack(f"commit {commit_id} of the mpack does not hash to its id")
            if read.outside_snapshot and snapshot_id not in snapshots and not self._files.has_snapshot(snapshot_id):
                snapshots[snapshot_id] = commit_id
            if read.outside_parents:
                parents.update(parent for parent in read.outside_parents if not self._files.has_commit(parent))
            self.builder.add_commit(commit, read.digest)
            new_count += self._is_new("commits", read.digest)
            if done % _STEP == 0:
                self._progress("commits", done, self._reader.commit_count)
        # It may name what it holds by ids all the same.
        for snapshot_id in self._reader.snapshot_ids() if snapshots else ():
            snapshots.pop(snapshot_id, None)
        for snapshot_id, commit_id in snapshots.items():
            raise _missing(f"commit {commit_id} of the mpack names snapshot", snapshot_id)
        for commit in self._reader.commits() if parents else ():
            parents.discard(commit["commit_id"])
        if parents:
            raise _missing("a commit of the mpack has the parent", min(parents))
        return new_count

    def _require(self, kind: str, entity_id: str, what: str) -> None:
        if not self._files.has(kind, entity_id):
            raise _missing(what, entity_id)

    def _is_new(self, kind: str, digest: bytes) -> bool:
        return not self._files.has(kind, ids.from_digest(digest)) if self._all_new is None else self._all_new


def _missing(what: str, entity_id: str) -> BadMPack:
    return BadMPack(f"{what} {entity_id}, which is neither in the mpack nor here")


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
