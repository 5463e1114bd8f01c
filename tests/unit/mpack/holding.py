"""What the receiver of a thin pack holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from musehub_plugin import ids

Files = dict[str, bytes]


def manifest_of(files: Files) -> dict[str, str]:
    return {path: ids.blob_id(content) for path, content in files.items()}


@dataclass
class Held:
    """What a receiver holds; remembers what it was asked for."""

    manifests: dict[str, Mapping[str, str]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def hold(self, files: Files) -> tuple[str, dict[str, str]]:
        """Take files in, and return their snapshot as a writer takes it."""
        manifest = manifest_of(files)
        self.manifests[ids.snapshot_id(manifest)] = manifest
        self.blobs |= {ids.blob_id(content): content for content in files.values()}
        return ids.snapshot_id(manifest), manifest

    def manifest(self, snapshot_id: str) -> Mapping[str, str] | None:
        return self.manifests.get(snapshot_id)

    def blob(self, object_id: str, max_size: int) -> bytes | None:
        self.asked.append(object_id)
        content = self.blobs.get(object_id)
        return None if content is None or len(content) > max_size else content
