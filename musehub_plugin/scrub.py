"""Scrub: does storage hold what the rows say, and do the rows hold together?

Every pushed mpack is read and hashed whole, its index rows are compared with its directory, and every repo's history
is followed from its commits down to a place for each blob. Packs that were made to answer fetches are hashed too. What
can be repaired from what is left is repaired: index rows are written anew, a location that is false is dropped where
another one is good, and an answer that names a bad pack is made anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO

from musehub_plugin import ids
from musehub_plugin.errors import StorageUnavailable
from musehub_plugin.history import checked_segment
from musehub_plugin.hub import Hub
from musehub_plugin.index import index_entries
from musehub_plugin.mpack import MPackError, MPackReader
from musehub_plugin.mpack.history import IdRule, id_rule
from musehub_plugin.storage.base import ask
from musehub_plugin.storage.uploads import open_mpack
from musehub_plugin.store import (
    commits,
    contents,
    fetch_packs,
    fetch_plans,
    garbage,
    graphs,
    inventory,
    jobs,
    locks,
    manifests,
)
from musehub_plugin.store.session import Database

_CHUNK = 1 << 20
_BATCH = 500

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Problem:
    """Something that is not as it should be.

    Attributes:
        kind: `mpack-missing`, `mpack-damaged`, `answer-missing`, `answer-damaged`, `index-failed`, `index-wrong`,
            `commit-damaged`, `parent-missing`, `snapshot-missing`, `snapshot-damaged`, `graph-damaged`, `blob-missing`
            or `storage-away`.
        subject: the id of what is wrong.
        says: one sentence for the operator.
        repaired: whether it was repaired.
    """

    kind: str
    subject: str
    says: str
    repaired: bool = False


@dataclass
class Scrubbed:
    """What was looked at and found.

    Attributes:
        last_mpack: the last mpack that was looked at to its end; empty where none was.
    """

    last_mpack: str = ""
    mpacks: int = 0
    bytes: int = 0
    repos: int = 0
    commits: int = 0
    snapshots: int = 0
    blobs: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def unrepaired(self) -> int:
        """How many problems are left."""
        return sum(not problem.repaired for problem in self.problems)

    def as_dict(self) -> dict[str, Any]:
        """Return the findings for JSON."""
        return {**asdict(self), "unrepaired": self.unrepaired}


def scrub(
    hub: Hub,
    db: Database,
    *,
    repo_id: str | None = None,
    repair: bool = False,
    after: str = "",
    progress: Progress | None = None,
    done: Scrubbed | None = None,
) -> Scrubbed:
    """Look at everything, or at one repo and the mpacks that were pushed to it.

    Args:
        hub: the app's plugin.
        db: a unit of work with nothing in it.
        repo_id: one repo; None for the whole hub.
        repair: mend what can be mended.
        after: begin with the mpack after this id, to go on where an earlier scrub was interrupted.
        progress: told what is being looked at; of an mpack, its id.
        done: what is returned, for whoever wants to know what was found so far where a scrub is interrupted.
    """
    return _Scrub(hub, db, repair, progress, Scrubbed() if done is None else done).run(repo_id, after)


class _Scrub:
    def __init__(self, hub: Hub, db: Database, repair: bool, progress: Progress | None, done: Scrubbed) -> None:
        self._hub = hub
        self._db = db
        self._repair = repair
        self._say = progress or (lambda _: None)
        self._done = done

    def run(self, repo_id: str | None, after: str) -> Scrubbed:
        repo_ids = [repo_id] if repo_id is not None else garbage.repos_with_history(self._db)
        for mpack_id in inventory.mpacks(self._db, repo_id, after):
            self._say(mpack_id)
            self._mpack(mpack_id)
            self._done.last_mpack = mpack_id
        for mpack_id in inventory.answers(self._db, repo_id):
            self._say(mpack_id)
            self._answer(mpack_id)
        for each in repo_ids:
            self._say(f"repo {each}")
            self._repo(each)
        self._db.rollback()
        return self._done

    def _mpack(self, mpack_id: str) -> None:
        self._done.mpacks += 1
        try:
            reason = self._read_mpack(mpack_id)
        except StorageUnavailable as error:
            self._found("storage-away", mpack_id, str(error))
            return
        if reason is None:
            return
        kind, says = reason
        # What is being collected is missed by nobody, but for answers.
        if not inventory.is_needed(self._db, mpack_id):
            self._bad_answer(mpack_id, kind.replace("mpack-", "answer-"), says)
            return
        repaired = self._repair and self._drop_false_locations(mpack_id)
        if self._repair:
            if not repaired:
                # From now on whoever pushes it again is asked for the bytes.
                inventory.fail_index_job(self._db, mpack_id, says)
            # What is made anew says that bytes are missing; a ready answer names the pack and does not look.
            fetch_packs.forget_answers(self._db, [mpack_id])
            for repo_id in fetch_plans.repos_of_clone_pack(self._db, mpack_id):
                fetch_plans.retire_plans(self._db, repo_id)
            self._db.commit()
        self._found(kind, mpack_id, says, repaired=repaired)

    def _answer(self, mpack_id: str) -> None:
        """Look at a pack that was made to answer fetches."""
        try:
            file = open_mpack(self._hub.storage, mpack_id)
            if file is None:
                self._bad_answer(mpack_id, "answer-missing", "a pack that fetches are answered with is not in storage")
                return
            with file:
                is_good = self._is_whole(mpack_id, file)
        except StorageUnavailable as error:
            self._found("storage-away", mpack_id, str(error))
            return
        if not is_good:
            self._bad_answer(mpack_id, "answer-damaged", "the stored bytes do not hash to the mpack's id")

    def _bad_answer(self, mpack_id: str, kind: str, says: str) -> None:
        """Report a pack that is not there as it was, if ready answers name it; these are forgotten and made anew."""

        def settle() -> bool:
            # A collection removes the file before the rows: wait for its end.
            locks.share_history(self._db)
            if mpack_id not in inventory.answers(self._db, None, mpack_id):
                return False
            if self._repair:
                fetch_packs.forget_answers(self._db, [mpack_id])
            return True

        self._db.rollback()
        if self._db.transaction(settle):
            self._found(kind, mpack_id, says, repaired=self._repair)

    def _is_whole(self, mpack_id: str, file: BinaryIO) -> bool:
        digest = hashlib.sha256()
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            self._done.bytes += len(chunk)
        return ids.from_digest(digest.digest()) == mpack_id

    def _read_mpack(self, mpack_id: str) -> tuple[str, str] | None:
        file = open_mpack(self._hub.storage, mpack_id)
        if file is None:
            return "mpack-missing", "the mpack is not in storage"
        with file:
            if not self._is_whole(mpack_id, file):
                return "mpack-damaged", "the stored bytes do not hash to the mpack's id"
            try:
                places = {entry.object_id: entry for entry in index_entries(MPackReader(file))}
            except MPackError as error:
                return "mpack-damaged", str(error)
        self._index(mpack_id, places)
        return None

    def _index(self, mpack_id: str, places: dict[str, contents.IndexEntry]) -> None:
        job = jobs.find_job(self._db, jobs.index_job_id(mpack_id))
        if job is not None and job.state == jobs.FAILED:
            # What it failed over is gone: the bytes are good.
            if self._repair:
                jobs.add_job(self._db, job.job_id, job.kind, mpack_id, state=jobs.DONE)
                self._db.commit()
            self._found("index-failed", mpack_id, f"it was not indexed: {job.error}", repaired=self._repair)
        elif job is not None and job.state != jobs.DONE:
            return
        false, missing = self._differences(mpack_id, places)
        if false or missing:
            # What is pushed or collected at this moment looks like damage while it is half seen; damage stays.
            self._db.rollback()
            false_still, missing_still = self._differences(mpack_id, places)
            false, missing = false & false_still, missing & missing_still
        if not false and not missing:
            return
        if self._repair:
            inventory.drop_index_rows(self._db, mpack_id, false)
            contents.add_index_entries(
                self._db, mpack_id, [places[object_id] for object_id in (false | missing) & places.keys()]
            )
            self._db.commit()
        self._found(
            "index-wrong",
            mpack_id,
            f"{len(missing)} index rows are missing, {len(false)} are false",
            repaired=self._repair,
        )

    def _differences(self, mpack_id: str, places: Mapping[str, contents.IndexEntry]) -> tuple[set[str], set[str]]:
        """Return of which blobs an mpack's index rows are false, and of which they are missing."""
        rows = inventory.index_rows(self._db, mpack_id)
        # A row that was written by hand says no place; it is as good as the directory of the mpack that it names.
        false = {
            object_id
            for object_id, place in rows.items()
            if object_id not in places or (place.frame is not None and place != places[object_id])
        }
        # A blob that nobody holds any more has lost its index row to garbage collection.
        missing = inventory.held_by_anyone(self._db, places) - rows.keys()
        # Nor is a row missed that collection took and a later pack has brought back, or is about to.
        missing -= inventory.elsewhere(self._db, mpack_id, missing)
        for waiting in jobs.waiting_for_index(self._db) if missing else ():
            missing -= self._directory(waiting)
        return false, missing

    def _drop_false_locations(self, mpack_id: str) -> bool:
        """Forget a bad mpack if every blob that needs it is somewhere else too; say whether it was so."""
        rows = inventory.index_rows(self._db, mpack_id)
        needed = inventory.held_by_anyone(self._db, rows)
        if inventory.elsewhere(self._db, mpack_id, needed) < needed:
            return False
        inventory.drop_index_rows(self._db, mpack_id, rows)
        inventory.drop_refs(self._db, mpack_id)
        self._db.commit()
        return True

    def _repo(self, repo_id: str) -> None:
        look = self._look_at(repo_id)
        if look.problems:
            # What is pushed or collected at this moment looks like damage while it is half seen; damage stays.
            self._db.rollback()
            seen = {(problem.kind, problem.subject) for problem in look.problems}
            look = self._look_at(repo_id)
            look.problems = [problem for problem in look.problems if (problem.kind, problem.subject) in seen]
        self._done.repos += 1
        self._done.commits += look.commits
        self._done.snapshots += look.snapshots
        self._done.blobs += look.blobs
        self._done.problems += look.problems
        self._graph(repo_id)

    def _graph(self, repo_id: str) -> None:
        """Look at a repo's packed history, which rows stand for until it is made anew."""
        segment_ids = [row.segment_id for row in graphs.segments(self._db, repo_id)]
        try:
            for segment_id, data in graphs.segment_data(self._db, repo_id, segment_ids):
                checked_segment(segment_id, data)
        except ValueError as error:
            if self._repair:
                graphs.drop_segments(self._db, repo_id)
                self._db.commit()
            self._found("graph-damaged", repo_id, f"its packed history: {error}", repaired=self._repair)

    def _look_at(self, repo_id: str) -> Scrubbed:
        look = Scrubbed()

        def found(kind: str, subject: str, says: str) -> None:
            look.problems.append(Problem(kind, subject, f"repo {repo_id}: {says}"))

        commit_ids: set[str] = set()
        parents: dict[str, str] = {}
        snapshot_ids: dict[str, str] = {}
        for commit in inventory.commits(self._db, repo_id):
            look.commits += 1
            commit_ids.add(commit.commit_id)
            if not commit.is_stored:
                found("commit-damaged", commit.commit_id, "it is held and has no row")
                continue
            parents.update(dict.fromkeys(commit.parent_ids, commit.commit_id))
            snapshot_ids.setdefault(commit.snapshot_id, commit.commit_id)
        # Some may have been collected since.
        for record in commits.records(self._db, repo_id, sorted(commit_ids), pass_over_missing=True):
            if id_rule(record["commit_id"], record["parent_ids"], record) is IdRule.STORED:
                found("commit-damaged", record["commit_id"], "what is stored of it does not hash to its id")
        for parent_id, child_id in parents.items():
            if parent_id not in commit_ids:
                found("parent-missing", parent_id, f"commit {child_id} needs it")
        objects: dict[str, str] = {}
        for snapshot_id, manifest in manifests.manifests(self._db, repo_id, sorted(snapshot_ids)):
            look.snapshots += 1
            if manifest is None:
                needs = f"commit {snapshot_ids[snapshot_id]} needs it, and its rows are gone or cannot be read"
                found("snapshot-missing", snapshot_id, needs)
            elif ids.snapshot_id(manifest) != snapshot_id:
                found("snapshot-damaged", snapshot_id, "the stored manifest does not hash to the snapshot's id")
            else:
                for path, object_id in manifest.items():
                    objects.setdefault(object_id, path)
        look.blobs = len(objects)
        try:
            for object_id in self._nowhere(repo_id, objects):
                found("blob-missing", object_id, f"path {objects[object_id]!r:.200} needs it, and it is nowhere")
        except StorageUnavailable as error:
            found("storage-away", repo_id, str(error))
        return look

    def _nowhere(self, repo_id: str, object_ids: Collection[str]) -> list[str]:
        """Return those of a repo's blobs that neither the index nor storage has, nor a pack that waits to be indexed.

        Raises:
            StorageUnavailable: object storage did not answer.
        """
        # Asked before the index: what is indexed in between is in the index then.
        waiting = [job.subject for job in jobs.unfinished_index_jobs(self._db, repo_id) if job.state != jobs.FAILED]
        missing: set[str] = set()
        for batch in _batches(sorted(object_ids)):
            placed = inventory.placed_objects(self._db, repo_id, batch)
            missing.update(object_id for object_id in batch if object_id not in placed)
        for mpack_id in waiting if missing else ():
            missing -= self._directory(mpack_id)
        return [object_id for object_id in sorted(missing) if not ask(self._hub.storage.exists, object_id)]

    def _directory(self, mpack_id: str) -> set[str]:
        """Return the blobs that an mpack holds; none where it cannot be read, which `_mpack` says."""
        file = open_mpack(self._hub.storage, mpack_id)
        if file is None:
            return set()
        with file:
            try:
                return {entry.object_id for entry in index_entries(MPackReader(file))}
            except MPackError:
                return set()

    def _found(self, kind: str, subject: str, says: str, *, repaired: bool = False) -> None:
        self._done.problems.append(Problem(kind, subject, says, repaired))


def _batches(items: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]
