"""Random commit graphs, and the naive oracle that says what a fetch of one must send.

The oracle is as slow and as plain as the definition: reach(want) minus reach(have). Nothing here imports the planner.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from musehub_plugin import ids

PATHS = ("a.txt", "b.txt", "c/d.txt")
# A few contents shared by all graphs, so that blobs recur under other paths and commits; one of them is empty.
CONTENTS = (b"", *(f"content {number}\n".encode() * 5 for number in range(9)))
DATES = (
    "1900-01-01T00:00:00+00:00",
    "2026-01-01T00:00:00+00:00",
    "2026-01-01T00:00:00.000001+00:00",
    "2106-02-07T06:28:16+00:00",
    "9999-12-31T23:59:59+00:00",
)


@dataclass(frozen=True)
class Dag:
    """A history whose commits are numbered in an order with parents first.

    Args:
        parents: the numbers of each commit's parents; a parent may be named twice.
        trees: each commit's manifest, as path to an index into `CONTENTS`.
        dates: each commit's date, whatever its parents' are.
        salt: goes into every message, so that equal shapes are different commits.
    """

    parents: tuple[tuple[int, ...], ...]
    trees: tuple[tuple[tuple[str, int], ...], ...]
    dates: tuple[str, ...]
    salt: str = ""

    def history(self) -> History:
        """Return the commits with their true ids."""
        history = History()
        for number, parents in enumerate(self.parents):
            manifest = {path: ids.blob_id(CONTENTS[content]) for path, content in self.trees[number]}
            history.commit(
                [history.order[parent] for parent in parents], manifest, f"{self.salt}{number}", self.dates[number]
            )
        return history


@dataclass
class History:
    """Commits by id: the graph, the records and the manifests."""

    order: list[str] = field(default_factory=list)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    manifests: dict[str, dict[str, str]] = field(default_factory=dict)

    def commit(self, parent_ids: Sequence[str], manifest: Mapping[str, str], message: str, date: str = DATES[1]) -> str:
        """Add a commit and return its id."""
        snapshot_id = ids.snapshot_id(manifest)
        commit_id = ids.commit_id(parent_ids, snapshot_id, message, date)
        self.order.append(commit_id)
        self.manifests[snapshot_id] = dict(manifest)
        self.records[commit_id] = {
            "commit_id": commit_id,
            "parent_ids": list(parent_ids),
            "snapshot_id": snapshot_id,
            "branch": "main",
            "message": message,
            "author": "A. Uthor",
            "committed_at": date,
        }
        return commit_id

    def parents(self, commit_id: str) -> list[str]:
        """Return the parents of a commit, as its record has them."""
        found: list[str] = self.records[commit_id]["parent_ids"]
        return found

    def reach(self, tips: Iterable[str]) -> set[str]:
        """Return those tips that are commits of this history, and all their ancestors."""
        seen: set[str] = set()
        waiting = [tip for tip in tips if tip in self.records]
        while waiting:
            commit_id = waiting.pop()
            if commit_id not in seen:
                seen.add(commit_id)
                waiting.extend(self.parents(commit_id))
        return seen

    def blobs(self, commit_ids: Iterable[str]) -> set[str]:
        """Return the blobs of the snapshots of commits."""
        return {
            object_id
            for commit_id in commit_ids
            for object_id in self.manifests[self.records[commit_id]["snapshot_id"]].values()
        }

    def delta(self, want: Iterable[str], have: Iterable[str]) -> tuple[set[str], set[str], set[str]]:
        """Return the commits, snapshots and blobs that a fetch must send: the definition itself."""
        held = self.reach(have)
        commits = self.reach(want) - held
        snapshots = {self.records[commit_id]["snapshot_id"] for commit_id in commits}
        return commits, snapshots, self.blobs(commits) - self.blobs(held)


_trees = st.lists(
    st.tuples(st.sampled_from(PATHS), st.integers(0, len(CONTENTS) - 1)), max_size=3, unique_by=lambda entry: entry[0]
).map(lambda entries: tuple(sorted(entries)))


@st.composite
def dags(draw: st.DrawFn, max_commits: int = 12) -> Dag:
    """Draw graphs with merges, octopus merges, several roots, parents named twice, and dates in any order."""
    size = draw(st.integers(1, max_commits))
    parents = [
        tuple(draw(st.lists(st.integers(0, number - 1), max_size=3))) if number else () for number in range(size)
    ]
    trees = draw(st.lists(_trees, min_size=size, max_size=size))
    dates = draw(st.lists(st.sampled_from(DATES), min_size=size, max_size=size))
    return Dag(tuple(parents), tuple(trees), tuple(dates))


def random_dag(chance: random.Random, max_commits: int, salt: str) -> Dag:
    """Return a graph like those of `dags`, at a fraction of the cost: for volume where nothing has to shrink."""
    size = chance.randint(1, max_commits)
    parents, trees = [], []
    for number in range(size):
        # Mostly recent parents, as histories have them; a root now and then.
        width = chance.choices((0, 1, 2, 3, 4), (1, 8, 5, 1, 1))[0] if number else 0
        parents.append(tuple(max(0, number - 1 - int(chance.expovariate(0.5))) for _ in range(width)))
        paths = chance.sample(PATHS, chance.randint(0, len(PATHS)))
        trees.append(tuple((path, chance.randrange(len(CONTENTS))) for path in sorted(paths)))
    epoch = datetime(2026, 1, 1, tzinfo=UTC)
    dates = tuple((epoch + timedelta(seconds=chance.randint(-5, 5))).isoformat() for _ in range(size))
    return Dag(tuple(parents), tuple(trees), dates, salt)
