"""A repo's history packed for the planner: who descends from whom, and which commit brought which blob.

Commits are numbered in an order that has parents before children, blobs in the order in which commits introduced
them; these ordinals never change while more history is added. A **segment** is the packed form of a run of commits. A
commit *introduces* the blobs that its manifest has at paths where its first parent's manifest has something else, so
every blob of a manifest is introduced by its commit or by an ancestor: the blobs that a have implies are those that
some commit it reaches introduced, and nobody has to read a manifest to know them.

Generations are the segments' own: 1 + the highest parent's, computed here and never taken from a row that somebody
else may have written (ATTACKS N20).

A segment, all numbers little-endian and 32 bits wide:

    magic "MHG1", first commit, commits, first blob, blobs, further parents, repeated introductions
    commit ids, snapshot ids: 32 bytes each
    commits in the order of their ids, counted from the segment's first
    first parents, second parents (NONE where there is none), generations
    for each commit, the first blob that it introduced first
    blob ids: 32 bytes each
    blobs in the order of their ids, counted from the segment's first
    (commit, parent) for each parent after the second
    (commit, blob) for each further introduction of a blob, in this order, then the places of these pairs by their blobs
"""

from __future__ import annotations

import heapq
import struct
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import compress
from typing import Final, NamedTuple

from musehub_plugin import graph
from musehub_plugin.ids import from_digest, to_digest
from musehub_plugin.mpack.digests import DigestTable, sorted_ordinals

_MAGIC: Final = b"MHG1"
_HEADER: Final = struct.Struct("<4s6I")
NONE: Final = 0xFFFFFFFF

# Up to so many commits a set of what they introduce is smaller than a mark for each blob of the repo, and quicker.
_FEW: Final = 1_000
# Blobs that such a set has at most.
_FEW_INTRODUCED: Final = 20_000
# Blobs of a commit that are sorted as a list of digests, of 70 bytes each.
_FEW_BLOBS: Final = 4_096

_WANTED: Final = 1
_HELD: Final = 2


class NewCommit(NamedTuple):
    """A commit to be added.

    Attributes:
        parent_ids: its parents in their order; each must be in the graph, or among those added before it.
        introduced: ids of the blobs that it introduces, or of more, as long as its manifest has them.
    """

    commit_id: str
    snapshot_id: str
    parent_ids: Sequence[str]
    introduced: Collection[str]


class _Columns:
    """Takes a segment apart; what is taken is a copy, so that the segment itself can go."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = _HEADER.size

    def take(self, size: int) -> bytes:
        """Return the bytes that follow."""
        self._at += size
        return self._data[self._at - size : self._at]

    def numbers(self, count: int) -> array[int]:
        """Return the numbers that follow."""
        numbers = array("I")
        numbers.frombytes(self.take(4 * count))
        if sys.byteorder == "big":
            numbers.byteswap()
        return numbers


class Segment:
    """A run of commits, taken apart into columns.

    Args:
        data: the packed form, as `CommitGraph.grown` made it.

    Attributes:
        size_bytes: about how much memory it takes.

    Raises:
        ValueError: `data` is no segment, or is cut off.
    """

    def __init__(self, data: bytes) -> None:
        if len(data) < _HEADER.size:
            raise ValueError("a graph segment is cut off")
        magic, *numbers = _HEADER.unpack_from(data)
        self.first: int
        self.count: int
        self.first_blob: int
        self.blob_count: int
        self.first, self.count, self.first_blob, self.blob_count, further, again = numbers
        expected = _HEADER.size + 84 * self.count + 36 * self.blob_count + 8 * further + 12 * again
        if magic != _MAGIC or len(data) != expected:
            raise ValueError("not a graph segment of this version")
        columns = _Columns(data)
        self.commit_digests = columns.take(32 * self.count)
        self.snapshot_digests = columns.take(32 * self.count)
        self._order = columns.numbers(self.count)
        self.first_parents = columns.numbers(self.count)
        self.second_parents = columns.numbers(self.count)
        self.generations = columns.numbers(self.count)
        self.blob_starts = columns.numbers(self.count)
        self.blob_digests = columns.take(32 * self.blob_count)
        self._blob_order = columns.numbers(self.blob_count)
        self.further_parents = columns.numbers(2 * further)
        pairs = columns.numbers(2 * again)
        self.again_commits = pairs[0::2]
        self.again_blobs = pairs[1::2]
        self._again_order = columns.numbers(again)
        self.size_bytes = len(data)

    @property
    def blob_end(self) -> int:
        """The ordinal after the last blob's."""
        return self.first_blob + self.blob_count

    def find_commit(self, digest: bytes) -> int | None:
        """Return a commit's ordinal, or None."""
        found = _find(self.commit_digests, self._order, digest)
        return None if found is None else self.first + found

    def find_blob(self, digest: bytes) -> int | None:
        """Return a blob's ordinal, or None."""
        found = _find(self.blob_digests, self._blob_order, digest)
        return None if found is None else self.first_blob + found

    def introduces_again(self, commit: int) -> array[int]:
        """Return the blobs that a commit introduced after another one had."""
        start = bisect_left(self.again_commits, commit)
        return self.again_blobs[start : bisect_right(self.again_commits, commit, lo=start)]

    def introduced_again(self, blob: int) -> Iterator[int]:
        """Yield the commits of this segment that introduced a blob after another one had."""
        blobs, order = self.again_blobs, self._again_order
        for at in range(bisect_left(order, blob, key=blobs.__getitem__), len(order)):
            if blobs[order[at]] != blob:
                break
            yield self.again_commits[order[at]]


def _find(digests: bytes, order: array[int], digest: bytes) -> int | None:
    at = bisect_left(order, digest, key=lambda number: digests[32 * number : 32 * number + 32])
    if at < len(order) and digests[32 * order[at] : 32 * order[at] + 32] == digest:
        return order[at]
    return None


def _sorted_order(digests: bytes) -> array[int]:
    return array("I", sorted_ordinals(len(digests) // 32, lambda start, stop: digests[32 * start : 32 * stop]))


def _each_once(ids: Collection[str]) -> Iterator[bytes]:
    """Yield the digests of ids, each once and sorted."""
    if len(ids) <= _FEW_BLOBS:
        yield from sorted(set(map(to_digest, ids)))
        return
    table = DigestTable()
    for each in ids:
        table.number(to_digest(each))
    for number in table.sorted_ordinals():
        yield table[number]


def _packed_pairs(pairs: Sequence[tuple[int, int]]) -> tuple[bytes, bytes]:
    order = sorted(range(len(pairs)), key=lambda at: pairs[at][1])
    return _packed(number for pair in pairs for number in pair), _packed(order)


def _packed(numbers: Iterable[int]) -> bytes:
    column = numbers if isinstance(numbers, array) else array("I", numbers)
    if sys.byteorder == "big":
        column = array("I", column)
        column.byteswap()
    return column.tobytes()


class CommitGraph:
    """The history of one repo, as far as it is packed.

    Args:
        segments: in order, each beginning where the one before ends.

    Raises:
        ValueError: they do not follow one another.
    """

    def __init__(self, segments: Sequence[Segment] = ()) -> None:
        self.segments = tuple(segments)
        self._first_parents = array("I")
        self._second_parents = array("I")
        self._generations = array("I")
        self._blob_starts = array("I")
        self._further: dict[int, list[int]] = {}
        self.blob_count = 0
        for segment in self.segments:
            if segment.first != len(self._generations) or segment.first_blob != self.blob_count:
                raise ValueError("graph segments do not follow one another")
            self._first_parents.extend(segment.first_parents)
            self._second_parents.extend(segment.second_parents)
            self._generations.extend(segment.generations)
            self._blob_starts.extend(segment.blob_starts)
            for at in range(0, len(segment.further_parents), 2):
                commit, parent = segment.further_parents[at : at + 2]
                self._further.setdefault(commit, []).append(parent)
            self.blob_count = segment.blob_end
        self._starts = [segment.first for segment in self.segments]
        self._first_blobs = [segment.first_blob for segment in self.segments]
        self._blob_starts.append(self.blob_count)

    def __len__(self) -> int:
        return len(self._generations)

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes."""
        return sum(segment.size_bytes for segment in self.segments) + 16 * len(self)

    def find(self, commit_id: str) -> int | None:
        """Return the ordinal of a commit, or None where it is not in the graph."""
        return self._find(to_digest(commit_id))

    def _find(self, digest: bytes) -> int | None:
        for segment in reversed(self.segments):
            found = segment.find_commit(digest)
            if found is not None:
                return found
        return None

    def find_blob(self, object_id: str) -> int | None:
        """Return the ordinal of a blob, or None where no commit of the graph has it."""
        return self._find_blob(to_digest(object_id))

    def _find_blob(self, digest: bytes) -> int | None:
        for segment in reversed(self.segments):
            found = segment.find_blob(digest)
            if found is not None:
                return found
        return None

    def commit_digest(self, commit: int) -> bytes:
        """Return the 32 bytes of a commit's id."""
        segment = self.segments[bisect_right(self._starts, commit) - 1]
        at = 32 * (commit - segment.first)
        return segment.commit_digests[at : at + 32]

    def commit_id(self, commit: int) -> str:
        """Return the id of a commit."""
        return from_digest(self.commit_digest(commit))

    def snapshot_digest(self, commit: int) -> bytes:
        """Return the 32 bytes of the id of a commit's snapshot."""
        segment = self.segments[bisect_right(self._starts, commit) - 1]
        at = 32 * (commit - segment.first)
        return segment.snapshot_digests[at : at + 32]

    def snapshot_id(self, commit: int) -> str:
        """Return the id of a commit's snapshot."""
        return from_digest(self.snapshot_digest(commit))

    def blob_digest(self, blob: int) -> bytes:
        """Return the 32 bytes of a blob's id."""
        segment = self.segments[bisect_right(self._first_blobs, blob) - 1]
        at = 32 * (blob - segment.first_blob)
        return segment.blob_digests[at : at + 32]

    def parents(self, commit: int) -> list[int]:
        """Return a commit's parents in their order."""
        first = self._first_parents[commit]
        if first == NONE:
            return []
        second = self._second_parents[commit]
        if second == NONE:
            return [first]
        further = self._further.get(commit)
        return [first, second] if further is None else [first, second, *further]

    def generation(self, commit: int) -> int:
        """Return 1 + the highest generation of a commit's parents."""
        return self._generations[commit]

    def walk(self, want: Iterable[int], have: Iterable[int]) -> Walk:
        """Return what `want` reaches and `have` does not, as a walk that can be asked further questions."""
        return Walk(self, want, have)

    def is_ancestor(self, ancestor: int, tips: Iterable[int]) -> bool:
        """Say whether `ancestor` is one of `tips` or reachable from one; looks at nothing older than it."""
        floor = self._generations[ancestor]
        seen = set(tips)
        stack = list(seen)
        while stack:
            at = stack.pop()
            if at == ancestor:
                return True
            if self._generations[at] > floor:
                for parent in self.parents(at):
                    if parent not in seen:
                        seen.add(parent)
                        stack.append(parent)
        return False

    def newest_reached(self, tips: Iterable[int], among: Collection[int]) -> int | None:
        """Return which of some commits `tips` reach, the one of the highest generation (then of the lowest id)."""
        if not among:
            return None
        floor = min(self._generations[commit] for commit in among)
        seen = set(tips)
        heap = [(-self._generations[commit], commit) for commit in seen]
        heapq.heapify(heap)
        found: list[int] = []
        while heap:
            generation, commit = heapq.heappop(heap)
            if -generation < floor or (found and -generation < self._generations[found[0]]):
                break
            if commit in among:
                found.append(commit)
            for parent in self.parents(commit):
                if parent not in seen:
                    seen.add(parent)
                    heapq.heappush(heap, (-self._generations[parent], parent))
        return min(found, key=self.commit_id, default=None)

    def introducers(self, blob: int) -> Iterator[int]:
        """Yield the commits that introduced a blob."""
        yield bisect_right(self._blob_starts, blob) - 1
        for segment in self.segments:
            yield from segment.introduced_again(blob)

    def introduced_first(self, commit: int) -> range:
        """Return the blobs that a commit was the first to introduce."""
        return range(self._blob_starts[commit], self._blob_starts[commit + 1])

    def introduced_again(self, commit: int) -> array[int]:
        """Return the blobs that a commit introduced after another one had."""
        return self.segments[bisect_right(self._starts, commit) - 1].introduces_again(commit)

    def history_order(self, commits: Collection[int], tips: Iterable[int]) -> list[int]:
        """Return `commits`, each reachable from `tips`, in the order of `graph.history_order`."""
        return graph.history_order(commits, self.parents, tips, key=self.commit_id)

    def grown(self, commits: Iterable[NewCommit], most: int = NONE) -> bytes | None:
        """Return the packed segment that adds commits after those that are there; None where there is nothing to add.

        Args:
            commits: parents before children; those that are in the graph are passed over.
            most: how many are added; what follows is not asked for.

        Raises:
            KeyError: a parent is neither in the graph nor among those added before.
        """
        new, new_blobs = DigestTable(), DigestTable()
        snapshots = bytearray()
        first_parents, second_parents = array("I"), array("I")
        generations, blob_starts = array("I"), array("I")
        further: list[int] = []
        again: list[tuple[int, int]] = []
        first, first_blob = len(self), self.blob_count

        def place(commit_id: str) -> int:
            digest = to_digest(commit_id)
            known = new.find(digest)
            known = self._find(digest) if known is None else first + known
            if known is None:
                raise KeyError(commit_id)
            return known

        for commit in commits:
            digest = to_digest(commit.commit_id)
            if new.find(digest) is not None or self._find(digest) is not None:
                continue
            ordinal = first + new.count
            parents = [place(parent_id) for parent_id in commit.parent_ids]
            first_parents.append(parents[0] if parents else NONE)
            second_parents.append(parents[1] if len(parents) > 1 else NONE)
            for parent in parents[2:]:
                further += (ordinal, parent)
            generations.append(
                1
                + max(
                    (generations[at - first] if at >= first else self._generations[at] for at in parents),
                    default=0,
                )
            )
            snapshots += to_digest(commit.snapshot_id)
            blob_starts.append(first_blob + new_blobs.count)
            for blob_digest in _each_once(commit.introduced):
                blob = new_blobs.find(blob_digest)
                blob = self._find_blob(blob_digest) if blob is None else first_blob + blob
                if blob is None:
                    new_blobs.number(blob_digest)
                else:
                    again.append((ordinal, blob))
            new.number(digest)
            if new.count == most:
                break
        if not new.count:
            return None
        again.sort()
        digests, blob_digests = new.part(0, new.count), new_blobs.part(0, new_blobs.count)
        return b"".join(
            (
                _HEADER.pack(_MAGIC, first, new.count, first_blob, new_blobs.count, len(further) // 2, len(again)),
                digests,
                snapshots,
                _packed(_sorted_order(digests)),
                _packed(first_parents),
                _packed(second_parents),
                _packed(generations),
                _packed(blob_starts),
                blob_digests,
                _packed(_sorted_order(blob_digests)),
                _packed(further),
                *_packed_pairs(again),
            )
        )


def merged(segments: Sequence[Segment]) -> bytes:
    """Return one packed segment in place of several that follow one another."""
    digests = b"".join(segment.commit_digests for segment in segments)
    blob_digests = b"".join(segment.blob_digests for segment in segments)
    further = [number for segment in segments for number in segment.further_parents]
    again = sorted(
        pair for segment in segments for pair in zip(segment.again_commits, segment.again_blobs, strict=True)
    )
    return b"".join(
        (
            _HEADER.pack(
                _MAGIC,
                segments[0].first,
                len(digests) // 32,
                segments[0].first_blob,
                len(blob_digests) // 32,
                len(further) // 2,
                len(again),
            ),
            digests,
            *(segment.snapshot_digests for segment in segments),
            _packed(_sorted_order(digests)),
            *(_packed(segment.first_parents) for segment in segments),
            *(_packed(segment.second_parents) for segment in segments),
            *(_packed(segment.generations) for segment in segments),
            *(_packed(segment.blob_starts) for segment in segments),
            blob_digests,
            _packed(_sorted_order(blob_digests)),
            _packed(further),
            *_packed_pairs(again),
        )
    )


class Walk:
    """What `want` reaches and `have` does not.

    Commits are passed by falling generation, so that all that descends from a commit was passed before it, and the
    walk ends where nothing but the have side's history is left: its cost is that of the difference.

    Attributes:
        lacking: the commits that `want` reaches and `have` does not.
        border: parents of these that `have` reaches.
    """

    def __init__(self, graph: CommitGraph, want: Iterable[int], have: Iterable[int]) -> None:
        self._graph = graph
        self._marks: dict[int, int] = {}
        self._heap: list[tuple[int, int]] = []
        self._wanted_only = 0
        self.lacking: set[int] = set()
        self.border: set[int] = set()
        for commit in have:
            self._mark(commit, _HELD)
        self._any_held = bool(self._marks)
        if not self._any_held:
            self.lacking = _reach(graph, want)
            return
        for commit in want:
            self._mark(commit, _WANTED)
        while self._wanted_only:
            self._step()
        for commit in self.lacking:
            self.border.update(parent for parent in graph.parents(commit) if parent not in self.lacking)

    def _mark(self, commit: int, marks: int) -> None:
        before = self._marks.get(commit, 0)
        after = before | marks
        if after == before:
            return
        if before == 0:
            heapq.heappush(self._heap, (-self._graph.generation(commit), commit))
        self._wanted_only += (after == _WANTED) - (before == _WANTED)
        self._marks[commit] = after

    def _step(self) -> None:
        _, commit = heapq.heappop(self._heap)
        marks = self._marks[commit]
        if marks == _WANTED:
            self._wanted_only -= 1
            self.lacking.add(commit)
        for parent in self._graph.parents(commit):
            self._mark(parent, marks)

    def holds(self, commit: int) -> bool:
        """Say whether `have` reaches a commit; goes on with the walk as far as that takes."""
        floor = -self._graph.generation(commit)
        while self._heap and self._heap[0][0] < floor:
            self._step()
        return bool(self._marks.get(commit, 0) & _HELD)

    def lacking_blobs(self) -> Iterable[int]:
        """Yield the blobs of the lacking commits' snapshots that no commit which `have` reaches has, ascending."""
        found = self._introduced()
        return (blob for blob in found if not self._holds_blob(blob)) if self._any_held else found

    @property
    def introduced_count(self) -> int:
        """How many blobs the lacking commits were the first to introduce; later ones are not counted."""
        return sum(len(self._graph.introduced_first(commit)) for commit in self.lacking)

    def _introduced(self) -> Iterable[int]:
        """Return the blobs that the lacking commits introduce, ascending."""
        graph = self._graph
        if len(self.lacking) <= _FEW and self.introduced_count <= _FEW_INTRODUCED:
            few: set[int] = set()
            for commit in self.lacking:
                few.update(graph.introduced_first(commit))
                few.update(graph.introduced_again(commit))
            return sorted(few)
        # A byte for each blob that there is, where a set takes some ninety for each that it has.
        many = bytearray(graph.blob_count)
        for commit in self.lacking:
            first = graph.introduced_first(commit)
            many[first.start : first.stop] = b"\1" * len(first)
            for blob in graph.introduced_again(commit):
                many[blob] = 1
        return compress(range(len(many)), many)

    def _holds_blob(self, blob: int) -> bool:
        return any(commit not in self.lacking and self.holds(commit) for commit in self._graph.introducers(blob))


def _reach(graph: CommitGraph, tips: Iterable[int]) -> set[int]:
    seen = set(tips)
    stack = list(seen)
    while stack:
        for parent in graph.parents(stack.pop()):
            if parent not in seen:
                seen.add(parent)
                stack.append(parent)
    return seen
