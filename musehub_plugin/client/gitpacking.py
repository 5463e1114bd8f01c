"""Imports a git history as one pack: no file is made but the pack and its index.

Git is asked once. What it says of the commits goes to a file on the way, since a pack has the blobs first, in an order
that is known when all commits are; then come snapshots, then commits.
"""

from __future__ import annotations

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
from musehub_plugin.client.gitlog import CHUNK, MAX_NAMES_AT_ONCE, GitBlobs, GitChange, GitCommit, GitRepository
from musehub_plugin.client.gitmanifests import KeptManifests, RunningManifest
from musehub_plugin.client.gitmap import GitMap
from musehub_plugin.client.gitpolicy import DELETED, SUBMODULE, GitImport, Policy
from musehub_plugin.client.packindex import IndexBuilder
from musehub_plugin.client.progress import Progress, silent
from musehub_plugin.client.workdir import Workdir
from musehub_plugin.mpack import MPackReader, MPackWriter, solid_order

_STEP: Final = 256
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
        self._blob_ids: dict[bytes, str] = {}

    def run(self, refs: Sequence[bytes], progress: Progress | None) -> None:
        """Bring what refs reach.

        Args:
            refs: full names of git refs.
            progress: told about commits, blobs and snapshots done.
        """
        tell = progress or silent
        path = self._workdir.temp_path()
        try:
            with TemporaryFile(dir=path.parent) as spool:
                blobs, children = self._read(refs, spool, tell)
                if not self._result.commits:
                    return
                builder, mpack_id = self._write(path, spool, blobs, children, tell)
                if self._result.new_commits or self._result.new_snapshots or self._result.new_blobs:
                    self._workdir.packs.add(path, mpack_id, builder)
                self._known.add(commit.name for commit in _commits_in(spool))
        except ValueError as error:
            # A text or a tree that is over what an mpack may hold.
            raise GitImportError(f"the git history does not fit in an mpack: {error}") from None
        finally:
            path.unlink(missing_ok=True)

    def _read(
        self, refs: Sequence[bytes], spool: IO[bytes], tell: Progress
    ) -> tuple[dict[bytes, tuple[str, int]], Counter[str]]:
        """Write git's commits to a file; return where each blob belongs, and how often a manifest is gone on from."""
        places: dict[bytes, tuple[str, int]] = {}
        children: Counter[str] = Counter()
        pack = msgpack.Packer().pack
        for sequence, commit in enumerate(self._git.log(refs, list(self._known.commit_ids))):
            spool.write(pack(commit))
            children.update(commit.parents[:1])
            for mode, blob, path in commit.changes:
                shown = self._policy.path(path)
                if shown is not None and mode not in {DELETED, SUBMODULE}:
                    place = (shown, sequence)
                    before = places.get(blob)
                    if before is None or place < before:
                        places[blob] = place
            self._result.commits += 1
            if sequence % _STEP == 0:
                tell("commits", self._result.commits, None)
        return places, children

    def _write(
        self,
        path: Path,
        spool: IO[bytes],
        places: Mapping[bytes, tuple[str, int]],
        children: Counter[str],
        tell: Progress,
    ) -> tuple[IndexBuilder, str]:
        builder = IndexBuilder(self._workdir.temp_folder)
        with path.open("xb") as file:
            out = HashedFile(file)
            with MPackWriter(out, threads=max(1, len(os.sched_getaffinity(0)))) as writer:
                order = solid_order((place, sequence, blob.decode()) for blob, (place, sequence) in places.items())
                with self._git.blobs() as blobs:
                    self._write_blobs(writer, blobs, [blob.encode() for blob in order], tell)
                snapshot_ids = self._write_snapshots(writer, builder, _commits_in(spool), children, tell)
                self._write_commits(writer, builder, _commits_in(spool), snapshot_ids)
        with path.open("rb") as file:
            reader = MPackReader(file, folder=self._workdir.temp_folder)
            builder.add_blobs(reader.placed_digests())
        return builder, out.mpack_id()

    def _write_blobs(self, writer: MPackWriter, blobs: GitBlobs, order: Sequence[bytes], tell: Progress) -> None:
        names = iter(order)
        while some := list(islice(names, MAX_NAMES_AT_ONCE)):
            for name, size, pieces in blobs.read(some):
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
                self._blob_ids[name] = object_id
            tell("blobs", len(self._blob_ids), len(order))

    def _write_snapshots(
        self,
        writer: MPackWriter,
        builder: IndexBuilder,
        commits: Iterable[GitCommit],
        children: Counter[str],
        tell: Progress,
    ) -> list[bytes]:
        """Write the snapshots, and return the digest of each commit's."""
        digests: list[bytes] = []
        written: set[bytes] = set()
        manifest = RunningManifest(writer)
        with KeptManifests.opened(self._workdir.temp_folder) as kept:
            last = ""
            for done, commit in enumerate(commits, 1):
                parent = commit.parents[0] if commit.parents else ""
                if children[last] > (parent == last) and last not in kept:
                    # Another commit goes on from it later.
                    kept.put(last, manifest.entries)
                if parent != last:
                    manifest.become(self._manifest_of(parent, kept) if parent else {})
                children[parent] -= 1
                if children[parent] <= 0:
                    kept.drop(parent)
                for change in commit.changes:
                    path, gone = self._policy.change(change)
                    if path is not None:
                        manifest.set(path, None if gone else self._blob_ids[change.blob])
                digest = manifest.digest()
                digests.append(digest)
                if digest not in written:
                    written.add(digest)
                    if self._is_new("snapshots", ids.from_digest(digest)):
                        manifest.write(digest)
                        builder.add_snapshot(digest)
                        self._result.new_snapshots += 1
                last = commit.name
                if done % _STEP == 0:
                    tell("snapshots", done, self._result.commits)
        return digests

    def _write_commits(
        self, writer: MPackWriter, builder: IndexBuilder, commits: Iterable[GitCommit], digests: Sequence[bytes]
    ) -> None:
        default_branch = next(iter(self._branch_of_ref.values()), "")
        made: set[str] = set()
        for commit, digest in zip(commits, digests, strict=True):
            snapshot_id = ids.from_digest(digest)
            committed_at = self._policy.date(commit.committed)
            message = self._policy.text(commit.message)
            # Two parents that became the same muse commit are one.
            parents = list(dict.fromkeys(self._known.commit_ids[parent] for parent in commit.parents))
            commit_id = ids.commit_id(parents, snapshot_id, message, committed_at)
            self._known.commit_ids[commit.name] = commit_id
            author = self._policy.text(commit.author)
            if commit_id in made:
                continue
            made.add(commit_id)
            if not self._is_new("commits", commit_id):
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
        self._result.merged_commits = self._result.commits - len(made)

    def _manifest_of(self, name: str, kept: KeptManifests) -> dict[str, str]:
        """Return the manifest of a commit of this import, or of one before it."""
        entries = kept.get(name)
        if entries is not None:
            return entries
        record = self._workdir.read_commit(self._known.commit_ids[name])
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


def _spooled(file: IO[bytes], pieces: Iterable[bytes]) -> str:
    """Write a blob to a file, go back to its start, and return the blob's id."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
        file.write(piece)
    file.seek(0)
    return ids.from_digest(digest.digest())
