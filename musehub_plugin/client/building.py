"""Builds mpacks: of what some commits reach, and of what a thin one holds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from musehub_plugin import ids
from musehub_plugin.client.held import Held
from musehub_plugin.client.history import History
from musehub_plugin.client.progress import Progress
from musehub_plugin.client.record import wire_from_record
from musehub_plugin.client.workdir import Workdir
from musehub_plugin.mpack import MPackError, MPackReader, MPackWriter, PackSummary
from musehub_plugin.mpack.digests import DigestTable

if TYPE_CHECKING:
    from musehub_plugin.client.scratch import ScratchTable

_CHUNK: Final = 1 << 20
_DROPPED_AT_ONCE: Final = 1 << 16


@dataclass(frozen=True)
class BuiltMPack:
    """An mpack in a file.

    Attributes:
        path: the file.
        mpack_id: its id.
        summary: what it holds.
    """

    path: Path
    mpack_id: str
    summary: PackSummary


@contextmanager
def built_mpack(
    workdir: Workdir, history: History, heads: Sequence[str], held: Iterable[str], progress: Progress
) -> Iterator[BuiltMPack]:
    """Give the mpack that holds what `heads` reach and `held` do not, as a file that lasts as long as it is used.

    Args:
        workdir: the working copy.
        history: its commits.
        heads: commits that it holds.
        held: commits that the other side holds, with all that they reach.
        progress: told about blobs, snapshots and commits packed.

    Raises:
        WorkdirError: something that `heads` reach is missing.
    """
    commits = history.missing(heads, held)
    ready = _ready(workdir, commits)
    if ready is not None:
        yield ready
        return
    path = workdir.temp_path()
    try:
        with path.open("xb") as file:
            out = HashedFile(file)
            with MPackWriter(out, folder=workdir.temp_folder) as writer:
                _write(workdir, history, commits, writer, progress)
                summary = writer.finish()
        yield BuiltMPack(path, out.mpack_id(), summary)
    finally:
        path.unlink(missing_ok=True)


def _ready(workdir: Workdir, commits: Sequence[str]) -> BuiltMPack | None:
    """Return the pack of a working copy that holds these commits, with all that they need, and nothing else."""
    for pack in workdir.packs:
        if pack.index.count("commits") != len(commits) or not all(pack.index.has("commits", each) for each in commits):
            continue
        snapshots = DigestTable()
        for each in commits:
            snapshots.number(ids.to_digest(_snapshot_id(workdir, each)))
        if pack.index.count("snapshots") != snapshots.count:
            continue
        snapshot_ids = (ids.from_digest(snapshots[number]) for number in range(snapshots.count))
        try:
            reader = pack.reader()
            if any(reader.outside_objects()) or not all(pack.index.has("snapshots", each) for each in snapshot_ids):
                continue
        except MPackError as error:
            raise pack.damaged(error) from None
        size = pack.path.stat().st_size
        counts = (reader.commit_count, reader.snapshot_count, reader.blob_count)
        return BuiltMPack(pack.path, pack.mpack_id, PackSummary(*counts, reader.raw_size, size))
    return None


@contextmanager
def whole_mpack(workdir: Workdir, source: Path) -> Iterator[BuiltMPack]:
    """Give an mpack that stands by itself in place of a thin one, as a file that lasts as long as it is used.

    Args:
        workdir: what the thin one starts from.
        source: the thin one's file; nothing in it is believed, and nothing is verified here.

    Raises:
        MPackError: it is malformed, or starts from something that is not in the working copy.
        WorkdirError: that is damaged.
    """
    path = workdir.temp_path()
    try:
        yield _whole(workdir, source, path)
    finally:
        path.unlink(missing_ok=True)


def _whole(workdir: Workdir, source: Path, path: Path) -> BuiltMPack:
    with source.open("rb") as thin, path.open("xb") as file:
        reader = MPackReader(thin, cached_frames=1, bases=Held(workdir), folder=workdir.temp_folder)
        out = HashedFile(file)
        with MPackWriter(out, folder=workdir.temp_folder) as writer:
            for blob in reader.blobs():
                writer.add_blob_stream(blob.object_id, blob.size, blob.chunks())
            for snapshot_id, manifest in reader.snapshots():
                writer.add_snapshot(snapshot_id, manifest)
            for commit in reader.commits():
                writer.add_commit(commit)
            summary = writer.finish()
    return BuiltMPack(path, out.mpack_id(), summary)


def _write(workdir: Workdir, history: History, commits: Sequence[str], writer: MPackWriter, progress: Progress) -> None:
    # Here and not above: most commands build no mpack.
    from musehub_plugin.client.scratch import ScratchTable

    known = {_snapshot_id(workdir, commit_id) for commit_id in history.edge(commits)}
    with ScratchTable(workdir.temp_path()) as snapshots, ScratchTable(workdir.temp_path()) as blobs:
        # Out of a pack they come in its order; going back and forth in one costs a pass over it each time.
        snapshots.place(
            _place(workdir, _snapshot_id(workdir, commit_id), sequence) for sequence, commit_id in enumerate(commits)
        )
        snapshots.drop(set(map(ids.to_digest, known)))
        _place_blobs(workdir, map(ids.from_digest, snapshots.in_order()), known, blobs)
        for done, object_id in enumerate(map(ids.from_digest, blobs.in_order()), 1):
            with workdir.open_blob(object_id) as file:
                size = workdir.blob_size(object_id)
                writer.add_blob_stream(object_id, size, iter(partial(file.read, _CHUNK), b""))
            progress("packing blobs", done, None)
        total = len(snapshots)
        for done, snapshot_id in enumerate(map(ids.from_digest, snapshots.in_order()), 1):
            writer.add_snapshot(snapshot_id, workdir.read_snapshot(snapshot_id))
            progress("packing snapshots", done, total)
    for done, commit_id in enumerate(commits, 1):
        writer.add_commit(wire_from_record(workdir.read_commit(commit_id), repo_id=workdir.repo_id))
        progress("packing commits", done, len(commits))


def _place(workdir: Workdir, snapshot_id: str, sequence: int) -> tuple[bytes, str, int]:
    """Return a row for a snapshot that sorts as it is read fastest: those in no pack first, in the order of history."""
    number, ordinal = workdir.packs.place("snapshots", snapshot_id) or ("", sequence)
    return ids.to_digest(snapshot_id), f"{number:>9}", ordinal


def _place_blobs(workdir: Workdir, snapshots: Iterable[str], known: Iterable[str], blobs: ScratchTable) -> None:
    """Note where those blobs of snapshots are that no known one has."""
    known = sorted(known, key=partial(workdir.packs.place, "snapshots"))
    # Only what changed from one to the next is looked at: of a big tree that is little.
    before: Mapping[str, str] = workdir.read_snapshot(known[0]) if known else {}
    for sequence, snapshot_id in enumerate(snapshots):
        manifest = workdir.read_snapshot(snapshot_id)
        changed = _changed(before, manifest)
        blobs.place((ids.to_digest(object_id), path, sequence) for path, object_id in changed)
        before = manifest
    for snapshot_id in known:
        digests = map(ids.to_digest, workdir.read_snapshot(snapshot_id).values())
        while some := set(islice(digests, _DROPPED_AT_ONCE)):
            blobs.drop(some)


def _changed(before: Mapping[str, str], manifest: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """Return the entries of a manifest that another has not."""
    if isinstance(before, dict) and isinstance(manifest, dict):
        return manifest.items() - before.items()
    # Of wide ones there may be more than memory has room for.
    return (entry for entry in manifest.items() if before.get(entry[0]) != entry[1])


def _snapshot_id(workdir: Workdir, commit_id: str) -> str:
    return ids.PREFIX + str(workdir.read_commit(commit_id)["snapshot_id"])


class HashedFile:
    """A file that knows the id of what was written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        """Append bytes."""
        self._digest.update(data)
        return self._file.write(data)

    def mpack_id(self) -> str:
        """Return the id of all that was written."""
        return ids.from_digest(self._digest.digest())
