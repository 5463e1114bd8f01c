"""Mpacks that were made to answer fetches: which there are and when they were last used."""

from __future__ import annotations

from sqlalchemy import delete, exists, select

from musehub_plugin.store.models import (
    MusehubClonePack,
    MusehubFetchPack,
    MusehubFetchPlan,
    MusehubMPack,
    MusehubUpload,
)
from musehub_plugin.store.session import Database


def use_fetch_pack(db: Database, mpack_id: str, size_bytes: int) -> None:
    """Record that a URL of a fetch pack is about to be handed out; waits for a collection that is removing it."""
    db.upsert(
        MusehubFetchPack,
        {"mpack_id": mpack_id, "size_bytes": size_bytes, "used_at": db.now(), "created_at": db.now()},
        update=("used_at",),
    )


def stale_fetch_packs(db: Database, unused_for: int, limit: int) -> list[str]:
    """Return fetch packs of which no URL was handed out for `unused_for` seconds, the stalest first."""
    return list(
        db.execute(
            select(MusehubFetchPack.mpack_id)
            .where(MusehubFetchPack.used_at < db.now(-unused_for))
            .order_by(MusehubFetchPack.used_at, MusehubFetchPack.mpack_id)
            .limit(limit)
        ).scalars()
    )


def take_fetch_pack(db: Database, mpack_id: str, unused_for: int) -> bool:
    """Remove the row of a fetch pack that is still stale; until the commit no fetch hands out a URL of it.

    The ready answers that name it go too.
    """
    keys = select(MusehubFetchPlan.plan_key).where(MusehubFetchPlan.mpack_id == mpack_id)
    taken = (
        db.change(
            delete(MusehubFetchPack)
            .where(MusehubFetchPack.mpack_id == mpack_id, MusehubFetchPack.used_at < db.now(-unused_for))
            .execution_options(synchronize_session=False)
        )
        == 1
    )
    if taken:
        db.change(
            delete(MusehubFetchPlan)
            .where(MusehubFetchPlan.plan_key.in_(keys))
            .execution_options(synchronize_session=False)
        )
    return taken


def is_file_needed(db: Database, mpack_id: str) -> bool:
    """Say whether some row needs the file: a pushed mpack, a fetch pack, or an upload that may become one."""
    return bool(
        db.execute(
            select(
                exists().where(MusehubMPack.mpack_id == mpack_id)
                | exists().where(MusehubFetchPack.mpack_id == mpack_id)
                | exists().where(MusehubUpload.mpack_id == mpack_id)
                | exists().where(MusehubClonePack.mpack_id == mpack_id)
            )
        ).scalar()
    )
