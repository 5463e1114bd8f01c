"""The commit record of the released `muse` client (0.1.5): its fields, on disk and on its wire.

Ids in it are bare hex. It has places for two parents.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

PARENT_FIELDS: Final = ("parent_commit_id", "parent2_commit_id")

LEADING_FIELDS: Final = (
    "commit_id",
    "repo_id",
    "branch",
    "snapshot_id",
    "message",
    "committed_at",
    *PARENT_FIELDS,
    "author",
)
"""The fields that every commit has, in the order in which the client writes them."""

DEFAULTS: Final[Mapping[str, Any]] = {
    "metadata": {},
    "structured_delta": None,
    "sem_ver_bump": "none",
    "breaking_changes": [],
    "agent_id": "",
    "model_id": "",
    "toolchain_id": "",
    "prompt_hash": "",
    "signature": "",
    "signer_key_id": "",
    "format_version": 5,
    "reviewed_by": [],
    "test_runs": 0,
}
"""The fields that follow, with what the client writes where it knows nothing."""
