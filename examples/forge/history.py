"""What a repo holds, for its page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from musehub_plugin.hub import current_hub
from musehub_plugin.store import commits, manifests, repos

COMMITS_SHOWN = 12
FILES_SHOWN = 500


@dataclass(frozen=True)
class Commit:
    """A commit as the page shows it."""

    commit_id: str
    short_id: str
    title: str
    author: str
    date: str
    snapshot_id: str


def branches(repo_id: str) -> dict[str, str]:
    """Return `{name: head commit id}`."""
    return repos.branch_heads(current_hub().database(), repo_id)


def latest_commits(repo_id: str, head: str) -> list[Commit]:
    """Return the newest commits of a branch, newest first."""
    found = commits.log(current_hub().database(), repo_id, head, COMMITS_SHOWN)
    return [
        Commit(
            commit_id=record["commit_id"],
            short_id=record["commit_id"].removeprefix("sha256:")[:10],
            title=record["message"].strip().partition("\n")[0] or "(no message)",
            author=record["author"].partition(" <")[0],
            date=_day(record["committed_at"]),
            snapshot_id=record["snapshot_id"],
        )
        for record in found
    ]


def files(repo_id: str, snapshot_id: str) -> list[str]:
    """Return the paths of a snapshot, sorted."""
    (_, manifest), *_ = manifests.manifests(current_hub().database(), repo_id, [snapshot_id])
    return sorted(manifest or ())[:FILES_SHOWN]


def _day(committed_at: str) -> str:
    return datetime.fromisoformat(committed_at).strftime("%Y-%m-%d %H:%M")
