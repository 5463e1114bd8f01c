"""Who is making the mpack of a plan, for how long, and what a job is to make."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import cast

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Integer,
    Interval,
    String,
    Table,
    column,
    delete,
    func,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from musehub_plugin.store.fetch_plans import ReadyPack, add_plans
from musehub_plugin.store.models import Id, MusehubBuild, MusehubFetchPlan, RepoId
from musehub_plugin.store.prepared import Note, value_of
from musehub_plugin.store.session import Database, columns

_QUIET = {"synchronize_session": False}
_BUILD = columns(MusehubBuild)


def lease_build(db: Database, plan_key: str, repo_id: str, holder: str, seconds: int) -> bool:
    """Take it upon oneself to make the mpack of a plan; say whether nobody else is at it. Commit at once."""
    taken = db.insert_one(
        MusehubBuild,
        {
            "plan_key": plan_key,
            "repo_id": repo_id,
            "holder": holder,
            "lease_until": db.now(seconds),
        },
    )
    if taken:
        return True
    return (
        db.change(
            update(MusehubBuild)
            .where(MusehubBuild.plan_key == plan_key, MusehubBuild.lease_until <= db.now())
            .values(holder=holder, lease_until=db.now(seconds))
            .execution_options(**_QUIET)
        )
        == 1
    )


_build = insert(cast(Table, MusehubBuild.__table__))
_lease = _build.from_select(
    ["plan_key", "repo_id", "holder", "lease_until"],
    select(
        value_of("plan_key", Id()),
        value_of("repo_id", RepoId),
        value_of("holder", String()),
        func.clock_timestamp() + value_of("lease", Interval()),
    ).where(
        select(func.count())
        .select_from(MusehubBuild)
        .where(_BUILD.lease_until > func.clock_timestamp())
        .scalar_subquery()
        < value_of("most", Integer())
    ),
    include_defaults=False,
)
_TAKE_BUILD = Note(
    _lease.on_conflict_do_update(
        index_elements=["plan_key"],
        set_={"holder": _lease.excluded.holder, "lease_until": _lease.excluded.lease_until},
        where=or_(_BUILD.lease_until <= func.clock_timestamp(), _BUILD.holder == _lease.excluded.holder),
    ).returning(literal_column("1"))
)


def take_build(db: Database, plan_key: str, repo_id: str, holder: str, seconds: int, most: int) -> bool:
    """Try to take it upon oneself to make the mpack of a plan at once, in a transaction of its own.

    Args:
        db: the unit of work of the request, which has no part in it.
        plan_key: of the plan.
        repo_id: whose it is.
        holder: who makes it.
        seconds: how long nobody else will.
        most: mpacks that may be made at the same time.

    Returns:
        False where `lease_build` is to be tried, which can wait: somebody is at it, too many are, or the database has
        no such way.
    """
    return bool(
        _TAKE_BUILD.write(
            db, plan_key=plan_key, repo_id=repo_id, holder=holder, lease=timedelta(seconds=seconds), most=most
        )
    )


_ended = (
    delete(cast(Table, MusehubBuild.__table__))
    .where(_BUILD.plan_key == value_of("ended_key", Id()), _BUILD.holder == value_of("holder", String()))
    .returning(literal_column("1").label("ended"))
    .cte("ended")
)
_plan_keys = func.unnest(value_of("plan_keys", ARRAY(Id()))).table_valued(column("plan_key", Id())).render_derived()
_SETTLE_BUILD = Note(
    insert(cast(Table, MusehubFetchPlan.__table__))
    .from_select(
        [
            "plan_key",
            "position",
            "repo_id",
            "pack_count",
            "mpack_id",
            "size_bytes",
            "commit_count",
            "snapshot_count",
            "blob_count",
            "created_at",
            "used_at",
        ],
        select(
            _plan_keys.c.plan_key,
            literal_column("0"),
            value_of("repo_id", RepoId),
            literal_column("1"),
            value_of("mpack_id", Id()),
            value_of("size_bytes", BigInteger()),
            value_of("commit_count", Integer()),
            value_of("snapshot_count", Integer()),
            value_of("blob_count", Integer()),
            func.clock_timestamp(),
            func.clock_timestamp(),
        ).order_by(_plan_keys.c.plan_key),
        include_defaults=False,
    )
    .add_cte(_ended)
    .on_conflict_do_nothing()
    .returning(literal_column("1"))
)


def settle_build(
    db: Database, plan_key: str, holder: str, plan_keys: Sequence[str], repo_id: str, pack: ReadyPack
) -> None:
    """Record the stored pack of a build as a ready answer, and let go of the build, in a transaction of its own.

    Args:
        db: the unit of work of the request, which has no part in it.
        plan_key: of the build.
        holder: who made it.
        plan_keys: the keys that it answers.
        repo_id: whose it is.
        pack: the pack.
    """
    values = pack._asdict()
    del values["content"]
    if (
        _SETTLE_BUILD.write(
            db, ended_key=plan_key, holder=holder, plan_keys=sorted(plan_keys), repo_id=repo_id, **values
        )
        is not None
    ):
        return
    with db.apart() as apart:

        def work() -> None:
            add_plans(apart, plan_keys, repo_id, [pack])
            end_build(apart, plan_key, holder, made=True)

        apart.transaction(work)


def keep_build(db: Database, plan_key: str, holder: str, seconds: int) -> None:
    """Extend the lease on a build, if it is still ours."""
    db.change(
        update(MusehubBuild)
        .where(MusehubBuild.plan_key == plan_key, MusehubBuild.holder == holder)
        .values(lease_until=db.now(seconds))
        .execution_options(**_QUIET)
    )


def note_request(db: Database, plan_key: str, repo_id: str, request: bytes) -> None:
    """Note what a job is to make; nobody is at it yet."""
    db.upsert(
        MusehubBuild,
        {"plan_key": plan_key, "repo_id": repo_id, "holder": "", "lease_until": db.now(), "request": request},
        update=("request",),
    )


def noted_request(db: Database, plan_key: str) -> tuple[str, bytes] | None:
    """Return the repo and what was asked for of a plan that a job is to make."""
    row = db.execute(
        select(MusehubBuild.repo_id, MusehubBuild.request).where(
            MusehubBuild.plan_key == plan_key, MusehubBuild.request.is_not(None)
        )
    ).first()
    return None if row is None else (row.repo_id, bytes(row.request))


def end_build(db: Database, plan_key: str, holder: str, *, made: bool) -> None:
    """Let go of a build, if it is still ours.

    Args:
        db: the unit of work.
        plan_key: of the plan.
        holder: who was at it.
        made: whether its mpack is there. Else it stays on record what a job is to make, for its next attempt.
    """
    ours = MusehubBuild.plan_key == plan_key, MusehubBuild.holder == holder
    if not made:
        db.change(
            update(MusehubBuild)
            .where(*ours, MusehubBuild.request.is_not(None))
            .values(holder="", lease_until=db.now())
            .execution_options(**_QUIET)
        )
    db.change(delete(MusehubBuild).where(*ours).execution_options(**_QUIET))


def builds_under_way(db: Database) -> int:
    """Return how many mpacks are being made, on all machines."""
    return int(
        db.execute(
            select(func.count()).select_from(MusehubBuild).where(MusehubBuild.lease_until > db.now())
        ).scalar_one()
    )


def drop_lapsed_builds(db: Database, lapsed_for: int) -> int:
    """Forget builds whose holder died some seconds ago and that nobody took over."""
    return db.change(
        delete(MusehubBuild).where(MusehubBuild.lease_until < db.now(-lapsed_for)).execution_options(**_QUIET)
    )
