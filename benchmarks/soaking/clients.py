"""The clients of a soak: each pushes, fetches and clones by the client library, and does not give up.

A client is alone on its own branches, so it knows where they must stand; `main` is everybody's. What a client does is
decided by the seed; what comes of it, by the hub.
"""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

from benchmarks.soaking.ledger import Ledger
from musehub_plugin import ids
from musehub_plugin.client import (
    BadMPack,
    ClientError,
    HubRefused,
    HubTransport,
    HubUnreachable,
    NotFastForwardError,
    Workdir,
    clone,
    fetch,
    push,
    set_remote,
    verify,
)
from musehub_plugin.client.history import History
from musehub_plugin.client.manifest import ManifestRows
from musehub_plugin.client.record import new_record

SHARED: Final = "main"
_PATIENCE: Final = 150.0
"""Seconds that a client tries one thing for; the longest outage and what comes after it are a fraction of that."""
_BRANCHES: Final = 6
_PATHS: Final = 40
_FOUNDATIONS: Final = 5
_START: Final = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
# What a hub may say while something is away, and what a client does about it is to begin again. `want-not-found`: a
# branch was moved by force since it was named; `upload-not-found`: the upload's ticket expired.
_PASSING_CODES: Final = frozenset({"upload-not-found", "want-not-found"})

_Result = TypeVar("_Result")


class Conflict(Exception):
    """Another client was faster on a shared branch."""


class Client(threading.Thread):
    """One client of the hub.

    Args:
        number: 0, 1, ...
        seed: the soak's.
        origin: the hub.
        repos: `owner/slug` of its repos.
        folder: an empty folder for its working copies.
        ledger: the account.
        over: set when no new work is to be begun.
    """

    def __init__(
        self,
        number: int,
        seed: int,
        origin: str,
        repos: Sequence[str],
        folder: Path,
        ledger: Ledger,
        over: threading.Event,
    ) -> None:
        super().__init__(name=f"client-{number}", daemon=True)
        self._chance = random.Random(f"{seed} client {number}")
        self._repos = repos
        self._folder = folder
        self._ledger = ledger
        self._over = over
        self._given_up = threading.Event()
        self._commits = 0
        self._branches: dict[str, list[str]] = {repo: [] for repo in repos}
        self._dropped: list[tuple[str, str, str]] = []
        self._hubs = {repo: RecordingTransport(f"{origin}/{repo}", repo.partition("/")[0]) for repo in repos}
        self._copies: dict[str, Workdir] = {}
        for repo in repos:
            self._copies[repo] = Workdir.create(folder / repo.replace("/", "-"))
            set_remote(self._copies[repo], "origin", f"{origin}/{repo}", SHARED)

    def run(self) -> None:
        """Work until it is over."""
        deeds: dict[Callable[[str], None], int] = {
            self._advance: 40,
            self._share: 14,
            self._begin: 8,
            self._rewind: 10,
            self._return: 6,
            self._mirror: 8,
            self._fetch: 14,
            self._clone: 6,
        }
        try:
            while not self._over.is_set():
                (deed,) = self._chance.choices(list(deeds), list(deeds.values()))
                deed(self._chance.choice(self._repos))
        except Exception as error:  # noqa: BLE001 - whatever it was, the soak must not pass as if nothing had been
            self._ledger.note("wrong", f"{self.name} ended: {type(error).__name__}: {error}")
        finally:
            for hub in self._hubs.values():
                hub.close()

    def give_up(self) -> None:
        """Let what is under way fail at its next error, and wait for that for a moment."""
        self._given_up.set()
        self._over.set()
        if self.is_alive():
            self.join(5)

    # Pushes

    def _begin(self, repo: str) -> None:
        """Push a new branch, on top of history that other clients push to other repos at the same time."""
        if len(self._branches[repo]) >= _BRANCHES:
            self._advance(repo)
            return
        copy = self._copies[repo]
        branch = f"{self.name}-{repo.partition('/')[2]}-{len(self._branches[repo])}"
        copy.set_branch(branch, self._commit(repo, self._foundation(repo), branch))
        self._branches[repo].append(branch)
        self._push_own(repo, branch)

    def _advance(self, repo: str) -> None:
        """Push a commit to an own branch."""
        if not self._branches[repo]:
            self._begin(repo)
            return
        branch = self._chance.choice(self._branches[repo])
        head = self._head(repo, branch)
        for _ in range(self._chance.choice((1, 1, 1, 3))):
            head = self._commit(repo, [head], branch)
        self._copies[repo].set_branch(branch, head)
        self._push_own(repo, branch)

    def _rewind(self, repo: str) -> None:
        """Push over an own branch by force: what it held is garbage now."""
        if not self._branches[repo]:
            return
        branch = self._chance.choice(self._branches[repo])
        before = head = self._head(repo, branch)
        history = History(self._copies[repo])
        for _ in range(self._chance.randint(1, 4)):
            head = next(iter(map(history.commit_id, history.parents(history.number(head)))), head)
        self._copies[repo].set_branch(branch, self._commit(repo, [head], branch))
        self._push_own(repo, branch, force=True)
        self._dropped.append((repo, branch, before))

    def _return(self, repo: str) -> None:
        """Push what was dropped a while ago once more: it may be garbage, half collected, or gone."""
        if not self._dropped:
            return
        where, branch, head = self._dropped.pop(self._chance.randrange(len(self._dropped)))
        self._copies[where].set_branch(branch, head)
        self._push_own(where, branch, force=True)

    def _mirror(self, repo: str) -> None:
        """Push an own branch of one repo to another repo too."""
        other = self._chance.choice(self._repos)
        if other == repo or not self._branches[repo]:
            return
        branch = self._chance.choice(self._branches[repo])
        self._push_own(repo, branch, to=other, force=True)

    def _push_own(self, repo: str, branch: str, *, to: str | None = None, force: bool = False) -> None:
        to, copy = to or repo, self._copies[repo]
        remote = "origin" if to == repo else to.replace("/", "-")
        hub = self._hubs[to]
        hub.last_push = None
        begun = time.monotonic()
        self._insist(lambda: push(copy, hub, remote=remote, branches=[branch], force=force))
        self._ledger.acknowledged(to, branch, self._head(repo, branch), seconds=time.monotonic() - begun)
        if hub.last_push is not None and self._chance.random() < 0.2:
            self._repeat(hub)

    def _repeat(self, hub: RecordingTransport) -> None:
        """Send the last push's request once more. Where garbage was collected meanwhile, the pack must come again."""
        body = hub.last_push
        assert body is not None
        try:
            self._insist(lambda: hub.post("push/unpack-mpack", body), begins_again=False)
        except HubRefused as refused:
            self._ledger.tally("answers", f"{refused.status} {refused.code}")
        else:
            self._ledger.count("repeats")

    def _share(self, repo: str) -> None:
        """Commit on top of what everybody shares, as often as another client was faster."""
        copy, hub = self._copies[repo], self._hubs[repo]
        begun = time.monotonic()
        while time.monotonic() < begun + _PATIENCE:
            self._insist(lambda: fetch(copy, hub))
            there, here = copy.remote_heads("origin").get(SHARED), copy.branch_head(SHARED)
            parents = [head for head in (there, here) if head is not None]
            if there and here:
                history = History(copy)
                if history.is_ancestor(here, there):
                    parents = [there]
                elif history.is_ancestor(there, here):
                    parents = [here]
            copy.set_branch(SHARED, self._commit(repo, parents, SHARED))
            try:
                self._insist(lambda: push(copy, hub, branches=[SHARED]), shared=True)
            except Conflict:
                continue
            head = copy.branch_head(SHARED)
            assert head is not None
            self._ledger.acknowledged(repo, SHARED, head, seconds=time.monotonic() - begun, shared=True)
            return
        self._ledger.note("wrong", f"{self.name}: others were faster on {repo} for {_PATIENCE:.0f} s")

    # Fetches

    def _fetch(self, repo: str) -> None:
        """Bring an own working copy up to date."""
        copy = self._copies[repo]
        self._insist(lambda: fetch(copy, self._hubs[repo]))
        self._check(repo, copy, copy.remote_heads("origin"), whole=self._chance.random() < 0.05)
        self._ledger.count("fetches")

    def _clone(self, repo: str) -> None:
        """Clone, check every hash and every reference, and throw it away."""
        target = self._folder / "clone"
        copy = self._insist(lambda: clone(self._hubs[repo], target)).workdir
        self._check(repo, copy, copy.branches(), whole=True)
        shutil.rmtree(target)
        self._ledger.count("clones")

    def _check(self, repo: str, copy: Workdir, heads: dict[str, str], *, whole: bool) -> None:
        mine = [branch for branch in heads if branch.startswith(f"{self.name}-")] + self._branches[repo]
        self._ledger.compare(repo, heads, set(mine))
        for problem in verify(copy).problems if whole else ():
            self._ledger.note("wrong", f"{self.name}: {repo}: {problem}")

    # Commits

    def _head(self, repo: str, branch: str) -> str:
        head = self._copies[repo].branch_head(branch)
        assert head is not None
        return head

    def _commit(self, repo: str, parents: Sequence[str], branch: str) -> str:
        """Make a commit that changes a few files of its first parent."""
        self._commits += 1
        copy = self._copies[repo]
        rows = rows_of(copy, parents)
        for _ in range(self._chance.randint(1, 4)):
            path = f"src/{self._chance.randrange(_PATHS):02}.txt"
            kind = self._chance.random()
            if kind < 0.1:
                rows.remove(path)
            elif kind < 0.6:
                # What other clients push too, in other repos.
                rows.set(path, copy.write_blob(pooled(self._chance.randrange(500)))[0])
            else:
                size = 200_000 if kind > 0.98 else self._chance.randint(10, 4_000)
                rows.set(path, copy.write_blob(self._chance.randbytes(size))[0])
        return write_commit(copy, rows, parents, branch, f"{self.name}: {self._commits}", self._commits)

    def _foundation(self, repo: str) -> list[str]:
        """Make commits that are the same for every client and repo, and return the last in a list."""
        parents: list[str] = []
        copy = self._copies[repo]
        for number in range(self._chance.randint(1, _FOUNDATIONS)):
            rows = rows_of(copy, parents)
            for path in range(10):
                rows.set(f"base/{path}.txt", copy.write_blob(pooled(number * 10 + path))[0])
            parents = [write_commit(copy, rows, parents, SHARED, f"foundation {number}", number)]
        return parents

    # Persistence

    def _insist(self, attempt: Callable[[], _Result], *, shared: bool = False, begins_again: bool = True) -> _Result:
        """Do something until it is done, and count what is answered meanwhile.

        Raises:
            Conflict: `shared`, and the branch has moved.
            HubRefused: not `begins_again`, and only the whole push from its start could succeed.
            ClientError: it was tried for too long.
        """
        deadline = time.monotonic() + _PATIENCE
        while True:
            pause = 0.5
            try:
                return attempt()
            except NotFastForwardError:
                if shared:
                    raise Conflict from None
                raise
            except HubRefused as refused:
                if refused.status == 409 and shared:
                    self._ledger.tally("answers", f"{refused.status} {refused.code}")
                    raise Conflict from None
                if refused.code in _PASSING_CODES and not begins_again:
                    raise
                self._judge(refused)
                last: ClientError = refused
                pause = min(refused.retry_after or pause, 2.0)
            except HubUnreachable as unreachable:
                self._ledger.tally("answers", f"no answer: {str(unreachable).rpartition(': ')[2][:60]}")
                last = unreachable
            except BadMPack as bad:
                self._ledger.note("wrong", f"{self.name}: {bad}")
                last = bad
            if time.monotonic() > deadline or self._given_up.is_set():
                raise last
            time.sleep(pause * self._chance.uniform(0.5, 1.0))

    def _judge(self, refused: HubRefused) -> None:
        answer = f"{refused.status} {refused.code}"
        self._ledger.tally("answers", answer)
        away = refused.status == 503 and refused.code != "index-failed"
        if not (away or refused.code in _PASSING_CODES or refused.code.startswith("storage-")):
            self._ledger.note("wrong", f"{self.name} was answered {answer}: {refused.detail}")


class RecordingTransport(HubTransport):
    """A connection that never tries again by itself, so that every answer is seen, and remembers the last push.

    Attributes:
        last_push: the body of the last request to unpack an mpack.
    """

    def __init__(self, url: str, token: str) -> None:
        super().__init__(url, token=token, timeout=30.0, wait_budget=0.0)
        self.last_push: dict[str, Any] | None = None

    def post(self, resource: str, body: Any, *, timeout: float | None = None) -> dict[str, Any]:
        """Send a request and remember a push."""
        if resource == "push/unpack-mpack":
            self.last_push = dict(body)
        # Longer than any outage: what hangs for longer is stuck.
        return super().post(resource, body, timeout=timeout and 60.0)


def pooled(number: int) -> bytes:
    """Return a file's content that many clients have."""
    return b"".join(b"line %d of the common file %d\n" % (line, number) for line in range(number % 60))


def rows_of(copy: Workdir, parents: Sequence[str]) -> ManifestRows:
    """Return the manifest of the first of `parents`, to be changed."""
    if not parents:
        return ManifestRows()
    return ManifestRows(copy.read_snapshot(ids.PREFIX + copy.read_commit(parents[0])["snapshot_id"]))


def write_commit(
    copy: Workdir, rows: ManifestRows, parents: Sequence[str], branch: str, message: str, second: int
) -> str:
    """Store a commit in a working copy and return its id; the same arguments give the same commit."""
    snapshot_id = rows.snapshot_id()
    committed_at = (_START + timedelta(seconds=second)).isoformat()
    commit_id = ids.commit_id(parents, snapshot_id, message, committed_at)
    copy.write_snapshot(rows, snapshot_id, committed_at)
    copy.write_commit(
        new_record(
            commit_id=commit_id,
            repo_id=copy.repo_id,
            branch=branch,
            snapshot_id=snapshot_id,
            message=message,
            committed_at=committed_at,
            parent_ids=list(parents),
            author="A soak",
            metadata={},
        )
    )
    return commit_id
