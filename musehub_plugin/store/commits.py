"""Commits of a repo: the graph, and the records that travel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from operator import itemgetter
from typing import Any, NamedTuple

import msgpack
from sqlalchemy import bindparam, func, join, select

from musehub_plugin.errors import HistoryDamaged
from musehub_plugin.ids import commit_id as commit_id_of
from musehub_plugin.ids import from_digest, to_digest
from musehub_plugin.store.bulk import insert_rows
from musehub_plugin.store.models import (
    DIGEST_SIZE,
    MusehubCommit,
    MusehubCommitGraph,
    MusehubCommitRef,
)
from musehub_plugin.store.prepared import Question
from musehub_plugin.store.session import ROW_BATCH, Database, batches, columns

# Records that are read at once, some two kilobytes each.
_RECORD_BATCH = 2_000
_NODE_BATCH = 5_000

CORE_FIELDS = frozenset({"commit_id", "parent_ids", "snapshot_id", "branch", "message", "author", "committed_at"})


class Node(NamedTuple):
    """A commit as the planner sees it."""

    parent_ids: list[str]
    snapshot_id: str


def graph(db: Database, repo_id: str) -> dict[str, Node]:
    """Return every commit that the repo holds, with its parents and snapshot. One statement."""
    rows = db.execute(
        select(MusehubCommit.commit_id, MusehubCommit.parent_ids, MusehubCommit.snapshot_id)
        .join(MusehubCommitRef, MusehubCommitRef.commit_id == MusehubCommit.commit_id)
        .where(MusehubCommitRef.repo_id == repo_id)
    )
    return {commit_id: Node(parent_ids, snapshot_id) for commit_id, parent_ids, snapshot_id in rows}


def nodes(db: Database, repo_id: str) -> Iterator[tuple[str, Node]]:
    """Yield what `graph` returns, in the order of the ids, a batch of rows at a time."""
    last = ""
    while True:
        batch = db.execute(
            select(MusehubCommit.commit_id, MusehubCommit.parent_ids, MusehubCommit.snapshot_id)
            .join(MusehubCommitRef, MusehubCommitRef.commit_id == MusehubCommit.commit_id)
            .where(MusehubCommitRef.repo_id == repo_id, *([MusehubCommitRef.commit_id > last] if last else []))
            .order_by(MusehubCommitRef.commit_id)
            .limit(_NODE_BATCH)
        ).all()
        for commit_id, parent_ids, snapshot_id in batch:
            yield commit_id, Node(parent_ids, snapshot_id)
        if len(batch) < _NODE_BATCH:
            return
        last = batch[-1].commit_id


_COMMIT, _COMMIT_REF = columns(MusehubCommit), columns(MusehubCommitRef)
_HELD_COMMITS = Question(
    lambda among: select(_COMMIT_REF.commit_id).where(
        _COMMIT_REF.repo_id == bindparam("repo_id"), among(_COMMIT_REF.commit_id, "commit_ids")
    )
)
_RECORDS = Question(
    lambda among: (
        select(
            _COMMIT.commit_id,
            _COMMIT.branch,
            _COMMIT.parent_ids,
            _COMMIT.message,
            _COMMIT.author,
            _COMMIT.timestamp,
            _COMMIT.snapshot_id,
            _COMMIT_REF.own_fields,
        )
        .select_from(
            join(MusehubCommit.__table__, MusehubCommitRef.__table__, _COMMIT_REF.commit_id == _COMMIT.commit_id)
        )
        .where(_COMMIT_REF.repo_id == bindparam("repo_id"), among(_COMMIT.commit_id, "commit_ids"))
    )
)


def held_commits(db: Database, repo_id: str, commit_ids: Iterable[str]) -> set[str]:
    """Return which of `commit_ids` the repo holds."""
    found: set[str] = set()
    for batch in batches(set(commit_ids)):
        found.update(commit_id for (commit_id,) in _HELD_COMMITS.ask(db, repo_id=repo_id, commit_ids=batch))
    return found


def count(db: Database, repo_id: str) -> int:
    """Return how many commits the repo holds."""
    return int(
        db.execute(
            select(func.count()).select_from(MusehubCommitRef).where(MusehubCommitRef.repo_id == repo_id)
        ).scalar_one()
    )


def records(
    db: Database, repo_id: str, commit_ids: Iterable[str], *, pass_over_missing: bool = False
) -> Iterator[dict[str, Any]]:
    """Yield the wire records of commits that the repo holds, as the repo that pushed them wrote them.

    Args:
        db: the unit of work.
        repo_id: the repo.
        commit_ids: which commits, in the order in which they are yielded.
        pass_over_missing: yield nothing for a commit that the repo does not hold.

    Raises:
        HistoryDamaged: the repo does not hold one of them.
    """
    following = iter(commit_ids)
    # Batches in the caller's order, so that no more than one batch of records is held at a time.
    while batch := list(islice(following, _RECORD_BATCH)):
        found = {row[0]: row for row in _RECORDS.ask(db, repo_id=repo_id, commit_ids=batch)}
        for commit_id in batch:
            row = found.get(commit_id)
            if row is None:
                if pass_over_missing:
                    continue
                raise HistoryDamaged(f"repo {repo_id}: commit {commit_id} is not stored")
            _, branch, parent_ids, message, author, timestamp, snapshot_id, own_fields = row
            text = timestamp.isoformat()
            record: dict[str, Any] = {
                "commit_id": commit_id,
                "parent_ids": parent_ids,
                "snapshot_id": snapshot_id,
                "branch": branch,
                "message": message,
                "author": author,
                "committed_at": text,
            }
            if own_fields is not None:
                record.update(unpack_own_fields(own_fields))
            if not timestamp.microsecond and record["committed_at"] == text:
                _restore_zeros(record, timestamp)
            yield record


def _restore_zeros(record: dict[str, Any], timestamp: datetime) -> None:
    """Write a date of whole seconds as the commit's id hashes it: muse clients write microseconds, Python no zeros.

    A row that was written by hand has nothing but the moment. Where its id hashes neither form, Python's stays.
    """
    text = timestamp.isoformat(timespec="microseconds")
    if record["commit_id"] == commit_id_of(record["parent_ids"], record["snapshot_id"], record["message"], text):
        record["committed_at"] = text


def log(db: Database, repo_id: str, head: str, limit: int) -> list[dict[str, Any]]:
    """Return up to `limit` commits of the repo from `head` back, newest first, along first parents.

    For the pages of a host; one statement a commit.
    """
    found: list[dict[str, Any]] = []
    next_id: str | None = head
    while next_id is not None and len(found) < limit:
        if not held_commits(db, repo_id, [next_id]):
            break
        record = next(records(db, repo_id, [next_id]))
        found.append(record)
        next_id = record["parent_ids"][0] if record["parent_ids"] else None
    return found


def pack_own_fields(record: Mapping[str, Any], row: Mapping[str, Any] | None) -> bytes | None:
    """Return what a record says beyond what its id covers for every repo alike, and beyond a commit's row.

    That is the order of its parents, its branch, author and date, and every further field. (`author` or `committed_at`
    is in the hash, but which of them is not, so both are kept.)

    Args:
        record: what this repo's push said.
        row: the commit's row, where it is known; None: it may say anything.
    """
    own: dict[str, Any] = {key: value for key, value in record.items() if key not in CORE_FIELDS}
    fields: dict[str, Any] = {"further": own} if own else {}
    if row is None or row["parent_ids"] != record["parent_ids"]:
        fields["parents"] = b"".join(to_digest(parent) for parent in record["parent_ids"])
    for name in ("branch", "author"):
        if row is None or row[name] != record[name]:
            fields[name] = record[name]
    if row is None or row["timestamp"].isoformat() != record["committed_at"]:
        fields["date"] = record["committed_at"]
    return bytes(msgpack.packb(fields)) if fields else None


def unpack_own_fields(packed: bytes) -> dict[str, Any]:
    """Return the fields that `pack_own_fields` kept, by their names in a record."""
    kept = msgpack.unpackb(packed, strict_map_key=False)
    if isinstance(kept, list):
        # As the first release wrote it: everything.
        parents, branch, author, committed_at, further = kept
        kept = {"parents": parents, "branch": branch, "author": author, "date": committed_at, "further": further}
    record: dict[str, Any] = {name: kept[name] for name in ("branch", "author") if name in kept}
    if "date" in kept:
        record["committed_at"] = kept["date"]
    if "parents" in kept:
        joined = kept["parents"]
        record["parent_ids"] = [from_digest(joined[at : at + DIGEST_SIZE]) for at in range(0, len(joined), DIGEST_SIZE)]
    return {**record, **kept.get("further", {})}


def generations(db: Database, commit_ids: Iterable[str]) -> dict[str, int]:
    """Return the generation of those commits that have one on record."""
    found: dict[str, int] = {}
    for batch in batches(set(commit_ids)):
        rows = db.execute(
            select(MusehubCommitGraph.commit_id, MusehubCommitGraph.generation).where(
                MusehubCommitGraph.commit_id.in_(batch)
            )
        )
        found.update((row.commit_id, row.generation) for row in rows)
    return found


class NewCommit(NamedTuple):
    """A verified commit that a push brings."""

    record: Mapping[str, Any]
    timestamp: datetime
    generation: int


def add_commits(db: Database, repo_id: str, new: Iterable[NewCommit]) -> None:
    """Insert commits, their place in the graph, and this repo's hold on them.

    In parts, each in the order of its keys: the rows of a long history take several times the memory of its records.
    Whoever brings many gives them in the order of their ids, since two pushes that bring the same commits would
    otherwise wait for each other until one is sent back (ATTACKS R11). That all three tables of a part come before
    the next part does no harm: whoever is first at a commit is first at the rows that go with it.
    """
    rows = iter(new)
    while part := list(islice(rows, ROW_BATCH)):
        _add_part(db, repo_id, part)


def _add_part(db: Database, repo_id: str, part: Sequence[NewCommit]) -> None:
    rows = [_row(commit) for commit in part]
    names = ("commit_id", "branch", "parent_ids", "message", "author", "timestamp", "snapshot_id")
    ours = insert_rows(db, MusehubCommit, names, map(itemgetter(*names), rows), ask=True) or ()
    insert_rows(
        db,
        MusehubCommitGraph,
        ("commit_id", "parent_ids", "snapshot_id", "generation"),
        [
            (row["commit_id"], row["parent_ids"], row["snapshot_id"], commit.generation)
            for row, commit in zip(rows, part, strict=True)
        ],
    )
    insert_rows(
        db,
        MusehubCommitRef,
        ("commit_id", "own_fields"),
        [
            # What another repo's push made of a row may differ from what this one says.
            (row["commit_id"], pack_own_fields(commit.record, row if row["commit_id"] in ours else None))
            for row, commit in zip(rows, part, strict=True)
        ],
        {"repo_id": repo_id},
    )


def _row(commit: NewCommit) -> dict[str, Any]:
    fields = ("commit_id", "branch", "parent_ids", "message", "author", "snapshot_id")
    return {**{name: commit.record[name] for name in fields}, "timestamp": commit.timestamp}
