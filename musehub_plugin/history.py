"""What commits a repo holds and how they descend from one another.

The packed graph answers where it can. It may be missing, or not know commits whose rows were written by hand: then
the rows of the whole repo are read instead, and the answer is the same.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from musehub_plugin import graph
from musehub_plugin.commitgraph import CommitGraph, NewCommit, Segment, merged
from musehub_plugin.ids import from_digest
from musehub_plugin.signals import report_damage
from musehub_plugin.store import commits as commit_store
from musehub_plugin.store import graphs
from musehub_plugin.store.session import Database

# Commits in a segment that is not merged with others any more: some 3 MB of it.
_FULL_SEGMENT = 16_384


class GraphCache:
    """Packed graphs that this process has read, up to a number of bytes. Safe for use by several threads.

    A segment is known by the hash of its bytes, so nothing here goes stale.

    Args:
        max_bytes: memory for it; the graph that was asked for last is kept whatever its size.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._graphs: OrderedDict[str, tuple[tuple[str, ...], CommitGraph]] = OrderedDict()
        self._lock = threading.Lock()

    def load(self, db: Database, repo_id: str) -> CommitGraph:
        """Return the packed graph of a repo as its rows are now; an empty one where there are none, or damaged ones."""
        while True:
            rows = graphs.segments(db, repo_id)
            segment_ids = tuple(row.segment_id for row in rows)
            with self._lock:
                known = self._graphs.get(repo_id)
                if known is not None and known[0] == segment_ids:
                    self._graphs.move_to_end(repo_id)
                    return known[1]
            have: dict[str, Segment] = {}
            if known is not None:
                # Of a damaged graph there are none.
                have.update(zip(known[0], known[1].segments, strict=False))
            missing = [segment_id for segment_id in segment_ids if segment_id not in have]
            try:
                for segment_id, data in graphs.segment_data(db, repo_id, missing):
                    have[segment_id] = checked_segment(segment_id, data)
                # Where a push replaced segments between the statements, it is looked again.
                if have.keys() >= set(segment_ids):
                    made = CommitGraph([have[segment_id] for segment_id in segment_ids])
                    break
            except ValueError as error:
                # All that it says is in rows, and a repack makes it anew.
                report_damage("graph-damaged", repo_id, f"its rows are read in place of its packed history: {error}")
                made = CommitGraph()
                break
        with self._lock:
            self._graphs[repo_id] = (segment_ids, made)
            self._graphs.move_to_end(repo_id)
            total = sum(kept.size_bytes for _, kept in self._graphs.values())
            while total > self._max_bytes and len(self._graphs) > 1:
                _, (_, dropped) = self._graphs.popitem(last=False)
                total -= dropped.size_bytes
        return made

    def forget(self, repo_id: str) -> None:
        """Let go of a repo's graph, which is read again where it is needed."""
        with self._lock:
            self._graphs.pop(repo_id, None)


def checked_segment(segment_id: str, data: bytes) -> Segment:
    """Return a segment of a packed graph.

    Args:
        segment_id: its id.
        data: its row's bytes.

    Raises:
        ValueError: it is not the one of this id, or another version of the plugin wrote it.
    """
    if from_digest(hashlib.sha256(data).digest()) != segment_id:
        raise ValueError(f"segment {segment_id} does not hash to its id")
    return Segment(data)


class History:
    """The commits of a repo, and those that a push is about to add.

    Args:
        db: the unit of work.
        cache: the process's packed graphs.
        repo_id: the repo.

    Attributes:
        graph: the packed graph as it was when this was made.
    """

    def __init__(self, db: Database, cache: GraphCache, repo_id: str) -> None:
        self._db = db
        self._repo_id = repo_id
        self.graph = cache.load(db, repo_id)
        self._rows: dict[str, commit_store.Node] | None = None
        self._brought: Mapping[str, Mapping[str, Any]] = {}

    def add(self, records: Mapping[str, Mapping[str, Any]]) -> None:
        """Take in the records of commits that a push brings, by id."""
        self._brought = records

    def rows(self) -> dict[str, commit_store.Node]:
        """Return every commit that the repo holds, from its rows."""
        if self._rows is None:
            self._rows = commit_store.graph(self._db, self._repo_id)
        return self._rows

    def packed(self, commit_ids: Iterable[str]) -> dict[str, int] | None:
        """Return the ordinals of those commits that the repo holds; None where the packed graph lacks one of them."""
        found: dict[str, int] = {}
        unknown: list[str] = []
        for commit_id in commit_ids:
            ordinal = self.graph.find(commit_id)
            if ordinal is None:
                unknown.append(commit_id)
            else:
                found[commit_id] = ordinal
        if unknown and commit_store.held_commits(self._db, self._repo_id, unknown):
            return None
        return found

    def held(self, commit_ids: Iterable[str]) -> set[str]:
        """Return which of some commits the repo holds, or is about to."""
        asked = set(commit_ids)
        brought = asked & self._brought.keys()
        packed = self.packed(asked - brought)
        stored = self.rows().keys() if packed is None else packed.keys()
        return brought | (asked & stored)

    def parents(self, commit_ids: Iterable[str]) -> dict[str, list[str]]:
        """Return the parents of those commits that the repo holds."""
        asked = set(commit_ids)
        packed = self.packed(asked)
        if packed is None:
            rows = self.rows()
            return {commit_id: rows[commit_id].parent_ids for commit_id in asked & rows.keys()}
        graph = self.graph
        return {
            commit_id: [graph.commit_id(parent) for parent in graph.parents(ordinal)]
            for commit_id, ordinal in packed.items()
        }

    def snapshot_ids(self, commit_ids: Iterable[str]) -> dict[str, str]:
        """Return the snapshots of those commits that the repo holds."""
        asked = set(commit_ids)
        packed = self.packed(asked)
        if packed is None:
            rows = self.rows()
            return {commit_id: rows[commit_id].snapshot_id for commit_id in asked & rows.keys()}
        return {commit_id: self.graph.snapshot_id(ordinal) for commit_id, ordinal in packed.items()}

    def is_ancestor(self, ancestor: str, commit: str) -> bool:
        """Say whether `ancestor` is `commit` or reachable from it."""
        tips = {commit}
        if self._brought:
            seen: set[str] = set()
            stack = [commit]
            tips = set()
            while stack:
                at = stack.pop()
                if at == ancestor:
                    return True
                if at not in seen:
                    seen.add(at)
                    record = self._brought.get(at)
                    if record is None:
                        tips.add(at)
                    else:
                        stack.extend(record["parent_ids"])
            if ancestor in self._brought:
                return False
        packed = self.packed([ancestor, *tips])
        if packed is None:
            rows = self.rows()
            return ancestor in graph.reachable(rows, lambda commit_id: rows[commit_id].parent_ids, tips)
        if ancestor not in packed:
            return False
        return self.graph.is_ancestor(packed[ancestor], [packed[tip] for tip in tips if tip in packed])


def pack_history(db: Database, cache: GraphCache, repo_id: str, commits: Iterable[NewCommit]) -> bool:
    """Add commits to a repo's packed graph, in the transaction that adds their rows.

    Segments are merged so that each is at least twice the size of the next: there are few, and a commit is copied as
    often as the logarithm of their number. One that is full is left alone, so that neither a long push nor a small one
    to a long history takes more memory than a full segment does.

    Args:
        db: the unit of work.
        cache: the process's packed graphs.
        repo_id: the repo.
        commits: parents before children; those that are in the graph already are passed over.

    Returns:
        False where the graph cannot take them, since a parent is only in rows: it is dropped then, and the planner
        reads rows until a repack makes it anew.
    """
    graphs.lock_segments(db, repo_id)
    following = iter(commits)
    while True:
        packed = cache.load(db, repo_id)
        try:
            data = packed.grown(following, _FULL_SEGMENT)
        except KeyError:
            graphs.drop_segments(db, repo_id)
            return False
        if data is None or _append(db, repo_id, packed, data) < _FULL_SEGMENT:
            return True


def _append(db: Database, repo_id: str, packed: CommitGraph, data: bytes) -> int:
    """Store a segment, merged with those before it where that is due; return how many commits it has by itself."""
    new = Segment(data)
    together = [new]
    for segment in reversed(packed.segments):
        if segment.count >= _FULL_SEGMENT or segment.count > 2 * sum(each.count for each in together):
            break
        together.insert(0, segment)
    if len(together) > 1:
        data = merged(together)
    graphs.replace_segments(db, repo_id, together[0].first, data, sum(each.count for each in together))
    return new.count
