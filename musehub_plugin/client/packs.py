"""The mpacks that a working copy keeps as they came: `.muse/packs/<hex>.mpack`, and `<hex>.idx` beside each.

The files are named by the mpack's id. A pack counts from the moment that its `.mpack` file is there; the index is put
in its place before that. An index that is missing or cut off is made again.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from musehub_plugin import ids
from musehub_plugin.client.errors import WorkdirError
from musehub_plugin.client.packindex import IndexBuilder, PackIndex
from musehub_plugin.mpack import MPackError, MPackReader, SnapshotDelta
from musehub_plugin.mpack.following import FollowedManifest
from musehub_plugin.mpack.zstd import ZstdError

if TYPE_CHECKING:
    from musehub_plugin.mpack.wide import WideManifest

PACKS: Final = "packs"
# Readers with an open file and up to 32 MiB of decompressed blobs each.
_OPEN_READERS: Final = 2
# Entries of manifests kept for who reads a pack backwards: some 20 MiB.
_WINDOW_PATHS: Final = 200_000


class Pack:
    """One mpack on disk.

    Args:
        path: the `.mpack` file.

    Attributes:
        mpack_id: its id, as the file's name says.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mpack_id = ids.PREFIX + path.stem
        self._index: PackIndex | None = None
        self._file: BinaryIO | None = None
        self._reader: MPackReader | None = None
        self._deltas: Iterator[SnapshotDelta] | None = None
        self._at = -1
        self._manifest = FollowedManifest()
        self._window: dict[int, dict[str, str] | WideManifest] = {}

    def __del__(self) -> None:
        # A working copy has no end that somebody must call; its files go with it.
        self.close()

    @property
    def index_path(self) -> Path:
        """Where the index is."""
        return self.path.with_suffix(".idx")

    @property
    def index(self) -> PackIndex:
        """The index; made where it is missing.

        Raises:
            WorkdirError: it is missing, and the pack is damaged.
        """
        if self._index is None:
            try:
                self._index = PackIndex(self.index_path)
            except (FileNotFoundError, ValueError):
                self._index = self._rebuilt()
        return self._index

    @property
    def _temp_folder(self) -> Path:
        return self.path.parent.parent / "tmp"

    @property
    def is_open(self) -> bool:
        """Whether the pack's file is open."""
        return self._file is not None

    def reader(self) -> MPackReader:
        """Return a reader of the pack.

        Raises:
            WorkdirError: the file is missing or no mpack.
        """
        if self._reader is None:
            try:
                self._file = self.path.open("rb")
                self._reader = MPackReader(self._file, folder=self._temp_folder)
            except (OSError, MPackError) as error:
                self.close()
                raise self.damaged(error) from None
        return self._reader

    def close(self) -> None:
        """Close the pack's files; they are opened again where they are needed."""
        if self._file is not None:
            self._file.close()
        if self._index is not None:
            self._index.close()
        self._file = self._reader = self._deltas = None
        self._at, self._manifest, self._window = -1, FollowedManifest(), {}

    def blob_chunks(self, place: tuple[int, int, int]) -> Iterator[bytes]:
        """Yield the bytes at a place that the index named, in pieces of at most 16 MiB."""
        try:
            yield from self.reader().blob_chunks(*place)
        except MPackError as error:
            raise self.damaged(error) from None

    def manifest(self, ordinal: int) -> dict[str, str] | WideManifest:
        """Return a manifest; in the order of the ordinals that is cheap, backwards it takes a pass every so often."""
        kept = self._window.get(ordinal)
        if kept is not None:
            return kept.copy()
        try:
            backwards = self._deltas is not None and ordinal < self._at
            if self._deltas is None or backwards:
                self._deltas, self._at = self.reader().snapshot_deltas(), -1
                self._manifest = FollowedManifest(self._temp_folder)
                self._window.clear()
            while self._at < ordinal:
                delta = next(self._deltas)
                self._manifest.follow(delta)
                self._at += 1
                # Who goes backwards wants those before this one next.
                if backwards and self._at > ordinal - max(1, _WINDOW_PATHS // max(1, delta.entry_count)):
                    self._window[self._at] = self._manifest.copy()
        except (MPackError, StopIteration) as error:
            self._deltas = None
            raise self.damaged(error) from None
        return self._manifest.copy()

    def damaged(self, error: Exception) -> WorkdirError:
        """Return the error that says that this pack is damaged."""
        said = error.strerror if isinstance(error, OSError) else error
        return WorkdirError(
            f"pack {self.path.name} or its index is damaged ({said}); `musehub fetch --repair` brings it again"
        )

    def _rebuilt(self) -> PackIndex:
        builder = IndexBuilder(self._temp_folder)
        reader = self.reader()
        try:
            builder.add_blobs(reader.placed_digests())
            for snapshot_id in reader.snapshot_ids():
                builder.add_snapshot(ids.to_digest(snapshot_id))
            for commit in reader.commits():
                builder.add_commit(commit, ids.to_digest(commit["commit_id"]))
        except MPackError as error:
            raise self.damaged(error) from None
        write_index(builder, self.index_path)
        return PackIndex(self.index_path)


class PackFolder:
    """The packs of a working copy.

    Args:
        muse: its `.muse` folder.
    """

    def __init__(self, muse: Path) -> None:
        self.folder = muse / PACKS
        self._packs: list[Pack] | None = None

    @property
    def kept(self) -> bool:
        """Whether the working copy keeps what it fetches as packs: a bare one does, and one that was packed."""
        return self.folder.is_dir()

    def __iter__(self) -> Iterator[Pack]:
        """Iterate over the packs, the newest first: a repair's pack is read in place of what it repairs."""
        if self._packs is None:
            found = sorted(self.folder.glob("*.mpack"), key=lambda path: (-path.stat().st_mtime_ns, path.name))
            self._packs = [Pack(path) for path in found if ids.is_hex(path.stem)]
        return iter(self._packs)

    def holds(self, mpack_id: str) -> bool:
        """Say whether an mpack is here, as it came."""
        return any(pack.mpack_id == mpack_id for pack in self)

    def has(self, kind: str, entity_id: str) -> bool:
        """Say whether a pack holds an entity.

        Args:
            kind: `objects`, `snapshots` or `commits`.
            entity_id: its id.
        """
        return any(pack.index.has(kind, entity_id) for pack in self)

    def blob(self, object_id: str) -> tuple[int, Callable[[], Iterator[bytes]]] | None:
        """Return a blob's size, and what yields its bytes; None where no pack holds it."""
        for pack in self:
            place = pack.index.blob(object_id)
            if place is not None:
                self._make_room(pack)
                return place[2], partial(pack.blob_chunks, place)
        return None

    def manifest(self, snapshot_id: str) -> dict[str, str] | WideManifest | None:
        """Return a snapshot's manifest, as `EntityFiles.read_snapshot` does; None where no pack holds it."""
        for pack in self:
            ordinal = pack.index.ordinal("snapshots", snapshot_id)
            if ordinal is not None:
                self._make_room(pack)
                return pack.manifest(ordinal)
        return None

    def commit(self, commit_id: str) -> dict[str, Any] | None:
        """Return a commit in its wire form; None where no pack holds it."""
        for pack in self:
            try:
                commit = pack.index.commit(commit_id)
            except (ValueError, IndexError, ZstdError) as error:
                raise pack.damaged(error) from None
            if commit is not None:
                return commit
        return None

    def place(self, kind: str, entity_id: str) -> tuple[int, ...]:
        """Return what sorts entities into the order in which they are read fastest; `()` for what is in no pack."""
        for number, pack in enumerate(self):
            if kind == "objects":
                place = pack.index.blob(entity_id)
                if place is not None:
                    return number, *place
            else:
                ordinal = pack.index.ordinal(kind, entity_id)
                if ordinal is not None:
                    return number, ordinal
        return ()

    def ids(self, kind: str) -> Iterator[str]:
        """Iterate over the ids of a kind in all packs, each once."""
        packs = list(self)
        for number, pack in enumerate(packs):
            for entity_id in pack.index.ids(kind):
                if not any(other.index.has(kind, entity_id) for other in packs[:number]):
                    yield entity_id

    def add(self, source: Path, mpack_id: str, builder: IndexBuilder) -> Pack:
        """Take an mpack in whose content was verified.

        Args:
            source: its file, on the same file system; it is moved.
            mpack_id: its id.
            builder: what its index says.
        """
        self.folder.mkdir(exist_ok=True)
        pack = Pack(self.folder / f"{ids.to_hex(mpack_id)}.mpack")
        write_index(builder, pack.index_path)
        source.replace(pack.path)
        os.utime(pack.path)
        self.forget()
        return pack

    def remove(self, pack: Pack) -> None:
        """Remove a pack and its index."""
        pack.close()
        pack.path.unlink(missing_ok=True)
        pack.index_path.unlink(missing_ok=True)
        self.forget()

    def set_unlistable_aside(self) -> None:
        """Count those packs no longer that cannot even be listed, without which nothing could be looked up.

        Their bytes are kept as `<hex>.mpack.damaged`: they may be all that there is of what was never pushed.
        """
        for pack in list(self):
            try:
                _ = pack.index
            except WorkdirError:
                pack.close()
                pack.path.replace(pack.path.with_name(f"{pack.path.name}.damaged"))
                self.forget()

    def forget(self) -> None:
        """Close all files, and look at the folder again when a pack is needed."""
        for pack in self._packs or ():
            pack.close()
        self._packs = None

    def _make_room(self, needed: Pack) -> None:
        open_packs = [pack for pack in self if pack.is_open and pack is not needed]
        for pack in open_packs[: max(0, len(open_packs) - _OPEN_READERS + 1)]:
            pack.close()


def write_index(builder: IndexBuilder, path: Path) -> None:
    """Write an index, as a whole or not at all."""
    temp = path.parent.parent / "tmp" / f"{os.getpid()}-{path.name}"
    try:
        with temp.open("wb") as file:
            file.writelines(builder.parts())
        temp.replace(path)
    finally:
        temp.unlink(missing_ok=True)


def open_chunks(chunks: Iterator[bytes]) -> io.BufferedReader:
    """Return pieces of bytes as a binary file."""
    return io.BufferedReader(_Chunks(chunks), 1 << 18)


class _Chunks(io.RawIOBase):
    """A file that gives what an iterator gives."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = next(self._chunks, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size
