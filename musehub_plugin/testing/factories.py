"""Repos, blobs and commits for tests: as rows of a database, or as a pack to push.

What is made has true ids, so that it can be served, cloned and verified like anything else. The functions that
write rows commit them: a request that a test sends afterwards has a session of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

import msgpack
from sqlalchemy import inspect
from sqlalchemy.orm import Session, scoped_session

from musehub_plugin import graph, ids
from musehub_plugin.models import (
    Base,
    MusehubBranch,
    MusehubCommit,
    MusehubCommitGraph,
    MusehubCommitRef,
    MusehubObject,
    MusehubObjectRef,
    MusehubRepo,
    MusehubSnapshot,
    MusehubSnapshotRef,
)
from musehub_plugin.mpack import build_wire_mpack, solid_order
from musehub_plugin.storage.base import Storage
from musehub_plugin.store.manifests import directories

AnySession = Session | scoped_session[Any]

Files = Mapping[str, bytes | str]
"""A tree by path: the contents of a file, or the id of a blob, which is taken as it is, stored or not."""

COMMITTED_AT = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
"""When commits are made that say nothing else: tests want the same ids each time."""

_Row = TypeVar("_Row", bound=Base)


def create_repo(
    session: AnySession,
    owner: str = "alice",
    slug: str = "songs",
    *,
    visibility: str = "public",
    owner_user_id: str | None = None,
    default_branch: str = "main",
    repo_id: str | None = None,
) -> MusehubRepo:
    """Make an empty repo in the plugin's own table and return its row, loaded and usable without the session.

    Args:
        session: the host's `db.session`.
        owner: first part of its path.
        slug: second part of its path.
        visibility: "public" is readable by everybody, anything else by the owner.
        owner_user_id: `Identity.user_id` of the owner; left out: the same as `owner`.
        default_branch: the branch that a clone checks out.
        repo_id: its id; left out: a new one.
    """
    repo = MusehubRepo(
        owner=owner,
        slug=slug,
        visibility=visibility,
        owner_user_id=owner if owner_user_id is None else owner_user_id,
        default_branch=default_branch,
    )
    if repo_id is not None:
        repo.repo_id = repo_id
    session.add(repo)
    _commit(session)
    return repo


def store_object(
    session: AnySession,
    repo_id: str,
    content: bytes,
    *,
    path: str = "",
    storage: Storage | None = None,
    in_row: bool = True,
) -> str:
    """Make a blob that a repo holds, and return its id.

    Args:
        session: the host's `db.session`.
        repo_id: the repo.
        content: its bytes.
        path: a path under which it is known.
        storage: where its bytes are put, by id; left out: nowhere.
        in_row: whether its bytes are in the row (`content_cache`). Without this and without `storage` they are nowhere,
            as those of a push that is not indexed yet: a fetch answers 503.
    """
    object_id = ids.blob_id(content)
    storage_uri = "" if storage is None else storage.put(object_id, content)
    _add_missing(
        session,
        MusehubObject(
            object_id=object_id,
            path=path,
            size_bytes=len(content),
            storage_uri=storage_uri,
            content_cache=content if in_row else None,
        ),
    )
    _add_missing(session, MusehubObjectRef(repo_id=repo_id, object_id=object_id))
    _commit(session)
    return object_id


def make_commit(
    session: AnySession,
    repo_id: str,
    files: Files,
    parents: Sequence[str] = (),
    *,
    message: str = "A commit",
    author: str = "Alice",
    committed_at: datetime = COMMITTED_AT,
    branch: str | None = None,
    storage: Storage | None = None,
    in_row: bool = True,
) -> str:
    """Make a commit that a repo holds, with its snapshot and those files that are given as bytes; return its id.

    Args:
        session: the host's `db.session`.
        repo_id: the repo.
        files: the tree.
        parents: ids of the parents; whether they are stored is not looked at.
        message: the message.
        author: the author.
        committed_at: the date, a part of the id; in UTC from here on.
        branch: a branch that is made to point at the commit, or None.
        storage: as `store_object` has it, for files given as bytes.
        in_row: as `store_object` has it.
    """
    manifest = {
        path: store_object(session, repo_id, content, path=path, storage=storage, in_row=in_row)
        if isinstance(content, bytes)
        else content
        for path, content in files.items()
    }
    moment = committed_at.astimezone(UTC)
    snapshot_id = ids.snapshot_id(manifest)
    commit_id = ids.commit_id(parents, snapshot_id, message, moment.isoformat())
    generations = (session.get(MusehubCommitGraph, parent) for parent in parents)
    generation = 1 + max((row.generation for row in generations if row is not None), default=0)
    _add_missing(
        session,
        MusehubSnapshot(
            snapshot_id=snapshot_id,
            directories=directories(manifest),
            manifest_blob=msgpack.packb(manifest),
            entry_count=len(manifest),
        ),
    )
    _add_missing(session, MusehubSnapshotRef(repo_id=repo_id, snapshot_id=snapshot_id))
    _add_missing(
        session,
        MusehubCommit(
            commit_id=commit_id,
            branch=branch or "main",
            parent_ids=list(parents),
            message=message,
            author=author,
            timestamp=moment,
            snapshot_id=snapshot_id,
        ),
    )
    _add_missing(session, MusehubCommitRef(repo_id=repo_id, commit_id=commit_id))
    _add_missing(
        session,
        MusehubCommitGraph(
            commit_id=commit_id, parent_ids=list(parents), generation=generation, snapshot_id=snapshot_id
        ),
    )
    if branch is not None:
        row = _add_missing(session, MusehubBranch(repo_id=repo_id, name=branch, head_commit_id=commit_id))
        row.head_commit_id = commit_id
    _commit(session)
    return commit_id


def _commit(session: AnySession) -> None:
    """Commit, and leave loaded what is loaded: rows that were returned stay usable once their session is gone."""
    current = session() if isinstance(session, scoped_session) else session
    expiring = current.expire_on_commit
    current.expire_on_commit = False
    try:
        current.commit()
    finally:
        current.expire_on_commit = expiring


def _add_missing(session: AnySession, row: _Row) -> _Row:
    """Add `row` unless there is one of its primary key, and return the one that is there."""
    found = session.get(type(row), tuple(inspect(type(row)).primary_key_from_instance(row)))
    if found is not None:
        return found
    session.add(row)
    # Seen by the next look-up, whatever the session's autoflush.
    session.flush()
    return row


class History:
    """Commits, snapshots and blobs in memory, with true ids: what a client would push.

        history = History()
        first = history.commit({"a.txt": b"one"})
        second = history.commit({"a.txt": b"two"}, [first])
        pack = history.pack(have=[first])

    Attributes:
        commits: records by id, in the order made, as `build_wire_mpack` takes them.
        snapshots: manifests by id.
        blobs: contents by id.
    """

    def __init__(self) -> None:
        self.commits: dict[str, dict[str, Any]] = {}
        self.snapshots: dict[str, dict[str, str]] = {}
        self.blobs: dict[str, bytes] = {}

    def blob(self, content: bytes) -> str:
        """Add a blob and return its id."""
        object_id = ids.blob_id(content)
        self.blobs[object_id] = content
        return object_id

    def snapshot(self, files: Files) -> str:
        """Add a snapshot and those files that are given as bytes; return its id."""
        manifest = {
            path: self.blob(content) if isinstance(content, bytes) else content for path, content in files.items()
        }
        snapshot_id = ids.snapshot_id(manifest)
        self.snapshots[snapshot_id] = manifest
        return snapshot_id

    def commit(
        self,
        files: Files | str,
        parents: Sequence[str] = (),
        *,
        message: str | None = None,
        author: str = "Alice",
        committed_at: str = COMMITTED_AT.isoformat(),
        branch: str = "main",
        hashed: Literal["committed_at", "author"] = "committed_at",
        **further: Any,
    ) -> str:
        """Add a commit and return its id.

        Args:
            files: the tree, or the id of a snapshot, which need not be in this history.
            parents: ids of the parents, which need not be in this history.
            message: the message; left out: one that no other commit of this history has.
            author: the author.
            committed_at: the date, exactly as it is hashed.
            branch: the branch that it was made on.
            hashed: which of the two goes into the id: the date, or the author as `muse commit-tree` has it.
            further: further fields of the record.
        """
        snapshot_id = files if isinstance(files, str) else self.snapshot(files)
        if message is None:
            message = f"Commit {len(self.commits) + 1}"
        last = committed_at if hashed == "committed_at" else author
        commit_id = ids.commit_id(parents, snapshot_id, message, last)
        self.commits[commit_id] = {
            "commit_id": commit_id,
            "parent_ids": list(parents),
            "snapshot_id": snapshot_id,
            "branch": branch,
            "message": message,
            "author": author,
            "committed_at": committed_at,
            **further,
        }
        return commit_id

    def reachable(self, tips: Iterable[str]) -> set[str]:
        """Return those of `tips` that are in this history, and their ancestors in it."""
        return graph.reachable(self.commits, lambda commit_id: self.commits[commit_id]["parent_ids"], tips)

    def pack(
        self, *, want: Iterable[str] | None = None, have: Iterable[str] = (), leave_out: Collection[str] = ()
    ) -> bytes:
        """Return an mpack of what reaches from `want` and not from `have`.

        Args:
            want: commits; left out: all of this history.
            have: commits that the receiver holds with all that they reach.
            leave_out: ids of commits, snapshots or blobs that are missing from the pack although they belong there.
        """
        held = self.reachable(have)
        wanted = self.commits.keys() if want is None else self.reachable(want)
        records = [record for key, record in self.commits.items() if key in wanted and key not in held]
        held_snapshots = {self.commits[commit_id]["snapshot_id"] for commit_id in held}
        snapshot_ids = dict.fromkeys(record["snapshot_id"] for record in records)
        if want is None:
            snapshot_ids.update(dict.fromkeys(self.snapshots))
        manifests = {
            snapshot_id: self.snapshots[snapshot_id]
            for snapshot_id in snapshot_ids
            if snapshot_id in self.snapshots and snapshot_id not in held_snapshots
        }
        held_blobs = {
            object_id for snapshot_id in held_snapshots for object_id in self.snapshots.get(snapshot_id, {}).values()
        }
        ordered = solid_order(
            (path, position, object_id)
            for position, manifest in enumerate(manifests.values())
            for path, object_id in manifest.items()
        )
        if want is None:
            ordered = list(dict.fromkeys([*ordered, *self.blobs]))
        return build_wire_mpack(
            commits=[record for record in records if record["commit_id"] not in leave_out],
            snapshots=[
                {"snapshot_id": snapshot_id, "manifest": manifest}
                for snapshot_id, manifest in manifests.items()
                if snapshot_id not in leave_out
            ],
            blobs=[
                {"object_id": object_id, "content": self.blobs[object_id]}
                for object_id in ordered
                if object_id in self.blobs and object_id not in held_blobs and object_id not in leave_out
            ],
        )
