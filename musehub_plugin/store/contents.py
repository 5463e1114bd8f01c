"""Blobs of a repo, and where their bytes are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from operator import attrgetter
from typing import NamedTuple

from sqlalchemy import bindparam, func, outerjoin, select

from musehub_plugin.ids import from_digest
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


def holds_all(db: Database, repo_id: str, digests: Collection[bytes]) -> bool:
    """Say whether a repo holds all of some blobs, given by the 32 bytes of their ids, each once."""
    if db.dialect != "postgresql":
        return len(held_objects(db, repo_id, map(from_digest, digests))) == len(digests)
    values = {"object_id": as_array(_REF.object_id, digests), "repo_id": repo_id}
    return int(db.execute(_HELD_COUNT, values).scalar_one()) == len(digests)


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
    """Where a blob's bytes may be: in its row first, then in mpacks, then in storage by its id.

    Attributes:
        content_cache: what its row has; not asked where a push has noted the place in an mpack, and so has no need of
            the row.
        locations: in which mpacks.
    """

    content_cache: bytes | None
    locations: list[Location]


_OBJECT, _REF, _INDEX = columns(MusehubObject), columns(MusehubObjectRef), columns(MusehubMPackIndex)
_GIVEN = unnested([_REF.object_id]).c
_HELD_COUNT = (
    select(func.count())
    .select_from(MusehubObjectRef.__table__)
    .where(_REF.object_id == _GIVEN.object_id, _REF.repo_id == bindparam("repo_id"))
)
_PLACES = Question(
    lambda among: (
        select(_REF.object_id, _INDEX.mpack_id, _INDEX.frame, _INDEX.frame_offset, _INDEX.size_bytes)
        .select_from(
            outerjoin(MusehubObjectRef.__table__, MusehubMPackIndex.__table__, _INDEX.entity_id == _REF.object_id)
        )
        .where(_REF.repo_id == bindparam("repo_id"), among(_REF.object_id, "object_ids"))
    )
)
_CACHED = Question(
    lambda among: select(_OBJECT.object_id, _OBJECT.content_cache).where(
        _OBJECT.content_cache.is_not(None), among(_OBJECT.object_id, "object_ids")
    )
)


def blob_sources(db: Database, repo_id: str, object_ids: Sequence[str]) -> dict[str, BlobSource]:
    """Return the sources of those blobs that the repo holds; the others are absent from the answer.

    One statement, and another one where a blob has no place in an mpack on record: the rows of all of them would take
    half as long again.

    Args:
        db: the unit of work.
        repo_id: the repo.
        object_ids: a batch of ids, at most some hundreds where contents may be cached in rows.
    """
    sources: dict[str, BlobSource] = {}
    for object_id, mpack_id, frame, offset, size in _PLACES.ask(db, repo_id=repo_id, object_ids=list(object_ids)):
        locations = [] if mpack_id is None else [Location(mpack_id, frame, offset, size)]
        known = sources.get(object_id)
        if known is None:
            sources[object_id] = BlobSource(None, locations)
        else:
            known.locations.extend(locations)
            known.locations.sort(key=attrgetter("mpack_id"))
    unplaced = [
        object_id
        for object_id, source in sources.items()
        if not source.locations or any(location.frame is None for location in source.locations)
    ]
    for object_id, content in cached_contents(db, unplaced).items():
        sources[object_id] = BlobSource(content, sources[object_id].locations)
    return sources


def cached_contents(db: Database, object_ids: Sequence[str]) -> dict[str, bytes]:
    """Return what rows have of the bytes of some blobs, which the caller knows a repo to hold.

    Args:
        db: the unit of work.
        object_ids: a batch of ids, as for `blob_sources`.
    """
    return dict(_CACHED.ask(db, object_ids=list(object_ids))) if object_ids else {}


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
