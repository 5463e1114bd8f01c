"""Mpacks that were made to answer fetches: which there are and when they were last used."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from sqlalchemy import BigInteger, Table, delete, exists, func, literal_column, select
from sqlalchemy.dialects.postgresql import insert

from musehub_plugin.store import locks
from musehub_plugin.store.models import (
    Id,
    MusehubClonePack,
    MusehubFetchPack,
    MusehubFetchPlan,
    MusehubMPack,
    MusehubUpload,
)
from musehub_plugin.store.prepared import Note, value_of
from musehub_plugin.store.session import Database, batches


def use_fetch_pack(db: Database, mpack_id: str, size_bytes: int) -> None:
    """Record that a URL of a fetch pack is about to be handed out; waits for a collection that is removing it."""
    db.upsert(
        MusehubFetchPack,
        {"mpack_id": mpack_id, "size_bytes": size_bytes, "used_at": db.now(), "created_at": db.now()},
        update=("used_at",),
    )


_held = locks.SHARE_HISTORY.cte("held").prefix_with("MATERIALIZED")
_new = insert(cast(Table, MusehubFetchPack.__table__)).from_select(
    ["mpack_id", "size_bytes", "created_at", "used_at"],
    select(
        value_of("mpack_id", Id()),
        value_of("size_bytes", BigInteger()),
        func.clock_timestamp(),
        func.clock_timestamp(),
    ).select_from(_held),
    include_defaults=False,
)
_KEEP_PACK = Note(
    _new.on_conflict_do_update(index_elements=["mpack_id"], set_={"used_at": _new.excluded.used_at}).returning(
        literal_column("1")
    )
)


def keep_fetch_pack(db: Database, mpack_id: str, size_bytes: int) -> None:
    """Record a pack before it is stored, so that it is collected some time after its last URL and not before.

    Args:
        db: the unit of work of the request, which has no part in it: a read must not commit what a host has half done.
        mpack_id: its id.
        size_bytes: its size.
    """
    if _KEEP_PACK.write(db, mpack_id=mpack_id, size_bytes=size_bytes) is not None:
        return
    with db.apart() as apart:

        def work() -> None:
            # A collection may be removing this very file, as a pushed mpack that nobody needs: wait for its end.
            locks.share_history(apart)
            use_fetch_pack(apart, mpack_id, size_bytes)

        apart.transaction(work)


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


def forget_answers(db: Database, mpack_ids: Iterable[str]) -> None:
    """Forget the ready answers that name one of these packs."""
    for batch in batches(mpack_ids):
        keys = select(MusehubFetchPlan.plan_key).where(MusehubFetchPlan.mpack_id.in_(batch))
        db.change(
            delete(MusehubFetchPlan)
            .where(MusehubFetchPlan.plan_key.in_(keys))
            .execution_options(synchronize_session=False)
        )


def take_fetch_pack(db: Database, mpack_id: str, unused_for: int) -> bool:
    """Remove the row of a fetch pack that is still stale; until the commit no fetch hands out a URL of it.

    The ready answers that name it go too.
    """
    taken = (
        db.change(
            delete(MusehubFetchPack)
            .where(MusehubFetchPack.mpack_id == mpack_id, MusehubFetchPack.used_at < db.now(-unused_for))
            .execution_options(synchronize_session=False)
        )
        == 1
    )
    if taken:
        forget_answers(db, [mpack_id])
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
