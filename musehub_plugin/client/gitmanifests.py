"""The manifests of an import: the one at hand, which changes from commit to commit, and those that are gone back to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Final

import msgpack

from musehub_plugin import ids
from musehub_plugin.mpack import MPackWriter
from musehub_plugin.mpack.manifests import ManifestHasher

# Entries kept in memory: some 100 bytes each.
_MAX_KEPT_ENTRIES: Final = 1_000_000


class RunningManifest:
    """The manifest of one commit after the other, and what changed since one was last written.

    Args:
        writer: where they are written.

    Attributes:
        entries: `{path: object_id}`.
    """

    def __init__(self, writer: MPackWriter) -> None:
        self._writer = writer
        self._hasher = ManifestHasher()
        self._pending: dict[str, str | None] = {}
        self._before: dict[str, str | None] = {}
        self.entries: dict[str, str] = {}

    def set(self, path: str, object_id: str | None) -> None:
        """Give a path an object; None: remove it."""
        now = self.entries.get(path)
        self._before.setdefault(path, now)
        if object_id is None:
            self.entries.pop(path, None)
        else:
            self.entries[path] = object_id
        self._pending.setdefault(path, now)

    def become(self, entries: Mapping[str, str]) -> None:
        """Become another manifest."""
        for path in self.entries.keys() - entries.keys():
            self.set(path, None)
        for path, object_id in entries.items():
            if self.entries.get(path) != object_id:
                self.set(path, object_id)

    def digest(self) -> bytes:
        """Return the SHA-256 digest of the manifest's id."""
        self._hasher.change(*self._changes(self._pending), full=False)
        self._pending.clear()
        return self._hasher.digest()

    def write(self, digest: bytes) -> None:
        """Write the manifest, as what changed since the last one that was written."""
        removed, changed = self._changes(self._before)
        self._writer.add_snapshot_delta(ids.from_digest(digest), removed, changed, derivable=True)
        self._before.clear()

    def _changes(self, before: Mapping[str, str | None]) -> tuple[list[str], dict[str, str]]:
        removed, changed = [], {}
        for path, old in before.items():
            now = self.entries.get(path)
            if now is None and old is not None:
                removed.append(path)
            elif now is not None and now != old:
                changed[path] = now
        return removed, changed


class KeptManifests:
    """The manifests of commits that have children to come; those that memory has no room for are in a file.

    Args:
        file: the file.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._entries: dict[str, dict[str, str]] = {}
        self._count = 0
        self._places: dict[str, tuple[int, int]] = {}

    @classmethod
    @contextmanager
    def opened(cls, folder: Path) -> Iterator[KeptManifests]:
        """Give one whose file is in a folder, for as long as it is used."""
        with TemporaryFile(dir=folder) as file:
            yield cls(file)

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._places

    def put(self, name: str, entries: Mapping[str, str]) -> None:
        """Keep a commit's manifest."""
        if self._count + len(entries) <= _MAX_KEPT_ENTRIES:
            self._entries[name] = dict(entries)
            self._count += len(entries)
            return
        packed = msgpack.packb(dict(entries))
        self._places[name] = (self._file.seek(0, os.SEEK_END), len(packed))
        self._file.write(packed)

    def get(self, name: str) -> dict[str, str] | None:
        """Return a commit's manifest; None where it was not kept."""
        if name in self._places:
            start, size = self._places[name]
            self._file.seek(start)
            entries: dict[str, str] = msgpack.unpackb(self._file.read(size))
            return entries
        return self._entries.get(name)

    def drop(self, name: str) -> None:
        """Let go of a manifest that no commit goes on from any more."""
        self._places.pop(name, None)
        self._count -= len(self._entries.pop(name, ()))
