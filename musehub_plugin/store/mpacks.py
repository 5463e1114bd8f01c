"""Upload tickets and pushed mpacks."""

from __future__ import annotations

from sqlalchemy import delete, select

from musehub_plugin.store.models import MusehubMPack, MusehubMPackRef, MusehubUpload
from musehub_plugin.store.session import Database


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


def ticket_keys(db: Database, *, repo_id: str, user_id: str, mpack_id: str) -> list[str]:
    """Return the keys of tickets that still hold for exactly this repo, user and mpack, the newest first."""
    return list(
        db.execute(
            select(MusehubUpload.upload_key)
            .where(
                MusehubUpload.repo_id == repo_id,
                MusehubUpload.user_id == user_id,
                MusehubUpload.mpack_id == mpack_id,
                MusehubUpload.expires_at > db.now(),
            )
            .order_by(MusehubUpload.created_at.desc(), MusehubUpload.upload_key)
        ).scalars()
    )


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
