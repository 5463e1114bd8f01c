"""What a working copy gives to a reader of thin packs: the manifests and blobs that such a pack starts from."""

from __future__ import annotations

from collections.abc import Mapping

from musehub_plugin.client.entities import EntityFiles


class Held:
    """The manifests and blobs of a working copy.

    Args:
        files: the working copy.
    """

    def __init__(self, files: EntityFiles) -> None:
        self._files = files

    def manifest(self, snapshot_id: str) -> Mapping[str, str] | None:
        """Return a snapshot's manifest; None where it is not held."""
        return self._files.read_snapshot(snapshot_id) if self._files.has_snapshot(snapshot_id) else None

    def blob(self, object_id: str, max_size: int) -> bytes | None:
        """Return a blob's bytes; None where it is not held, or is over `max_size`."""
        if not self._files.has_blob(object_id) or self._files.blob_size(object_id) > max_size:
            return None
        return self._files.read_blob(object_id)
