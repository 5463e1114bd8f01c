"""What a soak keeps account of: what the hub has acknowledged, what it answered, and what was found wrong."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping


class Ledger:
    """The account, shared by all threads of a soak.

    A branch of one client alone must stand where its last acknowledged push put it. On a branch that several clients
    push to, without force, every acknowledged commit must be in the branch's history.

    Attributes:
        pushes: pushes that were acknowledged.
        push_seconds: how long each of them took, tries and pauses included.
        repeats: pushes that were sent once more as they were, and acknowledged again.
        fetches: fetches that brought what they had to.
        clones: clones that were verified whole.
        faults: faults by kind.
        chores: an operator's commands that were run, by name.
        answers: errors that clients met and got over, by status and code.
        lost: sentences on what was acknowledged and is not there.
        wrong: sentences on answers and contents that should not have been.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._own: dict[tuple[str, str], str] = {}
        self._shared: dict[tuple[str, str], list[str]] = {}
        self.pushes = 0
        self.push_seconds: list[float] = []
        self.repeats = 0
        self.fetches = 0
        self.clones = 0
        self.faults: Counter[str] = Counter()
        self.chores: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.lost: list[str] = []
        self.wrong: list[str] = []

    def acknowledged(self, repo: str, branch: str, head: str, *, seconds: float, shared: bool = False) -> None:
        """Note a push that the hub has acknowledged.

        Args:
            repo: the repo.
            branch: the branch.
            head: where the branch was pushed to.
            seconds: how long it took from the first try on.
            shared: whether other clients push to the branch too.
        """
        with self._lock:
            self.pushes += 1
            self.push_seconds.append(seconds)
            if shared:
                self._shared.setdefault((repo, branch), []).append(head)
            else:
                self._own[repo, branch] = head

    def count(self, what: str) -> None:
        """Add one to `repeats`, `fetches` or `clones`."""
        with self._lock:
            setattr(self, what, getattr(self, what) + 1)

    def tally(self, what: str, kind: str) -> None:
        """Add one of a kind to `faults`, `chores` or `answers`."""
        with self._lock:
            getattr(self, what)[kind] += 1

    def note(self, what: str, text: str) -> None:
        """Add a sentence to `lost` or `wrong`."""
        with self._lock:
            getattr(self, what).append(text)

    def own_head(self, repo: str, branch: str) -> str | None:
        """Return where a client's own branch must stand; None where no push of it was acknowledged."""
        with self._lock:
            return self._own.get((repo, branch))

    def compare(self, repo: str, heads: Mapping[str, str], mine: Iterable[str] | None = None) -> None:
        """Note what is lost, given where the branches of a repo stand.

        Args:
            repo: the repo.
            heads: its branches, as a client has received them.
            mine: a client's own branches, which nobody moves meanwhile; None: all, once every client is done.
        """
        with self._lock:
            known = {branch: head for (where, branch), head in self._own.items() if where == repo}
        for branch in known if mine is None else mine:
            if branch in known and heads.get(branch) != known[branch]:
                where = heads.get(branch, "nowhere")
                self.note("lost", f"{repo}: {branch} was acknowledged at {known[branch]} and stands at {where}")

    def compare_shared(self, repo: str, branch: str, history: set[str]) -> None:
        """Note which acknowledged commits are missing from the history of a shared branch."""
        with self._lock:
            commits = list(self._shared.get((repo, branch), ()))
        for commit_id in commits:
            if commit_id not in history:
                self.note("lost", f"{repo}: {branch} does not hold the acknowledged {commit_id}")
