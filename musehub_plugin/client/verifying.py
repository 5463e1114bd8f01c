"""Verify: re-hashes everything that a working copy holds, and follows every reference."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from musehub_plugin import ids
from musehub_plugin.client.errors import ClientError
from musehub_plugin.client.keeping import pack_problems
from musehub_plugin.client.progress import Progress, silent
from musehub_plugin.client.record import commit_hashes_to, wire_from_record
from musehub_plugin.client.workdir import Workdir


@dataclass
class Verified:
    """What a verification found.

    Attributes:
        commit_count: commits looked at.
        snapshot_count: snapshots looked at.
        blob_count: blobs looked at.
        ref_count: branches, tags and remote branches looked at.
        pack_count: packs looked at; what is in them is counted above.
        problems: one line for each thing that is wrong.
    """

    commit_count: int = 0
    snapshot_count: int = 0
    blob_count: int = 0
    ref_count: int = 0
    pack_count: int = 0
    problems: list[str] = field(default_factory=list)


def verify(workdir: Workdir, *, progress: Progress = silent) -> Verified:
    """Hash every blob, snapshot and commit of a working copy, and look for what they and the refs name.

    Args:
        workdir: the working copy.
        progress: told about what is done.
    """
    result = Verified()

    def check(problem: Callable[[Workdir, str], str | None], entity_id: str) -> None:
        try:
            found = problem(workdir, entity_id)
        except ClientError as error:
            found = str(error)
        if found is not None:
            result.problems.append(found)

    for kind, stage, problem in (
        ("objects", "blobs", _blob_problem),
        ("snapshots", "snapshots", _snapshot_problem),
        ("commits", "commits", _commit_problem),
    ):
        # Listed twice rather than kept: a list of a million names takes 150 MiB.
        total = sum(1 for _ in workdir.loose_ids(kind))
        start = len(result.problems)
        done = 0
        for done, entity_id in enumerate(workdir.loose_ids(kind), 1):
            check(problem, entity_id)
            progress(stage, done, total)
        result.problems[start:] = sorted(result.problems[start:])
        setattr(result, f"{stage[:-1]}_count", done)
    for pack in workdir.packs:
        result.pack_count += 1
        problems = pack_problems(workdir, pack, progress)
        result.problems += problems
        if not problems:
            result.blob_count += pack.index.count("objects")
            result.snapshot_count += pack.index.count("snapshots")
            result.commit_count += pack.index.count("commits")
    refs: list[tuple[str, str]] = []
    for read in (_detached_head, _local_refs, _remote_refs):
        try:
            refs += read(workdir)
        except ClientError as error:
            result.problems.append(str(error))
    result.ref_count = len(refs)
    for name, head in refs:
        try:
            missing = not workdir.has_commit(head)
        except ClientError as error:
            result.problems.append(str(error))
        else:
            if missing:
                result.problems.append(f"{name} names commit {head}, which is missing")
    return result


def _detached_head(workdir: Workdir) -> list[tuple[str, str]]:
    """Return what HEAD names where that is no branch; raise a `ClientError` where it is damaged."""
    head = workdir.head_commit() if workdir.head_branch() is None else None
    return [] if head is None else [("HEAD", head)]


def _local_refs(workdir: Workdir) -> list[tuple[str, str]]:
    return [*workdir.branches().items(), *workdir.tags().items()]


def _remote_refs(workdir: Workdir) -> list[tuple[str, str]]:
    return [("a remote's branch", head) for head in sorted(workdir.all_remote_heads())]


def _blob_problem(workdir: Workdir, object_id: str) -> str | None:
    with workdir.open_blob(object_id) as file:
        found = ids.from_digest(hashlib.file_digest(file, "sha256").digest())
    return None if found == object_id else f"blob {object_id} hashes to {found}"


def _snapshot_problem(workdir: Workdir, snapshot_id: str) -> str | None:
    manifest = workdir.read_snapshot(snapshot_id)
    found = ids.snapshot_id(manifest) if isinstance(manifest, dict) else manifest.snapshot_id()
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
