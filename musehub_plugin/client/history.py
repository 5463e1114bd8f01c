"""Walks over the commits of a working copy: newest first, reading no more of them than the question needs.

A commit that is stored has all that it reaches stored with it (see `apply`), so a walk that comes to a missing one has
found damage. Dates order the walks and decide nothing: a clock that was wrong costs time, or a few commits more in a
pack than were needed, never one less.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from heapq import heappop, heappush
from typing import overload

from musehub_plugin import ids
from musehub_plugin.client.record import record_parents
from musehub_plugin.client.workdir import Workdir
from musehub_plugin.mpack.digests import DigestTable


class History:
    """The commits of a working copy, read when they are needed, and then kept by number, in some 70 bytes each.

    Args:
        workdir: the working copy.
    """

    def __init__(self, workdir: Workdir) -> None:
        self._workdir = workdir
        self._table = DigestTable()
        # Of each commit: where its parents begin, as far as it was read, how many they are, and its age.
        self._starts = array("q")
        self._counts = array("I")
        self._ages = array("d")
        self._parents = array("I")

    def __len__(self) -> int:
        """Return how many commits have numbers: those that were asked about, and the parents of those read."""
        return self._table.count

    def number(self, commit_id: str) -> int:
        """Return a commit's number; one that has none yet gets the next."""
        number = self._table.number(ids.to_digest(commit_id))
        if number == len(self._starts):
            self._starts.append(-1)
            self._counts.append(0)
            self._ages.append(0.0)
        return number

    def commit_id(self, number: int) -> str:
        """Return the id of the commit that has a number."""
        return ids.from_digest(self._table[number])

    def parents(self, number: int) -> Sequence[int]:
        """Return the numbers of a commit's parents.

        Raises:
            WorkdirError: the commit is not there, or is damaged.
        """
        self._read(number)
        start = self._starts[number]
        return self._parents[start : start + self._counts[number]]

    def age(self, number: int) -> float:
        """Return what is smaller for commits of later dates.

        Raises:
            WorkdirError: as `parents`.
        """
        self._read(number)
        return self._ages[number]

    def _read(self, number: int) -> None:
        if self._starts[number] >= 0:
            return
        record = self._workdir.read_commit(self.commit_id(number))
        parents = [self.number(parent) for parent in record_parents(record)]
        self._starts[number] = len(self._parents)
        self._counts[number] = len(parents)
        self._parents.extend(parents)
        self._ages[number] = _age(record["committed_at"])

    def missing(self, heads: Iterable[str], held: Iterable[str]) -> Sequence[str]:
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
        passed = array("I", (self.number(commit_id) for commit_id in walk))
        # The other side's may have turned out to be so after they were passed.
        lacking = bytearray(len(self))
        for number in passed:
            lacking[number] = not walk.is_common(self.commit_id(number))
        return _Commits(self, self._parents_first([self.number(head) for head in wanted], lacking))

    def edge(self, commits: Iterable[str]) -> set[str]:
        """Return those parents of commits that are not among them."""
        numbers = array("I", map(self.number, commits))
        among = bytearray(len(self))
        for number in numbers:
            among[number] = True
        beyond = {parent for number in numbers for parent in self.parents(number) if not among[parent]}
        return set(map(self.commit_id, beyond))

    def is_ancestor(self, commit_id: str, descendant: str) -> bool:
        """Say whether a commit is reached from `descendant`, or is it."""
        walk = Walk(self)
        walk.add(descendant)
        return any(passed == commit_id for passed in walk)

    def _parents_first(self, heads: Sequence[int], within: bytearray) -> array[int]:
        ordered = array("I")
        placed = bytearray(len(within))
        stack = [(head, False) for head in heads if within[head]]
        stack.reverse()
        while stack:
            number, parents_done = stack.pop()
            if placed[number]:
                continue
            if parents_done:
                placed[number] = True
                ordered.append(number)
                continue
            stack.append((number, True))
            stack += [
                (parent, False)
                for parent in reversed(self.parents(number))
                if parent < len(within) and within[parent] and not placed[parent]
            ]
        return ordered


class _Commits(Sequence[str]):
    """Commits of a history, in an order."""

    def __init__(self, history: History, numbers: array[int]) -> None:
        self._history = history
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, at: int) -> str: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[str]: ...

    def __getitem__(self, at: int | slice) -> str | Sequence[str]:
        if isinstance(at, slice):
            return _Commits(self._history, self._numbers[at])
        return self._history.commit_id(self._numbers[at])


class Walk:
    """A walk from some commits into the past, newest first, that paints what the other side has.

    Iterating gives each commit once, and ends when all that is left is painted.

    Args:
        history: the commits.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self._queue: list[tuple[float, int]] = []
        self._open: set[int] = set()
        # By number; what lies beyond their ends is neither.
        self._seen = bytearray()
        self._common = bytearray()

    def add(self, commit_id: str, *, common: bool = False) -> None:
        """Start from a commit too.

        Args:
            commit_id: the commit.
            common: the other side has it, with all that it reaches.
        """
        self._add(self._history.number(commit_id), common=common)

    def _add(self, number: int, *, common: bool) -> None:
        if common:
            self._paint(number)
        self._reach(number)
        if not self._seen[number]:
            age = self._history.age(number)
            self._seen[number] = True
            heappush(self._queue, (age, number))
            if not self._common[number]:
                self._open.add(number)

    def paint(self, commit_id: str) -> None:
        """Note that the other side has a commit, and so what the walk has seen of its past."""
        self._paint(self._history.number(commit_id))

    def _paint(self, number: int) -> None:
        stack = [number]
        while stack:
            painted = stack.pop()
            self._reach(painted)
            if self._common[painted]:
                continue
            self._common[painted] = True
            self._open.discard(painted)
            # Those that the walk has not come to yet inherit it when it does.
            parents = self._history.parents(painted)
            stack += [parent for parent in parents if parent < len(self._seen) and self._seen[parent]]

    def is_common(self, commit_id: str) -> bool:
        """Say whether a commit is known to be on the other side."""
        return self._is_common(self._history.number(commit_id))

    def _is_common(self, number: int) -> bool:
        return number < len(self._common) and bool(self._common[number])

    def _reach(self, number: int) -> None:
        """Have a place for a commit."""
        if number >= len(self._seen):
            more = bytes(max(number + 1, len(self._history), 2 * len(self._seen)) - len(self._seen))
            self._seen += more
            self._common += more

    def __iter__(self) -> Iterator[str]:
        # What is painted matters as long as something is open that it may reach.
        while self._open and self._queue:
            _, number = heappop(self._queue)
            self._open.discard(number)
            yield self._history.commit_id(number)
            common = self._is_common(number)
            for parent in self._history.parents(number):
                self._add(parent, common=common)


def _age(committed_at: str) -> float:
    """Return a number that is smaller for later dates; a text that is no date counts as the oldest."""
    try:
        date = datetime.fromisoformat(committed_at)
        return -(date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except ValueError:
        return math.inf
