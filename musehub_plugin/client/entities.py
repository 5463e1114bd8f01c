"""The entities of a working copy on disk: blobs, snapshots and commits, each a file named by its id.

The layout is the public muse client's: bare hex inside `.muse`, and `sha256:` ids everywhere in this
interface. Every file is written beside its place and renamed into it: a reader sees the old file, the new one
or none. What has no file of its own is looked for in the packs, which a bare working copy keeps (`packs`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from io import BufferedReader
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from musehub_plugin import ids
from musehub_plugin.client.errors import WorkdirError
from musehub_plugin.client.manifest import ManifestRows
from musehub_plugin.client.packs import PackFolder, open_chunks
from musehub_plugin.client.record import check_record, record_from_wire, render

if TYPE_CHECKING:
    from musehub_plugin.client.widerows import WideRows
    from musehub_plugin.mpack.wide import WideManifest

# A snapshot's file that has more bytes is not read as a whole.
_WIDE_FILE: Final = 1 << 22
_REPAIR = "`musehub fetch --repair` brings it back"


class EntityFiles:
    """The files of a working copy's entities.

    Args:
        muse: the working copy's `.muse` folder.

    Attributes:
        packs: the mpacks that are kept as they came.
        temp_folder: where files are made on the way to their place, and those without names.
        repo_id: the repo's id on the hub.
        rewrite: write what is there already once more, to repair it; False at first.
    """

    repo_id = ""

    def __init__(self, muse: Path) -> None:
        self.muse = muse
        self.packs = PackFolder(muse)
        self.rewrite = False
        self._base = os.fspath(muse)
        self.temp_folder = muse / "tmp"
        prefix = os.fspath(self.temp_folder / f"{os.getpid()}-{os.urandom(4).hex()}")
        self._temp_names = (f"{prefix}-{number}" for number in count())

    def has(self, kind: str, entity_id: str) -> bool:
        """Say whether an entity is there.

        Args:
            kind: `objects`, `snapshots` or `commits`.
            entity_id: its id.
        """
        return _exists(self._entity_path(kind, entity_id)) or self.packs.has(kind, entity_id)

    def holds_nothing(self) -> bool:
        """Say whether there are no blobs, snapshots and commits at all."""
        if next(iter(self.packs), None) is not None:
            return False
        return not any(next(self.loose_ids(kind), None) for kind in ("objects", "snapshots", "commits"))

    # Blobs

    def has_blob(self, object_id: str) -> bool:
        """Say whether a blob is there."""
        return self.has("objects", object_id)

    def blob_size(self, object_id: str) -> int:
        """Return a blob's size in bytes.

        Raises:
            WorkdirError: it is not there.
        """
        try:
            return _size(self._blob_path(object_id))
        except FileNotFoundError:
            found = self.packs.blob(object_id)
            if found is None:
                raise WorkdirError(f"blob {object_id} is missing; {_REPAIR}") from None
            return found[0]

    def open_blob(self, object_id: str) -> BufferedReader:
        """Open a blob for reading.

        Raises:
            WorkdirError: it is not there.
        """
        try:
            return Path(self._blob_path(object_id)).open("rb")
        except FileNotFoundError:
            found = self.packs.blob(object_id)
            if found is None:
                raise WorkdirError(f"blob {object_id} is missing; {_REPAIR}") from None
            return open_chunks(found[1]())

    def read_blob(self, object_id: str) -> bytes:
        """Return a blob's bytes.

        Raises:
            WorkdirError: it is not there.
        """
        with self.open_blob(object_id) as file:
            return file.read()

    def write_blob(self, content: bytes, expected_id: str | None = None) -> tuple[str, bool]:
        """Store a blob.

        Args:
            content: its bytes.
            expected_id: the id that it must have.

        Returns:
            Its id, and whether it is new here. Nothing is stored where the id is not `expected_id`.
        """
        object_id = ids.blob_id(content)
        if expected_id not in {None, object_id}:
            return object_id, False
        path = self._blob_path(object_id)
        try:
            # A file of another size is what a crash of the machine left; it is written again.
            known = _size(path) == len(content)
        except FileNotFoundError:
            known = False
        if not known or self.rewrite:
            self.write_file(path, content)
        return object_id, not known

    def write_blob_stream(self, chunks: Iterable[bytes], expected_id: str | None = None) -> tuple[str, bool]:
        """Store a blob that comes in pieces, in bounded memory.

        Args:
            chunks: its bytes.
            expected_id: the id that it must have.

        Returns:
            Its id, and whether it is new here. Nothing is stored where the id is not `expected_id`.
        """
        temp = self.temp_path()
        digest = hashlib.sha256()
        try:
            with temp.open("xb") as file:
                for chunk in chunks:
                    digest.update(chunk)
                    file.write(chunk)
            object_id = ids.from_digest(digest.digest())
            if expected_id not in {None, object_id}:
                return object_id, False
            new = not _exists(self._blob_path(object_id))
            _rename(temp, self._blob_path(object_id))
        finally:
            temp.unlink(missing_ok=True)
        return object_id, new

    # Snapshots and commits

    def has_snapshot(self, snapshot_id: str) -> bool:
        """Say whether a snapshot is there."""
        return self.has("snapshots", snapshot_id)

    def read_snapshot(self, snapshot_id: str) -> dict[str, str] | WideManifest:
        """Return a snapshot's manifest; one that is too wide for memory is read from a file, sorted by path.

        Raises:
            WorkdirError: it is not there, or is damaged.
        """
        wide = self._read_wide(snapshot_id)
        if wide is not None:
            return wide
        record = self._read_record("snapshots", snapshot_id)
        if record is None:
            packed = self.packs.manifest(snapshot_id)
            if packed is None:
                raise WorkdirError(f"the file of snapshot {snapshot_id} is missing; {_REPAIR}")
            return packed
        manifest = record.get("manifest") if isinstance(record, dict) else None
        if not isinstance(manifest, dict) or not all(map(ids.is_hex, manifest.values())):
            raise WorkdirError(f"snapshot {snapshot_id} is damaged; {_REPAIR}")
        return {path: ids.PREFIX + digits for path, digits in manifest.items()}

    def _read_wide(self, snapshot_id: str) -> WideManifest | None:
        """Return a manifest that is too wide for memory; None where it is not, or not in a file that we wrote."""
        path = self._record_path("snapshots", snapshot_id)
        try:
            if _size(path) <= _WIDE_FILE:
                return None
        except FileNotFoundError:
            return None
        from musehub_plugin.client.widerows import read_wide

        return read_wide(Path(path), self.temp_folder)

    def write_snapshot(self, rows: ManifestRows | WideRows, snapshot_id: str, created_at: str) -> bool:
        """Store a snapshot.

        Args:
            rows: its manifest.
            snapshot_id: `rows.snapshot_id()`, which the caller has at hand.
            created_at: a date, ISO 8601 with an offset; the id does not cover it.

        Returns:
            Whether it is new here.
        """
        path = self._record_path("snapshots", snapshot_id)
        new = not _exists(path)
        if new or self.rewrite:
            if isinstance(rows, ManifestRows):
                self.write_file(path, rows.render(snapshot_id, created_at))
            else:
                self._write_pieces(path, rows.pieces(snapshot_id, created_at))
        return new

    def has_commit(self, commit_id: str) -> bool:
        """Say whether a commit is there."""
        return self.has("commits", commit_id)

    def read_commit(self, commit_id: str) -> dict[str, Any]:
        """Return the map of a commit's file, with bare hex ids.

        Raises:
            WorkdirError: it is not there, or is damaged.
        """
        record = self._read_record("commits", commit_id)
        if record is None:
            packed = self.packs.commit(commit_id)
            if packed is None:
                raise WorkdirError(f"the file of commit {commit_id} is missing; {_REPAIR}")
            return record_from_wire(packed, repo_id=self.repo_id)
        problem = check_record(record, commit_id)
        if problem is not None:
            raise WorkdirError(f"the file of commit {commit_id} {problem}; {_REPAIR}")
        assert isinstance(record, dict)  # noqa: S101 - check_record has seen to it
        return record

    def write_commit(self, record: dict[str, Any]) -> bool:
        """Store a commit.

        Args:
            record: the map of its file, with bare hex ids.

        Returns:
            Whether it is new here; one that is there stays as it is.
        """
        path = self._record_path("commits", ids.PREFIX + record["commit_id"])
        new = not _exists(path)
        if new or self.rewrite:
            self.write_file(path, render(record))
        return new

    def stored_ids(self, kind: str) -> Iterator[str]:
        """Iterate over the ids of all stored entities of a kind, each once, in no order.

        Args:
            kind: `objects`, `snapshots` or `commits`.
        """
        yield from self.loose_ids(kind)
        for entity_id in self.packs.ids(kind):
            if not _exists(self._entity_path(kind, entity_id)):
                yield entity_id

    def loose_ids(self, kind: str) -> Iterator[str]:
        """Iterate over the ids of the entities of a kind that have files of their own, in no order.

        Args:
            kind: `objects`, `snapshots` or `commits`.
        """
        folder = self.muse / kind
        if not folder.is_dir():
            return
        with os.scandir(folder) as entries:
            for entry in entries:
                if kind != "objects":
                    digits = entry.name.removesuffix(".json")
                    if entry.name.endswith(".json") and ids.is_hex(digits):
                        yield ids.PREFIX + digits
                elif entry.is_dir():
                    with os.scandir(entry.path) as leaves:
                        for leaf in leaves:
                            if ids.is_hex(entry.name + leaf.name):
                                yield ids.PREFIX + entry.name + leaf.name

    @staticmethod
    def reach_disk() -> None:
        """Wait until what was written is on disk; to be called before what it stands for is removed.

        Otherwise a power cut may find the one not written yet and the other gone. What can be fetched again is not
        waited for.
        """
        os.sync()

    def remove_loose(self, kind: str, entity_id: str) -> None:
        """Remove an entity's own file; a pack must hold it, on disk."""
        Path(self._entity_path(kind, entity_id)).unlink(missing_ok=True)

    def temp_path(self) -> Path:
        """Return a path for a new file on the working copy's file system; who takes it cleans it up."""
        return Path(next(self._temp_names))

    def _blob_path(self, object_id: str) -> str:
        digits = hex_of(object_id)
        return f"{self._base}/objects/{digits[:2]}/{digits[2:]}"

    def _record_path(self, kind: str, entity_id: str) -> str:
        return f"{self._base}/{kind}/{hex_of(entity_id)}.json"

    def _entity_path(self, kind: str, entity_id: str) -> str:
        return self._blob_path(entity_id) if kind == "objects" else self._record_path(kind, entity_id)

    def _read_record(self, kind: str, entity_id: str) -> object:
        """Return what an entity's own file holds; None where it has none."""
        path = self._record_path(kind, entity_id)
        try:
            content = Path(path).read_bytes()
        except FileNotFoundError:
            return None
        try:
            record: object = json.loads(content)
        except (ValueError, RecursionError):
            record = None
        if record is None:
            raise WorkdirError(f"the file of {kind[:-1]} {entity_id} is no JSON; {_REPAIR}")
        return record

    def _write_pieces(self, path: str, pieces: Iterable[bytes]) -> None:
        temp = self.temp_path()
        try:
            with temp.open("xb") as file:
                file.writelines(pieces)
            _rename(temp, path)
        finally:
            temp.unlink(missing_ok=True)

    def write_file(self, path: str | Path, content: bytes) -> None:
        """Write a file of `.muse` as a whole, replacing one that is there."""
        temp = next(self._temp_names)
        handle = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            try:
                rest = memoryview(content)
                while rest:
                    rest = rest[os.write(handle, rest) :]
            finally:
                os.close(handle)
            _rename(temp, path)
        except BaseException:
            Path(temp).unlink(missing_ok=True)
            raise


# Plain strings, here alone: making a Path takes longer than the calls below, and a history has many thousand files.


def _exists(path: str) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - see above


def _size(path: str) -> int:
    return os.stat(path).st_size  # noqa: PTH116 - see above


def _rename(temp: str | Path, path: str | Path) -> None:
    try:
        os.rename(temp, path)  # noqa: PTH104 - see above
    except FileNotFoundError:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(temp).rename(path)


def hex_of(identifier: str) -> str:
    """Return the hex digits of an id, fit to be part of a path.

    Raises:
        WorkdirError: it is no id.
    """
    # Anything else than an id could name any file.
    if not ids.is_id(identifier):
        raise WorkdirError(f"not an id: {identifier!r:.100}")
    return ids.to_hex(identifier)
