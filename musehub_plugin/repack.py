"""Repack: a repo's many pushes become few big packs, of which a clone is made without work.

The job `mpack.repack`. It runs after pushes, beside them and beside fetches, and blocks neither: a pack is written,
stored and indexed before anything points at it, and what it replaces goes after the grace period.

The packs of the default branch are a chain: each holds what its head reaches and the head of the one before does not.
A clone gets the chain, and a small pack of what came since. A pack that is not at least twice as large as what comes
after it is made anew together with that, so that there are few, and all the work over a repo's life is that of sorting
it: O(n log n). What only other branches reach is in one pack beside the chain.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import IO

from musehub_plugin.blobs import NotIndexed
from musehub_plugin.building import write_mpack
from musehub_plugin.commitspool import CommitSpool
from musehub_plugin.errors import HistoryDamaged, HubError, StorageUnavailable, for_operators
from musehub_plugin.fetch import INLINE, MPACKS, THIN, fetch
from musehub_plugin.history import GraphCache, History, pack_history
from musehub_plugin.hub import Hub
from musehub_plugin.ids import from_digest, to_digest
from musehub_plugin.incoming import lay_out
from musehub_plugin.memory import give_back
from musehub_plugin.mpack import MPackReader, SnapshotDelta
from musehub_plugin.mpack.digests import DigestTable
from musehub_plugin.placedblobs import distinct_ids
from musehub_plugin.plan import Plan, plan_delta
from musehub_plugin.plannedchanges import read_changes
from musehub_plugin.signals import reached
from musehub_plugin.storage.temporary import temporary_room
from musehub_plugin.storage.uploads import put_mpack_file
from musehub_plugin.store import commits as commit_store
from musehub_plugin.store import fetch_packs, fetch_plans, inventory, jobs, locks, manifests, mpacks, repos
from musehub_plugin.store.fetch_plans import ClonePack, ReadyPack
from musehub_plugin.store.manifests import NewSnapshot
from musehub_plugin.store.session import Database
from musehub_plugin.widelog import WideDifference

logger = logging.getLogger(__name__)

_BATCH = 5_000
# What only other branches reach is left in so many packs.
_FEW_PACKS = 4
# A pack of so many blobs tells where they are sooner than rows do.
_MANY_BLOBS = 1_000
# That compress. One keeps up with the one that hands it what to compress, and each takes 32 MiB.
_THREADS = 1
# Seconds between two notes that a job is alive; its lease is longer.
_ALIVE_EVERY = 5.0
_OUTAGE_WAIT = 5
_RETRY = 60
# What every client of ours can take, and what one of the contract alone can.
_CAPABILITIES: tuple[tuple[str, ...], ...] = ((), (INLINE, MPACKS, THIN))

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Repacked:
    """What a repack did.

    Attributes:
        made: packs that were written.
        clone_packs: packs that a clone of the default branch consists of.
        size_bytes: their size.
        retired: packs of which nothing is needed any more.
        seconds: how long it took.
    """

    made: int
    clone_packs: int
    size_bytes: int
    retired: int
    seconds: float


def run_repack_job(hub: Hub, db: Database, repo_id: str) -> int:
    """Run the job of a repo: make what those who follow its branches will ask for, and repack where that is due.

    Returns how many packs were made; 0 also where another worker is at it. What fails, or does not end, is tried again,
    as often as `MUSEHUB_JOB_ATTEMPTS` says: nothing depends on it but speed.
    """
    job_id = jobs.repack_job_id(repo_id)
    if not jobs.claim_job(db, job_id, hub.settings.job_lease):
        db.rollback()
        return 0
    given_up = jobs.give_up_job(db, job_id, hub.settings.job_attempts)
    db.commit()
    if given_up:
        return 0
    made = 0
    try:
        _make_deltas(hub, db, repo_id)
        if _is_due(hub, db, repo_id):
            made = repack(hub, db, repo_id, alive=heartbeat(hub, db, job_id)).made
    except (StorageUnavailable, NotIndexed) as error:
        db.rollback()
        logger.warning("job %s: %s; next attempt in %d s", job_id, error, _OUTAGE_WAIT)
        jobs.settle_job(db, job_id, jobs.PENDING, error=str(error), retry_in=_OUTAGE_WAIT, counts=False)
    except HubError as error:
        db.rollback()
        job = jobs.find_job(db, job_id)
        failed = job is not None and job.attempts >= hub.settings.job_attempts
        reason = for_operators(error)
        logger.warning("job %s: %s", job_id, reason)
        jobs.settle_job(db, job_id, jobs.FAILED if failed else jobs.PENDING, error=reason, retry_in=_RETRY)
    else:
        jobs.settle_job(db, job_id, jobs.DONE)
    db.commit()
    return made


def rehearse_repack_job(hub: Hub, db: Database) -> None:
    """Run the statements of a small `run_repack_job` for a repo that there is not, and take back what they wrote.

    SQLAlchemy compiles each statement once a process, 1 to 4 ms each. Where every job has a process of its own, a fork
    of this one, that is a third of what such a job takes.
    """
    job_id, repo_id, nothing = jobs.repack_job_id(""), "", from_digest(bytes(32))
    jobs.claim_job(db, job_id, hub.settings.job_lease)
    jobs.give_up_job(db, job_id, hub.settings.job_attempts)
    _make_deltas(hub, db, repo_id)
    _is_due(hub, db, repo_id)
    fetch_plans.add_plans(db, [nothing], repo_id, [ReadyPack(nothing, 0, 0, 0, 0, b"")])
    jobs.settle_job(db, job_id, jobs.DONE)
    db.rollback()


def heartbeat(hub: Hub, db: Database, job_id: str) -> Callable[[], None]:
    """Return what whoever works at a job calls every so often, so that no other worker takes it."""
    noted = time.monotonic()

    def alive() -> None:
        nonlocal noted
        if time.monotonic() - noted > _ALIVE_EVERY and db.may_write_apart:
            noted = time.monotonic()
            with db.apart() as apart:
                jobs.extend_lease(apart, job_id, hub.settings.job_lease)
                apart.commit()

    return alive


def _make_deltas(hub: Hub, db: Database, repo_id: str) -> None:
    """Have the answers ready for whoever follows a branch that moved."""
    heads = repos.branch_heads(db, repo_id)
    for name, (head, before) in repos.previous_heads(db, repo_id).items():
        # A clone of ours names all the heads that it knows, another client the one that it follows.
        before_all = sorted({*(other for branch, other in heads.items() if branch != name), before})
        for have in {(before,), tuple(before_all)}:
            for capabilities in _CAPABILITIES:
                fetch(hub, db, repo_id, [head], have, capabilities)
    db.rollback()


def _is_due(hub: Hub, db: Database, repo_id: str) -> bool:
    """Say whether so much was pushed since the last repack that another one pays."""
    waiting = mpacks.loose_packs(db, repo_id)
    packed = sum(each.pack.size_bytes for each in fetch_plans.clone_packs(db, repo_id))
    many = len(waiting) >= hub.settings.repack_packs
    large = sum(waiting.values()) >= max(hub.settings.repack_bytes, packed // 8)
    return many or large


def repack(
    hub: Hub,
    db: Database,
    repo_id: str,
    *,
    whole: bool = False,
    alive: Callable[[], None] = lambda: None,
    progress: Progress | None = None,
) -> Repacked:
    """Put a repo's packs in order.

    Args:
        hub: the app's plugin.
        db: a unit of work with nothing in it; committed many times.
        repo_id: the repo.
        whole: make everything anew, however well it is packed.
        alive: called every so often while it works.
        progress: told what is being done.

    Raises:
        NotIndexed: something that was pushed is not indexed yet.
        StorageUnavailable: object storage did not answer, or there is no room.
        HistoryDamaged: something that a branch reaches is not there.
    """
    began = time.monotonic()
    say = progress or (lambda _: None)
    say("reading the history")
    pack_rows(hub, db, repo_id)
    work = _Repack(hub, db, repo_id, alive, say)
    heads = repos.branch_heads(db, repo_id)
    made = 0
    if heads:
        default = _default_head(db, repo_id, heads)
        made += work.default_branch(default, whole=whole)
        others = sorted(set(heads.values()) - {default})
        if others:
            made += work.other_branches(others, default)
    retired = work.retire()
    chain = fetch_plans.clone_packs(db, repo_id)
    db.rollback()
    return Repacked(
        made, len(chain), sum(each.pack.size_bytes for each in chain), retired, round(time.monotonic() - began, 3)
    )


def _default_head(db: Database, repo_id: str, heads: dict[str, str]) -> str:
    for name in (repos.default_branch(db, repo_id), "main", "master", "dev"):
        if name in heads:
            return heads[name]
    return heads[min(heads)]


class _Repack:
    def __init__(self, hub: Hub, db: Database, repo_id: str, alive: Callable[[], None], say: Progress) -> None:
        self._hub = hub
        self._db = db
        self._repo_id = repo_id
        self._alive = alive
        self._say = say

    def default_branch(self, head: str, *, whole: bool) -> int:
        """Have the chain reach the default branch's head; return how many packs were made."""
        old = fetch_plans.clone_packs(self._db, self._repo_id)
        chain = [] if whole else self._reached(old, head)
        plan = self._plan([head], chain)
        while plan is not None and chain and _weight(chain[-1].pack) < 2 * _plan_weight(plan):
            chain.pop()
            plan = self._plan([head], chain)
        new: list[ClonePack] = []
        if plan is not None:
            self._say(f"packing {len(plan.commit_ids)} commits and {len(plan.object_ids)} blobs")
            new.append(ClonePack(head, self._packed(plan)))
        if len(chain) < len(old) or new:
            self._db.transaction(lambda: self._replace(old, len(chain), new))
            reached("repack.chained")
        return len(new)

    def _reached(self, chain: Sequence[ClonePack], head: str) -> list[ClonePack]:
        """Return the packs of the chain up to the last of which all is reached by a commit."""
        history = History(self._db, self._hub.graphs, self._repo_id)
        count = len(chain)
        while count and not history.is_ancestor(chain[count - 1].head_commit_id, head):
            count -= 1
        return list(chain[:count])

    def _plan(self, want: Sequence[str], chain: Sequence[ClonePack]) -> Plan | None:
        have = [chain[-1].head_commit_id] if chain else []
        return plan_delta(self._db, self._repo_id, want, have, self._hub.graphs)

    def _replace(self, old: Sequence[ClonePack], position: int, new: Sequence[ClonePack]) -> None:
        locks.share_history(self._db)
        locks.own_graph(self._db, self._repo_id)
        now = fetch_plans.clone_packs(self._db, self._repo_id)
        if now[:position] != list(old[:position]):
            # Another repack was at it: what is new here does not follow what is there now.
            return
        for each in new:
            if not commit_store.held_commits(self._db, self._repo_id, [each.head_commit_id]):
                raise HistoryDamaged(f"repo {self._repo_id}: commit {each.head_commit_id} was collected meanwhile")
        for each in now[position:]:
            # A URL of it may have been handed out a moment ago.
            fetch_packs.use_fetch_pack(self._db, each.pack.mpack_id, each.pack.size_bytes)
        fetch_plans.replace_clone_packs(self._db, self._repo_id, position, new)

    def other_branches(self, heads: Sequence[str], default: str) -> int:
        """Have what only other branches reach in one pack, where it is in many; return how many were made."""
        plan = plan_delta(self._db, self._repo_id, heads, [default], self._hub.graphs)
        if plan is None or not plan.object_ids:
            return 0
        if len(inventory.packs_of(self._db, plan.object_ids)) <= _FEW_PACKS:
            return 0
        self._say(f"packing {len(plan.object_ids)} blobs of other branches")
        self._packed(plan)
        return 1

    def _packed(self, plan: Plan) -> ReadyPack:
        """Write, store and index the pack of a plan."""
        # The plan says all that is needed, and the graph of a long history takes 20 MB.
        self._hub.graphs.forget(self._repo_id)
        give_back()
        with temporary_room(), tempfile.TemporaryFile() as file:
            pack = write_mpack(
                file,
                self._hub,
                self._db,
                self._repo_id,
                plan,
                packs=self._large_packs(plan),
                threads=_THREADS,
                beside=True,
                alive=self._alive,
            )
            reached("repack.written")
            self._db.transaction(lambda: self._keep(pack))
            file.seek(0)
            self._say(f"storing {pack.size_bytes} bytes")
            uri = put_mpack_file(self._hub.storage, pack.mpack_id, file)
            reached("repack.stored")
            self._index(pack, file, uri)
        return pack

    def _large_packs(self, plan: Plan) -> list[str]:
        """Return packs of the repo that hold much of what is planned, and little else: the largest, up to a few."""
        blobs = len(plan.object_ids)
        counts = mpacks.blob_counts(self._db, self._repo_id).items()
        return [mpack_id for mpack_id, count in counts if _MANY_BLOBS <= count <= 2 * blobs][:_FEW_PACKS]

    def _keep(self, pack: ReadyPack) -> None:
        # A collection may be removing this very file: wait for its end.
        locks.share_history(self._db)
        fetch_packs.use_fetch_pack(self._db, pack.mpack_id, pack.size_bytes)

    def _index(self, pack: ReadyPack, file: IO[bytes], uri: str) -> None:
        self._say(f"indexing {pack.blob_count} blobs")
        self._db.transaction(lambda: self._record(pack, uri))
        places = (
            (digest, frame, offset, size) for digest, (_, frame, offset, size) in MPackReader(file).placed_digests()
        )
        while batch := list(islice(places, _BATCH)):
            self._db.transaction(partial(self._index_batch, pack, batch))
            self._alive()
        reached("repack.indexed")

    def _record(self, pack: ReadyPack, uri: str) -> None:
        locks.share_history(self._db)
        mpacks.add_mpack(
            self._db,
            repo_id=self._repo_id,
            user_id="",
            mpack_id=pack.mpack_id,
            size_bytes=pack.size_bytes,
            counts=(pack.commit_count, pack.snapshot_count, pack.blob_count),
            storage_uri=uri,
        )
        jobs.add_job(self._db, jobs.index_job_id(pack.mpack_id), jobs.INDEX, pack.mpack_id, state=jobs.DONE)

    def _index_batch(self, pack: ReadyPack, batch: Sequence[mpacks.Place]) -> None:
        """Point blobs at the new pack, and away from those that were pushed to this repo."""
        locks.share_history(self._db)
        mpacks.move_places(self._db, self._repo_id, pack.mpack_id, batch)

    def retire(self) -> int:
        """Let go of the packs of which nothing is needed; their files go after the grace period."""

        def work() -> int:
            locks.share_history(self._db)
            chain = {each.pack.mpack_id for each in fetch_plans.clone_packs(self._db, self._repo_id)}
            retired = mpacks.retire_packs(self._db, self._repo_id, keep=chain)
            for mpack_id, size_bytes in retired.items():
                # Somebody may be reading it.
                fetch_packs.use_fetch_pack(self._db, mpack_id, size_bytes)
            return len(retired)

        return self._db.transaction(work)


def _weight(pack: ReadyPack) -> int:
    return pack.commit_count + pack.blob_count


def _plan_weight(plan: Plan) -> int:
    return len(plan.commit_ids) + len(plan.object_ids)


@temporary_room()
def pack_rows(hub: Hub, db: Database, repo_id: str) -> bool:
    """Pack a repo's history where its rows say more than what is packed, and turn whole manifests into deltas.

    That is so for rows of an earlier release, for rows that were written by hand, and after a collection of garbage.

    Returns:
        False where the rows cannot be packed, since a parent is not there.

    Raises:
        StorageUnavailable: there is no room for what it keeps in files.
    """
    if len(hub.graphs.load(db, repo_id)) == commit_store.count(db, repo_id):
        return True

    def work() -> bool:
        locks.share_history(db)
        return rewrite_rows(db, hub.graphs, repo_id)

    return db.transaction(work)


def rewrite_rows(db: Database, cache: GraphCache, repo_id: str) -> bool:
    """Do the work of `pack_rows`, in a transaction of the caller's that excludes a collection of garbage.

    A stretch of history at a time, as a push is taken: what is in memory for a commit or a blob is some hundred bytes.
    """
    commits = CommitSpool()
    for commit_id, node in commit_store.nodes(db, repo_id):
        commits.add({"commit_id": commit_id, "parent_ids": node.parent_ids, "snapshot_id": node.snapshot_id})
    if commits.outside_parents():
        return False
    order = commits.history_order()
    snapshot_ids = distinct_ids(to_digest(commits.snapshot_id(number)) for number in order)
    # Of rows that were written by hand, those stay as they are whose ids are not their manifests' hashes.
    unverified: set[str] = set()

    def write(batch: Sequence[NewSnapshot]) -> None:
        manifests.turn_into_deltas(db, [each for each in batch if each.snapshot_id not in unverified])
        unverified.clear()

    introduced = lay_out(
        db,
        repo_id,
        commits,
        order,
        snapshot_ids.digests,
        _as_deltas(db, repo_id, snapshot_ids, unverified),
        write,
        parent_snapshots={},
        objects=DigestTable(),
        only_changes=True,
    )
    return introduced is not None and pack_history(db, cache, repo_id, introduced.commits(commits, order))


def _as_deltas(
    db: Database, repo_id: str, snapshot_ids: Sequence[str], unverified: set[str]
) -> Iterator[SnapshotDelta]:
    for ordinal, planned in enumerate(read_changes(db, repo_id, snapshot_ids)):
        if not planned.derivable:
            unverified.add(planned.snapshot_id)
        yield SnapshotDelta(
            ordinal,
            planned.snapshot_id,
            ordinal == 0,
            planned.change.removed,
            planned.change.changed,
            0,
            not planned.derivable,
            isinstance(planned.change, WideDifference),
        )
