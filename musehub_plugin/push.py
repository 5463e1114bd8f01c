"""Push: a ticket to upload an mpack, and its unpacking: verified whole, then written in one transaction.

Nothing that a pusher says is believed. The bytes are hashed, every blob, snapshot and commit is hashed, and whatever
the pack refers to must be in it or in this repo already; that another repo holds it makes no difference, not even to
the answer (ATTACKS S04-S08).
"""

from __future__ import annotations

import hashlib
import secrets
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import IO, Any, BinaryIO

from musehub_plugin import graph, ids
from musehub_plugin.config import Settings
from musehub_plugin.errors import Conflict, HubError, Invalid, NotFound, TooLarge
from musehub_plugin.hub import Hub
from musehub_plugin.mpack import FalseIdError, Limits, MPackError, MPackReader, verify
from musehub_plugin.mpack.paths import clashing_path, unsafe_path
from musehub_plugin.refs import bad_branch_name
from musehub_plugin.storage.base import PresignedUpload
from musehub_plugin.storage.uploads import delete_upload, open_upload, presign_upload, put_mpack_file
from musehub_plugin.store import commits as commit_store
from musehub_plugin.store import contents, jobs, mpacks, repos
from musehub_plugin.store.session import Database

_CHUNK = 1 << 20
# Snapshots written by one statement; a manifest of a large tree is some 500 KB.
_SNAPSHOT_BATCH = 100


@dataclass(frozen=True)
class Ticket:
    """Leave to upload: what the client sends where, until when (ISO 8601, UTC)."""

    upload: PresignedUpload
    expires_at: str


def presign(hub: Hub, db: Database, repo_id: str, user_id: str, mpack_id: str, size_bytes: int) -> Ticket | None:
    """Give a user leave to upload an mpack for a repo, or None where the repo holds that mpack already.

    The upload goes to a staging key chosen at random; the ticket binds it to this repo, user and mpack.

    Raises:
        TooLarge: `size_bytes` exceeds `MUSEHUB_MAX_PUSH`.
    """
    if mpacks.repo_holds_mpack(db, repo_id, mpack_id):
        return None
    if size_bytes > hub.settings.max_push:
        raise TooLarge(
            f"An mpack of {size_bytes} bytes is too large here; push the history in parts.",
            limit=hub.settings.max_push,
        )
    ttl = hub.settings.upload_ttl
    expires_at = datetime.now(UTC) + timedelta(seconds=ttl)
    upload_key = secrets.token_hex(32)
    upload = presign_upload(
        hub.storage, hub.signer, upload_key, mpack_id=mpack_id, size_bytes=size_bytes, ttl_seconds=ttl
    )
    mpacks.add_ticket(
        db,
        upload_key=upload_key,
        repo_id=repo_id,
        user_id=user_id,
        mpack_id=mpack_id,
        size_bytes=size_bytes,
        expires_at=expires_at,
    )
    db.commit()
    return Ticket(upload, expires_at.isoformat(timespec="seconds"))


@dataclass(frozen=True)
class BranchUpdate:
    """What a push does to a branch.

    Args:
        branch: the branch's name.
        head_commit_id: where it shall point.
        expected_head: where the client believes that it points; None where it has no expectation.
        force: whether the new head need not descend from the old one. A stale `expected_head` is refused all the same.
    """

    branch: str
    head_commit_id: str
    expected_head: str | None
    force: bool


@dataclass(frozen=True)
class Unpacked:
    """What an unpacking did; `new_mpack` says that it waits to be indexed."""

    branch_heads: dict[str, str]
    commit_count: int
    snapshot_count: int
    blob_count: int


def unpack(hub: Hub, db: Database, repo_id: str, user_id: str, mpack_id: str, change: BranchUpdate) -> Unpacked:
    """Verify an uploaded mpack, store what it holds for a repo, and move a branch. All of it or nothing.

    Raises:
        NotFound: this user uploaded no such mpack for this repo, or the ticket expired.
        Invalid: the branch name, the bytes, an entity or a reference is wrong; the error names it.
        Conflict: the branch is not where it would have to be.
        TooLarge: the upload exceeds `MUSEHUB_MAX_PUSH`.
    """
    reason = bad_branch_name(change.branch)
    if reason is not None:
        raise Invalid(f"branch {change.branch!r:.300} {reason}.", code="bad-branch-name")
    nodes = commit_store.graph(db, repo_id)
    # Told early, so that a push that must fail costs little; told again under the lock.
    _check_branch(repos.branch_heads(db, repo_id), change, nodes, settled=False)
    if mpacks.repo_holds_mpack(db, repo_id, mpack_id):
        return _move_only(db, repo_id, mpack_id, change, nodes)
    tickets = mpacks.ticket_keys(db, repo_id=repo_id, user_id=user_id, mpack_id=mpack_id)
    with _verified_copy(hub, tickets, mpack_id) as file:
        pack = _Pack(file, hub.settings)
        pack.verify(db, repo_id, nodes)
        for commit_id, record in pack.commits.items():
            nodes.setdefault(commit_id, commit_store.Node(record["parent_ids"], record["snapshot_id"]))
        # The verified copy is stored, not the upload: its URL could be used again until it expires.
        file.seek(0)
        storage_uri = put_mpack_file(hub.storage, mpack_id, file)
        try:
            _check_head(change, nodes)
            _settle_branch(db, repo_id, change, nodes)
            pack.store(db, repo_id, storage_uri)
            mpacks.add_mpack(
                db,
                repo_id=repo_id,
                user_id=user_id,
                mpack_id=mpack_id,
                size_bytes=pack.reader.size_bytes,
                commit_count=pack.reader.commit_count,
                snapshot_count=pack.reader.snapshot_count,
                blob_count=pack.reader.blob_count,
                storage_uri=storage_uri,
            )
            jobs.add_job(db, jobs.index_job_id(mpack_id), jobs.INDEX, mpack_id)
            mpacks.drop_tickets(db, tickets)
            branch_heads = repos.branch_heads(db, repo_id)
            db.commit()
        except HubError:
            db.rollback()
            raise
    for ticket in tickets:
        delete_upload(hub.storage, ticket)
    return Unpacked(branch_heads, pack.reader.commit_count, pack.reader.snapshot_count, pack.reader.blob_count)


def _move_only(
    db: Database, repo_id: str, mpack_id: str, change: BranchUpdate, nodes: Mapping[str, commit_store.Node]
) -> Unpacked:
    _check_head(change, nodes)
    try:
        _settle_branch(db, repo_id, change, nodes)
        branch_heads = repos.branch_heads(db, repo_id)
        db.commit()
    except HubError:
        db.rollback()
        raise
    counts = mpacks.counts(db, mpack_id)
    return Unpacked(branch_heads, *counts)


def _check_head(change: BranchUpdate, nodes: Mapping[str, commit_store.Node]) -> None:
    if change.head_commit_id not in nodes:
        raise Invalid(
            f"head_commit_id {change.head_commit_id} is neither in the mpack nor in this repo.",
            code="missing-commit",
        )


def _check_branch(
    heads: Mapping[str, str],
    change: BranchUpdate,
    nodes: Mapping[str, commit_store.Node],
    *,
    settled: bool,
) -> None:
    current = heads.get(change.branch)
    if current == change.head_commit_id:
        return
    if change.expected_head is not None and change.expected_head != current:
        raise Conflict(
            f"Branch {change.branch!r} is not at expected_head; fetch and try again.",
            code="stale-head",
            extra={"branch_heads": dict(heads)},
        )
    for name in heads:
        if name.startswith(change.branch + "/") or change.branch.startswith(name + "/"):
            raise Conflict(
                f"Branch {change.branch!r} cannot exist beside {name!r}: clients keep branches as files.",
                code="branch-name-clash",
                extra={"branch_heads": dict(heads)},
            )
    if current is None or change.force:
        return
    # Before the pack is read, a head that it brings is not in the graph yet: nothing can be said of it.
    if not settled and change.head_commit_id not in nodes:
        return
    if not graph.is_ancestor(nodes, lambda commit_id: nodes[commit_id].parent_ids, current, change.head_commit_id):
        raise Conflict(
            f"Branch {change.branch!r} would not be fast-forwarded; fetch and merge, or push with force.",
            code="non-fast-forward",
            extra={"branch_heads": dict(heads)},
        )


def _settle_branch(db: Database, repo_id: str, change: BranchUpdate, nodes: Mapping[str, commit_store.Node]) -> None:
    """Lock the branch, check again, and move it."""
    found = repos.lock_branch(db, repo_id, change.branch, change.head_commit_id)
    heads = repos.branch_heads(db, repo_id)
    if found is None:
        # Made by this transaction a moment ago: what others see is a branch that is not there.
        del heads[change.branch]
    else:
        heads[change.branch] = found
    _check_branch(heads, change, nodes, settled=True)
    if found is not None and found != change.head_commit_id:
        repos.move_branch(db, repo_id, change.branch, change.head_commit_id)


@contextmanager
def _verified_copy(hub: Hub, tickets: Sequence[str], mpack_id: str) -> Iterator[IO[bytes]]:
    """Give a private copy of the upload, whose bytes hash to `mpack_id`."""
    upload: BinaryIO | None = None
    for ticket in tickets:
        upload = open_upload(hub.storage, ticket)
        if upload is not None:
            break
    if upload is None:
        raise NotFound(
            "You uploaded no such mpack for this repo, or its ticket expired: ask push/presign, then upload.",
            code="upload-not-found",
        )
    with upload, tempfile.TemporaryFile() as copy:
        digest = hashlib.sha256()
        size = 0
        while chunk := upload.read(_CHUNK):
            size += len(chunk)
            if size > hub.settings.max_push:
                raise TooLarge("The uploaded mpack is too large here.", limit=hub.settings.max_push)
            digest.update(chunk)
            copy.write(chunk)
        found = ids.from_digest(digest.digest())
        if found != mpack_id:
            raise Invalid(f"The uploaded bytes are {found}, not mpack_id {mpack_id}.", code="hash-mismatch")
        copy.seek(0)
        yield copy


def _limits(settings: Settings) -> Limits:
    return Limits(
        max_file_size=settings.max_push,
        max_commits=settings.max_commits,
        max_snapshots=settings.max_commits,
        max_manifest_entries=settings.max_manifest_entries,
        max_blob_size=settings.max_blob,
        max_raw_size=settings.max_push_raw,
    )


class _Pack:
    """A stranger's mpack: verified, then stored.

    Commits and blob ids are kept in memory, manifests are read again when they are stored.
    """

    def __init__(self, file: IO[bytes], settings: Settings) -> None:
        self._file = file
        self._settings = settings
        self.reader: MPackReader
        self.commits: dict[str, dict[str, Any]] = {}
        self._blob_sizes: dict[str, int] = {}
        self._paths: dict[str, str] = {}
        self._generations: dict[str, int] = {}

    def verify(self, db: Database, repo_id: str, nodes: Mapping[str, commit_store.Node]) -> None:
        """Hash everything and follow every reference.

        Raises:
            Invalid: the first thing that is wrong, by its id.
        """
        try:
            self.reader = MPackReader(self._file, limits=_limits(self._settings))
            verify(self.reader)
            self._blob_sizes = {entry.object_id: entry.size for entry in self.reader.directory()}
            snapshot_ids = self._check_manifests()
            self._check_records()
        except FalseIdError as error:
            raise Invalid(f"{error.kind} {error.entity_id} does not hash to its id.", code="hash-mismatch") from None
        except MPackError as error:
            raise Invalid(f"The mpack cannot be read: {error}", code="malformed-mpack") from None
        self._check_objects(db, repo_id)
        self._check_history(db, repo_id, nodes, snapshot_ids)

    def _check_manifests(self) -> set[str]:
        """Look at every path, and return the ids of the snapshots."""
        snapshot_ids: set[str] = set()
        paths: set[str] = set()
        for delta in self.reader.snapshot_deltas():
            if delta.full:
                paths.clear()
            paths.difference_update(delta.removed)
            unsafe = next(((path, reason) for path in delta.changed if (reason := unsafe_path(path)) is not None), None)
            if not paths.issuperset(delta.changed):
                paths.update(delta.changed)
                unsafe = unsafe or clashing_path(paths)
            if unsafe is not None:
                path, reason = unsafe
                raise Invalid(
                    f"snapshot {delta.snapshot_id}: path {path!r:.200} {reason}.",
                    code="unsafe-path",
                    extra={"path": path[:4096]},
                )
            snapshot_ids.add(delta.snapshot_id)
            for path, object_id in delta.changed.items():
                self._paths.setdefault(object_id, path)
        return snapshot_ids

    def _check_records(self) -> None:
        for record in self.reader.commits():
            for field in ("message", "author", "branch", "committed_at"):
                if "\0" in record[field]:
                    raise Invalid(f"commit {record['commit_id']}: {field} holds a NUL.", code="invalid-commit")
            _timestamp(record)
            self.commits[record["commit_id"]] = record

    def _check_objects(self, db: Database, repo_id: str) -> None:
        outside = set(self.reader.outside_objects())
        missing = outside - contents.held_objects(db, repo_id, outside)
        if missing:
            object_id = min(missing)
            raise Invalid(
                f"path {self._paths.get(object_id, '')!r:.200}: blob {object_id} is neither in the mpack nor in "
                "this repo.",
                code="missing-blob",
            )

    def _check_history(
        self, db: Database, repo_id: str, nodes: Mapping[str, commit_store.Node], snapshot_ids: set[str]
    ) -> None:
        outside_parents: set[str] = set()
        outside_snapshots: dict[str, str] = {}
        for commit_id, record in self.commits.items():
            for parent_id in record["parent_ids"]:
                if parent_id not in self.commits:
                    if parent_id not in nodes:
                        raise Invalid(
                            f"commit {commit_id}: parent {parent_id} is neither in the mpack nor in this repo.",
                            code="missing-commit",
                        )
                    outside_parents.add(parent_id)
            if record["snapshot_id"] not in snapshot_ids:
                outside_snapshots.setdefault(record["snapshot_id"], commit_id)
        missing = outside_snapshots.keys() - contents.held_snapshots(db, repo_id, outside_snapshots)
        if missing:
            snapshot_id = min(missing)
            raise Invalid(
                f"commit {outside_snapshots[snapshot_id]}: snapshot {snapshot_id} is neither in the mpack "
                "nor in this repo.",
                code="missing-snapshot",
            )
        self._number_generations(commit_store.generations(db, outside_parents))

    def _number_generations(self, stored: Mapping[str, int]) -> None:
        def parents(commit_id: str) -> Sequence[str]:
            parent_ids: Sequence[str] = self.commits[commit_id]["parent_ids"]
            return parent_ids

        for commit_id in graph.history_order(self.commits, parents, self.commits):
            self._generations[commit_id] = 1 + max(
                (
                    # A parent whose row was written by hand may have no number; the planner does not rely on it.
                    self._generations.get(parent_id, stored.get(parent_id, 1))
                    for parent_id in parents(commit_id)
                ),
                default=0,
            )

    def store(self, db: Database, repo_id: str, storage_uri: str) -> None:
        """Write every row."""
        contents.add_blobs(
            db,
            repo_id,
            (
                contents.NewBlob(object_id, self._paths.get(object_id, ""), size)
                for object_id, size in self._blob_sizes.items()
            ),
            storage_uri,
        )
        batch: list[tuple[str, dict[str, str]]] = []
        for snapshot_id, manifest in self.reader.snapshots():
            batch.append((snapshot_id, dict(manifest)))
            if len(batch) == _SNAPSHOT_BATCH:
                contents.add_snapshots(db, repo_id, batch)
                batch.clear()
        contents.add_snapshots(db, repo_id, batch)
        commit_store.add_commits(
            db,
            repo_id,
            (
                commit_store.NewCommit(record, _timestamp(record), self._generations[commit_id])
                for commit_id, record in self.commits.items()
            ),
        )


def _timestamp(record: Mapping[str, Any]) -> datetime:
    """Return a commit's date; one without a zone is UTC."""
    text = record["committed_at"]
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise Invalid(
            f"commit {record['commit_id']}: committed_at {text!r:.100} is no ISO 8601 date.", code="invalid-commit"
        ) from None
