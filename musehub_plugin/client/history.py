"""Walks over the commits of a working copy: newest first, reading no more of them than the question needs.

A commit that is stored has all that it reaches stored with it (see `apply`), so a walk that comes to a missing one has
found damage. Dates order the walks and decide nothing: a clock that was wrong costs time, or a few commits more in a
pack than were needed, never one less.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from heapq import heappop, heappush
from typing import NamedTuple

from musehub_plugin.client.record import record_parents
from musehub_plugin.client.workdir import Workdir


class CommitNode(NamedTuple):
    """What a walk needs of a commit; ids with prefix."""

    parent_ids: tuple[str, ...]
    committed_at: str


class History:
    """The commits of a working copy, read when they are needed and then kept.

    Args:
        workdir: the working copy.
    """

    def __init__(self, workdir: Workdir) -> None:
        self._workdir = workdir
        self._nodes: dict[str, CommitNode] = {}

    def node(self, commit_id: str) -> CommitNode:
        """Return a commit's parents and date.

        Raises:
            WorkdirError: the commit is not there, or is damaged.
        """
        node = self._nodes.get(commit_id)
        if node is None:
            record = self._workdir.read_commit(commit_id)
            node = CommitNode(tuple(record_parents(record)), record["committed_at"])
            self._nodes[commit_id] = node
        return node

    def missing(self, heads: Iterable[str], held: Iterable[str]) -> list[str]:
        """Return the commits that `heads` reach and `held` do not, parents before children.

        Args:
            heads: commits of the working copy.
            held: commits of the working copy that the other side has, with all that they reach.
        """
        walk = Walk(self)
        for commit_id in held:
            walk.add(commit_id, common=True)
        wanted = list(heads)
        for commit_id in wanted:
            walk.add(commit_id)
        lacking = {commit_id for commit_id in walk if not walk.is_common(commit_id)}
        # The other side's may have turned out to be so after they were passed.
        lacking = {commit_id for commit_id in lacking if not walk.is_common(commit_id)}
        return self._parents_first(wanted, lacking)

    def is_ancestor(self, commit_id: str, descendant: str) -> bool:
        """Say whether a commit is reached from `descendant`, or is it."""
        walk = Walk(self)
        walk.add(descendant)
        return any(passed == commit_id for passed in walk)

    def _parents_first(self, heads: Iterable[str], within: set[str]) -> list[str]:
        ordered: list[str] = []
        placed: set[str] = set()
        stack = [(head, False) for head in heads if head in within]
        stack.reverse()
        while stack:
            commit_id, parents_done = stack.pop()
            if commit_id in placed:
                continue
            if parents_done:
                placed.add(commit_id)
                ordered.append(commit_id)
                continue
            stack.append((commit_id, True))
            stack += [
                (parent, False)
                for parent in reversed(self.node(commit_id).parent_ids)
                if parent in within and parent not in placed
            ]
        return ordered


class Walk:
    """A walk from some commits into the past, newest first, that paints what the other side has.

    Iterating gives each commit once, and ends when all that is left is painted.

    Args:
        history: the commits.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self._queue: list[tuple[float, str]] = []
        self._open: set[str] = set()
        self._seen: set[str] = set()
        self._common: set[str] = set()

    def add(self, commit_id: str, *, common: bool = False) -> None:
        """Start from a commit too.

        Args:
            commit_id: the commit.
            common: the other side has it, with all that it reaches.
        """
        if common:
            self.paint(commit_id)
        if commit_id not in self._seen:
            self._seen.add(commit_id)
            heappush(self._queue, (_age(self._history.node(commit_id).committed_at), commit_id))
            if commit_id not in self._common:
                self._open.add(commit_id)

    def paint(self, commit_id: str) -> None:
        """Note that the other side has a commit, and so what the walk has seen of its past."""
        stack = [commit_id]
        while stack:
            painted = stack.pop()
            if painted in self._common:
                continue
            self._common.add(painted)
            self._open.discard(painted)
            # Those that the walk has not come to yet inherit it when it does.
            stack += [parent for parent in self._history.node(painted).parent_ids if parent in self._seen]

    def is_common(self, commit_id: str) -> bool:
        """Say whether a commit is known to be on the other side."""
        return commit_id in self._common

    def __iter__(self) -> Iterator[str]:
        # What is painted matters as long as something is open that it may reach.
        while self._open and self._queue:
            _, commit_id = heappop(self._queue)
            self._open.discard(commit_id)
            yield commit_id
            common = commit_id in self._common
            for parent in self._history.node(commit_id).parent_ids:
                self.add(parent, common=common)


def _age(committed_at: str) -> float:
    """Return a number that is smaller for later dates; a text that is no date counts as the oldest."""
    try:
        date = datetime.fromisoformat(committed_at)
        return -(date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except ValueError:
        return math.inf
