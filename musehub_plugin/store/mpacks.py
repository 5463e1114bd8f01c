"""Upload tickets and pushed mpacks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import cast

from sqlalchemy import Executable, Table, bindparam, delete, exists, literal, select
from sqlalchemy.dialects import postgresql

from musehub_plugin.ids import from_digest
from musehub_plugin.store.bulk import as_array, unnested
from musehub_plugin.store.contents import IndexEntry, add_index_entries, held_objects
from musehub_plugin.store.jobs import NOT_DONE
from musehub_plugin.store.models import (
    Id,
    MusehubClonePack,
    MusehubJob,
    MusehubMPack,
    MusehubMPackIndex,
    MusehubMPackRef,
    MusehubObjectRef,
    MusehubUpload,
)
from musehub_plugin.store.session import Database, batches, columns

Place = tuple[bytes, int, int, int]
"""Where in an mpack a blob is: the 32 bytes of its id, its frame, the offset in that, and its size."""


def repo_holds_mpack(db: Database, repo_id: str, mpack_id: str) -> bool:
    """Say whether this mpack was pushed to this repo."""
    return (
        db.execute(
            select(MusehubMPackRef.mpack_id).where(
                MusehubMPackRef.repo_id == repo_id, MusehubMPackRef.mpack_id == mpack_id
            )
        ).first()
        is not None
    )


def repos_of(db: Database, mpack_id: str) -> list[str]:
    """Return the repos that an mpack was pushed to."""
    return list(
        db.execute(
            select(MusehubMPackRef.repo_id)
            .where(MusehubMPackRef.mpack_id == mpack_id)
            .order_by(MusehubMPackRef.repo_id)
        ).scalars()
    )


def add_ticket(
    db: Database,
    *,
    upload_key: str,
    repo_id: str,
    user_id: str,
    mpack_id: str,
    size_bytes: int,
    ttl_seconds: int,
) -> None:
    """Record that a user may upload an mpack for a repo for `ttl_seconds` from now, by the database's clock."""
    db.insert_one(
        MusehubUpload,
        {
            "upload_key": upload_key,
            "repo_id": repo_id,
            "user_id": user_id,
            "mpack_id": mpack_id,
            "size_bytes": size_bytes,
            "expires_at": db.now(ttl_seconds),
        },
    )


def tickets(db: Database, *, repo_id: str, user_id: str, mpack_id: str) -> dict[str, int]:
    """Return the tickets that still hold for exactly this repo, user and mpack, the newest first.

    Returns:
        Their keys, each with the bytes that it allows.
    """
    found = db.execute(
        select(MusehubUpload.upload_key, MusehubUpload.size_bytes)
        .where(
            MusehubUpload.repo_id == repo_id,
            MusehubUpload.user_id == user_id,
            MusehubUpload.mpack_id == mpack_id,
            MusehubUpload.expires_at > db.now(),
        )
        .order_by(MusehubUpload.created_at.desc(), MusehubUpload.upload_key)
    )
    return {row.upload_key: row.size_bytes for row in found}


def drop_tickets(db: Database, upload_keys: list[str]) -> None:
    """Forget tickets that have been used."""
    db.change(
        delete(MusehubUpload)
        .where(MusehubUpload.upload_key.in_(upload_keys))
        .execution_options(synchronize_session=False)
    )


def add_mpack(
    db: Database,
    *,
    repo_id: str,
    user_id: str,
    mpack_id: str,
    size_bytes: int,
    counts: tuple[int, int, int],
    storage_uri: str,
) -> None:
    """Record a pushed mpack, and this repo's hold on it; `counts` are of commits, snapshots and blobs."""
    db.insert_new(
        MusehubMPack,
        [
            {
                "mpack_id": mpack_id,
                "size_bytes": size_bytes,
                "commit_count": counts[0],
                "snapshot_count": counts[1],
                "blob_count": counts[2],
                "storage_uri": storage_uri,
            }
        ],
    )
    db.insert_new(MusehubMPackRef, [{"repo_id": repo_id, "mpack_id": mpack_id, "user_id": user_id}])


def counts(db: Database, mpack_id: str) -> tuple[int, int, int]:
    """Return how many commits, snapshots and blobs a pushed mpack holds."""
    row = db.execute(
        select(MusehubMPack.commit_count, MusehubMPack.snapshot_count, MusehubMPack.blob_count).where(
            MusehubMPack.mpack_id == mpack_id
        )
    ).one()
    return row.commit_count, row.snapshot_count, row.blob_count


def loose_packs(db: Database, repo_id: str) -> dict[str, int]:
    """Return the packs that a repo refers to and that are no part of its clone packs, with their sizes."""
    rows = db.execute(
        select(MusehubMPack.mpack_id, MusehubMPack.size_bytes)
        .join(MusehubMPackRef, MusehubMPackRef.mpack_id == MusehubMPack.mpack_id)
        .where(
            MusehubMPackRef.repo_id == repo_id,
            ~exists().where(MusehubClonePack.repo_id == repo_id, MusehubClonePack.mpack_id == MusehubMPackRef.mpack_id),
        )
    )
    return {row.mpack_id: row.size_bytes for row in rows}


def move_places(db: Database, repo_id: str, mpack_id: str, places: Sequence[Place]) -> None:
    """Point blobs that a repo holds at an mpack, and away from the other packs that were pushed to the repo."""
    if db.dialect != "postgresql":
        entries = [IndexEntry(from_digest(digest), *place) for digest, *place in places]
        held = held_objects(db, repo_id, [entry.object_id for entry in entries])
        add_index_entries(db, mpack_id, [entry for entry in entries if entry.object_id in held])
        _drop_older_places(db, repo_id, mpack_id, held)
        return
    values = zip(*sorted(places), strict=True)
    arrays = {column.name: as_array(column, each) for column, each in zip(_PLACE, values, strict=True)}
    for statement in _MOVE:
        db.execute(statement, {**arrays, "repo_id": repo_id, "mpack_id": mpack_id})


def _move() -> tuple[Executable, Executable]:
    """Return the statements of `move_places`: the places that are added, and those that go."""
    table = cast(Table, MusehubMPackIndex.__table__)
    given = unnested(_PLACE).c
    repo_id, mpack_id = bindparam("repo_id", type_=_REF.repo_id.type), bindparam("mpack_id", type_=Id())
    is_held = exists().where(_REF.object_id == given.entity_id, _REF.repo_id == repo_id)
    names = ["entity_id", "mpack_id", "entity_type", "frame", "frame_offset", "size_bytes"]
    added = select(
        given.entity_id, mpack_id, literal("object"), given.frame, given.frame_offset, given.size_bytes
    ).where(is_held)
    pushed_here = select(MusehubMPackRef.mpack_id).where(MusehubMPackRef.repo_id == repo_id)
    return (
        postgresql.insert(table).from_select(names, added).on_conflict_do_nothing(),
        delete(table).where(
            _INDEX.entity_id == given.entity_id,
            is_held,
            _INDEX.mpack_id != mpack_id,
            _INDEX.mpack_id.in_(pushed_here),
        ),
    )


_INDEX, _REF = columns(MusehubMPackIndex), columns(MusehubObjectRef)
_PLACE = [_INDEX.entity_id, _INDEX.frame, _INDEX.frame_offset, _INDEX.size_bytes]
_MOVE = _move()


def _drop_older_places(db: Database, repo_id: str, mpack_id: str, object_ids: Iterable[str]) -> None:
    pushed_here = select(MusehubMPackRef.mpack_id).where(MusehubMPackRef.repo_id == repo_id)
    for batch in batches(object_ids):
        db.change(
            delete(MusehubMPackIndex)
            .where(
                MusehubMPackIndex.entity_id.in_(batch),
                MusehubMPackIndex.mpack_id != mpack_id,
                MusehubMPackIndex.mpack_id.in_(pushed_here),
            )
            .execution_options(synchronize_session=False)
        )


def blob_counts(db: Database, repo_id: str) -> dict[str, int]:
    """Return the packs that were pushed to a repo, or made by a repack, with the number of their blobs."""
    rows = db.execute(
        select(MusehubMPack.mpack_id, MusehubMPack.blob_count)
        .join(MusehubMPackRef, MusehubMPackRef.mpack_id == MusehubMPack.mpack_id)
        .where(MusehubMPackRef.repo_id == repo_id)
        .order_by(MusehubMPack.blob_count.desc(), MusehubMPack.mpack_id)
    )
    return {row.mpack_id: row.blob_count for row in rows}


def retire_packs(db: Database, repo_id: str, *, keep: Collection[str]) -> dict[str, int]:
    """Forget that a repo has packs of which no blob is indexed; return them with their sizes.

    One that still waits to be indexed is left alone.
    """
    rows = db.execute(
        select(MusehubMPackRef.mpack_id, MusehubMPack.size_bytes)
        .join(MusehubMPack, MusehubMPack.mpack_id == MusehubMPackRef.mpack_id)
        .where(
            MusehubMPackRef.repo_id == repo_id,
            ~exists().where(MusehubMPackIndex.mpack_id == MusehubMPackRef.mpack_id),
        )
    )
    unfinished = set(db.execute(select(MusehubJob.subject).where(MusehubJob.state.in_(NOT_DONE))).scalars())
    found = {row.mpack_id: row.size_bytes for row in rows if row.mpack_id not in unfinished.union(keep)}
    for batch in batches(found):
        db.change(
            delete(MusehubMPackRef)
            .where(MusehubMPackRef.repo_id == repo_id, MusehubMPackRef.mpack_id.in_(batch))
            .execution_options(synchronize_session=False)
        )
    return found
