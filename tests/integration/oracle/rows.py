"""Histories as rows of a database."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime

from musehub_plugin import ids
from musehub_plugin.manifestlog import Difference, difference
from musehub_plugin.models import MusehubObject, MusehubObjectRef, MusehubRepo
from musehub_plugin.store.commits import NewCommit, add_commits
from musehub_plugin.store.manifests import NewSnapshot, add_snapshots, new_snapshot
from musehub_plugin.store.session import Database
from tests.dags import CONTENTS, History

CONTENT_OF = {ids.blob_id(content): content for content in CONTENTS}


def generations(history: History) -> dict[str, int]:
    """Return 1 + the highest generation among the parents, by commit."""
    found: dict[str, int] = {}
    for commit_id in history.order:
        found[commit_id] = 1 + max((found.get(parent, 0) for parent in history.parents(commit_id)), default=0)
    return found


def write(db: Database, repo_id: str, history: History, *, without: Iterable[str] = ()) -> None:
    """Write a history into a repo; blobs lie in their rows.

    Args:
        db: the unit of work, which is not committed.
        repo_id: the repo; it need not exist.
        history: what the repo holds.
        without: commits that are left out, although others name them as parents.
    """
    db.insert_new(
        MusehubObject,
        [
            {
                "object_id": object_id,
                "path": "",
                "size_bytes": len(content),
                "storage_uri": "",
                "content_cache": content,
            }
            for object_id, content in CONTENT_OF.items()
        ],
    )
    held = history.blobs(history.order)
    db.insert_new(MusehubObjectRef, [{"repo_id": repo_id, "object_id": object_id} for object_id in held])
    whole = Difference([], {})
    add_snapshots(
        db, repo_id, [new_snapshot(each, None, whole, manifest) for each, manifest in history.manifests.items()]
    )
    number = generations(history)
    missing = set(without)
    add_commits(
        db,
        repo_id,
        [
            NewCommit(record, _moment(record["committed_at"]), number[commit_id])
            for commit_id, record in history.records.items()
            if commit_id not in missing
        ],
    )


def broad_history(chance: random.Random, length: int, name: str) -> History:
    """Return branches that begin anywhere, of trees so broad that each is stored as what it changes."""
    history = History()
    trees: list[dict[str, str]] = []
    for number in range(length):
        parent = chance.randrange(number) if number else None
        base = {f"{n}.txt": ids.fake_id(f"{n}") for n in range(60)} if parent is None else trees[parent]
        kept = {path: base[path] for path in base.keys() - {chance.choice(sorted(base))}}
        trees.append({**kept, f"{chance.randrange(60)}.txt": ids.fake_id(f"{name} {number}")})
        history.commit([] if parent is None else [history.order[parent]], trees[-1], f"{name} {number}")
    return history


def write_changes(db: Database, repo_id: str, history: History) -> None:
    """Write a history's snapshots as what they change from their commits' first parents."""
    made: dict[str, NewSnapshot] = {}
    for commit_id in history.order:
        snapshot_id = history.records[commit_id]["snapshot_id"]
        manifest = history.manifests[snapshot_id]
        bases = [history.records[parent]["snapshot_id"] for parent in history.parents(commit_id)[:1]]
        change = difference(history.manifests[bases[0]] if bases else {}, manifest)
        base = (bases[0], made[bases[0]].chain) if bases else None
        made.setdefault(snapshot_id, new_snapshot(snapshot_id, base, change, manifest))
    add_snapshots(db, repo_id, list(made.values()))


def _moment(date: str) -> datetime:
    return datetime.fromisoformat(date).astimezone(UTC)


def write_repo(db: Database, repo_id: str) -> None:
    """Write the row of a public repo `alice/<repo_id>`."""
    row = {"repo_id": repo_id, "owner": "alice", "slug": repo_id, "name": repo_id, "visibility": "public"}
    db.insert_new(MusehubRepo, [{**row, "owner_user_id": "alice", "default_branch": "main"}])


@contextmanager
def written(databases: Mapping[str, Database], **histories: History) -> Iterator[None]:
    """Hold histories in repos of both databases, each under its keyword, until the block ends."""
    try:
        for db in databases.values():
            for repo_id, history in histories.items():
                write(db, repo_id, history)
        yield
    finally:
        for db in databases.values():
            db.rollback()
