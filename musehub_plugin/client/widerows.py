"""Snapshots' files of manifests that are too wide for memory: written and read piece by piece."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Final
from weakref import WeakKeyDictionary

from musehub_plugin import ids
from musehub_plugin.client.manifest import ManifestRows, tail, top
from musehub_plugin.mpack import SnapshotDelta
from musehub_plugin.mpack.pages import Page, PageFile, PageHasher
from musehub_plugin.mpack.wide import WideManifest

_READ_BYTES: Final = 1 << 20
_END_BYTES: Final = 1 << 16


class WideRows:
    """The entries of one manifest, as `ManifestRows` has them.

    Args:
        rows: those of the manifest to start from.
        folder: where a file is made.
    """

    def __init__(self, rows: ManifestRows, folder: Path | None) -> None:
        self._file = PageFile(folder)
        self._manifest = WideManifest.of(rows.manifest(), self._file)
        self._hasher = PageHasher()
        # The text of each page, which is the same in most of the manifests that follow.
        self._texts: WeakKeyDictionary[Page, Page] = WeakKeyDictionary()

    def __len__(self) -> int:
        return len(self._manifest)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the paths, sorted."""
        return iter(self._manifest)

    def follow(self, delta: SnapshotDelta) -> None:
        """Become the next of a run of manifests."""
        self._manifest.follow(delta.removed, delta.changed, full=delta.full)

    def snapshot_id(self) -> str:
        """Return the id of the manifest."""
        return ids.from_digest(self._hasher.digest(self._manifest.pages))

    def pieces(self, snapshot_id: str, created_at: str) -> Iterator[bytes]:
        """Yield the snapshot file, the same as `ManifestRows.render` gives."""
        yield top(snapshot_id)
        between = b"{\n"
        for page in self._manifest.pages.pages():
            text = self._texts.get(page)
            if text is None:
                rows = (f'    {json.dumps(path.decode())}: "{digits.decode()}"' for path, digits in page.rows())
                text = self._texts[page] = self._file.put(",\n".join(rows).encode(), page.first, page.count)
            yield between + text.text()
            between = b",\n"
        yield (b"\n  }" if len(self) else b"{}") + tail(created_at)


def read_wide(path: Path, folder: Path) -> WideManifest | None:
    """Return the manifest of a snapshot's file; None where the file has not the form that is written here.

    Args:
        path: the file.
        folder: where a file is made.
    """
    manifest = WideManifest.of({}, PageFile(folder))
    with path.open("rb") as file:
        head = [file.readline(_END_BYTES) for _ in range(3)]
        if head[0] != b"{\n" or head[2] != b'  "manifest": {\n':
            return None
        rest: list[bytes] = []
        try:
            while not rest:
                lines = file.readlines(_READ_BYTES)
                end = next((number for number, line in enumerate(lines) if not line.startswith(b"    ")), len(lines))
                entries = json.loads(b"{" + b"".join(lines[:end]).rstrip().removesuffix(b",") + b"}")
                if not lines or not all(map(ids.is_hex, entries.values())):
                    return None
                manifest.set((name, ids.PREFIX + digits) for name, digits in entries.items())
                rest = lines[end:]
            around = b"".join(chain(head[:2], [b'"manifest": {\n'], rest)) + file.read(_END_BYTES)
            return manifest if isinstance(json.loads(around), dict) else None
        except (ValueError, RecursionError):
            return None
