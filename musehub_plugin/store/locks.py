"""The lock between those who write history and the one who collects garbage.

A push relies on rows that exist: a parent that the repo holds, a blob that is stored already. Garbage collection must
not take them away between the push's look and its commit, so pushes share a lock that a collection needs for itself,
briefly. It only tries, since a collection that waited in line would make all later pushes wait behind it.

PostgreSQL's advisory locks end with the transaction and cost no row. SQLite has one writer: whoever begins to write
excludes all others.
"""

from __future__ import annotations

from sqlalchemy import String, case, func, literal_column, select, true, update

from musehub_plugin.store.models import MusehubJob
from musehub_plugin.store.session import Database

# Advisory locks are numbers that all of a database's users share; this one is arbitrary and the plugin's own.
_HISTORY = 0x6D757365_68697374
_GRAPH = 0x6D757367
# A push waits so long for another one's lock, then it fails and may be tried again: a web worker is freed where the
# other one's object storage hangs.
_PATIENCE = literal_column("'10s'", String())

_set_patience = func.current_setting(literal_column("'lock_timeout'"))
# Evaluated from left to right.
SHARE_HISTORY = select(
    func.set_config(
        literal_column("'lock_timeout'"),
        case((_set_patience == literal_column("'0'"), _PATIENCE), else_=_set_patience),
        true(),
    ).label("patience"),
    func.pg_advisory_xact_lock_shared(literal_column(str(_HISTORY))).label("held"),
)
"""What `share_history` asks of PostgreSQL, for a statement that does more besides."""


def share_history(db: Database) -> None:
    """Keep everything from being collected until this transaction ends.

    From here on it waits ten seconds at most for any lock, unless the host has set a `lock_timeout` of its own.
    """
    if db.dialect == "postgresql":
        db.execute(SHARE_HISTORY)
    else:
        _begin_writing(db)


def own_history(db: Database) -> bool:
    """Try to keep pushes from committing until this transaction ends; say whether that worked. Keep it short."""
    if db.dialect == "postgresql":
        return bool(db.execute(select(func.pg_try_advisory_xact_lock(_HISTORY))).scalar())
    _begin_writing(db)
    return True


def own_graph(db: Database, repo_id: str) -> None:
    """Be the only one to change the packed history of a repo until this transaction ends.

    Taken last of all locks, since whoever holds it must not wait for another.
    """
    if db.dialect == "postgresql":
        db.execute(select(func.pg_advisory_xact_lock(_GRAPH, func.hashtext(repo_id))))
    else:
        _begin_writing(db)


def _begin_writing(db: Database) -> None:
    # An UPDATE that touches no row takes SQLite's write lock all the same.
    nothing = update(MusehubJob).where(MusehubJob.job_id == "").values(error=None)
    db.change(nothing.execution_options(synchronize_session=False))
