"""Verify: re-hashes everything that a working copy holds, and follows every reference."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from musehub_plugin import ids
from musehub_plugin.client.errors import ClientError
from musehub_plugin.client.record import commit_hashes_to, wire_from_record
from musehub_plugin.client.transport import Progress
from musehub_plugin.client.workdir import Workdir


@dataclass
class Verified:
    """What a verification found.

    Attributes:
        commit_count: commits looked at.
        snapshot_count: snapshots looked at.
        blob_count: blobs looked at.
        ref_count: branches, tags and remote branches looked at.
        problems: one line for each thing that is wrong.
    """

    commit_count: int = 0
    snapshot_count: int = 0
    blob_count: int = 0
    ref_count: int = 0
    problems: list[str] = field(default_factory=list)


def verify(workdir: Workdir, *, progress: Progress | None = None) -> Verified:
    """Hash every blob, snapshot and commit of a working copy, and look for what they and the refs name.

    Args:
        workdir: the working copy.
        progress: told about what is done.
    """
    result = Verified()
    tell = progress or (lambda stage, done, total: None)

    def check(problem: Callable[[Workdir, str], str | None], entity_id: str) -> None:
        try:
            found = problem(workdir, entity_id)
        except ClientError as error:
            found = str(error)
        if found is not None:
            result.problems.append(found)

    for entity_id in sorted(workdir.stored_ids("objects")):
        check(_blob_problem, entity_id)
        result.blob_count += 1
        tell("blobs", result.blob_count, None)
    for entity_id in sorted(workdir.stored_ids("snapshots")):
        check(_snapshot_problem, entity_id)
        result.snapshot_count += 1
        tell("snapshots", result.snapshot_count, None)
    for entity_id in sorted(workdir.stored_ids("commits")):
        check(_commit_problem, entity_id)
        result.commit_count += 1
        tell("commits", result.commit_count, None)
    for name, head in (*workdir.branches().items(), *workdir.tags().items()):
        result.ref_count += 1
        if not workdir.has_commit(head):
            result.problems.append(f"{name} names commit {head}, which is missing")
    for head in sorted(workdir.all_remote_heads()):
        result.ref_count += 1
        if not workdir.has_commit(head):
            result.problems.append(f"a remote's branch names commit {head}, which is missing")
    return result


def _blob_problem(workdir: Workdir, object_id: str) -> str | None:
    with workdir.open_blob(object_id) as file:
        found = ids.from_digest(hashlib.file_digest(file, "sha256").digest())
    return None if found == object_id else f"blob {object_id} hashes to {found}"


def _snapshot_problem(workdir: Workdir, snapshot_id: str) -> str | None:
    manifest = workdir.read_snapshot(snapshot_id)
    found = ids.snapshot_id(manifest)
    if found != snapshot_id:
        return f"snapshot {snapshot_id} hashes to {found}"
    for path, object_id in manifest.items():
        if not workdir.has_blob(object_id):
            return f"snapshot {snapshot_id} names blob {object_id} for {path!r:.200}, which is missing"
    return None


def _commit_problem(workdir: Workdir, commit_id: str) -> str | None:
    commit = wire_from_record(workdir.read_commit(commit_id), repo_id=workdir.repo_id)
    if not commit_hashes_to(commit):
        return f"commit {commit_id} does not hash to its id"
    if not workdir.has_snapshot(commit["snapshot_id"]):
        return f"commit {commit_id} names snapshot {commit['snapshot_id']}, which is missing"
    for parent in commit["parent_ids"]:
        if not workdir.has_commit(parent):
            return f"commit {commit_id} has the parent {parent}, which is missing"
    return None
