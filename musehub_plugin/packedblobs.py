"""Many blobs out of a few packs that hold most of them in nearly the order in which they are wanted.

A repack reads all of a pack's blobs, most of them in the order in which the pack has them. To keep each frame on disk,
and to look for each blob by its id in rows and tables, took more time there than to hash it.
"""

from __future__ import annotations

import hashlib
import logging
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from musehub_plugin.blobs import LARGE_BLOB, BlobReader, LargeBlob, OpenMPack
from musehub_plugin.errors import StorageUnavailable
from musehub_plugin.ids import from_digest, to_digest
from musehub_plugin.mpack import MPackError
from musehub_plugin.placedblobs import IdSequence, distinct_ids

logger = logging.getLogger(__name__)

# Rows say which blobs a repo holds, of so many at once.
_BATCH = 2_000
_NO_PACK = 255
# What frames that are being read have decompressed: each takes as much, for what the decoder may refer to. One of the
# largest, or some of small packs.
_STREAMED_BYTES = 24 * 1024 * 1024


class PackedBlob(NamedTuple):
    """A blob as it is read.

    Attributes:
        digest: the 32 bytes of its id, which its content hashes to.
        content: its bytes, which are good until the next blob is asked for; a large one is in a file, which is the
            caller's to close.
    """

    digest: bytes
    content: bytes | memoryview | LargeBlob


class PackedBlobs:
    """Reads blobs that one repo holds, out of packs where they have them.

    Args:
        reader: opens the packs, and reads what is not in them.
        packs: mpacks that were pushed to the repo, or made for it, at most 255.
        object_ids: the blobs.
    """

    def __init__(self, reader: BlobReader, packs: Sequence[str], object_ids: Sequence[str]) -> None:
        self._reader = reader
        self._mpack_ids = packs
        ids = object_ids if isinstance(object_ids, IdSequence) else distinct_ids(map(to_digest, object_ids))
        self._digests, self._order = ids.digests, ids.order
        # Where each blob is, by its number: 21 bytes each.
        self._packs = array("B", [_NO_PACK]) * self._digests.count
        self._frames = array("I", [0]) * self._digests.count
        self._offsets = array("Q", [0]) * self._digests.count
        self._sizes = array("Q", [0]) * self._digests.count
        # How far each pack will have been read: the frame, where in it, and the frames before.
        self._reached: list[tuple[int, int, set[int]]] = [(-1, 0, set()) for _ in packs]
        # Of each pack the frames that were begun: what is behind in one of these is read by other means.
        self._begun: list[set[int]] = [set() for _ in packs]
        self._streaming: list[OpenMPack] = []

    def __iter__(self) -> Iterator[PackedBlob]:
        """Yield the blobs in the order given.

        Raises:
            NotIndexed: a blob has no place on record, like what follows as `BlobReader.read` has it.
            BlobDamaged: likewise.
            StorageUnavailable: likewise.
            OSError: there is no room for the file of a large one.
        """
        for number, mpack_id in enumerate(self._mpack_ids):
            try:
                mpack = self._reader.opened(mpack_id)
                if mpack is not None:
                    self._place(number, mpack.places())
            except (MPackError, StorageUnavailable) as error:
                # What it holds is looked for by rows, which may know another place.
                logger.warning("the directory of mpack %s cannot be read: %s", mpack_id, error)
        for start in range(0, len(self._order), _BATCH):
            yield from self._read(self._order[start : start + _BATCH])

    def _place(self, pack: int, places: Iterable[tuple[bytes, int, int, int]]) -> None:
        find, packs = self._digests.find, self._packs
        for digest, frame, offset, size in places:
            number = find(digest)
            if number is not None and packs[number] == _NO_PACK:
                packs[number] = pack
                self._frames[number] = frame
                self._offsets[number] = offset
                self._sizes[number] = size

    def _read(self, batch: Sequence[int]) -> Iterator[PackedBlob]:
        packs, sha256 = self._packs, hashlib.sha256
        digests = list(map(self._digests.__getitem__, batch))
        placed = [digest for number, digest in zip(batch, digests, strict=True) if packs[number] != _NO_PACK]
        # Somebody may have taken a blob from the repo since: rows say what a repo holds, and not packs.
        ahead = self._ahead(batch) if self._reader.are_held(placed) else set()
        behind = (digest for number, digest in zip(batch, digests, strict=True) if number not in ahead)
        others = self._reader.read_any(list(map(from_digest, behind)))
        for number, digest in zip(batch, digests, strict=True):
            if number not in ahead:
                yield PackedBlob(digest, next(others)[1])
                continue
            content = self._streamed(number)
            if content is not None and sha256(content).digest() == digest:
                yield PackedBlob(digest, content)
            else:
                # What is wrong here is found there once more, and told.
                for _, elsewhere in self._reader.read_any([from_digest(digest)]):
                    yield PackedBlob(digest, elsewhere)

    def _ahead(self, batch: Sequence[int]) -> set[int]:
        """Return those blobs that come next in their frames, or later, where the packs are read in this order.

        The rest is read by other means, many at once: one by one it takes several times as long.
        """
        found: set[int] = set()
        for number in batch:
            pack, size = self._packs[number], self._sizes[number]
            if pack == _NO_PACK or size > LARGE_BLOB:
                continue
            frame, offset = self._frames[number], self._offsets[number]
            last, reached, before = self._reached[pack]
            if frame != last:
                if frame in before:
                    continue
                before.add(frame)
                reached = 0
            if offset >= reached:
                self._reached[pack] = frame, offset + size, before
                found.add(number)
        return found

    def _streamed(self, number: int) -> bytes | memoryview | None:
        """Return a blob that comes next in its frame, or later; None where it does not, or cannot be read."""
        pack, frame, size = self._packs[number], self._frames[number], self._sizes[number]
        try:
            mpack = self._reader.opened(self._mpack_ids[pack])
            if mpack is None:
                return None
            if mpack.streamed_frame != frame:
                if frame in self._begun[pack]:
                    return None
                self._begun[pack].add(frame)
                mpack.stream(frame)
                self._keep_streams(mpack)
            return mpack.streamed(self._offsets[number], size)
        except (MPackError, StorageUnavailable) as error:
            logger.debug("a blob of mpack %s is looked for elsewhere: %s", self._mpack_ids[pack], error)
            return None

    def _keep_streams(self, last: OpenMPack) -> None:
        """Let go of what was begun first, where there is no room for all."""
        self._streaming = [mpack for mpack in self._streaming if mpack is not last and mpack.streamed_bytes] + [last]
        while sum(mpack.streamed_bytes for mpack in self._streaming) > _STREAMED_BYTES and len(self._streaming) > 1:
            self._streaming.pop(0).end_stream()
