"""What taking in an mpack came to."""

from __future__ import annotations

from typing import NamedTuple


class Applied(NamedTuple):
    """What an mpack held, and how much of it was new.

    Attributes:
        commit_count: commits in the mpack.
        snapshot_count: snapshots in it.
        blob_count: blobs in it.
        new_commits: commits that the working copy did not have.
        new_snapshots: snapshots that it did not have.
        new_blobs: blobs that it did not have.
    """

    commit_count: int
    snapshot_count: int
    blob_count: int
    new_commits: int
    new_snapshots: int
    new_blobs: int
