"""An mpack from a stranger: verified whole, then written as rows.

Verifying has two halves. What the pack says of itself needs no database: every blob, snapshot and commit is hashed,
every path and text is looked at. What it refers to must be in it or in the repo that it was pushed to; that another
repo holds it makes no difference, not even to the answer (ATTACKS S04-S08).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import IO, Any

from musehub_plugin import graph
from musehub_plugin.commitgraph import NewCommit
from musehub_plugin.config import Settings
from musehub_plugin.descent import Descent
from musehub_plugin.errors import Invalid
from musehub_plugin.history import History
from musehub_plugin.mpack import FalseIdError, Limits, MPackError, MPackReader, verify
from musehub_plugin.names import MAX_PATH_BYTES, clashing_path, unsafe_path
from musehub_plugin.store import commits as commit_store
from musehub_plugin.store import contents, manifests
from musehub_plugin.store.session import Database

# Snapshots written by one statement; most are small, a whole manifest of a large tree is some 500 KB.
_SNAPSHOT_BATCH = 1_000


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

    Commits and blob ids are kept in memory, manifests are read again when they are stored.

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
        self.commits: dict[str, dict[str, Any]] = {}
        self._snapshots: dict[str, int] = {}
        self._blob_sizes: dict[str, int] = {}
        self._paths: dict[str, str] = {}
        self._generations: dict[str, int] = {}
        self._parent_snapshots: dict[str, str] = {}

    def verify_contents(self) -> None:
        """Hash everything that the pack holds and look at every path and text.

        Raises:
            Invalid: the first thing that is wrong, by its id.
        """
        try:
            self.reader = MPackReader(self._file, limits=_limits(self._settings))
            verify(self.reader)
            self._blob_sizes = {entry.object_id: entry.size for entry in self.reader.directory()}
            self._snapshots = self._check_manifests()
            self._check_records()
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

    def _check_manifests(self) -> dict[str, int]:
        """Look at every path, and return where in the pack each snapshot is."""
        positions: dict[str, int] = {}
        paths: set[str] = set()
        for delta in self.reader.snapshot_deltas():
            if delta.full:
                paths.clear()
            paths.difference_update(delta.removed)
            unsafe = next(((path, reason) for path in delta.changed if (reason := unsafe_path(path)) is not None), None)
            if not paths.issuperset(delta.changed):
                paths.update(delta.changed)
                unsafe = unsafe or clashing_path(paths)
            if unsafe is not None:
                path, reason = unsafe
                raise Invalid(
                    f"snapshot {delta.snapshot_id}: path {path!r:.200} {reason}.",
                    code="unsafe-path",
                    extra={"path": path[:4096]},
                )
            positions[delta.snapshot_id] = delta.ordinal
            for path, object_id in delta.changed.items():
                self._paths.setdefault(object_id, path)
        return positions

    def _check_records(self) -> None:
        for record in self.reader.commits():
            for field in ("message", "author", "branch", "committed_at"):
                if "\0" in record[field]:
                    raise Invalid(f"commit {record['commit_id']}: {field} holds a NUL.", code="invalid-commit")
            _timestamp(record)
            self.commits[record["commit_id"]] = record

    def _check_objects(self, db: Database, repo_id: str) -> None:
        outside = set(self.reader.outside_objects())
        missing = outside - contents.held_objects(db, repo_id, outside)
        if missing:
            object_id = min(missing)
            raise Invalid(
                f"path {self._paths.get(object_id, '')!r:.200}: blob {object_id} is neither in the mpack nor in "
                "this repo.",
                code="missing-blob",
            )

    def _check_history(self, db: Database, repo_id: str, history: History) -> None:
        outside_parents: dict[str, str] = {}
        outside_snapshots: dict[str, str] = {}
        for commit_id, record in self.commits.items():
            for parent_id in record["parent_ids"]:
                if parent_id not in self.commits:
                    outside_parents.setdefault(parent_id, commit_id)
            if record["snapshot_id"] not in self._snapshots:
                outside_snapshots.setdefault(record["snapshot_id"], commit_id)
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
        def parents(commit_id: str) -> Sequence[str]:
            parent_ids: Sequence[str] = self.commits[commit_id]["parent_ids"]
            return parent_ids

        for commit_id in graph.history_order(self.commits, parents, self.commits):
            self._generations[commit_id] = 1 + max(
                (
                    # A parent whose row was written by hand may have no number; the planner does not rely on it.
                    self._generations.get(parent_id, stored.get(parent_id, 1))
                    for parent_id in parents(commit_id)
                ),
                default=0,
            )

    def store(self, db: Database, repo_id: str) -> list[NewCommit] | None:
        """Write every row, but for the packed graph.

        Returns:
            The commits as the packed graph takes them; None where finding out what each introduces cost too much.
        """
        contents.add_blobs(
            db,
            repo_id,
            (
                contents.NewBlob(object_id, self._paths.get(object_id, ""), size)
                for object_id, size in self._blob_sizes.items()
            ),
        )
        # Generations are numbered parents first.
        records = {commit_id: self.commits[commit_id] for commit_id in self._generations}
        descent = Descent(
            records,
            self._snapshots,
            self._parent_snapshots,
            manifests.chains(db, {*self._snapshots, *self._parent_snapshots.values()}),
            lambda snapshot_id: manifests.manifest(db, repo_id, snapshot_id),
        )
        batch: list[manifests.NewSnapshot] = []
        for snapshot in descent.snapshots(self.reader.snapshot_deltas()):
            batch.append(snapshot)
            if len(batch) == _SNAPSHOT_BATCH:
                manifests.add_snapshots(db, repo_id, batch)
                batch.clear()
        manifests.add_snapshots(db, repo_id, batch)
        commit_store.add_commits(
            db,
            repo_id,
            (
                commit_store.NewCommit(record, _timestamp(record), self._generations[commit_id])
                for commit_id, record in sorted(self.commits.items())
            ),
        )
        introduced = descent.introduced()
        if introduced is None:
            return None
        return [
            NewCommit(commit_id, record["snapshot_id"], record["parent_ids"], introduced[commit_id])
            for commit_id, record in records.items()
        ]


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
