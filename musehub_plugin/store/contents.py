"""Blobs of a repo, and where their bytes are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from sqlalchemy import bindparam, func, outerjoin, select

from musehub_plugin.store.bulk import as_array, insert_rows, unnested
from musehub_plugin.store.models import (
    MusehubMPackIndex,
    MusehubObject,
    MusehubObjectRef,
)
from musehub_plugin.store.prepared import Question
from musehub_plugin.store.session import ROW_BATCH, Database, batches, columns


def held_objects(db: Database, repo_id: str, object_ids: Iterable[str]) -> set[str]:
    """Return which of `object_ids` the repo holds."""
    return db.found_among(MusehubObjectRef.object_id, object_ids, MusehubObjectRef.repo_id == repo_id)


def holds_all(db: Database, repo_id: str, object_ids: Collection[str]) -> bool:
    """Say whether a repo holds all of some blobs."""
    if db.dialect != "postgresql":
        return len(held_objects(db, repo_id, object_ids)) == len(object_ids)
    values = {"object_id": as_array(_REF.object_id, object_ids), "repo_id": repo_id}
    return int(db.execute(_HELD_COUNT, values).scalar_one()) == len(object_ids)


def blob_bytes(db: Database, repo_id: str, object_ids: Iterable[str]) -> int:
    """Return how many bytes some blobs of a repo have, as far as rows say: one written by hand may say nothing."""
    total = 0
    for batch in batches(set(object_ids)):
        total += int(
            db.execute(
                select(func.coalesce(func.sum(MusehubObject.size_bytes), 0))
                .join(MusehubObjectRef, MusehubObjectRef.object_id == MusehubObject.object_id)
                .where(MusehubObjectRef.repo_id == repo_id, MusehubObject.object_id.in_(batch))
            ).scalar_one()
        )
    return total


class Location(NamedTuple):
    """One place where a blob's bytes are said to be."""

    mpack_id: str
    frame: int | None
    frame_offset: int | None
    size_bytes: int | None


class BlobSource(NamedTuple):
    """Every place where a blob's bytes may be: the cached content first, then mpacks, then storage by id."""

    content_cache: bytes | None
    locations: list[Location]


_OBJECT, _REF, _INDEX = columns(MusehubObject), columns(MusehubObjectRef), columns(MusehubMPackIndex)
_GIVEN = unnested([_REF.object_id]).c
_HELD_COUNT = (
    select(func.count())
    .select_from(MusehubObjectRef.__table__)
    .where(_REF.object_id == _GIVEN.object_id, _REF.repo_id == bindparam("repo_id"))
)
_SOURCES = Question(
    lambda among: (
        select(
            _REF.object_id,
            _OBJECT.content_cache,
            _INDEX.mpack_id,
            _INDEX.frame,
            _INDEX.frame_offset,
            _INDEX.size_bytes,
        )
        .select_from(
            outerjoin(
                outerjoin(MusehubObjectRef.__table__, MusehubObject.__table__, _OBJECT.object_id == _REF.object_id),
                MusehubMPackIndex.__table__,
                _INDEX.entity_id == _REF.object_id,
            )
        )
        .where(_REF.repo_id == bindparam("repo_id"), among(_REF.object_id, "object_ids"))
        .order_by(_REF.object_id, _INDEX.mpack_id)
    )
)


def blob_sources(db: Database, repo_id: str, object_ids: Sequence[str]) -> dict[str, BlobSource]:
    """Return the sources of those blobs that the repo holds; the others are absent from the answer.

    Args:
        db: the unit of work.
        repo_id: the repo.
        object_ids: a batch of ids, at most some hundreds where contents may be cached in rows.
    """
    rows = _SOURCES.ask(db, repo_id=repo_id, object_ids=list(object_ids))
    sources: dict[str, BlobSource] = {}
    for object_id, content, *location in rows:
        source = sources.setdefault(object_id, BlobSource(content, []))
        if location[0] is not None:
            source.locations.append(Location(*location))
    return sources


class NewBlob(NamedTuple):
    """A verified blob that a push brings; the id is its 32 bytes."""

    digest: bytes
    path: str
    size_bytes: int


def add_blobs(db: Database, repo_id: str, new: Iterable[NewBlob]) -> None:
    """Insert blobs whose bytes this repo uploaded, and its hold on them. Where they are, the mpack index says.

    In parts: whoever brings many gives them in the order of their ids, as for `store.commits.add_commits`.
    """
    rows = iter(new)
    while part := list(islice(rows, ROW_BATCH)):
        insert_rows(db, MusehubObject, ("object_id", "path", "size_bytes"), part, {"storage_uri": ""})
        insert_rows(db, MusehubObjectRef, ("object_id",), ((blob.digest,) for blob in part), {"repo_id": repo_id})


class IndexEntry(NamedTuple):
    """Where in an mpack a blob is."""

    object_id: str
    frame: int
    frame_offset: int
    size_bytes: int


def add_index_entries(db: Database, mpack_id: str, entries: Iterable[IndexEntry]) -> None:
    """Record where an mpack's blobs are; rows that are there are left as they are."""
    rows = iter(entries)
    while part := list(islice(rows, ROW_BATCH)):
        insert_rows(
            db,
            MusehubMPackIndex,
            ("entity_id", "frame", "frame_offset", "size_bytes"),
            part,
            {"mpack_id": mpack_id, "entity_type": "object"},
        )
