"""The bytes of a repo's blobs, from wherever they are.

A blob comes from its row's `content_cache`, else from an mpack that the index names, else from storage by its id.
Whatever the place, bytes that do not hash to the id are never used: the next place is tried, and the log says so.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import IO, BinaryIO, NamedTuple

from musehub_plugin.errors import StorageUnavailable, Unavailable
from musehub_plugin.framecache import FrameCache
from musehub_plugin.ids import blob_id, from_digest
from musehub_plugin.mpack import MPackError, MPackReader
from musehub_plugin.signals import report_damage
from musehub_plugin.storage.base import Storage, ask
from musehub_plugin.storage.rangefile import MAX_WINDOW
from musehub_plugin.storage.uploads import open_mpack
from musehub_plugin.store import contents
from musehub_plugin.store.session import Database

logger = logging.getLogger(__name__)

# Rows may hold whole contents, so few are asked for at once.
_BATCH = 256
# Seconds to wait where a blob is not where it should be: no client shall ask in a tight loop for what may stay lost.
_DAMAGED_RETRY_AFTER = 30
# Each open mpack holds a decompressed frame of up to 16 MiB, and what was read ahead of it. Two are kept in any case:
# where blobs are in them by turns, their frames would be decompressed over and over.
_OPEN_MPACKS = 4
_OPEN_BYTES = 48 * 1024 * 1024
# A blob over this size, which fills frames of its own, is never in memory as a whole.
LARGE_BLOB = 16 * 1024 * 1024
_PIECE = 1 << 18
# A blob that another one is held against is in memory together with that and the frame that they go to.
_LARGEST_BESIDE = 8 * 1024 * 1024


class NotIndexed(Unavailable):
    """A blob that an answer needs is nowhere to be found yet: what was pushed last is still being indexed."""

    code = "not-indexed"


class BlobDamaged(NotIndexed):
    """A blob that an answer needs is in none of the places that are on record, or is wrong there."""

    code = "blob-damaged"


class TooManyBytes(Exception):
    """Blobs have more bytes than are to be read, or nobody knows how many."""


class LargeBlob:
    """A blob that is in a file without a name; a context manager, since the file is closed after use.

    Args:
        file: its bytes.

    Attributes:
        size: how many.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.size = file.seek(0, os.SEEK_END)

    def __enter__(self) -> LargeBlob:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes in pieces."""
        self._file.seek(0)
        while piece := self._file.read(_PIECE):
            yield piece


class BlobReader:
    """Reads blobs that one repo holds; a context manager, since mpacks stay open between reads.

    Args:
        db: the unit of work.
        storage: object storage.
        repo_id: the repo; a blob that it does not hold is not read, wherever else it may be.
        retry_after: seconds that the caller of a fetch is told to wait where a blob is not indexed yet.
        frames: frames that are at hand, for who reads few blobs; None: for who reads many.
        most_bytes: that the blobs may have, as far as rows say; None: any number.
    """

    def __init__(
        self,
        db: Database,
        storage: Storage,
        repo_id: str,
        *,
        retry_after: int,
        frames: FrameCache | None = None,
        most_bytes: int | None = None,
    ) -> None:
        self._db = db
        self._storage = storage
        self._repo_id = repo_id
        self._retry_after = retry_after
        self._frames = frames
        self._bytes_left = most_bytes
        self._open: OrderedDict[str, OpenMPack | None] = OrderedDict()

    def __enter__(self) -> BlobReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the mpacks that were read from."""
        while self._open:
            self._close_oldest()

    def read(self, object_ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Yield `(object_id, content)` in the order given.

        Raises:
            NotIndexed: a blob has no place on record, such as one whose mpack is not indexed yet.
            BlobDamaged: it has, and is not there, or other bytes are.
            StorageUnavailable: a blob could not be found, and a place where it may be did not answer.
        """
        for object_id, content in self.read_any(object_ids):
            if isinstance(content, LargeBlob):
                with content:
                    yield object_id, b"".join(content.chunks())
            else:
                yield object_id, content

    def read_any(self, object_ids: Sequence[str]) -> Iterator[tuple[str, bytes | LargeBlob]]:
        """Yield what `read` does, blobs of more than 16 MiB as files, which are the caller's to close.

        Raises:
            NotIndexed: as `read` does, like what follows.
            BlobDamaged: likewise.
            StorageUnavailable: likewise.
            OSError: there is no room for such a file.
        """
        return ((object_id, content) for object_id, content, _ in self.read_beside(object_ids, {}))

    def read_beside(
        self, object_ids: Sequence[str], beside: Mapping[str, str]
    ) -> Iterator[tuple[str, bytes | LargeBlob, bytes | None]]:
        """Yield what `read_any` does, each with the content of another blob that it is to be held against.

        That one is worth nothing if it cannot be read just now: None is given for it, and for all that follow. It is
        read right before the blob itself, as what resembles one another is in one frame: to read all of the ones and
        then all of the others took 100 commits of a tree of 2,000 files three times as long, and where no frame is
        kept a hundred times.

        Args:
            object_ids: as for `read`.
            beside: the id of that other blob, for those that have one. A large one is left out.

        Raises:
            NotIndexed: as `read_any` does for `object_ids`, like what follows.
            BlobDamaged: likewise.
            StorageUnavailable: likewise.
            OSError: likewise.
            TooManyBytes: `object_ids` have more than `most_bytes`, or rows do not say how many.
        """
        others: Mapping[str, str] = beside
        last: tuple[str, bytes | None] = ("", None)
        for start in range(0, len(object_ids), _BATCH):
            batch = object_ids[start : start + _BATCH]
            asked = dict.fromkeys(batch)
            asked.update((others[object_id], None) for object_id in batch if object_id in others)
            sources = contents.blob_sources(self._db, self._repo_id, list(asked))
            if not all(object_id in sources for object_id in batch):
                raise self._not_indexed()
            if self._bytes_left is not None:
                self._bytes_left -= _sizes_of(sources[object_id] for object_id in batch)
                if self._bytes_left < 0:
                    raise TooManyBytes
            for object_id in batch:
                other = others.get(object_id)
                if other is not None and other != last[0]:
                    try:
                        last = other, self._read_other(other, sources)
                    except (NotIndexed, StorageUnavailable):
                        logger.debug("a thin pack is made of fewer bases than there are")
                        others, last, other = {}, ("", None), None
                yield object_id, self._read_one(object_id, sources[object_id]), None if other is None else last[1]

    def _read_other(self, object_id: str, sources: Mapping[str, contents.BlobSource]) -> bytes | None:
        """Return a blob that something is held against; None where it is too large for that."""
        if object_id not in sources:
            raise self._not_indexed()
        content = self._read_one(object_id, sources[object_id])
        if isinstance(content, LargeBlob):
            content.close()
            return None
        return content if len(content) <= _LARGEST_BESIDE else None

    def _read_one(self, object_id: str, source: contents.BlobSource) -> bytes | LargeBlob:
        cached, locations = source
        if cached is not None and _is_right(object_id, cached):
            return cached
        outage: StorageUnavailable | None = None
        # A pack that is open already has the neighbours of this blob decompressed.
        if len(locations) > 1:
            locations = sorted(locations, key=lambda place: place.mpack_id not in self._open)
        for location in locations:
            try:
                content = self._from_mpack(object_id, location)
            except StorageUnavailable as error:
                outage = error
                continue
            if content is not None:
                return content
        if cached is None and locations:
            cached = contents.cached_contents(self._db, [object_id]).get(object_id)
            if cached is not None and _is_right(object_id, cached):
                return cached
        try:
            content = ask(self._storage.get, object_id)
        except StorageUnavailable as error:
            raise outage or error from None
        if content is not None:
            if blob_id(content) == object_id:
                return content
            report_damage("blob-wrong", object_id, "the stored blob does not hash to its id")
        if outage is not None:
            raise outage
        if content is not None or cached is not None or locations:
            # To be asked again all the same: a store may answer wrongly for a while.
            raise BlobDamaged(
                "What this repo holds cannot be read at the moment. The operator can find out why.",
                retry_after=max(self._retry_after, _DAMAGED_RETRY_AFTER),
            )
        raise self._not_indexed()

    def _from_mpack(self, object_id: str, location: contents.Location) -> bytes | LargeBlob | None:
        kept = self._kept(object_id, location)
        if kept is not None:
            return kept
        mpack = self.opened(location.mpack_id)
        if mpack is None:
            report_damage("mpack-missing", location.mpack_id, f"it is not in storage, and should hold {object_id}")
            return None
        try:
            place = mpack.place(object_id, location)
            if place is not None and place.size > LARGE_BLOB:
                return self._large(object_id, location.mpack_id, mpack, place)
            if self._frames is not None and location.frame is not None:
                size, pieces = mpack.frame(location.frame)
                self._frames.keep(location.mpack_id, location.frame, size, pieces, mpack_bytes=mpack.raw_size)
            content = self._kept(object_id, location) or (None if place is None else mpack.read(place))
        except MPackError as error:
            report_damage("mpack-damaged", location.mpack_id, str(error))
            return None
        if content is None or blob_id(content) != object_id:
            report_damage("index-wrong", location.mpack_id, f"{object_id} is not where the index says")
            return None
        return content

    def _large(self, object_id: str, mpack_id: str, mpack: OpenMPack, place: _Place) -> LargeBlob | None:
        """Return a large blob, written to a file while it is hashed; None where it is another one."""
        digest = hashlib.sha256()
        with ExitStack() as unfinished:
            file = unfinished.enter_context(tempfile.TemporaryFile())
            for piece in mpack.pieces(place):
                digest.update(piece)
                file.write(piece)
            if from_digest(digest.digest()) == object_id:
                unfinished.pop_all()
                return LargeBlob(file)
        report_damage("index-wrong", mpack_id, f"{object_id} is not where the index says")
        return None

    def _kept(self, object_id: str, location: contents.Location) -> bytes | None:
        """Return a blob from a frame that is at hand."""
        if self._frames is None or location.frame is None:
            return None
        kept = self._frames.read(
            location.mpack_id, location.frame, location.frame_offset or 0, location.size_bytes or 0
        )
        return kept if kept is not None and blob_id(kept) == object_id else None

    def are_held(self, digests: Sequence[bytes]) -> bool:
        """Say whether the repo holds all of some blobs, given by the 32 bytes of their ids."""
        return not digests or contents.holds_all(self._db, self._repo_id, digests)

    def opened(self, mpack_id: str) -> OpenMPack | None:
        """Return an mpack, which is open until some others were asked for; None where it is not there.

        Raises:
            StorageUnavailable: object storage did not answer.
        """
        if mpack_id not in self._open:
            file = open_mpack(self._storage, mpack_id)
            self._open[mpack_id] = None if file is None else _opened(file, mpack_id)
            while len(self._open) > _OPEN_MPACKS or (len(self._open) > 2 and self._held() > _OPEN_BYTES):
                self._close_oldest()
        self._open.move_to_end(mpack_id)
        return self._open[mpack_id]

    def _held(self) -> int:
        """Return how much memory the open mpacks take at most."""
        return sum(mpack.held for mpack in self._open.values() if mpack is not None)

    def _close_oldest(self) -> None:
        _, mpack = self._open.popitem(last=False)
        if mpack is not None:
            mpack.close()

    def _not_indexed(self) -> NotIndexed:
        return NotIndexed(
            "What was pushed last is still being indexed. Ask again in a moment.", retry_after=self._retry_after
        )


def _sizes_of(sources: Iterable[contents.BlobSource]) -> int:
    """Return how many bytes blobs have, at most.

    Raises:
        TooManyBytes: rows do not say it of one of them.
    """
    total = 0
    for cached, locations in sources:
        sizes = [location.size_bytes for location in locations] or [None if cached is None else len(cached)]
        known = [size for size in sizes if size is not None]
        if len(known) < len(sizes):
            raise TooManyBytes
        total += max(known)
    return total


def _is_right(object_id: str, cached: bytes) -> bool:
    if blob_id(cached) == object_id:
        return True
    report_damage("cache-wrong", object_id, "the content in its row does not hash to it")
    return False


def _opened(file: BinaryIO, mpack_id: str) -> OpenMPack | None:
    try:
        # Blobs are asked for in the order in which packs have them: one frame a pack is enough.
        return OpenMPack(file, MPackReader(file, cached_frames=1))
    except MPackError as error:
        file.close()
        report_damage("mpack-damaged", mpack_id, str(error))
        return None


class _Place(NamedTuple):
    frame: int
    offset: int
    size: int


class _Stream:
    """A frame's bytes, of which those that were passed are not kept."""

    def __init__(self, frame: int, pieces: Iterator[bytes]) -> None:
        self.frame = frame
        self._pieces = pieces
        self._piece = b""
        self._start = 0

    def read(self, offset: int, size: int) -> bytes | memoryview | None:
        """Return bytes that were not passed; None where they were, or where the frame ends before them."""
        at = offset - self._start
        if at < 0:
            return None
        parts: list[memoryview] = []
        missing = size
        while True:
            piece = self._piece
            if at + missing <= len(piece):
                part = memoryview(piece)[at : at + missing]
                return b"".join([*parts, part]) if parts else part
            if at < len(piece):
                parts.append(memoryview(piece)[at:])
                missing -= len(piece) - at
            following = next(self._pieces, None)
            if following is None:
                return None
            at = max(0, at - len(piece))
            self._start += len(piece)
            self._piece = following


class OpenMPack:
    """An mpack that blobs are read from.

    Args:
        file: the mpack.
        reader: it as well.
    """

    def __init__(self, file: BinaryIO, reader: MPackReader) -> None:
        self._file = file
        self._reader = reader
        self._places: dict[str, _Place] | None = None
        self._stream: _Stream | None = None

    def close(self) -> None:
        """Close the file."""
        self.end_stream()
        self._file.close()

    @property
    def held(self) -> int:
        """How much memory it takes at most: a frame, and what is read of the file at once and ahead."""
        return max((frame.raw for frame in self._reader.frames), default=0) + min(
            2 * MAX_WINDOW, self._reader.size_bytes
        )

    @property
    def raw_size(self) -> int:
        """How many bytes its blobs have."""
        return self._reader.raw_size

    def place(self, object_id: str, location: contents.Location) -> _Place | None:
        """Return where a blob is."""
        if location.frame is None or location.frame_offset is None or location.size_bytes is None:
            # An index row written by hand says only which mpack: the mpack's own directory knows the rest.
            return self._directory().get(object_id)
        return _Place(location.frame, location.frame_offset, location.size_bytes)

    def read(self, place: _Place) -> bytes:
        """Return the bytes at a place.

        Raises:
            MPackError: there is no such place, or what is there is damaged.
        """
        return self._reader.read_blob(*place)

    def pieces(self, place: _Place) -> Iterator[bytes]:
        """Yield the bytes at a place that begins in a frame and may run on into others.

        Raises:
            MPackError: as `read` does; pieces may have been given before.
        """
        frame, offset, size = place
        while size > 0:
            for piece in self._reader.blob_pieces(frame):
                part = piece[offset : offset + size]
                offset = max(0, offset - len(piece))
                size -= len(part)
                yield part
                if size <= 0:
                    break
            frame += 1

    def frame(self, number: int) -> tuple[int, Iterator[bytes]]:
        """Return how many bytes a frame has decompressed, and these in pieces.

        Raises:
            MPackError: there is no such frame of blobs.
        """
        pieces = self._reader.blob_pieces(number)
        return self._reader.frames[number].raw, pieces

    def stream(self, number: int) -> None:
        """Begin to read a frame from front to back, in place of another one.

        Raises:
            MPackError: there is no such frame of blobs.
        """
        self._stream = _Stream(number, self._reader.blob_pieces(number))

    def end_stream(self) -> None:
        """Let go of the frame that is read from front to back, if there is one."""
        self._stream = None

    @property
    def streamed_frame(self) -> int | None:
        """The number of the frame that is read from front to back."""
        return None if self._stream is None else self._stream.frame

    @property
    def streamed_bytes(self) -> int:
        """What that frame has decompressed; 0 where there is none."""
        return 0 if self._stream is None else self._reader.frames[self._stream.frame].raw

    def streamed(self, offset: int, size: int) -> bytes | memoryview | None:
        """Return bytes of that frame, good until the next call; None where they were passed, or run on into the next.

        Raises:
            MPackError: the frame is damaged.
        """
        return None if self._stream is None else self._stream.read(offset, size)

    def places(self) -> Iterator[tuple[bytes, int, int, int]]:
        """Yield digest, frame, offset and size of each blob."""
        # By a reader of its own: the one that stays would keep the directory that it has read.
        for digest, (_, frame, offset, size) in MPackReader(self._file).placed_digests():
            yield digest, frame, offset, size

    def _directory(self) -> dict[str, _Place]:
        if self._places is None:
            self._places = {
                entry.object_id: _Place(entry.frame, entry.offset, entry.size) for entry in self._reader.directory()
            }
        return self._places
