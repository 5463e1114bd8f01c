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
gone from git stays.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Final

from musehub_plugin import ids
from musehub_plugin.client.errors import GitImportError
from musehub_plugin.client.gitlog import CHUNK, MAX_NAMES_AT_ONCE, GitBlobs, GitCommit, GitRef, GitRepository
from musehub_plugin.client.gitmap import GitMap
from musehub_plugin.client.manifest import ManifestRows
from musehub_plugin.client.progress import Progress
from musehub_plugin.client.record import new_record
from musehub_plugin.client.workdir import Workdir
from musehub_plugin.names import bad_branch_name, unsafe_path

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DELETED: Final = b"000000"
_SYMLINK: Final = b"120000"
_EXECUTABLE: Final = b"100755"
_SUBMODULE: Final = b"160000"
# Bytes that are not UTF-8 come as lone surrogates.
_IN_THE_WAY: Final = re.compile("[\\\\\r\n\udc80-\udcff]")
_COMMITS_AT_ONCE: Final = 256
# Manifest rows kept for commits that have children to come: 24 bytes each, beside text that they share.
_MAX_KEPT_ROWS: Final = 2_000_000


@dataclass
class GitImport:
    """What an import did.

    Attributes:
        commits: commits that the refs reach and that were read now: those that no import before this one had brought.
        new_commits: commits that were not in the working copy.
        new_snapshots: snapshots that were not.
        new_blobs: blobs that were not.
        branches: branches that were set.
        tags: tags that were set.
        annotated_tags: how many of the tags had a text of their own, which stayed behind.
        symlinks: paths that are symlinks somewhere in the history.
        executables: paths that are executable somewhere in the history.
        submodules: paths that are submodules somewhere in the history.
        escaped_paths: paths that were written with `%XX`.
        skipped_paths: paths that were left out.
        skipped_refs: refs whose names cannot be branch names.
        merged_commits: git commits that became the same muse commit as another.
        latin1_texts: messages and author names that were not UTF-8.
        clamped_dates: dates after the year 9999, which were set to it.
        head: the branch that HEAD names.
    """

    commits: int = 0
    new_commits: int = 0
    new_snapshots: int = 0
    new_blobs: int = 0
    branches: int = 0
    tags: int = 0
    annotated_tags: int = 0
    symlinks: int = 0
    executables: int = 0
    submodules: int = 0
    escaped_paths: int = 0
    skipped_paths: int = 0
    skipped_refs: int = 0
    merged_commits: int = 0
    latin1_texts: int = 0
    clamped_dates: int = 0
    head: str = ""

    def as_dict(self) -> dict[str, int | str]:
        """Return the counts by name."""
        return asdict(self)


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
        workdir: where it goes; branches of the same names are moved.
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
    importer = _Importer(git, workdir, result, GitMap(workdir), {ref.name: name for name, ref in branches.items()})
    importer.run([ref.name for ref in (*branches.values(), *tags.values())], progress)
    for name, ref in branches.items():
        workdir.set_branch(name, importer.known.commit_ids[ref.commit])
    for name, ref in tags.items():
        workdir.set_tag(name, importer.known.commit_ids[ref.commit])
    if head_branch is not None:
        workdir.set_head_branch(head_branch)
    result.branches, result.tags = len(branches), len(tags)
    result.annotated_tags = sum(ref.annotated for ref in tags.values())
    result.head = workdir.head_branch() or ""
    return result


def muse_path(path: bytes) -> str:
    """Return a manifest path for a path of git, with `%XX` for each byte that a client could not restore."""
    text = path.decode("utf-8", "surrogateescape")
    if unsafe_path(text) is None:
        return text
    segments = []
    for segment in text.split("/"):
        shown = "".join(_escaped(char) if _IN_THE_WAY.match(char) else char for char in segment)
        segments.append("%2E" + shown[1:] if segment.casefold() == ".muse" else shown)
    return "/".join(segments)


def muse_date(committed: bytes) -> tuple[str, bool]:
    """Return a git date as `committed_at`, and whether it had to be cut to the year 9999.

    Args:
        committed: seconds since 1970 in decimal digits.

    Raises:
        ValueError: it is no number.
    """
    seconds = int(committed or b"0")
    try:
        date = _EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC).isoformat(timespec="microseconds"), True
    return date.isoformat(timespec="microseconds"), False


def _escaped(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogateescape"))


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
class _Importer:
    """The state of one import: what has been read so far, by git's names."""

    git: GitRepository
    workdir: Workdir
    result: GitImport
    known: GitMap
    branch_of_ref: dict[bytes, str]
    _snapshot_ids: dict[str, str] = field(default_factory=dict)
    _blob_ids: dict[bytes, str] = field(default_factory=dict)
    _rows: OrderedDict[str, ManifestRows] = field(default_factory=OrderedDict)
    _kept_rows: int = 0
    _shown_paths: dict[bytes, str | None] = field(default_factory=dict)
    _seen: dict[bytes, set[bytes]] = field(default_factory=dict)

    def run(self, refs: Sequence[bytes], progress: Progress | None) -> None:
        default_branch = next(iter(self.branch_of_ref.values()), "")
        made: set[str] = set()
        # Before the first new one is added to them.
        commits = self.git.log(refs, list(self.known.commit_ids))
        with self.git.blobs() as blobs:
            while batch := list(islice(commits, _COMMITS_AT_ONCE)):
                self._bring_blobs(batch, blobs)
                for commit in batch:
                    branch = self.branch_of_ref.get(commit.ref, default_branch)
                    made.add(self._bring_commit(commit, branch))
                self.known.add(commit.name for commit in batch)
                self.result.commits += len(batch)
                if progress is not None:
                    progress("commits", self.result.commits, None)
        self.result.merged_commits = self.result.commits - len(made)
        for mode, name in ((_SYMLINK, "symlinks"), (_EXECUTABLE, "executables"), (_SUBMODULE, "submodules")):
            setattr(self.result, name, len(self._seen.get(mode, ())))

    def _bring_blobs(self, batch: Sequence[GitCommit], blobs: GitBlobs) -> None:
        needed = dict.fromkeys(
            change.blob
            for commit in batch
            for change in commit.changes
            if change.mode not in {_DELETED, _SUBMODULE} and change.blob not in self._blob_ids
        )
        names = iter(needed)
        while some := list(islice(names, MAX_NAMES_AT_ONCE)):
            for name, size, pieces in blobs.read(some):
                if size <= CHUNK:
                    object_id, new = self.workdir.write_blob(b"".join(pieces))
                else:
                    object_id, new = self.workdir.write_blob_stream(pieces)
                self._blob_ids[name] = object_id
                self.result.new_blobs += new

    def _bring_commit(self, commit: GitCommit, branch: str) -> str:
        rows = self._rows_of(commit.parents[0]).copy() if commit.parents else ManifestRows()
        for change in commit.changes:
            self._apply(rows, change.mode, change.blob, change.path)
        snapshot_id = rows.snapshot_id()
        committed_at, clamped = muse_date(commit.committed)
        message, author = self._text(commit.message), self._text(commit.author)
        # Two parents that became the same muse commit are one.
        parents = list(dict.fromkeys(self.known.commit_ids[parent] for parent in commit.parents))
        commit_id = ids.commit_id(parents, snapshot_id, message, committed_at)
        self.result.clamped_dates += clamped
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
        self.known.commit_ids[commit.name] = commit_id
        self._snapshot_ids[commit.name] = snapshot_id
        self._keep(commit.name, rows)
        return commit_id

    def _apply(self, rows: ManifestRows, mode: bytes, blob: bytes, path: bytes) -> None:
        shown = self._shown_path(path)
        if mode in {_SYMLINK, _EXECUTABLE, _SUBMODULE}:
            self._seen.setdefault(mode, set()).add(path)
        if shown is None:
            return
        if mode in {_DELETED, _SUBMODULE}:
            rows.remove(shown)
        else:
            rows.set(shown, self._blob_ids[blob])

    def _shown_path(self, path: bytes) -> str | None:
        if path not in self._shown_paths:
            shown = muse_path(path)
            restorable = unsafe_path(shown) is None
            self.result.skipped_paths += not restorable
            self.result.escaped_paths += restorable and shown.encode() != path
            self._shown_paths[path] = shown if restorable else None
        return self._shown_paths[path]

    def _text(self, text: bytes) -> str:
        try:
            return text.decode()
        except UnicodeDecodeError:
            self.result.latin1_texts += 1
            return text.decode("latin-1")

    def _rows_of(self, name: str) -> ManifestRows:
        if name in self._rows:
            self._rows.move_to_end(name)
            return self._rows[name]
        # It was let go, or comes from an import before: the file that was written then has it.
        snapshot_id = self._snapshot_ids.get(name)
        if snapshot_id is None:
            snapshot_id = ids.PREFIX + self.workdir.read_commit(self.known.commit_ids[name])["snapshot_id"]
        return ManifestRows(self.workdir.read_snapshot(snapshot_id))

    def _keep(self, name: str, rows: ManifestRows) -> None:
        self._rows[name] = rows
        self._kept_rows += len(rows)
        while self._kept_rows > _MAX_KEPT_ROWS and len(self._rows) > 1:
            self._kept_rows -= len(self._rows.popitem(last=False)[1])
