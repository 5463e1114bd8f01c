"""Push: a ticket to upload an mpack, and its unpacking: verified whole, then written in one transaction.

Nothing that a pusher says is believed; `incoming` says what is verified.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import IO, BinaryIO

from musehub_plugin import ids
from musehub_plugin.errors import Conflict, Invalid, NotFound, StorageUnavailable, TooLarge, Unavailable
from musehub_plugin.history import History, pack_history
from musehub_plugin.hub import Hub, current_app_object
from musehub_plugin.incoming import IncomingPack
from musehub_plugin.index import index_entries
from musehub_plugin.memory import give_back, map_large_blocks
from musehub_plugin.names import bad_branch_name
from musehub_plugin.signals import indexed, reached
from musehub_plugin.storage.base import PresignedUpload
from musehub_plugin.storage.temporary import temporary_room
from musehub_plugin.storage.uploads import delete_upload, open_upload, presign_upload, put_mpack_file
from musehub_plugin.store import contents, jobs, locks, mpacks, repos
from musehub_plugin.store.graphs import drop_segments
from musehub_plugin.store.session import Database

logger = logging.getLogger(__name__)

_CHUNK = 1 << 20


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
    if _holds(db, repo_id, mpack_id):
        return None
    if size_bytes > hub.settings.max_push:
        raise TooLarge(
            f"An mpack of {size_bytes} bytes is too large here; push the history in parts.",
            limit=hub.settings.max_push,
        )
    ttl = hub.settings.upload_ttl
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
        ttl_seconds=ttl,
    )
    db.commit()
    expires_at = datetime.now(UTC) + timedelta(seconds=ttl)
    return Ticket(upload, expires_at.isoformat(timespec="seconds"))


def _holds(db: Database, repo_id: str, mpack_id: str) -> bool:
    """Say whether the repo holds the mpack for good: one that could not be indexed is taken anew, should it come."""
    if not mpacks.repo_holds_mpack(db, repo_id, mpack_id):
        return False
    job = jobs.find_job(db, jobs.index_job_id(mpack_id))
    return job is None or job.state != jobs.FAILED


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
    """What an unpacking did: where the branches are now, and what the mpack held."""

    branch_heads: dict[str, str]
    commit_count: int
    snapshot_count: int
    blob_count: int
    indexed: bool
    """Whether what was pushed can be fetched already; else it waits for the job."""


def unpack(hub: Hub, db: Database, repo_id: str, user_id: str, mpack_id: str, change: BranchUpdate) -> Unpacked:
    """Verify an uploaded mpack, store what it holds for a repo, and move a branch. All of it or nothing.

    Raises:
        NotFound: this user uploaded no such mpack for this repo, or the ticket expired.
        Invalid: the branch name, the bytes, an entity or a reference is wrong; the error names it.
        Conflict: the branch is not where it would have to be.
        TooLarge: the upload exceeds `MUSEHUB_MAX_PUSH`.
        Unavailable: this process is taking in as much as it may (`MUSEHUB_PUSH_ROOM`); the upload stays.
    """
    reason = bad_branch_name(change.branch)
    if reason is not None:
        raise Invalid(f"branch {change.branch!r:.300} {reason}.", code="bad-branch-name")
    # Told early, so that a push that must fail costs little; told again under the lock.
    check_branch(repos.branch_heads(db, repo_id), change, History(db, hub.graphs, repo_id), settled=False)
    if _holds(db, repo_id, mpack_id):
        moved = db.transaction(lambda: _move_branch(hub, db, repo_id, mpack_id, change))
        if moved is not None:
            return moved
    allowed = mpacks.tickets(db, repo_id=repo_id, user_id=user_id, mpack_id=mpack_id)
    tickets = list(allowed)
    reached("unpack.begun")
    try:
        with _room(hub, max(allowed.values(), default=0)), _verified_copy(hub, tickets, mpack_id) as file:
            size_bytes = os.fstat(file.fileno()).st_size
            done = store_pack(hub, db, repo_id, user_id, mpack_id, change, file, tickets=tickets)
    except NotFound:
        # The same push at once, such as a client's second try after it gave up waiting: the first used the upload up.
        moved = db.transaction(lambda: _move_branch(hub, db, repo_id, mpack_id, change))
        if moved is None:
            raise
        return moved
    except Invalid:
        # Bytes that are wrong stay wrong: what was uploaded is of no more use.
        db.transaction(lambda: mpacks.drop_tickets(db, tickets))
        _delete_uploads(hub, tickets)
        raise
    give_back(after=size_bytes)
    _delete_uploads(hub, tickets)
    return done


def store_pack(
    hub: Hub,
    db: Database,
    repo_id: str,
    user_id: str,
    mpack_id: str,
    change: BranchUpdate,
    file: IO[bytes],
    *,
    tickets: Sequence[str] = (),
    index_now: bool = False,
) -> Unpacked:
    """Verify an mpack that nobody has looked into yet, store what it holds for a repo, and move a branch.

    The one way into the tables, whatever the mpack came by. All of it or nothing.

    Args:
        hub: the app's plugin.
        db: the unit of work.
        repo_id: the repo.
        user_id: who pushes.
        mpack_id: the id that the file's bytes were found to have.
        change: the branch to move.
        file: the mpack, seekable, which nobody else can write to.
        tickets: keys of the tickets that are used up by it.
        index_now: whether to index it in the same transaction, however many blobs it holds.

    Raises:
        Invalid: an entity or a reference is wrong; the error names it.
        Conflict: the branch is not where it would have to be.
    """
    map_large_blocks()
    pack = IncomingPack(file, hub.settings)
    pack.verify_contents()
    reached("unpack.verified")
    reader = pack.reader
    give_back(after=reader.size_bytes)
    counts = (reader.commit_count, reader.snapshot_count, reader.blob_count)

    def write() -> Unpacked:
        # Held until the commit, so that nothing which the pack relies on, nor its file, is collected meanwhile.
        locks.share_history(db)
        history = History(db, hub.graphs, repo_id)
        pack.verify_references(db, repo_id, history)
        history.add(pack.commits)
        _check_head(change, history)
        _settle_branch(db, repo_id, change, history)
        reached("unpack.branch-moved")
        # After all checks, so that a refused push leaves nothing in storage. The verified copy is stored, not the
        # upload: the upload's URL could be used again until it expires.
        file.seek(0)
        storage_uri = put_mpack_file(hub.storage, mpack_id, file)
        reached("unpack.stored")
        new = pack.store(db, repo_id)
        give_back(after=reader.size_bytes)
        mpacks.add_mpack(
            db,
            repo_id=repo_id,
            user_id=user_id,
            mpack_id=mpack_id,
            size_bytes=reader.size_bytes,
            counts=counts,
            storage_uri=storage_uri,
        )
        inline = index_now or reader.blob_count <= hub.settings.index_inline
        if inline:
            contents.add_index_entries(db, mpack_id, index_entries(reader))
        state = jobs.DONE if inline else jobs.PENDING
        jobs.add_job(db, jobs.index_job_id(mpack_id), jobs.INDEX, mpack_id, state=state)
        mpacks.drop_tickets(db, list(tickets))
        # What is not indexed yet is repacked after it is.
        if inline and hub.settings.redis_url and hub.settings.repack_packs:
            jobs.add_job(db, jobs.repack_job_id(repo_id), jobs.REPACK, repo_id)
        if new is None:
            drop_segments(db, repo_id)
        else:
            pack_history(db, hub.graphs, repo_id, new)
        reached("unpack.written")
        return Unpacked(repos.branch_heads(db, repo_id), *counts, indexed=inline)

    done = db.transaction(write)
    reached("unpack.committed")
    if done.indexed:
        indexed.send(current_app_object(), mpack_id=mpack_id, blob_count=reader.blob_count)
    return done


def _delete_uploads(hub: Hub, tickets: Sequence[str]) -> None:
    for ticket in tickets:
        try:
            delete_upload(hub.storage, ticket)
        except StorageUnavailable as error:
            # The push is settled either way; what is left over is garbage and collected as such.
            logger.warning("an upload could not be removed: %s", error)


def _move_branch(hub: Hub, db: Database, repo_id: str, mpack_id: str, change: BranchUpdate) -> Unpacked | None:
    """Move a branch by an mpack that the repo holds; None where it does not hold it, or not any more."""
    locks.share_history(db)
    if not mpacks.repo_holds_mpack(db, repo_id, mpack_id):
        return None
    move_branch(hub, db, repo_id, change)
    reached("unpack.branch-moved")
    job = jobs.find_job(db, jobs.index_job_id(mpack_id))
    return Unpacked(
        repos.branch_heads(db, repo_id),
        *mpacks.counts(db, mpack_id),
        indexed=job is not None and job.state == jobs.DONE,
    )


def move_branch(hub: Hub, db: Database, repo_id: str, change: BranchUpdate) -> None:
    """Point a branch at a commit that the repo holds; part of a transaction that the caller ends.

    Raises:
        Invalid: the repo does not hold the commit.
        Conflict: the branch is not where it would have to be.
    """
    locks.share_history(db)
    history = History(db, hub.graphs, repo_id)
    _check_head(change, history)
    _settle_branch(db, repo_id, change, history)


def _check_head(change: BranchUpdate, history: History) -> None:
    if not history.held([change.head_commit_id]):
        raise Invalid(
            f"head_commit_id {change.head_commit_id} is neither in the mpack nor in this repo.",
            code="missing-commit",
        )


def check_branch(
    heads: Mapping[str, str],
    change: BranchUpdate,
    history: History,
    *,
    settled: bool,
) -> None:
    """Refuse a change that the branches do not allow.

    Args:
        heads: where the repo's branches are.
        change: what a push wants.
        history: the commits that are known.
        settled: whether `history` has what the push brings, so that a head which is not in it is refused.

    Raises:
        Conflict: the branch is not where it would have to be.
    """
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
    if not settled and not history.held([change.head_commit_id]):
        return
    if not history.is_ancestor(current, change.head_commit_id):
        raise Conflict(
            f"Branch {change.branch!r} would not be fast-forwarded; fetch and merge, or push with force.",
            code="non-fast-forward",
            extra={"branch_heads": dict(heads)},
        )


def _settle_branch(db: Database, repo_id: str, change: BranchUpdate, history: History) -> None:
    """Lock the branch, check again, and move it."""
    found = repos.lock_branch(db, repo_id, change.branch, change.head_commit_id)
    heads = repos.branch_heads(db, repo_id)
    if found is None:
        # Made by this transaction a moment ago: what others see is a branch that is not there.
        del heads[change.branch]
    else:
        heads[change.branch] = found
    check_branch(heads, change, history, settled=True)
    if found is not None and found != change.head_commit_id:
        repos.move_branch(db, repo_id, change.branch, change.head_commit_id)


@contextmanager
def _room(hub: Hub, size_bytes: int) -> Iterator[None]:
    """Take room for a push before anything is read of it, so that one that has to come back costs little."""
    with hub.pushes.take(size_bytes) as has_room:
        if not has_room:
            raise Unavailable(
                "Too many large pushes are being taken in. What was uploaded stays; ask again in a moment.",
                code="busy",
                retry_after=hub.settings.retry_after,
            )
        yield


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
    with upload, temporary_room(), tempfile.TemporaryFile() as copy:
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
