"""Locks between those who write history and the one who collects garbage.

A push relies on rows that exist: a parent that the repo holds, a blob that is stored already. Garbage collection must
not take them away between the push's look and its commit, so pushes share a lock and a collection excludes them, for
one repo at a time and briefly. PostgreSQL's advisory locks end with the transaction and cost no row. SQLite has one
writer: whoever begins to write excludes all others.
"""

from __future__ import annotations

import zlib

from sqlalchemy import func, select, update

from musehub_plugin.store.models import MusehubJob
from musehub_plugin.store.session import Database

# Advisory locks are numbers that all of a database's users share; this one is arbitrary and the plugin's own.
_NAMESPACE = 0x6D757365
_EVERY_REPO = 0


def share_history(db: Database, repo_id: str) -> None:
    """Keep the history of a repo, and all that is shared between repos, from being collected until the commit."""
    if db.dialect == "postgresql":
        for number in (_EVERY_REPO, _number(repo_id)):
            db.execute(select(func.pg_advisory_xact_lock_shared(_NAMESPACE, number)))
    else:
        _begin_writing(db)


def own_history(db: Database, repo_id: str | None = None) -> None:
    """Wait for all pushes to a repo, and keep new ones waiting until the commit.

    Args:
        db: the unit of work; keep it short.
        repo_id: the repo; None for what is shared between repos.
    """
    if db.dialect == "postgresql":
        number = _EVERY_REPO if repo_id is None else _number(repo_id)
        db.execute(select(func.pg_advisory_xact_lock(_NAMESPACE, number)))
    else:
        _begin_writing(db)


def _number(repo_id: str) -> int:
    # Two repos may share a number: they then wait for each other a little, no more. 0 is everybody's.
    return zlib.crc32(repo_id.encode()) % 0x7FFFFFFF + 1


def _begin_writing(db: Database) -> None:
    # An UPDATE that touches no row takes SQLite's write lock all the same.
    db.change(
        update(MusehubJob)
        .where(MusehubJob.job_id == "")
        .values(error=None)
        .execution_options(synchronize_session=False)
    )
