"""Fetch: find the answer that is ready, or plan the delta, make the mpack of it, and keep that for whoever asks next.

Every answer is exactly the delta (ATTACKS S14, S15): a pack that is handed out was made as the answer to a plan, by
the one who asks, by another, by the job that follows a push, or by a repack. Pushed mpacks are never handed out.
"""

from __future__ import annotations

import hashlib
import secrets
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from musehub_plugin.blobs import NotIndexed, TooManyBytes
from musehub_plugin.building import write_mpack
from musehub_plugin.errors import HistoryDamaged, Unavailable
from musehub_plugin.history import History
from musehub_plugin.hub import Hub
from musehub_plugin.ids import from_digest, to_digest
from musehub_plugin.memory import give_back
from musehub_plugin.plan import CopiedPack, Plan, begun_with, plan_delta, planned_order, refuse_missing_wants
from musehub_plugin.signals import reached
from musehub_plugin.storage.temporary import temporary_room
from musehub_plugin.storage.uploads import mpack_url, put_mpack_file
from musehub_plugin.store import builds, fetch_packs, fetch_plans, locks
from musehub_plugin.store import commits as commit_store
from musehub_plugin.store.fetch_plans import ReadyPack
from musehub_plugin.store.session import Database

MPACKS: Final = "mpacks"
INLINE: Final = "inline"
THIN: Final = "thin"

# Packs up to this size are made in memory; larger ones go through a temporary file.
_SPOOL_BYTES = 8 * 1024 * 1024
# A use is noted when the last note is so many seconds old, so that most answers write nothing.
_USE_NOTED_EVERY = 60
# Seconds between two notes that a build goes on; its lease is longer.
_LEASE_KEPT_EVERY = 5.0
# Commits and blobs of a plan that is not worth telling others about.
_FEW_ENTITIES = 100
# Bytes of their blobs, likewise.
_FEW_BYTES = 4 * 1024 * 1024
# Answers that rows of a repo hold themselves, up to `MUSEHUB_FETCH_INLINE` each: whoever may read it can ask for any
# number of them, by naming haves that make no difference. Those used least go each time that a process has made some.
_KEPT_ANSWERS = 1_000
_FORGOTTEN_EVERY = 32
# Who waits for another's build looks again after so many seconds, twice as long each time.
_FIRST_LOOK = 0.02
_LAST_LOOK = 0.5


@dataclass(frozen=True)
class PackAnswer:
    """One of several mpacks of an answer: its URL, or itself."""

    id: str
    size_bytes: int
    url: str | None = None
    mpack: bytes | None = None


@dataclass(frozen=True)
class FetchAnswer:
    """The members of the answer to a fetch; the contract's section 2 names them."""

    mpack_url: str | None
    mpack_id: str | None
    commit_count: int
    snapshot_count: int
    blob_count: int
    object_count: int
    size_bytes: int
    expires_at: str | None
    mpack: bytes | None = None
    mpacks: Sequence[PackAnswer] | None = None


class BuildByJob(Unavailable):
    """The mpack of a fetch takes a while: a job is to make it, and the client to come back.

    Attributes:
        build: what `make_for_job` needs.
    """

    code = "building"

    def __init__(self, build: Build, retry_after: int) -> None:
        super().__init__("The mpack of this fetch is being made. Ask again in a moment.", retry_after=retry_after)
        self.build = build


class Build(NamedTuple):
    """A pack that a job is to make.

    Attributes:
        key: of the plan.
        want: what was asked for.
        have: likewise, as far as the repo held it.
        capabilities: likewise.
    """

    key: str
    repo_id: str
    want: Sequence[str]
    have: Sequence[str]
    capabilities: Sequence[str]


NOTHING_NEW = FetchAnswer(None, None, 0, 0, 0, 0, 0, None)


def fetch(
    hub: Hub,
    db: Database,
    repo_id: str,
    want: Sequence[str],
    have: Sequence[str],
    capabilities: Collection[str] = (),
) -> FetchAnswer:
    """Answer a fetch of a repo that the caller may read.

    Args:
        hub: the app's plugin.
        db: the unit of work; only read.
        repo_id: the repo.
        want: ids of commits, at least one.
        have: ids of commits that the client holds with all their history; those that this repo does not hold are
            ignored, whether or not another repo does.
        capabilities: what the client can do beyond the contract's section 2.

    Raises:
        NotFound: the repo does not hold a want.
        Unavailable: a needed blob is not indexed yet, or too many mpacks are being made.
        HistoryDamaged: a commit or snapshot that the answer needs is not there.
        StorageUnavailable: object storage did not answer.
    """
    if set(want) <= set(have):
        refuse_missing_wants(commit_store.held_commits(db, repo_id, want), want)
        return NOTHING_NEW
    by_job = bool(hub.settings.redis_url) and hub.settings.build_by_job > 0
    asked = _Asked(hub, db, repo_id, want, have, capabilities, by_job=by_job)
    with db.questions():
        ready = asked.ready()
        if ready is None:
            ready = asked.made()
            give_back(after=max((pack.size_bytes for pack in ready), default=0))
    return asked.answer(ready)


def make_for_job(hub: Hub, db: Database, build: Build, alive: Callable[[], None]) -> None:
    """Make the mpack that a fetch was told to come back for.

    Args:
        hub: the app's plugin.
        db: the unit of work; only read.
        build: what was asked for.
        alive: called every so often while it works.

    Raises:
        HubError: as `fetch` does.
    """
    # Into storage, whatever its size: an answer that travels is with the process that made it, and not always in rows.
    capabilities = [capability for capability in build.capabilities if capability != INLINE]
    _Asked(hub, db, build.repo_id, build.want, build.have, capabilities, alive=alive).made()


class _Asked:
    """One fetch on its way to an answer."""

    def __init__(
        self,
        hub: Hub,
        db: Database,
        repo_id: str,
        want: Sequence[str],
        have: Sequence[str],
        capabilities: Collection[str],
        *,
        by_job: bool = False,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._hub = hub
        self._db = db
        self._repo_id = repo_id
        self._want = want
        self._have = have
        self._capabilities = sorted(capabilities)
        self._by_job = by_job
        self._alive = alive
        self._is_kept = False
        self._is_build_ended = False
        self._mpacks = MPACKS in capabilities
        self._inline = INLINE in capabilities and hub.settings.fetch_inline > 0
        self._thin = THIN in capabilities and bool(have)
        self._key = plan_key(repo_id, want, have, mpacks=self._mpacks, inline=self._inline, thin=self._thin)

    def ready(self) -> Sequence[ReadyPack] | None:
        """Return the answer where it was given before, by one statement."""
        kept = self._hub.answers.find(self._key)
        if kept is not None:
            held = commit_store.held_commits(self._db, self._repo_id, [*self._want, *self._have])
            refuse_missing_wants(held, self._want)
            # What is left out of it was on the have side when it was made: that may have been collected since.
            if held.issuperset(self._have):
                return kept
        return _found(self._hub, self._db, self._key)

    def made(self) -> Sequence[ReadyPack]:
        """Return an answer that is made now; empty where there is nothing new."""
        chain = self._clone_packs()
        have = [chain[-1].head_commit_id] if chain else self._have
        plan = plan_delta(self._db, self._repo_id, self._want, have, self._hub.graphs)
        packs = [each.pack for each in chain]
        if plan is not None:
            if chain and not self._mpacks:
                # One pack is all that the client takes: it begins as the clone pack does, byte for byte.
                packs = []
                order = planned_order(self._hub.graphs, self._db, self._repo_id, chain[0].head_commit_id)
                plan = begun_with(plan, CopiedPack(chain[0].pack.mpack_id, *order))
            reached("fetch.planned")
            try:
                packs.append(self._pack_of(plan))
            except (HistoryDamaged, NotIndexed):
                refuse_missing_wants(commit_store.held_commits(self._db, self._repo_id, self._want), self._want)
                raise
        if packs and not self._is_kept:
            self._remember(packs, plan)
        return packs

    def _clone_packs(self) -> Sequence[fetch_plans.ClonePack]:
        """Return the ready packs that a clone begins with: those of which all is wanted; one where one is taken."""
        if self._have:
            return ()
        chain = fetch_plans.clone_packs(self._db, self._repo_id)
        if not chain:
            return ()
        history = History(self._db, self._hub.graphs, self._repo_id)
        packed = history.packed([*self._want, *(each.head_commit_id for each in chain)])
        if packed is None:
            return ()
        refuse_missing_wants(packed, self._want)
        tips = [packed[commit_id] for commit_id in self._want]
        if not self._mpacks:
            chain = chain[:1]
        while chain and not (
            chain[-1].head_commit_id in packed and history.graph.is_ancestor(packed[chain[-1].head_commit_id], tips)
        ):
            chain.pop()
        return chain

    def _pack_of(self, plan: Plan) -> ReadyPack:
        """Return the mpack of a plan: made before, by another at this moment, or here."""
        thin = self._thin and bool(plan.border_ids) and plan.changes is not None
        if not self._db.may_write_apart:
            return self._built(plan, thin, None)
        if self._inline and len(plan.commit_ids) + len(plan.object_ids) <= _FEW_ENTITIES:
            # What travels in the answer is made as quickly as it is found.
            with suppress(TooManyBytes):
                return self._built(plan, thin, None, most_bytes=_FEW_BYTES)
        key = _content_key(self._repo_id, plan, thin=thin)
        if self._by_job and len(plan.commit_ids) + len(plan.object_ids) > self._hub.settings.build_by_job:
            ready = _found(self._hub, self._db, key)
            if ready is not None:
                return ready[0]
            raise BuildByJob(
                Build(key, self._repo_id, self._want, self._have, self._capabilities), self._hub.settings.retry_after
            )
        holder = secrets.token_hex(16)
        with _single_flight(
            self._hub,
            self._db,
            self._repo_id,
            key,
            holder,
            made_by_another=lambda: self._made_by_another(key),
            is_ended=lambda: self._is_build_ended,
        ) as ready:
            if ready is not None:
                return ready[0]
            self._alive = self._keeping(key, holder, self._alive)
            pack = self._built(plan, thin, (key, holder))
            if pack.content is not None:
                # Before the lease ends: who waits for it looks here, or in rows where it is in another process.
                self._hub.answers.keep(key, [pack])
                if self._is_one_pack:
                    self._remember([pack], plan)
            return pack

    def _made_by_another(self, key: str) -> Sequence[ReadyPack] | None:
        """Return the pack of a plan's key where somebody has made it by now."""
        ready = self._hub.answers.find(key) if self._inline else None
        if ready is None:
            ready = _found(self._hub, self._db, key)
        if ready is None and self._inline and self._is_one_pack:
            ready = _found(self._hub, self._db, self._key)
        return ready

    @property
    def _is_one_pack(self) -> bool:
        """Whether the mpack of a plan is all of the answer: nothing comes before it."""
        return not self._mpacks or bool(self._have)

    def _keeping(self, key: str, holder: str, alive: Callable[[], None]) -> Callable[[], None]:
        """Return what keeps a lease on a build, and does what `alive` does."""
        noted = time.monotonic()

        def keep() -> None:
            nonlocal noted
            alive()
            if time.monotonic() - noted > _LEASE_KEPT_EVERY:
                noted = time.monotonic()
                with self._db.apart() as apart:
                    builds.keep_build(apart, key, holder, self._hub.settings.job_lease)
                    apart.commit()

        return keep

    def _built(
        self, plan: Plan, thin: bool, build: tuple[str, str] | None, *, most_bytes: int | None = None
    ) -> ReadyPack:
        """Make and store the mpack of a plan.

        Args:
            plan: the plan.
            thin: whether it may lean on what the have side holds.
            build: the plan's key and who holds the lease, where others wait.
            most_bytes: that its blobs may have.

        Raises:
            TooManyBytes: they have more.
        """
        hub = self._hub
        with temporary_room(), tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as file:
            pack = write_mpack(
                file, hub, self._db, self._repo_id, plan, thin=thin, most_bytes=most_bytes, alive=self._alive
            )
            reached("fetch.packed")
            file.seek(0)
            if self._inline and pack.size_bytes <= hub.settings.fetch_inline:
                return pack._replace(content=file.read())
            if self._db.may_write_apart:
                fetch_packs.keep_fetch_pack(self._db, pack.mpack_id, pack.size_bytes)
            reached("fetch.kept")
            put_mpack_file(hub.storage, pack.mpack_id, file)
        reached("fetch.stored")
        if build is not None:
            self._tell_others(build, plan, pack)
        return pack

    def _tell_others(self, build: tuple[str, str], plan: Plan, pack: ReadyPack) -> None:
        """Make a pack known as the answer to its plan, and to this very question where it is all of the answer."""
        key, holder = build
        keys = [key, self._key] if self._is_one_pack and self._is_worth_keeping(plan, [pack]) else [key]
        builds.settle_build(self._db, key, holder, keys, self._repo_id, pack)
        self._is_kept = self._is_one_pack
        self._is_build_ended = True

    def _remember(self, packs: Sequence[ReadyPack], plan: Plan | None) -> None:
        """Have the same question answered by a look next time, here or by rows."""
        if plan is not None and (plan.haves_are_known or not self._have):
            self._hub.answers.keep(self._key, packs)
        self._keep(packs, plan)
        self._is_kept = True

    def _keep(self, packs: Sequence[ReadyPack], plan: Plan | None) -> None:
        """Have the same question answered by a look next time, where that pays."""
        if not self._db.may_write_apart or not self._is_worth_keeping(plan, packs):
            return
        with self._db.apart() as apart:

            def work() -> None:
                for pack in packs:
                    if pack.content is None:
                        fetch_packs.use_fetch_pack(apart, pack.mpack_id, pack.size_bytes)
                fetch_plans.add_plans(apart, [self._key], self._repo_id, packs)
                if packs[-1].content is not None and next(self._hub.answers.stored) % _FORGOTTEN_EVERY == 0:
                    fetch_plans.forget_least_used_answers(apart, self._repo_id, _KEPT_ANSWERS)

            apart.transaction(work)

    def _is_worth_keeping(self, plan: Plan | None, packs: Sequence[ReadyPack]) -> bool:
        """Say whether others are likely to ask the same, and will have to be answered the same.

        What a have is worth changes where the repo does not hold it yet. What is in object storage is kept in any case.
        """
        if plan is None:
            return True
        is_answer_lasting = plan.haves_are_known or not self._have
        return is_answer_lasting and (plan.is_recent or any(pack.content is None for pack in packs))

    def answer(self, packs: Sequence[ReadyPack]) -> FetchAnswer:
        """Return what the client gets."""
        if not packs:
            return NOTHING_NEW
        ttl = self._hub.settings.presign_ttl
        expires_at = datetime.now(UTC) + timedelta(seconds=ttl)
        given = [
            PackAnswer(
                id=pack.mpack_id,
                size_bytes=pack.size_bytes,
                url=None if pack.content is not None else self._url(pack, ttl),
                mpack=pack.content,
            )
            for pack in packs
        ]
        one = given[0] if len(given) == 1 else None
        return FetchAnswer(
            mpack_url=None if one is None else one.url,
            mpack_id=None if one is None else one.id,
            commit_count=sum(pack.commit_count for pack in packs),
            snapshot_count=sum(pack.snapshot_count for pack in packs),
            blob_count=sum(pack.blob_count for pack in packs),
            object_count=sum(pack.blob_count for pack in packs),
            size_bytes=sum(pack.size_bytes for pack in packs),
            expires_at=expires_at.isoformat(timespec="seconds"),
            mpack=None if one is None else one.mpack,
            mpacks=given if one is None else None,
        )

    def _url(self, pack: ReadyPack, ttl: int) -> str:
        return mpack_url(self._hub.storage, self._hub.signer, pack.mpack_id, ttl)


def plan_key(repo_id: str, want: Sequence[str], have: Sequence[str], *, mpacks: bool, inline: bool, thin: bool) -> str:
    """Return the key of a question: equal for equal sets of wants and haves, whatever their order."""
    digest = hashlib.sha256(f"asked {repo_id}\0{mpacks:d}{inline:d}{thin:d}\0".encode())
    for each in (want, have):
        digest.update(len(each).to_bytes(8, "big"))
        digest.update(b"".join(sorted(map(to_digest, set(each)))))
    return from_digest(digest.digest())


def _content_key(repo_id: str, plan: Plan, *, thin: bool) -> str:
    """Return the key of a plan: equal for whoever lacks the same, since what that starts from is then the same too."""
    copied = "" if plan.begins_with is None else plan.begins_with.mpack_id
    digest = hashlib.sha256(f"plan {repo_id}\0{copied}\0{thin:d}\0".encode())
    for each in (plan.commit_ids, plan.object_ids):
        digest.update(len(each).to_bytes(8, "big"))
        digest.update(b"".join(map(to_digest, each)))
    return from_digest(digest.digest())


def _found(hub: Hub, db: Database, key: str) -> Sequence[ReadyPack] | None:
    plan = fetch_plans.find_plan(db, key)
    if plan is None:
        return None
    # A URL must live out before its pack may be collected, whenever the use was noted.
    margin = min(_USE_NOTED_EVERY, hub.settings.gc_grace - hub.settings.presign_ttl)
    if not 0 <= plan.noted_ago < margin and db.may_write_apart:
        with db.apart() as apart:

            def work() -> bool:
                # A collection may be removing one of the packs: wait for its end.
                locks.share_history(apart)
                return fetch_plans.note_use(apart, key, plan.packs)

            if not apart.transaction(work):
                return None
    return plan.packs


@contextmanager
def _single_flight(
    hub: Hub,
    db: Database,
    repo_id: str,
    key: str,
    holder: str,
    made_by_another: Callable[[], Sequence[ReadyPack] | None],
    is_ended: Callable[[], bool],
) -> Iterator[Sequence[ReadyPack] | None]:
    """Give the packs of a plan where somebody has made them, after waiting for whoever is at it; None: make them.

    Who makes them may let go of the lease with what makes them known; `is_ended` says whether that was done.

    Whoever is at it holds a lease in the database, so it does not matter which process or machine that is; where it
    lapses, the next one that waits takes over (ATTACKS S91, R24).

    Raises:
        Unavailable: it took too long, or too many are being made.
    """
    deadline = time.monotonic() + hub.settings.build_wait
    pause = _FIRST_LOOK
    lease, most = hub.settings.job_lease, hub.settings.max_builds
    leased = builds.take_build(db, key, repo_id, holder, lease, most)
    ready = None if leased else made_by_another()
    while ready is None and not leased:
        with db.apart() as apart:
            full = builds.builds_under_way(apart) >= most
            leased = not full and builds.lease_build(apart, key, repo_id, holder, lease)
            apart.commit()
        if leased:
            break
        if time.monotonic() > deadline:
            retry_after = hub.settings.retry_after
            if full:
                raise Unavailable(
                    "Too many mpacks are being made. Ask again in a moment.", code="busy", retry_after=retry_after
                )
            raise Unavailable(
                "The mpack of this fetch is being made. Ask again in a moment.",
                code="building",
                retry_after=retry_after,
            )
        reached("waiting.looked")
        time.sleep(pause)
        pause = min(2 * pause, _LAST_LOOK)
        # What another process commits is seen by the next statement: this unit of work only reads.
        ready = made_by_another()
    if not leased:
        yield ready
        return
    made = False
    try:
        # Whoever was at it may have ended between the look and the lease.
        yield made_by_another()
        made = True
    finally:
        if not is_ended():
            with db.apart() as apart:
                builds.end_build(apart, key, holder, made=made)
                apart.commit()
