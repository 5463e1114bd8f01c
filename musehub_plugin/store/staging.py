"""Blobs that a user uploaded for a repo ahead of the push that names them.

A staged blob belongs to one user and one repo, and holds as long as the ticket of its upload. No other query sees it:
it becomes a blob of the repo by a push, or it goes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from sqlalchemy import delete, exists, func, select

from musehub_plugin.store.models import MusehubStagedBlob, MusehubUpload
from musehub_plugin.store.session import Database, batches

_QUIET = {"synchronize_session": False}


class StagedBlob(NamedTuple):
    """Where a staged blob is: in the file of an upload, from a byte on."""

    object_id: str
    upload_key: str
    start: int
    size_bytes: int


def add_staged(db: Database, repo_id: str, user_id: str, blobs: Iterable[StagedBlob]) -> None:
    """Record blobs of an upload; one that is staged already stays where it is."""
    db.insert_new(MusehubStagedBlob, [{"repo_id": repo_id, "user_id": user_id, **blob._asdict()} for blob in blobs])


def staged_blobs(db: Database, repo_id: str, user_id: str, object_ids: Iterable[str]) -> dict[str, StagedBlob]:
    """Return those of `object_ids` that this user has staged for this repo and whose ticket still holds, by id."""
    found: dict[str, StagedBlob] = {}
    for batch in batches(set(object_ids)):
        rows = db.execute(
            select(
                MusehubStagedBlob.object_id,
                MusehubStagedBlob.upload_key,
                MusehubStagedBlob.start,
                MusehubStagedBlob.size_bytes,
            )
            .join(MusehubUpload, MusehubUpload.upload_key == MusehubStagedBlob.upload_key)
            .where(
                MusehubStagedBlob.repo_id == repo_id,
                MusehubStagedBlob.user_id == user_id,
                MusehubStagedBlob.object_id.in_(batch),
                MusehubUpload.expires_at > db.now(),
            )
        )
        found.update((row.object_id, StagedBlob(*tuple(row))) for row in rows)
    return found


def staged_bytes(db: Database, repo_id: str, user_id: str) -> int:
    """Return the size of all that this user has staged for this repo."""
    return int(
        db.execute(
            select(func.coalesce(func.sum(MusehubStagedBlob.size_bytes), 0)).where(
                MusehubStagedBlob.repo_id == repo_id, MusehubStagedBlob.user_id == user_id
            )
        ).scalar_one()
    )


def forget_staged(db: Database, repo_id: str, user_id: str, object_ids: Collection[str]) -> list[str]:
    """Forget staged blobs, and return the keys of the uploads of which nothing is staged any more.

    Their tickets stay: whoever removes the files removes the tickets after them, and what is interrupted between the
    two is collected as any upload whose ticket expired.
    """
    keys: set[str] = set()
    for batch in batches(set(object_ids)):
        chosen = (
            MusehubStagedBlob.repo_id == repo_id,
            MusehubStagedBlob.user_id == user_id,
            MusehubStagedBlob.object_id.in_(batch),
        )
        keys.update(db.execute(select(MusehubStagedBlob.upload_key).where(*chosen).distinct()).scalars())
        db.change(delete(MusehubStagedBlob).where(*chosen).execution_options(**_QUIET))
    return _empty(db, keys)


def forget_expired(db: Database, repo_id: str, user_id: str) -> list[str]:
    """Forget what this user had staged for this repo and did not push in time; return the keys of those uploads."""
    chosen = (
        MusehubStagedBlob.repo_id == repo_id,
        MusehubStagedBlob.user_id == user_id,
        ~exists().where(MusehubUpload.upload_key == MusehubStagedBlob.upload_key, MusehubUpload.expires_at > db.now()),
    )
    keys = set(db.execute(select(MusehubStagedBlob.upload_key).where(*chosen).distinct()).scalars())
    if keys:
        db.change(delete(MusehubStagedBlob).where(*chosen).execution_options(**_QUIET))
    return _empty(db, keys)


def _empty(db: Database, upload_keys: set[str]) -> list[str]:
    full: set[str] = set()
    for batch in batches(upload_keys):
        full.update(
            db.execute(
                select(MusehubStagedBlob.upload_key).where(MusehubStagedBlob.upload_key.in_(batch)).distinct()
            ).scalars()
        )
    return sorted(upload_keys - full)
