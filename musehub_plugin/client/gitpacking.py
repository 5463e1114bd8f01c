"""Imports a git history as one pack: no file is made but the pack and its index.

Git is asked once. What it says of the commits goes to a file on the way, since a pack has the blobs first, in an order
that is known when all commits are; then come snapshots, then commits.
"""

from __future__ import annotations

import gc
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Final

import msgpack

from musehub_plugin import ids
from musehub_plugin.client.building import HashedFile
from musehub_plugin.client.errors import GitImportError
from musehub_plugin.client.gitlog import CHUNK, MAX_NAMES_AT_ONCE, GitChange, GitCommit, GitRepository
from musehub_plugin.client.gitmanifests import KeptManifests, RunningManifest
from musehub_plugin.client.gitmap import GitMap
from musehub_plugin.client.gitpolicy import DELETED, SUBMODULE, GitImport, Policy
from musehub_plugin.client.packindex import IndexBuilder
from musehub_plugin.client.progress import Progress, silent
from musehub_plugin.client.scratch import ScratchTable
from musehub_plugin.client.workdir import Workdir
from musehub_plugin.mpack import MPackReader, MPackWriter
from musehub_plugin.mpack.digests import DigestTable

_STEP: Final = 256
_NO_BLOB: Final = frozenset({DELETED, SUBMODULE})
# Bytes of one commit with all that it changed.
_MAX_COMMIT: Final = 1 << 30


class PackedImport:
    """An import into a working copy that keeps packs.

    Args:
        git: where from.
        workdir: where to.
        result: where counts are added.
        known: what git commits became; those of this import are added.
        branch_of_ref: the branch that each git ref became.
        policy: what becomes of paths and texts.
    """

    def __init__(
        self,
        git: GitRepository,
        workdir: Workdir,
        result: GitImport,
        known: GitMap,
        branch_of_ref: Mapping[bytes, str],
        policy: Policy,
    ) -> None:
        self._git = git
        self._workdir = workdir
        self._result = result
        self._known = known
        self._branch_of_ref = branch_of_ref
        self._policy = policy
        self._fresh = workdir.holds_nothing()

    def run(self, refs: Sequence[bytes], progress: Progress | None) -> None:
        """Bring what refs reach.

        Args:
            refs: full names of git refs.
            progress: told about commits, blobs and snapshots done.
        """
        tell = progress or silent
        path = self._workdir.temp_path()
        try:
            with TemporaryFile(dir=path.parent) as spool, ScratchTable(self._workdir.temp_path()) as blobs:
                returns = self._read(refs, spool, blobs, tell)
                if not self._result.commits:
                    return
                builder, mpack_id = self._write(path, spool, blobs, returns, tell)
                if self._result.new_commits or self._result.new_snapshots or self._result.new_blobs:
                    self._workdir.packs.add(path, mpack_id, builder)
                self._known.add(commit.name for commit in _commits_in(spool))
        except ValueError as error:
            # A text or a tree that is over what an mpack may hold.
            raise GitImportError(f"the git history does not fit in an mpack: {error}") from None
        finally:
            path.unlink(missing_ok=True)

    def _read(self, refs: Sequence[bytes], spool: IO[bytes], blobs: ScratchTable, tell: Progress) -> Counter[str]:
        """Write git's commits to a file, note where blobs belong, and return how often each commit is gone back to.

        A commit is gone back to where another goes on from its manifest that does not follow it at once.
        """
        returns: Counter[str] = Counter()
        last = ""
        pack = msgpack.Packer().pack
        for sequence, commit in enumerate(self._git.log(refs, self._known)):
            spool.write(pack(commit))
            returns.update(parent for parent in commit.parents[:1] if parent != last)
            places = ((blob, self._policy.path(path)) for mode, blob, path in commit.changes if mode not in _NO_BLOB)
            blobs.place((bytes.fromhex(blob.decode()), path, sequence) for blob, path in places if path is not None)
            last = commit.name
            self._result.commits += 1
            if sequence % _STEP == 0:
                tell("commits", self._result.commits, None)
        return returns

    def _write(
        self,
        path: Path,
        spool: IO[bytes],
        blobs: ScratchTable,
        returns: Counter[str],
        tell: Progress,
    ) -> tuple[IndexBuilder, str]:
        builder = IndexBuilder(self._workdir.temp_folder)
        with path.open("xb") as file:
            out = HashedFile(file)
            # Each takes 32 MiB, and two keep up with what is read from git.
            with MPackWriter(out, threads=min(2, len(os.sched_getaffinity(0)))) as writer:
                self._write_blobs(writer, blobs, tell)
                with TemporaryFile(dir=path.parent) as snapshots:
                    self._write_snapshots(writer, builder, spool, blobs, returns, snapshots, tell)
                    snapshots.seek(0)
                    self._write_commits(writer, builder, _commits_in(spool), iter(partial(snapshots.read, 32), b""))
        # What it knows of all blobs is not kept beside what the reader knows of them; its parts refer to one another.
        del writer
        gc.collect()
        with path.open("rb") as file:
            reader = MPackReader(file, folder=self._workdir.temp_folder)
            builder.add_blobs(reader.placed_digests())
        return builder, out.mpack_id()

    def _write_blobs(self, writer: MPackWriter, table: ScratchTable, tell: Progress) -> None:
        names = (name.hex().encode() for name in table.in_order())
        total, done = len(table), 0
        with self._git.blobs() as blobs:
            while some := list(islice(names, MAX_NAMES_AT_ONCE)):
                table.set_digests(
                    (bytes.fromhex(name.decode()), self._write_blob(writer, size, pieces))
                    for name, size, pieces in blobs.read(some)
                )
                done += len(some)
                tell("blobs", done, total)

    def _write_blob(self, writer: MPackWriter, size: int, pieces: Iterable[bytes]) -> bytes:
        """Write a blob where it is new, and return its digest."""
        if size <= CHUNK:
            content = b"".join(pieces)
            object_id = ids.blob_id(content)
            if self._is_new("objects", object_id):
                writer.add_blob(object_id, content)
                self._result.new_blobs += 1
        else:
            with TemporaryFile(dir=self._workdir.temp_folder) as file:
                object_id = _spooled(file, pieces)
                if self._is_new("objects", object_id):
                    writer.add_blob_stream(object_id, size, iter(partial(file.read, CHUNK), b""))
                    self._result.new_blobs += 1
        return ids.to_digest(object_id)

    def _write_snapshots(
        self,
        writer: MPackWriter,
        builder: IndexBuilder,
        spool: IO[bytes],
        blobs: ScratchTable,
        returns: Counter[str],
        digests: IO[bytes],
        tell: Progress,
    ) -> None:
        """Write the snapshots, and the digest of each commit's into a file."""
        written = DigestTable()
        manifest = RunningManifest(writer)
        with KeptManifests.opened(self._workdir.temp_folder) as kept:
            last = ""
            for done, commit in enumerate(_commits_in(spool), 1):
                parent = commit.parents[0] if commit.parents else ""
                if returns[last] and last not in kept:
                    kept.put(last, manifest.entries)
                if parent != last:
                    manifest.become(self._manifest_of(parent, kept) if parent else {})
                    returns[parent] -= 1
                    if returns[parent] <= 0:
                        kept.drop(parent)
                for change in commit.changes:
                    path, gone = self._policy.change(change)
                    if path is not None:
                        manifest.set(path, None if gone else _object_id(blobs, change.blob))
                digest = manifest.digest()
                digests.write(digest)
                known = written.count
                if written.number(digest) == known and self._is_new("snapshots", ids.from_digest(digest)):
                    manifest.write(digest)
                    builder.add_snapshot(digest)
                    self._result.new_snapshots += 1
                last = commit.name
                if done % _STEP == 0:
                    tell("snapshots", done, self._result.commits)

    def _write_commits(
        self, writer: MPackWriter, builder: IndexBuilder, commits: Iterable[GitCommit], digests: Iterable[bytes]
    ) -> None:
        default_branch = next(iter(self._branch_of_ref.values()), "")
        made = DigestTable()
        for commit, digest in zip(commits, digests, strict=True):
            snapshot_id = ids.from_digest(digest)
            committed_at = self._policy.date(commit.committed)
            message = self._policy.text(commit.message)
            # Two parents that became the same muse commit are one.
            parents = list(dict.fromkeys(self._known[parent] for parent in commit.parents))
            commit_id = ids.commit_id(parents, snapshot_id, message, committed_at)
            self._known[commit.name] = commit_id
            author = self._policy.text(commit.author)
            number = made.count
            if made.number(ids.to_digest(commit_id)) < number or not self._is_new("commits", commit_id):
                continue
            wire = {
                "commit_id": commit_id,
                "parent_ids": parents,
                "snapshot_id": snapshot_id,
                "branch": self._branch_of_ref.get(commit.ref, default_branch),
                "message": message,
                "author": author,
                "committed_at": committed_at,
                "metadata": {"git.commit": commit.name},
            }
            writer.add_commit(wire)
            builder.add_commit(wire, ids.to_digest(commit_id))
            self._result.new_commits += 1
        self._result.merged_commits = self._result.commits - made.count

    def _manifest_of(self, name: str, kept: KeptManifests) -> Mapping[str, str]:
        """Return the manifest of a commit of this import, or of one before it."""
        entries = kept.get(name)
        if entries is not None:
            return entries
        record = self._workdir.read_commit(self._known[name])
        return self._workdir.read_snapshot(ids.PREFIX + record["snapshot_id"])

    def _is_new(self, kind: str, entity_id: str) -> bool:
        return self._fresh or not self._workdir.has(kind, entity_id)


def _commits_in(spool: IO[bytes]) -> Iterator[GitCommit]:
    """Read commits back, from the first one on."""
    spool.seek(0)
    fields: Sequence[Any]
    for fields in msgpack.Unpacker(spool, use_list=False, max_buffer_size=_MAX_COMMIT):
        *rest, changes = fields
        yield GitCommit._make((*rest, tuple(map(GitChange._make, changes))))


def _object_id(blobs: ScratchTable, name: bytes) -> str:
    digest = blobs.digest(bytes.fromhex(name.decode()))
    if digest is None:
        raise GitImportError(f"git log names blob {name.decode()}, which it did not name before")
    return ids.from_digest(digest)


def _spooled(file: IO[bytes], pieces: Iterable[bytes]) -> str:
    """Write a blob to a file, go back to its start, and return the blob's id."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
        file.write(piece)
    file.seek(0)
    return ids.from_digest(digest.digest())
