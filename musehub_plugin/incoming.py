"""An mpack from a stranger: verified whole, then written as rows.

Verifying has two halves. What the pack says of itself needs no database: every blob, snapshot and commit is hashed,
every path and text is looked at. What it refers to must be in it or in the repo that it was pushed to; that another
repo holds it makes no difference, not even to the answer (ATTACKS S04-S08).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import IO, Any

from musehub_plugin.commitgraph import NewCommit
from musehub_plugin.commitspool import CommitSpool
from musehub_plugin.config import Settings
from musehub_plugin.descent import Descent
from musehub_plugin.errors import Invalid
from musehub_plugin.history import History
from musehub_plugin.ids import to_digest
from musehub_plugin.manifestlog import ManifestLog
from musehub_plugin.mpack import (
    FalseIdError,
    Limits,
    MPackError,
    MPackReader,
    SnapshotDelta,
    verified_commits,
    verified_snapshots,
    verify_blobs,
)
from musehub_plugin.mpack.digests import DigestTable
from musehub_plugin.names import MAX_PATH_BYTES
from musehub_plugin.store import commits as commit_store
from musehub_plugin.store import contents, manifests, widemanifests
from musehub_plugin.store.session import ID_BATCH, Database
from musehub_plugin.stretches import FirstPaths, Introduced, stretches
from musehub_plugin.treepaths import TreePaths
from musehub_plugin.widelog import WideLog

# Snapshots written by one statement, and the paths that they change together, at 300 bytes each: most change a few, and
# the first one of a large tree has them all.
_SNAPSHOT_BATCH = 1_000
_CHANGE_BATCH = 20_000


def _limits(settings: Settings) -> Limits:
    return Limits(
        max_file_size=settings.max_push,
        max_commits=settings.max_commits,
        max_snapshots=settings.max_commits,
        max_manifest_entries=settings.max_manifest_entries,
        max_total_entries=settings.max_manifest_total,
        max_blob_size=settings.max_blob,
        max_raw_size=settings.max_push_raw,
        # Above what `unsafe_path` takes, which names the path where it refuses one.
        max_path_size=16 * MAX_PATH_BYTES,
    )


class IncomingPack:
    """A stranger's mpack: verified, then stored.

    Some hundred bytes for each commit and each blob are in memory; manifests are read again when they are stored.

    Args:
        file: the mpack, seekable.
        settings: what is accepted.

    Attributes:
        reader: the pack's reader, once it is verified.
        commits: the pack's commits by id, once it is verified.
    """

    def __init__(self, file: IO[bytes], settings: Settings) -> None:
        self._file = file
        self._settings = settings
        self.reader: MPackReader
        self.commits = CommitSpool()
        self._snapshots = DigestTable()
        # The pack's blobs first, then what else manifests name.
        self._objects = DigestTable()
        self._paths = FirstPaths()
        self._order: Sequence[int] = ()
        self._generations = array("q")
        self._parent_snapshots: dict[str, str] = {}

    def verify_contents(self) -> None:
        """Hash everything that the pack holds and look at every path and text.

        Raises:
            Invalid: the first thing that is wrong, by its id.
        """
        try:
            self.reader = MPackReader(self._file, limits=_limits(self._settings))
            self._objects.extend(self.reader.blob_digests())
            self._check_manifests()
            self._check_records()
            verify_blobs(self.reader)
        except FalseIdError as error:
            raise Invalid(f"{error.kind} {error.entity_id} does not hash to its id.", code="hash-mismatch") from None
        except MPackError as error:
            raise Invalid(f"The mpack cannot be read: {error}", code="malformed-mpack") from None

    def verify_references(self, db: Database, repo_id: str, history: History) -> None:
        """Follow every reference out of the pack into the repo.

        Args:
            db: the unit of work.
            repo_id: the repo that the pack was pushed to.
            history: the commits that the repo holds.

        Raises:
            Invalid: something is neither in the pack nor in the repo.
        """
        self._check_objects(db, repo_id)
        self._check_history(db, repo_id, history)

    def _check_manifests(self) -> None:
        """Look at every path, and note where in the pack each snapshot is, and at which path each blob."""
        tree = TreePaths()
        for delta in verified_snapshots(self.reader):
            unsafe = tree.follow(delta)
            if unsafe is not None:
                path, reason = unsafe
                raise Invalid(
                    f"snapshot {delta.snapshot_id}: path {path!r:.200} {reason}.",
                    code="unsafe-path",
                    extra={"path": path[:4096]},
                )
            self._snapshots.number(to_digest(delta.snapshot_id))
            for path, object_id in delta.changed.items():
                self._paths.note(self._objects.number(to_digest(object_id)), path)

    def _check_records(self) -> None:
        for record in verified_commits(self.reader):
            for field in ("message", "author", "branch", "committed_at"):
                if "\0" in record[field]:
                    raise Invalid(f"commit {record['commit_id']}: {field} holds a NUL.", code="invalid-commit")
            _timestamp(record)
            self.commits.add(record)

    def _check_objects(self, db: Database, repo_id: str) -> None:
        outside = self.reader.outside_objects()
        missing: set[str] = set()
        while batch := set(islice(outside, ID_BATCH)):
            missing |= batch - contents.held_objects(db, repo_id, batch)
        if missing:
            object_id = min(missing)
            number = self._objects.find(to_digest(object_id))
            raise Invalid(
                f"path {'' if number is None else self._paths.first(number)!r:.200}: blob {object_id} is neither in "
                "the mpack nor in this repo.",
                code="missing-blob",
            )

    def _check_history(self, db: Database, repo_id: str, history: History) -> None:
        outside_parents = self.commits.outside_parents()
        outside_snapshots = self.commits.outside_snapshots(self._snapshots)
        self._parent_snapshots = history.snapshot_ids(outside_parents)
        missing = outside_parents.keys() - self._parent_snapshots.keys()
        if missing:
            parent_id = min(missing)
            raise Invalid(
                f"commit {outside_parents[parent_id]}: parent {parent_id} is neither in the mpack nor in this repo.",
                code="missing-commit",
            )
        missing = outside_snapshots.keys() - manifests.held_snapshots(db, repo_id, outside_snapshots)
        if missing:
            snapshot_id = min(missing)
            raise Invalid(
                f"commit {outside_snapshots[snapshot_id]}: snapshot {snapshot_id} is neither in the mpack "
                "nor in this repo.",
                code="missing-snapshot",
            )
        self._number_generations(commit_store.generations(db, outside_parents))

    def _number_generations(self, stored: Mapping[str, int]) -> None:
        commits = self.commits
        self._order = commits.history_order()
        # A parent whose row was written by hand may have no number; the planner does not rely on it.
        known = array("q", [1]) * commits.named
        for commit_id, generation in stored.items():
            known[commits.number(commit_id)] = generation
        for number in self._order:
            known[number] = 1 + max((known[parent] for parent in commits.parents(number)), default=0)
        self._generations = known

    def store(self, db: Database, repo_id: str) -> Iterator[NewCommit] | None:
        """Write every row, but for the packed graph.

        Returns:
            The commits as the packed graph takes them; None where finding out what each introduces cost too much.
        """
        contents.add_blobs(db, repo_id, self._new_blobs())
        introduced = self._store_snapshots(db, repo_id)
        commit_store.add_commits(db, repo_id, self._new_commits())
        return None if introduced is None else introduced.commits(self.commits, self._order)

    def _new_blobs(self) -> Iterator[contents.NewBlob]:
        sizes = array("Q", (size for _, _, size in self.reader.blob_places()))
        for number in self._objects.sorted_ordinals():
            if number < len(sizes):
                yield contents.NewBlob(self._objects[number], self._paths.first(number), sizes[number])

    def _new_commits(self) -> Iterator[commit_store.NewCommit]:
        for number in self.commits.in_order_of_ids():
            record = self.commits.record(number)
            yield commit_store.NewCommit(record, _timestamp(record), self._generations[number])

    def _store_snapshots(self, db: Database, repo_id: str) -> Introduced | None:
        """Write the snapshots; return what each commit introduces, if it is known."""
        return lay_out(
            db,
            repo_id,
            self.commits,
            self._order,
            self._snapshots,
            self.reader.snapshot_deltas(),
            lambda batch: widemanifests.add_snapshots(db, repo_id, batch),
            parent_snapshots=self._parent_snapshots,
            objects=self._objects,
        )


def lay_out(
    db: Database,
    repo_id: str,
    commits: CommitSpool,
    order: Sequence[int],
    snapshots: DigestTable,
    deltas: Iterator[SnapshotDelta],
    write: Callable[[Sequence[manifests.NewSnapshot]], None],
    *,
    parent_snapshots: Mapping[str, str],
    objects: DigestTable,
    only_changes: bool = False,
) -> Introduced | None:
    """Lay snapshots out along history, a stretch at a time.

    Args:
        db: the unit of work.
        repo_id: the repo.
        commits: the commits that have them.
        order: their numbers, parents before children.
        snapshots: numbers the snapshots in the order of `deltas`.
        deltas: the snapshots, each as what it changes from the one before.
        write: is given them as they are to be stored.
        parent_snapshots: the snapshots of parents that are not among the commits, by the parents' ids.
        objects: numbers the blobs.
        only_changes: let none rest on rows that hold `{path: object_id}`.

    Returns:
        What each commit introduces; None where finding out cost too much.
    """
    introduced: Introduced | None = Introduced(objects)
    log: ManifestLog | WideLog = ManifestLog()
    compared = 0
    for stretch in stretches(commits, order, snapshots):
        parents = stretch.parent_snapshots(parent_snapshots)
        descent = Descent(
            stretch.records,
            stretch.positions,
            parents,
            manifests.chains(db, {*stretch.positions, *parents.values()}, only_changes=only_changes),
            lambda snapshot_id: widemanifests.manifest(db, repo_id, snapshot_id),
            log=log,
            compared=compared,
        )
        for batch in _batches(descent.snapshots(islice(deltas, len(stretch.positions)))):
            write(batch)
        compared, log = descent.compared, descent.log
        found = descent.introduced()
        if found is None:
            introduced = None
        elif introduced is not None:
            introduced.extend(found[commit_id] for commit_id in stretch.records)
    return introduced


def _batches(snapshots: Iterable[manifests.NewSnapshot]) -> Iterator[list[manifests.NewSnapshot]]:
    batch: list[manifests.NewSnapshot] = []
    changes = 0
    for snapshot in snapshots:
        batch.append(snapshot)
        # Each that is in a file keeps one open.
        changes += len(snapshot.change.changed) if snapshot.spooled is None else _CHANGE_BATCH
        if len(batch) == _SNAPSHOT_BATCH or changes >= _CHANGE_BATCH:
            yield batch
            batch, changes = [], 0
    if batch:
        yield batch


def _timestamp(record: Mapping[str, Any]) -> datetime:
    """Return a commit's date; one without a zone is UTC."""
    text = record["committed_at"]
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise Invalid(
            f"commit {record['commit_id']}: committed_at {text!r:.100} is no ISO 8601 date.", code="invalid-commit"
        ) from None
