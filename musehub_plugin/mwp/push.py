"""A push by the released `muse` command: what it brought and what was staged for it become one mpack.

The command says which branch, and not which commit: it sends its history from the tip back, so the head is the one
commit that no other of them has for a parent. Commits and snapshots that the repo holds already are sent again after a
merge; they are dropped here.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from musehub_plugin import graph
from musehub_plugin.access import Identity
from musehub_plugin.building import HashingFile
from musehub_plugin.errors import Conflict, HubError, Invalid, TooLarge
from musehub_plugin.history import History
from musehub_plugin.hub import Hub
from musehub_plugin.ids import from_digest
from musehub_plugin.mpack import MPackWriter, solid_order
from musehub_plugin.mwp.bundle import SentPush
from musehub_plugin.mwp.records import record_from_sent
from musehub_plugin.mwp.staging import discard, staged_contents
from musehub_plugin.names import bad_branch_name
from musehub_plugin.push import BranchUpdate, Unpacked, check_branch, move_branch, store_pack
from musehub_plugin.signals import reached
from musehub_plugin.storage.temporary import temporary_room
from musehub_plugin.store import contents, manifests, mpacks, repos, staging
from musehub_plugin.store.session import Database


@dataclass(frozen=True)
class Pushed:
    """What a push did: where the branch is now, and what was new to the repo."""

    head_commit_id: str
    result: Unpacked


def push(hub: Hub, db: Database, repo_id: str, pusher: Identity, sent: SentPush) -> Pushed:
    """Store what a push brought and what was staged for it, and move its branch. All of it or nothing.

    What it brought can be fetched at once, since the command does not ask again: it is indexed in the same
    transaction.

    Args:
        hub: the app's plugin.
        db: the unit of work.
        repo_id: the repo.
        pusher: who pushes; commits without an author get their handle.
        sent: the body.

    Raises:
        Invalid: the branch name, an entity or a reference is wrong; the error names it. What was staged is let go.
        Conflict: the branch is not where it would have to be. What was staged is let go.
        TooLarge: the history is too large for one push.
        StorageUnavailable: object storage did not answer; what was staged stays.
    """
    reason = bad_branch_name(sent.branch)
    if reason is not None:
        raise Invalid(f"branch {sent.branch!r:.300} {reason}.", code="bad-branch-name")
    try:
        return _push(hub, db, repo_id, pusher, sent)
    except (Conflict, Invalid):
        _let_go(hub, db, repo_id, pusher.user_id, _named_objects(sent))
        raise


def _push(hub: Hub, db: Database, repo_id: str, pusher: Identity, sent: SentPush) -> Pushed:
    history = History(db, hub.graphs, repo_id)
    new, head = _new_commits(sent, history, pusher.handle)
    change = BranchUpdate(sent.branch, head, None, sent.force)
    history.add(new)
    # Told early, so that a push that must fail costs little; told again under the lock.
    check_branch(repos.branch_heads(db, repo_id), change, history, settled=True)
    if not new:
        heads = db.transaction(lambda: _moved(hub, db, repo_id, change))
        return Pushed(head, Unpacked(heads, 0, 0, 0, indexed=True))
    layout = _lay_out(db, repo_id, sent, new)
    with _packed(hub, db, repo_id, pusher.user_id, sent, layout) as (file, mpack_id, size):
        done = _store(hub, db, repo_id, pusher.user_id, mpack_id, change, file, size)
    _let_go(hub, db, repo_id, pusher.user_id, set(layout.paths))
    return Pushed(head, done)


def _moved(hub: Hub, db: Database, repo_id: str, change: BranchUpdate) -> dict[str, str]:
    move_branch(hub, db, repo_id, change)
    return repos.branch_heads(db, repo_id)


def _new_commits(sent: SentPush, history: History, handle: str) -> tuple[dict[str, dict[str, Any]], str]:
    """Return the commits that the repo lacks, by id, and which commit all of those that were sent lead up to."""
    records: dict[str, dict[str, Any]] = {}
    differing: dict[str, str] = {}
    for where, commit in sent.commits():
        record = record_from_sent(commit, where, pusher=handle)
        if records.setdefault(record["commit_id"], record) != record:
            differing.setdefault(record["commit_id"], where)
    commit_ids = set(records)
    held = history.parents(commit_ids)
    new = {commit_id: record for commit_id, record in records.items() if commit_id not in held}
    for commit_id, where in differing.items():
        if commit_id in new:
            raise Invalid(f"{where}: commit {commit_id} is there twice, and differs.", code="invalid-commit")
    parent_ids = {parent for parents in held.values() for parent in parents}
    parent_ids.update(parent for record in new.values() for parent in record["parent_ids"])
    tips = commit_ids - parent_ids
    if len(tips) != 1:
        raise Invalid(f"bundle.commits: {len(tips)} of {len(commit_ids)} are nobody's parent; a branch has one head.")
    return new, tips.pop()


@dataclass(frozen=True)
class _Layout:
    """What goes into the mpack, in its order: records parents first, positions of snapshots, ids of blobs.

    `paths` has every blob that the snapshots name, held by the repo or not.
    """

    records: Sequence[Mapping[str, Any]]
    snapshots: Sequence[int]
    object_ids: Sequence[str]
    paths: Mapping[str, str]


def _lay_out(db: Database, repo_id: str, sent: SentPush, new: Mapping[str, Mapping[str, Any]]) -> _Layout:
    def parents(commit_id: str) -> Sequence[str]:
        parent_ids: Sequence[str] = new[commit_id]["parent_ids"]
        return parent_ids

    records = [new[commit_id] for commit_id in graph.history_order(new, parents, new)]
    if len(records) < len(new):
        raise Invalid("bundle.commits: some are their own ancestors.", code="invalid-commit")
    ordered = list(dict.fromkeys(record["snapshot_id"] for record in records))
    held_snapshots = manifests.held_snapshots(db, repo_id, ordered)
    places = {snapshot_id: place for place, snapshot_id in enumerate(ordered) if snapshot_id not in held_snapshots}
    found: dict[str, int] = {}
    first_seen: dict[str, tuple[int, str]] = {}
    for position in range(len(sent.snapshots)):
        snapshot_id, manifest = sent.snapshots.read(position)
        place = places.get(snapshot_id)
        if place is None or snapshot_id in found:
            continue
        found[snapshot_id] = position
        for path, object_id in manifest.items():
            seen = first_seen.get(object_id)
            if seen is None or (place, path) < seen:
                first_seen[object_id] = (place, path)
    held = contents.held_objects(db, repo_id, first_seen)
    object_ids = solid_order(
        (path, place, object_id) for object_id, (place, path) in first_seen.items() if object_id not in held
    )
    return _Layout(
        records,
        [found[snapshot_id] for snapshot_id in ordered if snapshot_id in found],
        object_ids,
        {object_id: path for object_id, (_, path) in first_seen.items()},
    )


@contextmanager
def _packed(
    hub: Hub, db: Database, repo_id: str, user_id: str, sent: SentPush, layout: _Layout
) -> Iterator[tuple[IO[bytes], str, int]]:
    """Give the mpack of a layout as a file, with its id and size."""
    with (
        staged_contents(hub, db, repo_id, user_id, layout.object_ids, sent.objects) as staged,
        temporary_room(),
        tempfile.TemporaryFile() as file,
    ):
        for object_id in layout.object_ids:
            if object_id not in staged:
                raise Invalid(
                    f"path {layout.paths[object_id]!r:.200}: blob {object_id} was not sent and is not in this repo.",
                    code="missing-blob",
                )
        out = HashingFile(file)
        writer = MPackWriter(out)
        try:
            for object_id in layout.object_ids:
                writer.add_blob(object_id, staged.read(object_id))
            for position in layout.snapshots:
                writer.add_snapshot(*sent.snapshots.read(position))
            for record in layout.records:
                writer.add_commit(record)
            summary = writer.finish()
        except ValueError as error:
            raise Invalid(f"The history cannot be kept: {error}.", code="invalid-commit") from None
        if summary.size_bytes > hub.settings.max_push:
            raise TooLarge("The history is too large for one push; push it in parts.", limit=hub.settings.max_push)
        reached("mwp.packed")
        file.seek(0)
        yield file, from_digest(out.digest.digest()), summary.size_bytes


def _store(
    hub: Hub,
    db: Database,
    repo_id: str,
    user_id: str,
    mpack_id: str,
    change: BranchUpdate,
    file: IO[bytes],
    size: int,
) -> Unpacked:
    # With a ticket, the file of a push that dies between storing it and its commit is collected like any upload.
    ticket = secrets.token_hex(32)
    mpacks.add_ticket(
        db,
        upload_key=ticket,
        repo_id=repo_id,
        user_id=user_id,
        mpack_id=mpack_id,
        size_bytes=size,
        ttl_seconds=hub.settings.upload_ttl,
    )
    db.commit()
    try:
        return store_pack(hub, db, repo_id, user_id, mpack_id, change, file, tickets=[ticket], index_now=True)
    except (Conflict, Invalid):
        db.transaction(lambda: mpacks.drop_tickets(db, [ticket]))
        raise


def _named_objects(sent: SentPush) -> set[str]:
    """Return the blobs that the snapshots name, as far as they can be read."""
    named: set[str] = set()
    for position in range(len(sent.snapshots)):
        try:
            named.update(sent.snapshots.read(position)[1].values())
        except HubError:
            # What is wrong with it has been said.
            continue
    return named


def _let_go(hub: Hub, db: Database, repo_id: str, user_id: str, object_ids: set[str]) -> None:
    discard(hub, db, db.transaction(lambda: staging.forget_staged(db, repo_id, user_id, object_ids)))
