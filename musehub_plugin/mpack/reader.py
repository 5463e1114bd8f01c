"""Reads an mpack from a seekable file, in bounded memory, trusting none of it."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

from musehub_plugin import ids
from musehub_plugin.mpack.bounded import Columns
from musehub_plugin.mpack.digestlist import DigestList
from musehub_plugin.mpack.entities import BlobEntry, SnapshotDelta
from musehub_plugin.mpack.following import FollowedManifest
from musehub_plugin.mpack.history import CommitDecoder, ReadCommit
from musehub_plugin.mpack.layout import Frame, Kind
from musehub_plugin.mpack.limits import Limits, MPackError
from musehub_plugin.mpack.manifests import Change, ManifestHasher, SnapshotDecoder, continues
from musehub_plugin.mpack.objectnames import ObjectNames
from musehub_plugin.mpack.packfile import PackFile, Source
from musehub_plugin.mpack.thin import BaseProvider

# 2 MiB of them; of a pack of more blobs they are read again where they are needed.
_KEPT_SIZES = 1 << 18
# Some 10 MiB of paths.
_KEPT_NAMES = 1 << 16


class Blob:
    """A blob whose bytes are read when they are asked for.

    Attributes:
        entry: where it is.
        object_id: its id, as the pack claims it.
        size: bytes.
    """

    def __init__(self, reader: MPackReader, entry: BlobEntry) -> None:
        self._reader = reader
        self.entry = entry
        self.object_id = entry.object_id
        self.size = entry.size

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes, in pieces of at most a frame (16 MiB)."""
        return self._reader.blob_chunks(self.entry.frame, self.entry.offset, self.entry.size)

    def read(self) -> bytes:
        """Return all of the bytes."""
        return self._reader.read_blob(self.entry.frame, self.entry.offset, self.entry.size)


class MPackReader:
    """Gives a pack's commits, snapshots and blobs.

    The constructor reads the table of contents only; everything else is read when it is asked for, whole frames at
    a time. Not safe for use by several threads at once. Iterators may be interleaved, and started again.

    What the pack says is well-formed when it comes out of here, and within the limits. Ids that the content
    determines are computed, so they are true; a blob's id, and those commit and snapshot ids that the pack states,
    are only checked by `verify`. Errors of `source` itself pass through.

    Args:
        source: a seekable binary file; reads are few and large.
        limits: what is accepted.
        cached_frames: decompressed frames of blobs kept for the next read, up to 16 MiB each.
        bases: what the receiver holds, to read a thin pack; it is asked when it is needed.
        folder: where ids and manifests are kept that memory has no room for, in files without names; None: where the
            system has such files.
        wide_in_file: read manifests of more paths than some ten thousand out of such a file. Where paths come in no
            order that takes up to 0.1 milliseconds for each; otherwise manifests take some 500 bytes for each path.

    Attributes:
        folder: as given.
        size_bytes: size of the file.
        needs: the features without which the pack cannot be read.
        frames: the frames, as the table of contents has them.
        commit_count: commits in the pack.
        snapshot_count: snapshots in the pack.
        blob_count: blobs in the pack.
        raw_size: sum of the sizes of the blobs.

    Raises:
        MPackError: here and wherever the pack is read: it is malformed, or exceeds a limit.
    """

    def __init__(
        self,
        source: Source,
        *,
        limits: Limits | None = None,
        cached_frames: int = 2,
        bases: BaseProvider | None = None,
        folder: Path | None = None,
        wide_in_file: bool = True,
    ) -> None:
        self.folder = folder
        self._wide_in_file = wide_in_file
        self.limits = limits or Limits()
        self._file = PackFile(source, self.limits, bases, folder)
        self.size_bytes = self._file.size_bytes
        self.needs = self._file.needs
        self.frames = self._file.frames
        self._cached_frames = cached_frames
        self._cache: OrderedDict[int, bytes] = OrderedDict()
        self._blob_digests: DigestList | None = None
        self._blob_sizes = array("Q")
        self._blob_borders: set[int] = set()
        self._outside: DigestList | None = None
        self._snapshot_digests: DigestList | None = None

        self.commit_count = self._file.count(Kind.COMMITS)
        self.snapshot_count = self._file.count(Kind.SNAPSHOTS)
        self.blob_count = self._file.count(Kind.BLOBS)
        self.raw_size = sum(frame.raw for frame in self.frames if frame.kind == Kind.BLOBS)
        blob_frames = self._file.of_kind(Kind.BLOBS)
        # Where each frame begins in the stream of all blobs; they are the first frames of the file.
        self._starts = [0, *accumulate(frame.raw for _, frame in blob_frames)]

    def _blob_frame(self, ordinal: int) -> bytes:
        raw = self._cache.get(ordinal)
        if raw is not None:
            self._cache.move_to_end(ordinal)
            return raw
        while len(self._cache) >= max(1, self._cached_frames):
            self._cache.popitem(last=False)
        raw, _ = self._file.decode(ordinal)
        self._cache[ordinal] = raw
        return raw

    def _listed(self, number: int, count: int) -> tuple[str, bytes, list[int]]:
        """Return a frame of the directory: its name for errors, the ids of its blobs, and their sizes."""
        raw, where = self._file.decode(number)
        columns = Columns(raw, where, 2)
        digests = columns.digests("blob id", count=count)
        sizes = columns.integers("size", count=count, low=0, high=self.limits.max_blob_size)
        columns.finish()
        return where, digests, sizes

    def _load_directory(self) -> DigestList:
        if self._blob_digests is not None:
            return self._blob_digests
        digests = DigestList(self.folder)
        kept = array("Q")
        where = "directory"
        for number, frame in self._file.of_kind(Kind.DIRECTORY):
            where, part, sizes = self._listed(number, frame.count)
            _refuse_twice(f"{where}: blob", digests, digests.extend(part))
            if self.blob_count <= _KEPT_SIZES:
                kept.extend(sizes)
        _refuse_twice(f"{where}: blob", digests, digests.first_repeat())
        self._blob_sizes = kept
        self._blob_borders = {number for _, number, offset, _ in self._placed() if not offset}
        self._blob_digests = digests
        return digests

    def _sizes(self, first: int) -> Iterator[int]:
        """Yield the size of each blob from an ordinal on, after the directory was read once."""
        if len(self._blob_sizes) == self.blob_count:
            yield from self._blob_sizes[first:]
            return
        for number, frame in self._file.of_kind(Kind.DIRECTORY):
            if first < frame.count:
                yield from self._listed(number, frame.count)[2][first:]
            first = max(0, first - frame.count)

    def _placed(self, first: int = 0) -> Iterator[tuple[int, int, int, int]]:
        """Yield ordinal, frame, offset and size of each blob; checks that the blobs fill their frames exactly.

        Args:
            first: the frame to begin with; a blob begins there.
        """
        frames = self._file.of_kind(Kind.BLOBS)
        ordinal = sum(frame.count for _, frame in frames[:first])
        sizes = self._sizes(ordinal)
        over = 0  # bytes of the last blob that belong in the frames to come
        for number, frame in frames[first:]:
            offset = min(over, frame.raw)
            over -= offset
            for _ in range(frame.count):
                # At the border of two frames a blob begins in the one that counts it.
                if over:
                    raise MPackError(f"frame {number} (blobs): blob {ordinal} does not begin in it")
                size = next(sizes)
                yield ordinal, number, offset, size
                ordinal += 1
                offset += size
                if offset > frame.raw:
                    offset, over = frame.raw, offset - frame.raw
            if offset != frame.raw:
                raise MPackError(f"frame {number} (blobs): {frame.raw - offset} bytes of it belong to no blob")
        if over:
            raise MPackError(f"blobs: the last one lacks {over} bytes")

    def _load_outside(self) -> DigestList:
        if self._outside is None:
            outside = DigestList(self.folder)
            for ordinal, frame in self._file.of_kind(Kind.OUTSIDE):
                raw, where = self._file.decode(ordinal)
                if len(raw) != 32 * frame.count:
                    raise MPackError(f"{where}: {len(raw)} bytes are not {frame.count} ids")
                _refuse_twice("outside objects:", outside, outside.extend(raw))
            _refuse_twice("outside objects:", outside, outside.first_repeat())
            self._outside = outside
        return self._outside

    def raw_frame(self, ordinal: int) -> tuple[bytes, str]:
        """Return a frame's bytes, decompressed, and its name for errors.

        Raises:
            MPackError: it is damaged.
        """
        return self._file.decode(ordinal)

    def stored_frame(self, ordinal: int) -> bytes:
        """Return a frame's bytes as they are in the file.

        Raises:
            MPackError: the file is cut off.
        """
        return self._file.stored(ordinal)

    def blob_digests(self) -> bytes:
        """Return the ids of the blobs in order, each as the 32 bytes that it stands for."""
        digests = self._load_directory()
        return digests.part(0, len(digests))

    @property
    def handles(self) -> list[int]:
        """Descriptors that another process needs to read blobs and snapshots by this reader, beside the source's."""
        handles = (self._load_directory().handle, self._load_outside().handle)
        return [handle for handle in handles if handle is not None]

    def directory(self) -> Iterator[BlobEntry]:
        """Yield where each blob is, in order."""
        for digest, (ordinal, frame, offset, size) in zip(self._load_directory(), self._placed(), strict=True):
            yield BlobEntry(ids.from_digest(digest), ordinal, frame, offset, size)

    def placed_digests(self, frames: range | None = None) -> Iterator[tuple[bytes, tuple[int, int, int, int]]]:
        """Yield the 32 bytes of each blob's id, and its ordinal, frame, offset and size, in order.

        Args:
            frames: of those blobs alone that begin in these frames, the first of which is one of `blob_borders`.
        """
        digests = self._load_directory()
        if frames is None:
            return zip(digests, self._placed(), strict=True)
        counts = [frame.count for frame in self.frames[: frames.stop]]
        start, stop = sum(counts[: frames.start]), sum(counts)
        return zip(digests.each(start, stop), self._placed(frames.start), strict=False)

    def blob_places(self) -> Iterator[tuple[int, int, int]]:
        """Yield frame, offset and size of each blob in order, as `blob_chunks` takes them."""
        self._load_directory()
        for _, frame, offset, size in self._placed():
            yield frame, offset, size

    @property
    def blob_borders(self) -> Collection[int]:
        """The frames of blobs that begin with a blob, and not with the rest of one."""
        self._load_directory()
        return self._blob_borders

    def blob_pieces(self, frame: int) -> Iterator[bytes]:
        """Yield the raw bytes of a frame of blobs, in pieces: the fastest way to see all of them once.

        Args:
            frame: ordinal of the frame in the file.

        Raises:
            MPackError: there is no such frame of blobs, or it is damaged.
        """
        if not 0 <= frame < len(self.frames) or self.frames[frame].kind != Kind.BLOBS:
            raise MPackError(f"frame {frame}: there are no blobs in it")
        return self._file.pieces(frame)

    def blobs(self) -> Iterator[Blob]:
        """Yield the blobs in order; the bytes of each are read when asked for, any number of times."""
        for entry in self.directory():
            yield Blob(self, entry)

    def blob_chunks(self, frame: int, offset: int, size: int) -> Iterator[bytes]:
        """Yield the bytes at a place in the blobs' frames, in pieces of at most a frame.

        Args:
            frame: ordinal of the frame in the file.
            offset: where in its raw bytes to begin.
            size: bytes; they may go on in the frames that follow.

        Raises:
            MPackError: there is no such place in this pack, or a frame is damaged.
        """
        blob_frames = len(self._starts) - 1
        if size == 0:
            return
        if not 0 <= frame < blob_frames or not 0 <= offset <= self.frames[frame].raw or size < 0:
            raise MPackError(f"blobs: there is no offset {offset} in a frame {frame}")
        start = self._starts[frame] + offset
        if size > self._starts[-1] - start:
            raise MPackError(f"blobs: {size} bytes at offset {offset} of frame {frame} run past the last frame")
        while size:
            number = bisect_right(self._starts, start) - 1
            raw = self._blob_frame(number)
            offset = start - self._starts[number]
            piece = raw[offset : offset + size]
            yield piece
            start += len(piece)
            size -= len(piece)

    def read_blob(self, frame: int, offset: int, size: int) -> bytes:
        """Return the bytes at a place that `directory` named; frames read last are kept for the next call.

        Raises:
            MPackError: there is no such place in this pack, it exceeds the limit on a blob's size, or a frame is
                damaged.
        """
        if size > self.limits.max_blob_size:
            raise MPackError(f"blobs: {size} bytes are over the limit of {self.limits.max_blob_size}")
        pieces = list(self.blob_chunks(frame, offset, size))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def outside_objects(self) -> Iterator[str]:
        """Yield the ids of the objects that manifests name and the pack does not hold, each once."""
        yield from map(ids.from_digest, self._load_outside())

    def know_snapshots(self, digests: DigestList) -> None:
        """Take the ids of all snapshots on trust, so that no pass computes them again.

        Args:
            digests: what they stand for, in order, as computed from this very file.

        Raises:
            ValueError: they are not as many as the pack's snapshots.
        """
        if len(digests) != self.snapshot_count:
            raise ValueError(f"{len(digests)} ids are not those of {self.snapshot_count} snapshots")
        self._snapshot_digests = digests

    def snapshot_digests(self) -> bytes:
        """Return the ids of the snapshots in order, each as the 32 bytes that it stands for."""
        digests = self._load_snapshot_digests()
        return digests.part(0, len(digests))

    def snapshot_deltas(self, start: int = 0) -> Iterator[SnapshotDelta]:
        """Yield the snapshots in order, each as what it changes.

        Args:
            start: the ordinal of the first that is needed: some before it may come too, but not those of frames that
                it does not need. The first that comes is given whole.
        """
        known = self._snapshot_digests
        hasher = ManifestHasher(self.folder)
        resolved = self._names().resolver()
        from_digest = ids.from_digest
        frames, first = self._snapshot_frames(start)
        digests = DigestList(self.folder)
        for ordinal, (where, change) in enumerate(self._changes(frames), first):
            changed = resolved(change.changed)
            if known is None:
                hasher.change(change.removed, changed, full=change.full, is_wide=change.is_wide)
                digest = change.stored or hasher.digest()
                if not digests.add(digest):
                    raise MPackError(f"{where}: snapshot {ordinal} is in the pack twice")
            else:
                digest = known[ordinal]
            yield SnapshotDelta(
                ordinal,
                from_digest(digest),
                change.full,
                change.removed,
                changed,
                change.entry_count,
                change.stored is not None,
                change.is_wide,
            )
        if known is None:
            self._end_pass(digests, first)

    def hashed_snapshots(self) -> Iterator[tuple[bytes, bool]]:
        """Yield the 32 bytes of each snapshot's id in order, and whether the pack states it; otherwise it is true.

        It is what `snapshot_deltas` says of ids, in half the time.
        """
        digests = DigestList(self.folder)
        hashed = self.snapshot_hasher()
        for ordinal, (where, change) in enumerate(self._changes(self._snapshot_frames(0)[0])):
            digest = hashed(change)
            if not digests.add(digest):
                raise MPackError(f"{where}: snapshot {ordinal} is in the pack twice")
            yield digest, change.stored is not None
        self._end_pass(digests, 0)

    def snapshot_hasher(self) -> Callable[[Change], bytes]:
        """Return what gives the 32 bytes of each snapshot's id, by the changes that lead from one to the next."""
        objects = self._names()
        object_hex, resolved = objects.hexer(), objects.resolver()
        names: dict[str, bytes] = {}
        hasher = ManifestHasher(self.folder)

        def entries(changed: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
            for path, ref in changed.items():
                name = names.get(path)
                if name is None:
                    if len(names) >= _KEPT_NAMES:
                        names.clear()
                    name = names[path] = path.encode() + b"\0"
                yield path, name + object_hex(ref)

        def hashed(change: Change) -> bytes:
            changed = change.changed
            if change.is_wide:
                hasher.change(change.removed, resolved(changed), full=change.full, is_wide=True)
            else:
                hasher.change_entries(change.removed, entries(changed), len(changed), full=change.full)
            return change.stored or hasher.digest()

        return hashed

    def snapshot_decoder(self) -> SnapshotDecoder:
        """Return what decodes frames of snapshots."""
        count = len(self._load_directory()) + len(self._load_outside())
        return SnapshotDecoder(count, self.limits, self._file.bases(), self.folder, wide_in_file=self._wide_in_file)

    def _changes(self, frames: Iterable[tuple[int, Frame]]) -> Iterator[tuple[str, Change]]:
        """Yield the snapshots of frames, each with its frame's name for errors."""
        decoder = self.snapshot_decoder()
        for number, frame in frames:
            raw, where = self._file.decode(number)
            for change in decoder.decode(raw, frame.count, where):
                yield where, change
        decoder.finish()

    def _names(self) -> ObjectNames:
        """Return what the ordinals of manifests stand for."""
        bases = self._file.bases()
        return ObjectNames(self._load_directory(), self._load_outside(), bases.object_ids if bases else ())

    def _end_pass(self, digests: DigestList, first: int) -> None:
        """Check that no snapshot came twice, and keep the ids where they are those of all."""
        twice = digests.first_repeat()
        if twice is not None:
            raise MPackError(f"snapshots: snapshot {first + twice} is in the pack twice")
        if first == 0:
            self._snapshot_digests = digests

    def _snapshot_frames(self, start: int) -> tuple[list[tuple[int, Frame]], int]:
        """Return the frames from which the snapshots from an ordinal on can be read, and the first one's ordinal."""
        frames = self._file.of_kind(Kind.SNAPSHOTS)
        ends = list(accumulate(frame.count for _, frame in frames))
        at = min(bisect_right(ends, start), len(frames) - 1) if start else 0
        # Where a snapshot goes on from the frame before, that is needed too.
        while at > 0 and continues(*self._file.decode(frames[at][0])):
            at -= 1
        return frames[max(at, 0) :], ends[at - 1] if at > 0 else 0

    def _load_snapshot_digests(self) -> DigestList:
        if self._snapshot_digests is None:
            for _ in self.hashed_snapshots():
                pass
        return self._snapshot_digests or DigestList()

    def snapshots(self) -> Iterator[tuple[str, Mapping[str, str]]]:
        """Yield id and manifest of each snapshot in order; each manifest is one of its own, in no fixed order.

        It is a dict, or where it is too wide for memory, a mapping that is read from a file.
        """
        manifest = FollowedManifest(self.folder)
        for delta in self.snapshot_deltas():
            manifest.follow(delta)
            yield delta.snapshot_id, manifest.copy()

    def snapshot_ids(self) -> Iterator[str]:
        """Yield the ids of the snapshots in order; computed once, in a pass over all manifests."""
        yield from map(ids.from_digest, self._load_snapshot_digests())

    def commits(self) -> Iterator[dict[str, Any]]:
        """Yield the commits in order, as the records that were written: the core fields, then any further ones.

        The ids of the snapshots are needed for it: the first call makes the pass of `snapshot_ids`, unless
        `snapshots` or `snapshot_deltas` was read to the end before.
        """
        for read in self.read_commits():
            yield read.record

    def read_commits(self) -> Iterator[ReadCommit]:
        """Yield what `commits` yields, each with what else the pack says of it."""
        snapshots = self._load_snapshot_digests() if self.commit_count else DigestList()
        decoder = CommitDecoder(snapshots, self.limits, self.folder)
        for number, frame in self._file.of_kind(Kind.COMMITS):
            raw, where = self._file.decode(number)
            yield from decoder.decode(raw, frame.count, where)
        decoder.finish()


def _refuse_twice(what: str, digests: DigestList, ordinal: int | None) -> None:
    if ordinal is not None:
        raise MPackError(f"{what} {ids.from_digest(digests[ordinal])} is listed twice")
