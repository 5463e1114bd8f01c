"""A manifest that is cheap to change: its rows stay sorted, hashed text and JSON text at hand.

A history's manifests differ by a few paths from one commit to the next. Hashing and writing one from scratch
costs time for every path it has; here it costs two joins over rows that are ready.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping

from musehub_plugin import ids


class ManifestRows:
    """The entries of one manifest, sorted by path.

    Args:
        manifest: `{path: object_id}` to start from.
    """

    __slots__ = ("_hashed", "_json", "_paths")

    def __init__(self, manifest: Mapping[str, str] | None = None) -> None:
        self._paths: list[str] = sorted(manifest or ())
        entries = [(path, ids.to_hex((manifest or {})[path])) for path in self._paths]
        self._hashed = [_hashed_row(path, digits) for path, digits in entries]
        self._json = [_json_row(path, digits) for path, digits in entries]

    def __len__(self) -> int:
        return len(self._paths)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the paths, sorted."""
        return iter(self._paths)

    def copy(self) -> ManifestRows:
        """Return a manifest with the same entries, to be changed on its own."""
        twin = ManifestRows()
        twin._paths, twin._hashed, twin._json = self._paths.copy(), self._hashed.copy(), self._json.copy()
        return twin

    def manifest(self) -> dict[str, str]:
        """Return `{path: object_id}`."""
        return {path: ids.PREFIX + row[-64:].decode() for path, row in zip(self._paths, self._hashed, strict=True)}

    def set(self, path: str, object_id: str) -> None:
        """Add an entry, or give an existing one another object."""
        digits = ids.to_hex(object_id)
        at = bisect_left(self._paths, path)
        if at < len(self._paths) and self._paths[at] == path:
            self._hashed[at], self._json[at] = _hashed_row(path, digits), _json_row(path, digits)
            return
        self._paths.insert(at, path)
        self._hashed.insert(at, _hashed_row(path, digits))
        self._json.insert(at, _json_row(path, digits))

    def remove(self, path: str) -> None:
        """Remove an entry; a path that is not there is no error."""
        at = bisect_left(self._paths, path)
        if at < len(self._paths) and self._paths[at] == path:
            del self._paths[at], self._hashed[at], self._json[at]

    def snapshot_id(self) -> str:
        """Return the id of the manifest."""
        # Rows sorted by path are sorted as whole rows too: NUL sorts before whatever a longer path goes on
        # with, and UTF-8 keeps the order of code points.
        return ids.from_digest(hashlib.sha256(b"\0".join(self._hashed)).digest())

    def render(self, snapshot_id: str, created_at: str) -> bytes:
        """Return the snapshot file: JSON indented by two, ids as bare hex, a newline at the end."""
        manifest = b"{\n" + b",\n".join(self._json) + b"\n  }" if self._json else b"{}"
        return top(snapshot_id) + manifest + tail(created_at)


def top(snapshot_id: str) -> bytes:
    """Return what a snapshot file has before its manifest."""
    return f'{{\n  "snapshot_id": "{ids.to_hex(snapshot_id)}",\n  "manifest": '.encode()


def tail(created_at: str) -> bytes:
    """Return what a snapshot file has after its manifest."""
    return f',\n  "created_at": {json.dumps(created_at)}\n}}\n'.encode()


def _hashed_row(path: str, digits: str) -> bytes:
    return f"{path}\0{digits}".encode()


def _json_row(path: str, digits: str) -> bytes:
    return f'    {json.dumps(path)}: "{digits}"'.encode()
