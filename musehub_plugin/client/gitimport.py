"""Makes a muse history of a git history: `musehub import-git`.

What comes over, and what becomes of what muse has no place for:

- every commit that the chosen refs reach, with all its parents in their order and its message unchanged; the
  git hash is kept in `metadata["git.commit"]`. Text that is not UTF-8 is read as Latin-1;
- author: `Name <mail>`; date: the committer's, in UTC. The author's date, the committer's name and signatures
  stay behind;
- two git commits that differ only in those (same parents, tree, message and committer's date) are one muse
  commit;
- branches, and tags as `.muse/refs/tags`: they are local, since the protocol has no tags. What an annotated
  tag says stays behind;
- a symlink is a file that holds its target; the executable bit stays behind; a submodule is left out;
- a path that clients could not restore is written with `%XX` for each byte that is in the way: what is not
  UTF-8, a backslash, CR, LF, and the dot of a `.muse` folder. What cannot be saved so is left out.

Each of these is counted in the result. A second run over the same folder reads and writes only what is new; what is
gone from git stays. A working copy that keeps packs, as a bare one does, gets a pack of all that is new: the public
client's files take as long as the file system needs for five of them for each commit, each manifest written whole.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from musehub_plugin import ids
from musehub_plugin.client.errors import GitImportError
from musehub_plugin.client.gitlog import CHUNK, MAX_NAMES_AT_ONCE, GitBlobs, GitCommit, GitRef, GitRepository
from musehub_plugin.client.gitmap import GitMap
from musehub_plugin.client.gitpacking import PackedImport
from musehub_plugin.client.gitpolicy import DELETED, SUBMODULE, GitImport, Policy
from musehub_plugin.client.manifest import ManifestRows
from musehub_plugin.client.progress import Progress
from musehub_plugin.client.record import new_record
from musehub_plugin.client.scratch import ScratchTable
from musehub_plugin.client.workdir import Workdir
from musehub_plugin.mpack.digests import DigestTable
from musehub_plugin.names import bad_branch_name

_COMMITS_AT_ONCE: Final = 256
# Manifest rows kept for commits that have children to come: 24 bytes each, beside text that they share.
_MAX_KEPT_ROWS: Final = 2_000_000


def import_git(
    repository: Path,
    workdir: Workdir,
    *,
    refs: Sequence[str] = (),
    remote_branches: bool = False,
    progress: Progress | None = None,
) -> GitImport:
    """Bring a git history into a working copy; its files are not touched, `.muse` alone is written.

    Args:
        repository: a git working tree or a bare repository.
        workdir: where it goes, as files or as a pack; branches of the same names are moved.
        refs: branches or tags to bring, by short or full name; none: every branch and tag.
        remote_branches: bring remote-tracking branches too, under the branch's name, where no branch has it.
        progress: told about commits done.

    Raises:
        GitImportError: git cannot read the repository, or a ref is not there.
    """
    git = GitRepository(repository)
    result = GitImport()
    branches, tags = _choose(git.refs(), refs, remote_branches, result)
    head = git.head_ref()
    first = next(iter(branches), None)
    head_branch = next((name for name, ref in branches.items() if ref.name == head), first)
    if head_branch is not None:
        # HEAD's branch goes first: commits that several branches hold are its.
        branches = {head_branch: branches.pop(head_branch), **branches}
    policy = Policy(result)
    branch_of_ref = {ref.name: name for name, ref in branches.items()}
    kind = PackedImport if workdir.packs.kept else _LooseImport
    with GitMap(workdir) as known:
        importer = kind(git, workdir, result, known, branch_of_ref, policy)
        importer.run([ref.name for ref in (*branches.values(), *tags.values())], progress)
        policy.finish()
        for name, ref in branches.items():
            workdir.set_branch(name, known[ref.commit])
        for name, ref in tags.items():
            workdir.set_tag(name, known[ref.commit])
    if head_branch is not None:
        workdir.set_head_branch(head_branch)
    result.cut_off_commits = git.cut_off()
    result.branches, result.tags = len(branches), len(tags)
    result.annotated_tags = sum(ref.annotated for ref in tags.values())
    result.head = workdir.head_branch() or ""
    return result


def require_refs(repository: Path, refs: Sequence[str]) -> None:
    """Raise `GitImportError` where git cannot read a repository, or where one of these branches or tags is not there.

    Args:
        repository: a git working tree or a bare repository.
        refs: as those of `import_git`.
    """
    _choose(GitRepository(repository).refs(), refs, remote_branches=False, result=GitImport())


def _choose(
    found: Iterable[GitRef], wanted: Sequence[str], remote_branches: bool, result: GitImport
) -> tuple[dict[str, GitRef], dict[str, GitRef]]:
    """Return the branches and the tags to bring, each by its name in the working copy."""
    branches: dict[str, GitRef] = {}
    tags: dict[str, GitRef] = {}
    tracking: dict[str, GitRef] = {}
    open_names = set(wanted)
    for ref in found:
        full = ref.name.decode("utf-8", "surrogateescape")
        _, kind, short = full.split("/", 2)
        if wanted and not {full, short} & open_names:
            continue
        if kind == "remotes":
            short = short.partition("/")[2]
            if not (remote_branches or wanted) or short == "HEAD":
                continue
        open_names -= {full, full.split("/", 2)[2]}
        if bad_branch_name(short) is not None:
            result.skipped_refs += 1
            continue
        {"heads": branches, "tags": tags, "remotes": tracking}[kind].setdefault(short, ref)
    if open_names:
        raise GitImportError(f"the git repository has no branch or tag {sorted(open_names)[0]!r:.100}")
    return {**tracking, **branches}, tags


@dataclass
class _LooseImport:
    """An import that writes a file for each blob, snapshot and commit, and what it has read so far, by git's names."""

    git: GitRepository
    workdir: Workdir
    result: GitImport
    known: GitMap
    branch_of_ref: Mapping[bytes, str]
    policy: Policy
    _rows: OrderedDict[str, ManifestRows] = field(default_factory=OrderedDict)
    _kept_rows: int = 0

    def run(self, refs: Sequence[bytes], progress: Progress | None) -> None:
        default_branch = next(iter(self.branch_of_ref.values()), "")
        made = DigestTable()
        commits = self.git.log(refs, self.known)
        with self.git.blobs() as blobs, ScratchTable(self.workdir.temp_path()) as brought:
            while batch := list(islice(commits, _COMMITS_AT_ONCE)):
                self._bring_blobs(batch, blobs, brought)
                for commit in batch:
                    branch = self.branch_of_ref.get(commit.ref, default_branch)
                    made.number(ids.to_digest(self._bring_commit(commit, branch, brought)))
                self.known.add(commit.name for commit in batch)
                self.result.commits += len(batch)
                if progress is not None:
                    progress("commits", self.result.commits, None)
        self.result.merged_commits = self.result.commits - made.count

    def _bring_blobs(self, batch: Sequence[GitCommit], blobs: GitBlobs, brought: ScratchTable) -> None:
        needed = dict.fromkeys(
            change.blob
            for commit in batch
            for change in commit.changes
            if change.mode not in {DELETED, SUBMODULE} and brought.digest(_binary(change.blob)) is None
        )
        names = iter(needed)
        while some := list(islice(names, MAX_NAMES_AT_ONCE)):
            for name, size, pieces in blobs.read(some):
                if size <= CHUNK:
                    object_id, new = self.workdir.write_blob(b"".join(pieces))
                else:
                    object_id, new = self.workdir.write_blob_stream(pieces)
                brought.set_digests([(_binary(name), ids.to_digest(object_id))])
                self.result.new_blobs += new

    def _bring_commit(self, commit: GitCommit, branch: str, brought: ScratchTable) -> str:
        rows = self._rows_of(commit.parents[0]).copy() if commit.parents else ManifestRows()
        for change in commit.changes:
            path, gone = self.policy.change(change)
            if path is not None and gone:
                rows.remove(path)
            elif path is not None:
                rows.set(path, ids.from_digest(brought.digest(_binary(change.blob)) or b""))
        snapshot_id = rows.snapshot_id()
        committed_at = self.policy.date(commit.committed)
        message, author = self.policy.text(commit.message), self.policy.text(commit.author)
        # Two parents that became the same muse commit are one.
        parents = list(dict.fromkeys(self.known[parent] for parent in commit.parents))
        commit_id = ids.commit_id(parents, snapshot_id, message, committed_at)
        self.result.new_snapshots += self.workdir.write_snapshot(rows, snapshot_id, committed_at)
        self.result.new_commits += self.workdir.write_commit(
            new_record(
                commit_id=commit_id,
                repo_id=self.workdir.repo_id,
                branch=branch,
                snapshot_id=snapshot_id,
                message=message,
                committed_at=committed_at,
                parent_ids=parents,
                author=author,
                metadata={"git.commit": commit.name},
            )
        )
        self.known[commit.name] = commit_id
        self._keep(commit.name, rows)
        return commit_id

    def _rows_of(self, name: str) -> ManifestRows:
        if name in self._rows:
            self._rows.move_to_end(name)
            return self._rows[name]
        # It was let go, or comes from an import before: the file that was written then has it.
        snapshot_id = ids.PREFIX + self.workdir.read_commit(self.known[name])["snapshot_id"]
        return ManifestRows(self.workdir.read_snapshot(snapshot_id))

    def _keep(self, name: str, rows: ManifestRows) -> None:
        self._rows[name] = rows
        self._kept_rows += len(rows)
        while self._kept_rows > _MAX_KEPT_ROWS and len(self._rows) > 1:
            self._kept_rows -= len(self._rows.popitem(last=False)[1])


def _binary(name: bytes) -> bytes:
    """Return the bytes that git's name of an object stands for."""
    return bytes.fromhex(name.decode())
