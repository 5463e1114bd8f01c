"""Graph segments: a repo's history packed for the planner, as rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sqlalchemy import bindparam, delete, select

from musehub_plugin.ids import from_digest
from musehub_plugin.store.largevalues import large_value
from musehub_plugin.store.locks import own_graph
from musehub_plugin.store.models import MusehubGraphSegment
from musehub_plugin.store.prepared import Question
from musehub_plugin.store.session import Database, columns

_QUIET = {"synchronize_session": False}


class SegmentRow(NamedTuple):
    """A segment without its data."""

    first_commit: int
    segment_id: str
    commit_count: int


_SEGMENT = columns(MusehubGraphSegment)
_SEGMENTS = Question(
    lambda _: (
        select(_SEGMENT.first_commit, _SEGMENT.segment_id, _SEGMENT.commit_count)
        .where(_SEGMENT.repo_id == bindparam("repo_id"))
        .order_by(_SEGMENT.first_commit)
    )
)
SEGMENT_DATA = Question(
    lambda _: select(_SEGMENT.data).where(
        _SEGMENT.repo_id == bindparam("repo_id"), _SEGMENT.segment_id == bindparam("segment_id")
    )
)


def segments(db: Database, repo_id: str) -> list[SegmentRow]:
    """Return a repo's segments in order; none where its history is not packed."""
    return [SegmentRow(*row) for row in _SEGMENTS.ask(db, repo_id=repo_id)]


def segment_data(db: Database, repo_id: str, segment_ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield id and data of those of a repo's segments that are there.

    By a statement for each: a driver holds all that one brings, and three times over, since it comes as hex digits.
    """
    for segment_id in segment_ids:
        for (data,) in SEGMENT_DATA.ask(db, repo_id=repo_id, segment_id=segment_id):
            yield segment_id, data


def lock_segments(db: Database, repo_id: str) -> None:
    """Keep others from changing a repo's segments until this transaction ends."""
    own_graph(db, repo_id)


def replace_segments(db: Database, repo_id: str, first_commit: int, data: bytes, commit_count: int) -> None:
    """Put one segment in the place of those that begin at a commit or later; `lock_segments` must have been called."""
    db.change(
        delete(MusehubGraphSegment)
        .where(MusehubGraphSegment.repo_id == repo_id, MusehubGraphSegment.first_commit >= first_commit)
        .execution_options(**_QUIET)
    )
    with large_value(db, len(data), lambda place, size: data[place : place + size]) as value:
        db.insert_one(
            MusehubGraphSegment,
            {
                "repo_id": repo_id,
                "first_commit": first_commit,
                "segment_id": from_digest(hashlib.sha256(data).digest()),
                "commit_count": commit_count,
                "data": value,
            },
        )


def drop_segments(db: Database, repo_id: str) -> None:
    """Forget a repo's segments: the planner reads rows until they are made anew."""
    lock_segments(db, repo_id)
    db.change(delete(MusehubGraphSegment).where(MusehubGraphSegment.repo_id == repo_id).execution_options(**_QUIET))
