"""Answers to fetches that are ready, and the packs that a clone is made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import bindparam, case, delete, outerjoin, select, update

from musehub_plugin.store.fetch_packs import use_fetch_pack
from musehub_plugin.store.models import MusehubClonePack, MusehubFetchPack, MusehubFetchPlan
from musehub_plugin.store.prepared import Question
from musehub_plugin.store.session import Database, batches, columns

_QUIET = {"synchronize_session": False}


class ReadyPack(NamedTuple):
    """An mpack of a ready answer.

    Attributes:
        content: the mpack itself, where it travels in the answer; None: it is in object storage.
    """

    mpack_id: str
    size_bytes: int
    commit_count: int
    snapshot_count: int
    blob_count: int
    content: bytes | None = None


class ReadyPlan(NamedTuple):
    """A ready answer: its packs in order, and how many seconds ago its use was noted."""

    packs: Sequence[ReadyPack]
    noted_ago: float


_PLAN, _PACK = columns(MusehubFetchPlan), columns(MusehubFetchPack)
_FIND_PLAN = Question(
    lambda _: (
        select(
            _PLAN.mpack_id,
            _PLAN.size_bytes,
            _PLAN.commit_count,
            _PLAN.snapshot_count,
            _PLAN.blob_count,
            _PLAN.content,
            _PLAN.pack_count,
            # A pack that was collected has no row.
            case((_PLAN.content.is_(None), _PACK.used_at), else_=_PLAN.used_at).label("used_at"),
        )
        .select_from(
            outerjoin(MusehubFetchPlan.__table__, MusehubFetchPack.__table__, _PACK.mpack_id == _PLAN.mpack_id)
        )
        .where(_PLAN.plan_key == bindparam("plan_key"))
        .order_by(_PLAN.position)
    )
)


def find_plan(db: Database, plan_key: str) -> ReadyPlan | None:
    """Return the ready answer of a key, by one statement; None where there is none, or not all of it."""
    rows = _FIND_PLAN.ask(db, plan_key=plan_key)
    packs, used = [], []
    for *pack, pack_count, used_at in rows:
        if used_at is None or pack_count != len(rows):
            return None
        packs.append(ReadyPack(*pack))
        used.append(used_at)
    if not packs:
        return None
    return ReadyPlan(packs, (datetime.now(UTC) - min(used)).total_seconds())


def note_use(db: Database, plan_key: str, packs: Iterable[ReadyPack]) -> bool:
    """Note that a ready answer is given, so that its packs are kept; False where one of them is collected by now."""
    stored = {pack.mpack_id for pack in packs if pack.content is None}
    kept = 0
    for batch in batches(stored):
        kept += db.change(
            update(MusehubFetchPack)
            .where(MusehubFetchPack.mpack_id.in_(batch))
            .values(used_at=db.now())
            .execution_options(**_QUIET)
        )
    noted = db.change(
        update(MusehubFetchPlan)
        .where(MusehubFetchPlan.plan_key == plan_key)
        .values(used_at=db.now())
        .execution_options(**_QUIET)
    )
    return kept == len(stored) and noted > 0


def add_plans(db: Database, plan_keys: Iterable[str], repo_id: str, packs: Sequence[ReadyPack]) -> None:
    """Record a ready answer under each of its keys, unless there is one of that key."""
    db.insert_new(
        MusehubFetchPlan,
        [
            {
                "plan_key": plan_key,
                "position": position,
                "repo_id": repo_id,
                "pack_count": len(packs),
                **pack._asdict(),
            }
            for plan_key in plan_keys
            for position, pack in enumerate(packs)
        ],
    )


def retire_plans(db: Database, repo_id: str) -> None:
    """Forget a repo's ready answers and clone packs: what they hold, the repo is about to let go of."""
    for each in clone_packs(db, repo_id):
        use_fetch_pack(db, each.pack.mpack_id, each.pack.size_bytes)
    db.change(delete(MusehubFetchPlan).where(MusehubFetchPlan.repo_id == repo_id).execution_options(**_QUIET))
    db.change(delete(MusehubClonePack).where(MusehubClonePack.repo_id == repo_id).execution_options(**_QUIET))


def forget_least_used_answers(db: Database, repo_id: str, kept: int) -> int:
    """Forget those of a repo's answers that rows hold themselves, but the ones used last; return how many rows went.

    Args:
        db: the unit of work.
        repo_id: the repo.
        kept: how many stay.
    """
    last = (
        select(MusehubFetchPlan.plan_key)
        .where(MusehubFetchPlan.repo_id == repo_id, MusehubFetchPlan.content.is_not(None))
        .order_by(MusehubFetchPlan.used_at.desc(), MusehubFetchPlan.plan_key)
        .offset(kept)
    )
    return db.change(delete(MusehubFetchPlan).where(MusehubFetchPlan.plan_key.in_(last)).execution_options(**_QUIET))


def forget_unused_plans(db: Database, unused_for: int) -> int:
    """Forget answers that nobody was given for some seconds; return how many rows went."""
    return db.change(
        delete(MusehubFetchPlan).where(MusehubFetchPlan.used_at < db.now(-unused_for)).execution_options(**_QUIET)
    )


class ClonePack(NamedTuple):
    """An mpack of the chain that holds the default branch's history up to `head_commit_id`."""

    head_commit_id: str
    pack: ReadyPack


def clone_packs(db: Database, repo_id: str) -> list[ClonePack]:
    """Return the chain of a repo's clone packs, in order."""
    rows = db.execute(
        select(
            MusehubClonePack.head_commit_id,
            MusehubClonePack.mpack_id,
            MusehubClonePack.size_bytes,
            MusehubClonePack.commit_count,
            MusehubClonePack.snapshot_count,
            MusehubClonePack.blob_count,
        )
        .where(MusehubClonePack.repo_id == repo_id)
        .order_by(MusehubClonePack.position)
    )
    return [ClonePack(row.head_commit_id, ReadyPack(*tuple(row)[1:])) for row in rows]


def repos_of_clone_pack(db: Database, mpack_id: str) -> list[str]:
    """Return the repos whose clones begin with or contain a pack."""
    named = select(MusehubClonePack.repo_id).where(MusehubClonePack.mpack_id == mpack_id).distinct()
    return list(db.execute(named.order_by(MusehubClonePack.repo_id)).scalars())


def replace_clone_packs(db: Database, repo_id: str, position: int, new: Sequence[ClonePack]) -> None:
    """Put packs in the place of those of the chain from a position on."""
    db.change(
        delete(MusehubClonePack)
        .where(MusehubClonePack.repo_id == repo_id, MusehubClonePack.position >= position)
        .execution_options(**_QUIET)
    )
    db.insert_new(
        MusehubClonePack,
        [
            {
                "repo_id": repo_id,
                "position": position + number,
                "head_commit_id": each.head_commit_id,
                "mpack_id": each.pack.mpack_id,
                "size_bytes": each.pack.size_bytes,
                "commit_count": each.pack.commit_count,
                "snapshot_count": each.pack.snapshot_count,
                "blob_count": each.pack.blob_count,
            }
            for number, each in enumerate(new)
        ],
    )
