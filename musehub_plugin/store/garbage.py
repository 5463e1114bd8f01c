"""What garbage collection asks and removes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from sqlalchemy import ColumnElement, delete, exists, func, select, update
from sqlalchemy.orm import aliased

from musehub_plugin.store.fetch_packs import use_fetch_pack
from musehub_plugin.store.fetch_plans import retire_plans
from musehub_plugin.store.graphs import drop_segments
from musehub_plugin.store.jobs import FAILED, INDEX, NOT_DONE, index_job_id, repack_job_id
from musehub_plugin.store.manifests import make_whole, resting_on
from musehub_plugin.store.models import (
    MusehubBranch,
    MusehubCommit,
    MusehubCommitGraph,
    MusehubCommitRef,
    MusehubJob,
    MusehubMPack,
    MusehubMPackIndex,
    MusehubMPackRef,
    MusehubObject,
    MusehubObjectRef,
    MusehubRepo,
    MusehubSnapshot,
    MusehubSnapshotRef,
    MusehubStagedBlob,
    MusehubUpload,
)
from musehub_plugin.store.session import Database, batches

_QUIET = {"synchronize_session": False}


class ExpiredUpload(NamedTuple):
    """A ticket that nobody can use any more."""

    upload_key: str
    mpack_id: str


def expired_uploads(db: Database, expired_for: int, limit: int, after: str = "") -> list[ExpiredUpload]:
    """Return tickets that expired more than `expired_for` seconds ago, by key, those after the key `after`."""
    rows = db.execute(
        select(MusehubUpload.upload_key, MusehubUpload.mpack_id)
        .where(MusehubUpload.expires_at < db.now(-expired_for), MusehubUpload.upload_key > after)
        .order_by(MusehubUpload.upload_key)
        .limit(limit)
    )
    return [ExpiredUpload(row.upload_key, row.mpack_id) for row in rows]


def repos_with_history(db: Database) -> list[str]:
    """Return the ids of all repos that hold commits, sorted, but those that are deleted: a part of them may be gone."""
    deleted = set(db.execute(select(MusehubRepo.repo_id).where(MusehubRepo.deleted_at.is_not(None))).scalars())
    holding = select(MusehubCommitRef.repo_id).distinct().order_by(MusehubCommitRef.repo_id)
    return [repo_id for repo_id in db.execute(holding).scalars() if repo_id not in deleted]


def deleted_repos(db: Database, deleted_for: int) -> list[str]:
    """Return repos that were deleted more than `deleted_for` seconds ago, from the plugin's own table."""
    return list(
        db.execute(
            select(MusehubRepo.repo_id)
            .where(MusehubRepo.deleted_at < db.now(-deleted_for))
            .order_by(MusehubRepo.repo_id)
        ).scalars()
    )


def mark_unreachable(db: Database, repo_id: str, unreachable: Collection[str]) -> None:
    """Note since when commits are unreachable, and forget it of those that are reachable again."""
    marked = set(
        db.execute(
            select(MusehubCommitRef.commit_id).where(
                MusehubCommitRef.repo_id == repo_id, MusehubCommitRef.unreachable_since.is_not(None)
            )
        ).scalars()
    )
    for commit_ids, moment in ((set(unreachable) - marked, db.now()), (marked - set(unreachable), None)):
        for batch in batches(commit_ids):
            db.change(
                update(MusehubCommitRef)
                .where(MusehubCommitRef.repo_id == repo_id, MusehubCommitRef.commit_id.in_(batch))
                .values(unreachable_since=moment)
                .execution_options(**_QUIET)
            )


def long_unreachable(db: Database, repo_id: str, unreachable_for: int) -> set[str]:
    """Return commits that were first found unreachable more than `unreachable_for` seconds ago."""
    return set(
        db.execute(
            select(MusehubCommitRef.commit_id).where(
                MusehubCommitRef.repo_id == repo_id,
                MusehubCommitRef.unreachable_since < db.now(-unreachable_for),
            )
        ).scalars()
    )


class RepoState(NamedTuple):
    """Enough of a repo to notice that a push came in between: its heads, and how many commits and packs it holds."""

    heads: tuple[tuple[str, str], ...]
    commits: int
    mpacks: int


def repo_state(db: Database, repo_id: str) -> RepoState:
    """Return the state of a repo as it is now."""
    heads = db.execute(
        select(MusehubBranch.name, MusehubBranch.head_commit_id)
        .where(MusehubBranch.repo_id == repo_id)
        .order_by(MusehubBranch.name)
    )
    commits = db.execute(
        select(func.count()).select_from(MusehubCommitRef).where(MusehubCommitRef.repo_id == repo_id)
    ).scalar_one()
    mpacks = db.execute(
        select(func.count()).select_from(MusehubMPackRef).where(MusehubMPackRef.repo_id == repo_id)
    ).scalar_one()
    return RepoState(tuple((row.name, row.head_commit_id) for row in heads), commits, mpacks)


class _HeldByRepo(Protocol):
    repo_id: Any


class Let(NamedTuple):
    """What a repo lets go of."""

    commit_ids: Collection[str]
    snapshot_ids: Collection[str]
    object_ids: Collection[str]


def all_held(db: Database, repo_id: str) -> Let:
    """Return all that a repo holds, also what none of its commits names."""

    def held(column: Any, model: type[_HeldByRepo]) -> set[str]:
        return set(db.execute(select(column).where(model.repo_id == repo_id)).scalars())

    return Let(
        held(MusehubCommitRef.commit_id, MusehubCommitRef),
        held(MusehubSnapshotRef.snapshot_id, MusehubSnapshotRef),
        held(MusehubObjectRef.object_id, MusehubObjectRef),
    )


def parts(db: Database, let: Let, size: int) -> Iterator[Let]:
    """Yield what a deleted repo lets go of, some at a time, so that each part can be removed by itself.

    Whatever is removed last, what is left says what is to be removed: blobs go before the snapshots that name them, and
    these before the commits. Of snapshots those go first that rest on others.
    """
    for batch in batches(let.object_ids, size):
        yield Let((), (), batch)
    lengths: dict[str, int] = {}
    for batch in batches(let.snapshot_ids):
        rows = select(MusehubSnapshot.snapshot_id, MusehubSnapshot.chain_length)
        found = db.execute(rows.where(MusehubSnapshot.snapshot_id.in_(batch)))
        lengths.update((row.snapshot_id, row.chain_length) for row in found)
    ordered = sorted(let.snapshot_ids, key=lambda each: -lengths.get(each, 0))
    for start in range(0, len(ordered), size):
        yield Let((), ordered[start : start + size], ())
    for batch in batches(let.commit_ids, size):
        yield Let(batch, (), ())


def let_go(db: Database, repo_id: str, let: Let) -> None:
    """Remove a repo's hold, and every row that then nobody holds.

    The repo's record of the mpacks that were pushed to it goes too, as far as they are indexed: it would make the hub
    answer that it has a pack of which it has just forgotten a part.
    """
    if let.commit_ids:
        drop_segments(db, repo_id)
        retire_plans(db, repo_id)
    _let_go(db, repo_id, MusehubCommitRef, MusehubCommitRef.commit_id, let.commit_ids)
    _let_go(db, repo_id, MusehubSnapshotRef, MusehubSnapshotRef.snapshot_id, let.snapshot_ids)
    _let_go(db, repo_id, MusehubObjectRef, MusehubObjectRef.object_id, let.object_ids)
    for batch in batches(let.commit_ids):
        held = exists().where(MusehubCommitRef.commit_id == MusehubCommit.commit_id)
        db.change(delete(MusehubCommit).where(MusehubCommit.commit_id.in_(batch), ~held).execution_options(**_QUIET))
        held = exists().where(MusehubCommitRef.commit_id == MusehubCommitGraph.commit_id)
        db.change(
            delete(MusehubCommitGraph).where(MusehubCommitGraph.commit_id.in_(batch), ~held).execution_options(**_QUIET)
        )
    nobodys = set(let.snapshot_ids) - db.found_among(MusehubSnapshotRef.snapshot_id, let.snapshot_ids)
    make_whole(db, resting_on(db, nobodys))
    for batch in batches(nobodys):
        db.change(delete(MusehubSnapshot).where(MusehubSnapshot.snapshot_id.in_(batch)).execution_options(**_QUIET))
    for batch in batches(let.object_ids):
        held = exists().where(MusehubObjectRef.object_id == MusehubObject.object_id)
        db.change(delete(MusehubObject).where(MusehubObject.object_id.in_(batch), ~held).execution_options(**_QUIET))
        held = exists().where(MusehubObjectRef.object_id == MusehubMPackIndex.entity_id)
        db.change(
            delete(MusehubMPackIndex).where(MusehubMPackIndex.entity_id.in_(batch), ~held).execution_options(**_QUIET)
        )
    unfinished = set(db.execute(select(MusehubJob.subject).where(MusehubJob.state.in_(NOT_DONE))).scalars())
    held_packs = set(db.execute(select(MusehubMPackRef.mpack_id).where(MusehubMPackRef.repo_id == repo_id)).scalars())
    for batch in batches(held_packs - unfinished):
        db.change(
            delete(MusehubMPackRef)
            .where(MusehubMPackRef.repo_id == repo_id, MusehubMPackRef.mpack_id.in_(batch))
            .execution_options(**_QUIET)
        )


def _let_go(db: Database, repo_id: str, model: type[_HeldByRepo], column: Any, entity_ids: Iterable[str]) -> None:
    for batch in batches(entity_ids):
        db.change(delete(model).where(model.repo_id == repo_id, column.in_(batch)).execution_options(**_QUIET))


def forget_repo(db: Database, repo_id: str) -> None:
    """Remove what is left of a deleted repo once it holds no history: branches, packs, its job, its row."""
    for model in (MusehubBranch, MusehubMPackRef, MusehubRepo):
        db.change(delete(model).where(model.repo_id == repo_id).execution_options(**_QUIET))
    job_id = repack_job_id(repo_id)
    db.change(delete(MusehubJob).where(MusehubJob.job_id == job_id).execution_options(**_QUIET))


def useless_mpacks(db: Database, older_than: int, limit: int, after: str) -> list[str]:
    """Return pushed mpacks that no repo refers to and of which each indexed blob is in another one too, by id.

    Only such as are older than `older_than` seconds, and come after the id `after`. A repo refers to its own until they
    are indexed, and until it lets go of something; from then on a repack, or another repo, may have the blobs as well.
    """
    conditions = [MusehubMPack.created_at < db.now(-older_than), *_useless(db)]
    if after:
        conditions.append(MusehubMPack.mpack_id > after)
    return list(
        db.execute(
            select(MusehubMPack.mpack_id).where(*conditions).order_by(MusehubMPack.mpack_id).limit(limit)
        ).scalars()
    )


def _useless(db: Database) -> list[ColumnElement[bool]]:
    # What a verification found damaged, or indexing could not read, stands for nothing.
    failed = select(MusehubJob.subject).where(MusehubJob.kind == INDEX, MusehubJob.state == FAILED)
    place, other = aliased(MusehubMPackIndex), aliased(MusehubMPackIndex)
    elsewhere = exists().where(
        other.entity_id == place.entity_id,
        other.mpack_id != place.mpack_id,
        other.mpack_id.not_in(list(db.execute(failed).scalars())),
        other.mpack_id.in_(select(aliased(MusehubMPack).mpack_id)),
    )
    return [
        ~exists().where(MusehubMPackRef.mpack_id == MusehubMPack.mpack_id),
        ~exists().where(place.mpack_id == MusehubMPack.mpack_id, ~elsewhere),
    ]


def take_useless_mpack(db: Database, mpack_id: str) -> bool:
    """Remove the rows of a pushed mpack that is still useless; say whether it was.

    The file of one that the index named is kept as a fetch pack's: somebody may be reading it.
    """
    size_bytes = db.execute(select(MusehubMPack.size_bytes).where(MusehubMPack.mpack_id == mpack_id)).scalar()
    taken = db.change(
        delete(MusehubMPack).where(MusehubMPack.mpack_id == mpack_id, *_useless(db)).execution_options(**_QUIET)
    )
    if not taken:
        return False
    job_id = index_job_id(mpack_id)
    db.change(delete(MusehubJob).where(MusehubJob.job_id == job_id).execution_options(**_QUIET))
    places = delete(MusehubMPackIndex).where(MusehubMPackIndex.mpack_id == mpack_id)
    if db.change(places.execution_options(**_QUIET)):
        use_fetch_pack(db, mpack_id, size_bytes or 0)
    return True


def drop_ticket(db: Database, upload_key: str) -> bool:
    """Remove a ticket and what is staged by it; say whether it was there."""
    db.change(delete(MusehubStagedBlob).where(MusehubStagedBlob.upload_key == upload_key).execution_options(**_QUIET))
    return (
        db.change(delete(MusehubUpload).where(MusehubUpload.upload_key == upload_key).execution_options(**_QUIET)) == 1
    )
