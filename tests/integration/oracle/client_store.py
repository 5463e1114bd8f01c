"""What a client holds after its fetches, and whether that is whole and true."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from musehub_plugin import ids
from tests.exchange import Caller


class ClientStore:
    """Commits, snapshots and blobs by id, filled by applying mpacks."""

    def __init__(self) -> None:
        self.commits: dict[str, dict[str, Any]] = {}
        self.snapshots: dict[str, dict[str, str]] = {}
        self.blobs: dict[str, bytes] = {}

    def fetch(self, caller: Caller, repo: str, want: Sequence[str], have: Sequence[str]) -> dict[str, Any]:
        """Fetch, apply what comes, and return the answer; what comes must not be here already."""
        response = caller.fetch(repo, want, have)
        assert response.status_code == 200, response.get_data(as_text=True)
        if response.get_json()["mpack_url"] is None:
            return dict(response.get_json())
        pulled = caller.pull(repo, want, have)
        self.commits.update(pulled.commits)
        self.snapshots.update(pulled.snapshots)
        self.blobs.update(pulled.blobs)
        counts = [pulled.answer[name] for name in ("commit_count", "snapshot_count", "blob_count")]
        assert counts == [len(pulled.commits), len(pulled.snapshots), len(pulled.blobs)]
        return pulled.answer

    def false_ids(self) -> list[str]:
        """Return the ids that their contents do not hash to."""
        commits = (
            commit_id
            for commit_id, record in self.commits.items()
            if commit_id
            != ids.commit_id(record["parent_ids"], record["snapshot_id"], record["message"], record["committed_at"])
        )
        snapshots = (item for item, manifest in self.snapshots.items() if item != ids.snapshot_id(manifest))
        blobs = (item for item, content in self.blobs.items() if item != ids.blob_id(content))
        return [*commits, *snapshots, *blobs]

    def missing(self) -> set[str]:
        """Return the ids that something here refers to and that are not here."""
        parents = {parent for record in self.commits.values() for parent in record["parent_ids"]}
        snapshots = {record["snapshot_id"] for record in self.commits.values()}
        blobs = {object_id for manifest in self.snapshots.values() for object_id in manifest.values()}
        return (parents - self.commits.keys()) | (snapshots - self.snapshots.keys()) | (blobs - self.blobs.keys())
