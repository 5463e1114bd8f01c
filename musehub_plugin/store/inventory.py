"""What a scrub asks: everything that is there, and whether it fits together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from sqlalchemy import delete, exists, or_, select

from musehub_plugin.store.contents import IndexEntry
from musehub_plugin.store.jobs import FAILED, INDEX, add_job, index_job_id
from musehub_plugin.store.models import (
    MusehubCommit,
    MusehubCommitRef,
    MusehubFetchPlan,
    MusehubMPack,
    MusehubMPackIndex,
    MusehubMPackRef,
    MusehubObject,
    MusehubObjectRef,
)
from musehub_plugin.store.session import Database, batches

_PAGE = 1_000


def mpacks(db: Database, repo_id: str | None, after: str) -> Iterator[str]:
    """Yield the ids of pushed mpacks in order, beginning after the id `after`; of one repo, those pushed to it."""
    while True:
        statement = select(MusehubMPack.mpack_id).order_by(MusehubMPack.mpack_id).limit(_PAGE)
        if after:
            statement = statement.where(MusehubMPack.mpack_id > after)
        if repo_id is not None:
            statement = statement.join(MusehubMPackRef, MusehubMPackRef.mpack_id == MusehubMPack.mpack_id).where(
                MusehubMPackRef.repo_id == repo_id
            )
        page = list(db.execute(statement).scalars())
        yield from page
        if len(page) < _PAGE:
            return
        after = page[-1]


def answers(db: Database, repo_id: str | None, mpack_id: str | None = None) -> list[str]:
    """Return the ids of packs in storage that ready answers name, in order, but pushed ones.

    Args:
        db: the unit of work.
        repo_id: only of this repo's answers; None: of all.
        mpack_id: only this pack, pushed or not.
    """
    statement = select(MusehubFetchPlan.mpack_id).distinct().where(MusehubFetchPlan.content.is_(None))
    if repo_id is not None:
        statement = statement.where(MusehubFetchPlan.repo_id == repo_id)
    if mpack_id is not None:
        statement = statement.where(MusehubFetchPlan.mpack_id == mpack_id)
    else:
        statement = statement.where(~exists().where(MusehubMPack.mpack_id == MusehubFetchPlan.mpack_id))
    return list(db.execute(statement.order_by(MusehubFetchPlan.mpack_id)).scalars())


def fail_index_job(db: Database, mpack_id: str, reason: str) -> None:
    """Record that an mpack's index is of no use, since its bytes are not what they were."""
    add_job(db, index_job_id(mpack_id), INDEX, mpack_id, state=FAILED, error=reason)


def is_needed(db: Database, mpack_id: str) -> bool:
    """Say whether a repo refers to a pushed mpack now, or the index looks for a blob in it.

    Where not, it is garbage, and its file goes before its row does.
    """
    refers = exists().where(MusehubMPackRef.mpack_id == mpack_id)
    names = exists().where(MusehubMPackIndex.mpack_id == mpack_id)
    return bool(db.execute(select(or_(refers, names))).scalar())


def index_rows(db: Database, mpack_id: str) -> dict[str, IndexEntry]:
    """Return the index rows of an mpack by object id; what a row does not say is None."""
    rows = db.execute(
        select(
            MusehubMPackIndex.entity_id,
            MusehubMPackIndex.frame,
            MusehubMPackIndex.frame_offset,
            MusehubMPackIndex.size_bytes,
        ).where(MusehubMPackIndex.mpack_id == mpack_id)
    )
    return {row.entity_id: IndexEntry(*tuple(row)) for row in rows}


def drop_index_rows(db: Database, mpack_id: str, object_ids: Iterable[str]) -> None:
    """Remove index rows of an mpack."""
    for batch in batches(object_ids):
        db.change(
            delete(MusehubMPackIndex)
            .where(MusehubMPackIndex.mpack_id == mpack_id, MusehubMPackIndex.entity_id.in_(batch))
            .execution_options(synchronize_session=False)
        )


def drop_refs(db: Database, mpack_id: str) -> None:
    """Forget that repos have an mpack: whoever pushes it again is asked for the bytes."""
    db.change(
        delete(MusehubMPackRef).where(MusehubMPackRef.mpack_id == mpack_id).execution_options(synchronize_session=False)
    )


def held_by_anyone(db: Database, object_ids: Iterable[str]) -> set[str]:
    """Return those of the blobs that some repo holds."""
    found: set[str] = set()
    for batch in batches(object_ids):
        found.update(
            db.execute(
                select(MusehubObjectRef.object_id).where(MusehubObjectRef.object_id.in_(batch)).distinct()
            ).scalars()
        )
    return found


def elsewhere(db: Database, mpack_id: str, object_ids: Collection[str]) -> set[str]:
    """Return those of the blobs that are indexed in another mpack, or whose row holds the content."""
    found: set[str] = set()
    for batch in batches(object_ids):
        found.update(
            db.execute(
                select(MusehubMPackIndex.entity_id).where(
                    MusehubMPackIndex.entity_id.in_(batch), MusehubMPackIndex.mpack_id != mpack_id
                )
            ).scalars()
        )
        found.update(
            db.execute(
                select(MusehubObject.object_id).where(
                    MusehubObject.object_id.in_(batch), MusehubObject.content_cache.is_not(None)
                )
            ).scalars()
        )
    return found


class StoredCommit(NamedTuple):
    """A commit that a repo holds, and whether it has a row."""

    commit_id: str
    is_stored: bool
    parent_ids: list[str]
    snapshot_id: str


def commits(db: Database, repo_id: str) -> Iterator[StoredCommit]:
    """Yield the commits that a repo holds."""
    rows = db.execute(
        select(
            MusehubCommitRef.commit_id,
            MusehubCommit.commit_id.label("row_id"),
            MusehubCommit.parent_ids,
            MusehubCommit.snapshot_id,
        )
        .outerjoin(MusehubCommit, MusehubCommit.commit_id == MusehubCommitRef.commit_id)
        .where(MusehubCommitRef.repo_id == repo_id)
    )
    for row in rows:
        yield StoredCommit(row.commit_id, row.row_id is not None, row.parent_ids or [], row.snapshot_id or "")


def placed_objects(db: Database, repo_id: str, object_ids: Collection[str]) -> set[str]:
    """Return those of the blobs that the repo holds and that have a place: an index row or the content in their row."""
    held = (
        select(MusehubObjectRef.object_id)
        .where(MusehubObjectRef.repo_id == repo_id, MusehubObjectRef.object_id.in_(object_ids))
        .subquery()
    )
    indexed = db.execute(select(MusehubMPackIndex.entity_id).where(MusehubMPackIndex.entity_id.in_(select(held))))
    cached = db.execute(
        select(MusehubObject.object_id).where(
            MusehubObject.object_id.in_(select(held)), MusehubObject.content_cache.is_not(None)
        )
    )
    return set(indexed.scalars()) | set(cached.scalars())


def packs_of(db: Database, object_ids: Iterable[str]) -> set[str]:
    """Return the mpacks that some blobs are indexed in."""
    found: set[str] = set()
    for batch in batches(set(object_ids)):
        found.update(
            db.execute(
                select(MusehubMPackIndex.mpack_id).where(MusehubMPackIndex.entity_id.in_(batch)).distinct()
            ).scalars()
        )
    return found
