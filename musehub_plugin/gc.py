"""Garbage collection: what no branch reaches, no URL names and no repo holds any more.

Everything waits for a grace period that is longer than any URL, ticket or lease lives, so nothing is removed that
somebody was handed a moment ago. Each step is a short transaction of its own: an interrupted collection has done some
of its work, the next one does the rest, and a second one in a row finds nothing.

Against a push that brings a thing back (the blob that was garbage a second ago): what a repo lets go of is worked out
without a lock, and removed under one that pushes share, if no push came in between; else it is worked out anew.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from musehub_plugin import graph
from musehub_plugin.errors import StorageUnavailable
from musehub_plugin.hub import Hub
from musehub_plugin.signals import collected, reached, report_damage
from musehub_plugin.storage.base import Deletes, KeepsParts, ask
from musehub_plugin.storage.uploads import delete_upload
from musehub_plugin.store import builds, fetch_packs, fetch_plans, garbage, jobs, locks, manifests, repos
from musehub_plugin.store import commits as commit_store
from musehub_plugin.store.session import Database

logger = logging.getLogger(__name__)

_BATCH = 200
# Commits, snapshots or blobs of a deleted repo that go at once: pushes wait for half a second.
_PART = 2_000
# Any push that is under way is in the way of a removal: how often it is tried again, how many seconds apart, and how
# often in all of a collection.
_MOMENTS = 200
_MOMENT = 0.01
_ALL_MOMENTS = 30_000
# How often the removal of one repo's garbage is tried where pushes keep coming in between.
_TRIES = 5

Progress = Callable[[str], None]


@dataclass
class Collected:
    """What was removed, or with `dry_run` would be.

    Attributes:
        uploads: uploads whose ticket expired.
        fetch_packs: mpacks that were made for fetches and are not asked for any more.
        repos: deleted repos.
        commits: commits that no branch of their repo reaches; a commit in two repos counts twice.
        snapshots: likewise.
        blobs: likewise.
        mpacks: pushed mpacks of which nothing is needed.
        busy_repos: repos that were left for the next time, since pushes kept coming or wait to be indexed.
        leftovers: files that writers which were killed left half written; not counted with `dry_run`.
        kept_files: files that the storage cannot delete, or did not.
    """

    uploads: int = 0
    fetch_packs: int = 0
    repos: int = 0
    commits: int = 0
    snapshots: int = 0
    blobs: int = 0
    mpacks: int = 0
    busy_repos: int = 0
    leftovers: int = 0
    kept_files: int = 0
    dry_run: bool = field(default=False)


def collect(
    hub: Hub, db: Database, *, dry_run: bool = False, grace: int | None = None, progress: Progress | None = None
) -> Collected:
    """Collect garbage.

    Args:
        hub: the app's plugin.
        db: a unit of work with nothing in it; committed many times.
        dry_run: only count. Commits that are found unreachable for the first time are not noted either.
        grace: seconds that garbage must be garbage for; default `MUSEHUB_GC_GRACE`.
        progress: told what is being looked at.
    """
    collection = _Collection(hub, db, dry_run, hub.settings.gc_grace if grace is None else grace, progress)
    done = collection.run()
    collected.send(None, collected=done)
    return done


class _Collection:
    def __init__(self, hub: Hub, db: Database, dry_run: bool, grace: int, progress: Progress | None) -> None:
        self._hub = hub
        self._db = db
        self._dry_run = dry_run
        self._grace = grace
        self._say = progress or (lambda _: None)
        self._done = Collected(dry_run=dry_run)
        self._moments = _ALL_MOMENTS

    def run(self) -> Collected:
        self._uploads()
        self._fetch_packs()
        self._answers()
        deleted = garbage.deleted_repos(self._db, self._grace)
        for repo_id in deleted:
            self._deleted_repo(repo_id)
        for repo_id in garbage.repos_with_history(self._db):
            if repo_id not in deleted:
                self._unreachable(repo_id)
        self._useless_mpacks()
        self._db.rollback()
        self._leftovers()
        return self._done

    def _leftovers(self) -> None:
        if self._dry_run or not isinstance(self._hub.storage, KeepsParts):
            return
        try:
            self._done.leftovers = ask(self._hub.storage.remove_leftovers, self._grace)
        except StorageUnavailable as error:
            logger.warning("gc: what killed writers left stays for the next time: %s", error)

    def _uploads(self) -> None:
        self._say("uploads")
        after = ""
        while batch := garbage.expired_uploads(self._db, self._grace, _BATCH, after):
            after = batch[-1].upload_key
            for upload in batch:
                if self._dry_run or self._remove(partial(self._remove_upload, upload)):
                    self._done.uploads += 1

    def _remove_upload(self, upload: garbage.ExpiredUpload) -> bool:
        if not garbage.drop_ticket(self._db, upload.upload_key):
            return False
        delete_upload(self._hub.storage, upload.upload_key)
        # A push that died between storing the pack and its commit left the pack under its final name.
        self._delete_unneeded(upload.mpack_id)
        return True

    def _fetch_packs(self) -> None:
        self._say("packs made for fetches")
        seen: set[str] = set()
        while batch := [
            mpack_id
            for mpack_id in fetch_packs.stale_fetch_packs(self._db, self._grace, _BATCH + len(seen))
            if mpack_id not in seen
        ]:
            if not self._dry_run:
                # First, and for good: a removal that does not come to its end may have taken the file, and an answer
                # that is there to be given would be given for ever.
                self._db.transaction(partial(fetch_packs.forget_answers, self._db, batch))
            for mpack_id in batch:
                if self._dry_run:
                    seen.add(mpack_id)
                    self._done.fetch_packs += 1
                elif self._remove(partial(self._remove_fetch_pack, mpack_id)):
                    self._done.fetch_packs += 1
                else:
                    seen.add(mpack_id)

    def _answers(self) -> None:
        """Forget answers that nobody asks for, builds whose makers died, and the jobs that made packs for fetches."""
        if self._dry_run:
            return

        def work() -> None:
            fetch_plans.forget_unused_plans(self._db, self._grace)
            builds.drop_lapsed_builds(self._db, self._grace)
            jobs.drop_settled_builds(self._db, self._grace)

        self._db.transaction(work)

    def _remove_fetch_pack(self, mpack_id: str) -> bool:
        if not fetch_packs.take_fetch_pack(self._db, mpack_id, self._grace):
            return False
        self._delete_unneeded(mpack_id)
        return True

    def _deleted_repo(self, repo_id: str) -> None:
        self._say(f"deleted repo {repo_id}")
        let = garbage.all_held(self._db, repo_id)
        if not self._dry_run:
            # Nobody sees it any more: pushes to others need not wait until all of it is gone.
            for part in garbage.parts(self._db, let, _PART):
                if not self._let_go(repo_id, part):
                    self._done.busy_repos += 1
                    return
            if not self._remove(partial(self._forget_repo, repo_id)):
                # A push that had begun before the repo was deleted.
                self._done.busy_repos += 1
                return
        self._count(let)
        self._done.repos += 1

    def _forget_repo(self, repo_id: str) -> bool:
        if garbage.repo_state(self._db, repo_id).commits or self._waits(repo_id):
            return False
        garbage.forget_repo(self._db, repo_id)
        return True

    def _unreachable(self, repo_id: str) -> None:
        self._say(f"repo {repo_id}")
        for _ in range(_TRIES):
            state = garbage.repo_state(self._db, repo_id)
            nodes = commit_store.graph(self._db, repo_id)

            def parents(commit_id: str, nodes: dict[str, commit_store.Node] = nodes) -> Sequence[str]:
                return nodes[commit_id].parent_ids

            reachable = graph.reachable(nodes, parents, repos.branch_heads(self._db, repo_id).values())
            unreachable = nodes.keys() - reachable
            if not self._dry_run:
                garbage.mark_unreachable(self._db, repo_id, unreachable)
                self._db.commit()
            old = garbage.long_unreachable(self._db, repo_id, self._grace)
            # What a younger unreachable commit stands on stays with it, or fetching that one would find a hole.
            kept = reachable | graph.reachable(nodes, parents, unreachable - old)
            commit_ids = nodes.keys() - kept
            if not commit_ids:
                return
            if self._waits(repo_id):
                break
            let = self._plan(repo_id, nodes, commit_ids, kept)
            reached("gc.planned")
            if self._dry_run or self._let_go(repo_id, let, state):
                self._count(let)
                return
        self._done.busy_repos += 1

    def _plan(
        self, repo_id: str, nodes: dict[str, commit_store.Node], commit_ids: set[str], kept: set[str]
    ) -> garbage.Let:
        kept_snapshots = {nodes[commit_id].snapshot_id for commit_id in kept}
        snapshot_ids = {nodes[commit_id].snapshot_id for commit_id in commit_ids} - kept_snapshots
        object_ids: set[str] = set()
        for _, manifest in manifests.manifests(self._db, repo_id, sorted(snapshot_ids)):
            object_ids.update((manifest or {}).values())
        for snapshot_id, manifest in manifests.manifests(self._db, repo_id, sorted(kept_snapshots)):
            if manifest is None:
                # It may need any of them: what is left can be mended.
                report_damage("snapshot-missing", snapshot_id, f"repo {repo_id} needs it, and keeps all blobs")
                object_ids.clear()
            object_ids.difference_update((manifest or {}).values())
            if not object_ids:
                break
        return garbage.Let(commit_ids, snapshot_ids, object_ids)

    def _let_go(self, repo_id: str, let: garbage.Let, state: garbage.RepoState | None = None) -> bool:
        """Have a repo let go of something; False where it is not in a state any more, or a push is in the way."""

        def work() -> bool:
            if self._waits(repo_id) or (state is not None and garbage.repo_state(self._db, repo_id) != state):
                return False
            garbage.let_go(self._db, repo_id, let)
            return True

        return self._remove(work)

    def _waits(self, repo_id: str) -> bool:
        """Say whether one of a repo's packs waits to be indexed.

        The record that the repo has the pack stays until then, so the repo must not let go of what is in it: the same
        push again would not be asked for the bytes.
        """
        return any(job.state != jobs.FAILED for job in jobs.unfinished_index_jobs(self._db, repo_id))

    def _useless_mpacks(self) -> None:
        self._say("pushed packs")
        after = ""
        while batch := garbage.useless_mpacks(self._db, self._grace, _BATCH, after):
            after = batch[-1]
            for mpack_id in batch:
                if self._dry_run or self._remove(partial(self._remove_mpack, mpack_id)):
                    self._done.mpacks += 1

    def _remove_mpack(self, mpack_id: str) -> bool:
        if not garbage.take_useless_mpack(self._db, mpack_id):
            return False
        self._delete_unneeded(mpack_id)
        return True

    def _delete_unneeded(self, mpack_id: str) -> None:
        if fetch_packs.is_file_needed(self._db, mpack_id):
            return
        if isinstance(self._hub.storage, Deletes):
            ask(self._hub.storage.delete_mpack, mpack_id)
        else:
            self._done.kept_files += 1

    def _remove(self, work: Callable[[], bool]) -> bool:
        """Run `work` in a transaction that pushes wait for; what it says, or False where pushes were in the way."""

        owned = False

        def locked() -> bool:
            nonlocal owned
            owned = locks.own_history(self._db)
            reached("gc.locked")
            done = owned and work()
            reached("gc.removed")
            return done

        self._db.rollback()
        try:
            done = self._db.transaction(locked)
            for _ in range(min(_MOMENTS, self._moments)):
                if owned:
                    break
                self._moments -= 1
                time.sleep(_MOMENT)
                done = self._db.transaction(locked)
        except StorageUnavailable as error:
            # The rows are as they were; the next collection tries again.
            logger.warning("gc: a file was left for the next time: %s", error)
            self._done.kept_files += 1
            return False
        reached("gc.committed")
        return done

    def _count(self, let: garbage.Let) -> None:
        self._done.commits += len(let.commit_ids)
        self._done.snapshots += len(let.snapshot_ids)
        self._done.blobs += len(let.object_ids)
