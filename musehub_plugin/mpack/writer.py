"""Writes an mpack in one pass, in bounded memory."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import msgpack

from musehub_plugin import ids
from musehub_plugin.mpack.digests import DigestTable
from musehub_plugin.mpack.emitter import METADATA_LEVEL, FrameEmitter, Sink
from musehub_plugin.mpack.following import is_wide
from musehub_plugin.mpack.history import CommitEncoder
from musehub_plugin.mpack.layout import BLOB_FRAME_BYTES, OPTIONAL_KIND, Kind
from musehub_plugin.mpack.leaning import BaseBlob, Leaning
from musehub_plugin.mpack.limits import Limits
from musehub_plugin.mpack.manifests import WIDE_TO_WRITE, ManifestHasher
from musehub_plugin.mpack.packfile import Source
from musehub_plugin.mpack.reader import MPackReader
from musehub_plugin.mpack.snapshots import SnapshotEncoder, are_short

NumberedSnapshot = tuple[bytes, Collection[str], Sequence[str], Sequence[int], bool]

if TYPE_CHECKING:
    from musehub_plugin.mpack.pages import PageHasher
    from musehub_plugin.mpack.wide import WideManifest

# On two real histories level 6 takes the time of level 3 and 4 to 9 % fewer bytes.
BLOB_LEVEL = 6
_IDS_PER_FRAME = 1 << 16
# Of a number that stands for no blob of the pack.
NOT_IN_PACK: Final = 0xFFFF_FFFF
_ANY_RATIO = 1 << 40
# What a commit may lack.
_NO_FIELDS = {"parent_ids": (), "branch": "", "message": "", "author": "", "committed_at": ""}


def _digests(identifiers: Iterable[str]) -> bytes:
    return b"".join(map(ids.to_digest, identifiers))


@dataclass(frozen=True, slots=True)
class PackSummary:
    """What was written.

    Attributes:
        commit_count: commits in the pack.
        snapshot_count: snapshots in the pack.
        blob_count: blobs in the pack.
        raw_size: sum of the sizes of the blobs.
        size_bytes: size of the file.
    """

    commit_count: int
    snapshot_count: int
    blob_count: int
    raw_size: int
    size_bytes: int


def _wide_digests(folder: Path) -> DigestTable:
    # Here and not above: who has the memory needs none.
    from musehub_plugin.mpack.widedigests import WideDigestTable

    return WideDigestTable(folder)


class _Stage(IntEnum):
    BLOBS = 0
    SNAPSHOTS = 1
    COMMITS = 2
    FINISHED = 3


class MPackWriter:
    """Writes blobs, then snapshots, then commits, then the table of contents.

    The same calls give the same bytes, whatever the process, as long as the zstd library is the same. Used as a
    context manager it finishes the pack on the way out, and leaves it unfinished where an exception passes. After
    an exception from a method the pack cannot be continued.

    Args:
        out: where the pack goes: a binary file, only ever appended to.
        level: zstd level for blobs.
        limits: sizes that a single path, message, commit or the pack's ratio must keep to. A reader with the same
            limits accepts what was written, unless the whole exceeds its totals.
        threads: how many compress blobs beside the one that calls; each takes 32 MiB more. The bytes are the same.
        largest_beside: frames of more bytes are not compressed beside the one that calls, so that less memory is taken.
        bases: id and manifest of snapshots that the receiver holds with all their blobs, the most useful first. The
            pack may then be a thin one, which only who holds them can read. Every base takes 32 bytes. The last are
            not leaned on where they would be more than a reader should have to look through.
        blobs: the 32 bytes of the id of each blob of a pack that another writer writes: this one begins with the
            snapshots, and what it writes is for that one's `take_history`.
        folder: where the ids of objects are kept that memory has no room for; None: in memory, some 50 bytes each.
            Wide manifests are in files there too, or where the system has such files.

    Raises:
        ValueError: a base is there twice, or its id is none.
    """

    def __init__(
        self,
        out: Sink,
        *,
        level: int = BLOB_LEVEL,
        limits: Limits | None = None,
        threads: int = 0,
        largest_beside: int = BLOB_FRAME_BYTES,
        bases: Sequence[tuple[str, Mapping[str, str]]] = (),
        blobs: Iterable[bytes] | None = None,
        folder: Path | None = None,
    ) -> None:
        self._level = level
        self._limits = limits or Limits()
        self._stage = _Stage.BLOBS
        self._summary: PackSummary | None = None
        self._copied: MPackReader | None = None
        accepted = self._limits if blobs is None else self._history_limits()
        self._emitter = FrameEmitter(out, accepted, threads, min(level, METADATA_LEVEL), largest_beside)

        self._leaning = Leaning(bases, self._limits)
        # What is in it beyond what is filled was in a frame before.
        self._buffer = bytearray()
        self._filled = 0
        self._buffer_starts = 0
        self._folder = folder
        self._objects = DigestTable() if folder is None else _wide_digests(folder)
        self._blob_sizes = array("Q")

        self._outside_pending = bytearray()
        self._snapshot_digests = DigestTable()
        self._snapshots = SnapshotEncoder(self._emit_snapshots, self._leaning.bases)
        self._manifest: dict[str, str] | WideManifest = {}
        self._page_hasher: PageHasher | None = None
        self._hasher: ManifestHasher | None = None
        self._commits = CommitEncoder(self._emit_commits, self._limits)
        self._taken: MPackReader | None = None
        if blobs is not None:
            self._stage = _Stage.SNAPSHOTS
            for digest in blobs:
                self._objects.number(digest)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        else:
            self._emitter.abandon()
            self._let_go()

    def close(self) -> None:
        """Finish the pack, as `finish` does; `out` is left open."""
        self.finish()

    def _enter_stage(self, stage: _Stage) -> None:
        if stage < self._stage:
            raise ValueError(f"{stage.name.lower()} cannot be added after {self._stage.name.lower()}")
        if stage > self._stage and self._stage == _Stage.BLOBS:
            self._flush_blobs()
            self._buffer = bytearray()
            self._emitter.end_blobs()
            self._write_directory()
            self._copy_frames(Kind.SNAPSHOTS)
        if stage > _Stage.SNAPSHOTS >= self._stage:
            self._snapshots.flush()
            self._copy_frames(Kind.COMMITS)
        self._stage = stage

    def copy_pack(
        self, reader: MPackReader, *, snapshot_ids: Iterable[str] | None = None, commit_ids: Iterable[str] | None = None
    ) -> None:
        """Take over all of another pack, its frames as they are; what is added afterwards follows it.

        Nothing is decompressed but the directory, and what is needed to know the ids that are not given. They are
        taken on trust: nothing that the other pack says is checked.

        Args:
            reader: the other pack; it must stay readable until this one is finished.
            snapshot_ids: the ids of its snapshots, in their order, where they are known: to compute them takes a pass
                over all of its manifests.
            commit_ids: the ids of its commits, in their order, where they are known.

        Raises:
            ValueError: something was added before, the pack names objects that it does not hold or needs a feature,
                or there are more or fewer ids than it has entities.
            MPackError: the other pack is malformed.
        """
        if self._stage != _Stage.BLOBS or self._objects.count or self._copied:
            raise ValueError("a pack can only be copied before anything is added")
        if reader.needs:
            raise ValueError(f"a pack that needs {reader.needs[0]!r} cannot be copied")
        kept = [frame for frame in reader.frames if frame.kind < OPTIONAL_KIND]
        if any(frame.kind == Kind.OUTSIDE for frame in kept):
            raise ValueError("a pack that names objects which it does not hold cannot be copied")
        self._objects.extend(reader.blob_digests())
        self._snapshot_digests.extend(_digests(reader.snapshot_ids() if snapshot_ids is None else snapshot_ids))
        if commit_ids is None:
            commit_ids = (record["commit_id"] for record in reader.commits())
        self._commits.copied(_digests(commit_ids))
        if (self._snapshot_digests.count, len(self._commits)) != (reader.snapshot_count, reader.commit_count):
            raise ValueError("the ids given are not as many as the pack's snapshots and commits")
        self._copied = reader
        self._emitter.expect(sum(frame.stored for frame in kept), sum(frame.raw for frame in kept))
        self._copy_frames(Kind.BLOBS)

    def _copy_frames(self, kind: Kind) -> None:
        for ordinal, frame in enumerate(self._copied.frames if self._copied else ()):
            if self._copied and frame.kind == kind:
                self._emitter.copy(frame, self._copied.stored_frame(ordinal))

    def _history_limits(self) -> Limits:
        """Return limits for history alone, whose ratio says nothing about that of the pack that it goes into."""
        return replace(self._limits, max_ratio=_ANY_RATIO)

    def take_history(self, source: Source) -> None:
        """Take over all snapshots and commits from what another writer wrote, which was given this pack's `blobs`.

        The pack is the same as if they had been added here. Only `finish` can follow.

        Args:
            source: the file that the other one wrote.

        Raises:
            ValueError: a snapshot or a commit was added before, or a pack was copied.
            MPackError: it is damaged.
        """
        if self._stage != _Stage.BLOBS or self._copied:
            raise ValueError("history can only be taken over right after blobs")
        reader = MPackReader(source, limits=self._history_limits())
        self._enter_stage(_Stage.COMMITS)
        for number, frame in enumerate(reader.frames):
            self._emitter.emit_compressed(frame, reader.stored_frame(number))
        self._stage, self._taken = _Stage.FINISHED, reader

    def add_blob(self, object_id: str | bytes, content: bytes | memoryview, *, base: BaseBlob | None = None) -> None:
        """Append a blob; its id is not checked against its content.

        Args:
            object_id: its id, or the 32 bytes that it stands for.
            content: its bytes.
            base: a blob of a base that resembles it: it is compressed against that where that pays.

        Raises:
            ValueError: `object_id` is no id or was added before, the base has no such path, or snapshots were begun.
        """
        self.add_blob_stream(object_id, len(content), (content,), base=base)

    def add_blob_stream(
        self, object_id: str | bytes, size: int, chunks: Iterable[bytes | memoryview], *, base: BaseBlob | None = None
    ) -> None:
        """Append a blob that need not be in memory at once.

        Args:
            object_id: its id, or the 32 bytes that it stands for; not checked against its content.
            size: bytes that `chunks` give in all.
            chunks: the content in pieces of any size.
            base: as for `add_blob`.

        Raises:
            ValueError: as `add_blob` does; or `size` is wrong.
        """
        self._enter_stage(_Stage.BLOBS)
        digest = object_id if isinstance(object_id, bytes) else ids.to_digest(object_id)
        if len(digest) != 32:
            raise ValueError(f"a blob's id is 32 bytes, not {len(digest)}")
        if not 0 <= size <= self._limits.max_blob_size:
            raise ValueError(f"blob {ids.from_digest(digest)}: {size} bytes are over {self._limits.max_blob_size}")
        # A blob stays within a frame where it can; a bigger one fills frames of its own.
        if self._buffer_starts and size > BLOB_FRAME_BYTES - self._filled:
            self._flush_blobs()
        if base is not None and not self._leaning.add(base):
            self._flush_blobs()
            self._leaning.add(base)
        known = self._objects.count
        if self._objects.number(digest) != known:
            raise ValueError(f"blob {ids.from_digest(digest)} was added before")
        self._blob_sizes.append(size)
        self._buffer_starts += 1
        missing = size
        for chunk in chunks:
            missing -= len(chunk)
            if missing < 0:
                break
            self._append(chunk)
        if missing:
            raise ValueError(f"blob {ids.from_digest(digest)}: its chunks do not give the {size} bytes announced")

    def _append(self, chunk: bytes | memoryview) -> None:
        start = 0
        while start < len(chunk):
            if self._filled == BLOB_FRAME_BYTES:
                self._flush_blobs()
            size = min(len(chunk) - start, BLOB_FRAME_BYTES - self._filled)
            self._buffer[self._filled : self._filled + size] = memoryview(chunk)[start : start + size]
            self._filled += size
            start += size

    def _flush_blobs(self) -> None:
        if self._filled or self._buffer_starts:
            del self._buffer[self._filled :]
            self._emitter.emit_blobs(self._buffer, self._buffer_starts, self._level, self._leaning.take_prefix())
            self._buffer = self._emitter.spare()
            self._filled = self._buffer_starts = 0

    def _write_directory(self) -> None:
        self._copy_frames(Kind.DIRECTORY)
        copied = self._objects.count - len(self._blob_sizes)
        for start in range(0, len(self._blob_sizes), _IDS_PER_FRAME):
            sizes = self._blob_sizes[start : start + _IDS_PER_FRAME]
            digests = self._objects.part(copied + start, copied + start + len(sizes))
            self._emitter.emit(Kind.DIRECTORY, msgpack.packb([digests, sizes.tolist()]), len(sizes))

    def _flush_outside(self) -> None:
        pending = bytes(self._outside_pending)
        for start in range(0, len(pending), 32 * _IDS_PER_FRAME):
            part = pending[start : start + 32 * _IDS_PER_FRAME]
            self._emitter.emit(Kind.OUTSIDE, part, len(part) // 32)
        self._outside_pending.clear()

    def _emit_snapshots(self, raw: bytes, count: int) -> None:
        self._flush_outside()
        self._emitter.emit(Kind.SNAPSHOTS, raw, count)

    def _emit_commits(self, raw: bytes, count: int) -> None:
        self._emitter.emit(Kind.COMMITS, raw, count)

    def _ordinals(self, object_ids: Iterable[str]) -> list[int]:
        """Number objects; those that neither the bases nor the pack hold are listed."""
        held = self._leaning.bases.by_object
        if not held:
            return self._numbered(list(map(ids.to_digest, object_ids)))
        ordinals = []
        for object_id in object_ids:
            entry = held.get(object_id)
            if entry is None:
                ordinals += self._numbered([ids.to_digest(object_id)])
            else:
                self._snapshots.based = True
                ordinals.append(-1 - entry)
        return ordinals

    def _numbered(self, digests: Sequence[bytes]) -> list[int]:
        """Number objects; those that the pack does not hold are listed, in frames of one size."""
        ordinals: list[int] = []
        while digests:
            known = self._objects.count
            room = _IDS_PER_FRAME - len(self._outside_pending) // 32
            ordinals += self._objects.number_all(digests[:room])
            self._outside_pending += self._objects.part(known, self._objects.count)
            if len(self._outside_pending) >= 32 * _IDS_PER_FRAME:
                self._flush_outside()
            digests = digests[room:]
        return ordinals

    def add_snapshot(self, snapshot_id: str, manifest: Mapping[str, str], *, derivable: bool | None = None) -> None:
        """Append a snapshot, written as its difference from the one added before.

        Args:
            snapshot_id: its id.
            manifest: `{path: object_id}`; objects that the pack does not hold are listed by their ids. A `WideManifest`
                may be wider than memory has room for.
            derivable: True where `snapshot_id` is known to be the hash of `manifest`: it is then not stored, and a
                reader computes it. False stores it. None computes it here and stores it where it differs.

        Raises:
            ValueError: `snapshot_id` or an object id is no id, the snapshot was added before, a path is over the
                limit, or commits were begun.
        """
        self._enter_stage(_Stage.SNAPSHOTS)
        before = self._manifest
        if not isinstance(before, dict) or is_wide(manifest):
            self._add_wide(snapshot_id, manifest, derivable)
            return
        changed = {path: object_id for path, object_id in manifest.items() if before.get(path) != object_id}
        added = sum(1 for path in changed if path not in before)
        removed: list[str] = []
        if len(before) + added != len(manifest):
            removed = sorted(before.keys() - manifest.keys())
        if derivable is None:
            if self._hasher is None:
                self._hasher = ManifestHasher()
                self._hasher.change((), manifest, full=True)
            else:
                self._hasher.change(removed, changed, full=False)
            derivable = ids.from_digest(self._hasher.digest()) == snapshot_id
        else:
            self._hasher = None
        self._append_snapshot(snapshot_id, before, removed, changed, derivable)

    def _add_wide(self, snapshot_id: str, manifest: Mapping[str, str], derivable: bool | None) -> None:
        """Append a snapshot whose manifest memory has no room for, or one that follows on such a one."""
        # Here and not above: hardly any manifest is wide.
        from musehub_plugin.mpack.pages import PageHasher
        from musehub_plugin.mpack.widewriting import both_wide, wide_change

        before, now = both_wide(self._manifest, manifest)
        self._hasher = None
        if derivable is None:
            self._page_hasher = self._page_hasher or PageHasher()
            derivable = ids.from_digest(self._page_hasher.digest(now.pages)) == snapshot_id
        limits = self._limits
        if len(now) > limits.max_manifest_entries:
            raise ValueError(f"snapshot {snapshot_id} is over {limits.max_manifest_entries} paths")
        digest = self._snapshot_digest(snapshot_id)
        try:
            removed, refs = wide_change(before, now, lambda one: self._ordinals((one,))[0], limits.max_path_size)
        except ValueError as error:
            raise ValueError(f"snapshot {snapshot_id}: {error}") from None
        self._manifest = now.copy()
        self._snapshots.add(removed, refs, None if derivable else digest, len(now), file=now.pages.file)

    def add_snapshot_delta(
        self,
        snapshot_id: str,
        removed: Collection[str],
        changed: Mapping[str, str],
        *,
        derivable: bool,
        start: int | None = None,
    ) -> None:
        """Append a snapshot given as what changed since the one added before; the first, since the empty manifest.

        It costs time for what changed alone, but once every some thousand snapshots, and gives the bytes that
        `add_snapshot` would. Snapshots of a copied pack do not count as added before.

        Args:
            snapshot_id: its id.
            removed: paths that are gone. One that is in `changed` too is a changed one.
            changed: `{path: object_id}` of what is new or different; what is as it was does no harm.
            derivable: as for `add_snapshot`.
            start: number of the base since which this changed, in place of the snapshot added before.

        Raises:
            ValueError: as `add_snapshot` does; or a removed path was not there, or there is no such base.
        """
        self._enter_stage(_Stage.SNAPSHOTS)
        self._hasher = None
        if start is not None:
            if not 0 <= start < len(self._leaning.manifests):
                raise ValueError(f"there is no base {start}")
            if start >= len(self._leaning.bases):
                whole = self._leaning.manifests[start]
                kept = whole.keys() - removed
                self.add_snapshot(snapshot_id, {**{path: whole[path] for path in kept}, **changed}, derivable=derivable)
                return
            self._manifest = dict(self._leaning.manifests[start])
        before = self._manifest
        is_large = is_wide(changed) or len(before) + len(changed) > WIDE_TO_WRITE
        if not isinstance(before, dict) or (start is None and is_large):
            self._add_wide_delta(snapshot_id, removed, changed, derivable)
            return
        gone = sorted(path for path in removed if path not in changed) if removed else []
        for path in gone:
            if path not in before:
                raise ValueError(f"snapshot {snapshot_id} removes {path!r:.100}, which is not there")
        now = changed
        if before:
            now = {path: object_id for path, object_id in changed.items() if before.get(path) != object_id}
        self._append_snapshot(snapshot_id, before, gone, now, derivable, start)

    def _add_wide_delta(
        self, snapshot_id: str, removed: Collection[str], changed: Mapping[str, str], derivable: bool
    ) -> None:
        """Append a snapshot that is given as what changed, where memory has no room for its manifest."""
        # Here and not above: hardly any manifest is wide.
        from musehub_plugin.mpack.widewriting import followed

        try:
            self._manifest, now = followed(self._manifest, removed, changed, self._folder)
        except ValueError as error:
            raise ValueError(f"snapshot {snapshot_id} {error}") from None
        self._add_wide(snapshot_id, now, derivable)

    def add_numbered_snapshots(
        self, changes: Iterable[NumberedSnapshot], objects: DigestTable, places: Sequence[int]
    ) -> None:
        """Append the snapshots of a pack that has no others, as `add_snapshot_delta` does, in half the time.

        Args:
            changes: the 32 bytes of each one's id, the paths that it removes, those that it sets, sorted, the numbers
                of their objects, and whether it is derivable.
            objects: says what the numbers stand for.
            places: for each number the place in the pack of the blob that it stands for, or `NOT_IN_PACK`.

        Raises:
            ValueError: as `add_snapshot_delta` does.
        """
        self._enter_stage(_Stage.SNAPSHOTS)
        if self._snapshot_digests.count or self._leaning.manifests:
            raise ValueError("snapshots by numbers cannot be added to a pack that has others, or leans on some")
        limits, encoder = self._limits, self._snapshots
        ordinals = array("Q", places)
        refs: dict[str, int] = {}
        for digest, removed, paths, numbers, derivable in changes:
            self._number_snapshot(digest)
            for number in numbers:
                if ordinals[number] == NOT_IN_PACK:
                    ordinals[number] = self._numbered([objects[number]])[0]
            gone = sorted(set(removed).difference(paths)) if removed else []
            for path in gone:
                if refs.pop(path, None) is None:
                    raise ValueError(f"snapshot {ids.from_digest(digest)} removes {path!r:.100}, which is not there")
            changed = {}
            for path, number in zip(paths, numbers, strict=True):
                ordinal = ordinals[number]
                before = refs.get(path)
                if before is None and len(path.encode()) > limits.max_path_size:
                    raise ValueError(
                        f"snapshot {ids.from_digest(digest)}: path {path!r:.100} is over {limits.max_path_size} bytes"
                    )
                if before != ordinal:
                    changed[path] = refs[path] = ordinal
            if len(refs) > limits.max_manifest_entries:
                raise ValueError(f"snapshot {ids.from_digest(digest)} is over {limits.max_manifest_entries} paths")
            encoder.add(gone, changed, None if derivable else digest, len(refs))
        self._manifest = {path: ids.from_digest(self._objects[ordinal]) for path, ordinal in refs.items()}

    def _snapshot_digest(self, snapshot_id: str) -> bytes:
        """Number a snapshot, and return the 32 bytes of its id."""
        digest = ids.to_digest(snapshot_id)
        self._number_snapshot(digest)
        return digest

    def _number_snapshot(self, digest: bytes) -> None:
        known = self._snapshot_digests.count
        if self._snapshot_digests.number(digest) != known:
            raise ValueError(f"snapshot {ids.from_digest(digest)} was added before")

    def _append_snapshot(
        self,
        snapshot_id: str,
        manifest: dict[str, str],
        removed: Sequence[str],
        changed: Mapping[str, str],
        derivable: bool,
        start: int | None = None,
    ) -> None:
        """Append a snapshot, and have the manifest of the one before become this one's."""
        digest = self._snapshot_digest(snapshot_id)
        limits = self._limits
        for path in removed:
            del manifest[path]
        if changed and not are_short(changed, limits.max_path_size):
            for path in changed:
                if path not in manifest and (not isinstance(path, str) or len(path.encode()) > limits.max_path_size):
                    raise ValueError(f"snapshot {snapshot_id}: path {path!r:.100} is over {limits.max_path_size} bytes")
        manifest.update(changed)
        if len(manifest) > limits.max_manifest_entries:
            raise ValueError(f"snapshot {snapshot_id} is over {limits.max_manifest_entries} paths")
        paths = sorted(changed)
        refs = dict(zip(paths, self._ordinals(map(changed.__getitem__, paths)), strict=True))
        self._snapshots.add(removed, refs, None if derivable else digest, len(manifest), start)

    def add_commit(self, record: Mapping[str, Any]) -> None:
        """Append a commit.

        Args:
            record: `commit_id`, `snapshot_id` and where present `parent_ids`, `branch`, `message`, `author` and
                `committed_at` (the string that was hashed); any further key is carried unchanged. Parents and
                snapshot need not be in the pack, and parents need not come first.

        Raises:
            ValueError: a field is missing, of the wrong type or over a limit, or the commit was added before.
        """
        self._enter_stage(_Stage.COMMITS)
        core = {**_NO_FIELDS, **record}
        for name in ("commit_id", "snapshot_id"):
            if name not in core:
                raise ValueError(f"commit {len(self._commits)} has no {name}")
        if not isinstance(core["parent_ids"], list | tuple):
            raise ValueError(f"commit {len(self._commits)}: parent_ids is no list")
        self._commits.add(core, self._snapshot_digests)

    def finish(self) -> PackSummary:
        """Write what is left and the table of contents; further calls return the same summary."""
        if self._summary is None:
            self._enter_stage(_Stage.FINISHED)
            self._commits.flush()
            self._emitter.drain()
            thin = self._emitter.prefixed or self._snapshots.based
            self._emitter.finish(self._leaning.digests if thin else ())
            self._summary = PackSummary(
                commit_count=len(self._commits) + (self._taken.commit_count if self._taken else 0),
                snapshot_count=self._snapshot_digests.count + (self._taken.snapshot_count if self._taken else 0),
                blob_count=len(self._blob_sizes) + (self._copied.blob_count if self._copied else 0),
                raw_size=sum(self._blob_sizes) + (self._copied.raw_size if self._copied else 0),
                size_bytes=self._emitter.position,
            )
            self._let_go()
        return self._summary

    def _let_go(self) -> None:
        """Let go of what is large: it and the encoders refer to one another, and garbage is seldom looked for."""
        self._stage = _Stage.FINISHED
        self._manifest = {}
        del self._snapshots, self._commits, self._leaning, self._objects, self._hasher, self._page_hasher
