"""Packs a git repository's whole history as an mpack and prints its size beside git's own pack of it.

    python benchmarks/pack_size.py [GIT_REPO]

Without an argument it packs the repository that it is part of. Git's figure is the pack file after
`git repack -adf` in a copy, without its index. Submodules are left out; file modes and tags are not carried.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO

from musehub_plugin import ids
from musehub_plugin.manifestlog import Difference, ManifestLog
from musehub_plugin.mpack import Kind, MPackReader, MPackWriter, solid_order, verify
from musehub_plugin.mpack.manifests import ManifestHasher

_LOG = [
    *("log", "--all", "--reverse", "--topo-order", "--diff-merges=first-parent", "--raw", "-z", "--no-abbrev"),
    *("--no-renames", "--root", "--format=%x01%H%x02%P%x02%an <%ae>%x02%cI%x02%B%x02"),
]
_SUBMODULE = b"160000"


@dataclass
class GitCommit:
    """A commit as git tells it: `changes` maps a path to the blob it now is, or None where it is gone."""

    name: str
    parents: list[str]
    author: str
    date: str
    message: str
    changes: dict[str, str | None] = field(default_factory=dict)


def read_history(repo: Path) -> list[GitCommit]:
    """Return all commits, parents first, each with its changes from its first parent."""
    output = subprocess.run(["git", "-C", repo, *_LOG], capture_output=True, check=True).stdout
    commits = []
    for record in output.split(b"\x01")[1:]:
        name, parents, author, date, message, raw = record.split(b"\x02", 5)
        commit = GitCommit(
            name.decode(),
            parents.decode().split(),
            author.decode(errors="replace"),
            date.decode(),
            message.decode(errors="replace"),
        )
        parts = raw.strip(b"\0\n").split(b"\0")
        for meta, path in zip(parts[::2], parts[1::2], strict=False):
            _, mode, _, blob, status = meta.strip(b"\n:").split(b" ")
            deleted = status.startswith(b"D") or mode == _SUBMODULE
            commit.changes[path.decode(errors="backslashreplace")] = None if deleted else blob.decode()
        commits.append(commit)
    return commits


def read_blobs(repo: Path, names: list[str]) -> Iterator[bytes]:
    """Yield the contents of git blobs, one at a time."""
    with tempfile.TemporaryFile() as wanted:
        wanted.write("".join(f"{name}\n" for name in names).encode())
        wanted.seek(0)
        with subprocess.Popen(
            ["git", "-C", repo, "cat-file", "--batch"], stdin=wanted, stdout=subprocess.PIPE
        ) as process:
            stdout: IO[bytes] | None = process.stdout
            assert stdout is not None
            for _ in names:
                size = int(stdout.readline().split()[2])
                yield stdout.read(size)
                stdout.read(1)


def write_pack(repo: Path, commits: list[GitCommit], out: BinaryIO) -> dict[str, str]:
    """Write the history as one mpack, and return the id of each git commit."""
    appearances = (
        (path, sequence, blob)
        for sequence, commit in enumerate(commits)
        for path, blob in commit.changes.items()
        if blob is not None
    )
    order = solid_order(appearances)
    object_ids: dict[str, str] = {}
    with MPackWriter(out) as writer:
        for name, content in zip(order, read_blobs(repo, order), strict=True):
            object_ids[name] = ids.blob_id(content)
            writer.add_blob(object_ids[name], content)
        children = Counter(commit.parents[0] for commit in commits if commit.parents)
        manifests: dict[str, dict[str, str]] = {}
        written: set[str] = set()
        records = []
        commit_ids: dict[str, str] = {}
        log, hasher, last = ManifestLog(), ManifestHasher(), ""
        for commit in commits:
            manifest = dict(manifests[commit.parents[0]]) if commit.parents else {}
            for path, blob in commit.changes.items():
                if blob is None:
                    manifest.pop(path, None)
                else:
                    manifest[path] = object_ids[blob]
            if children[commit.name]:
                manifests[commit.name] = manifest
            if commit.parents:
                children[commit.parents[0]] -= 1
                if not children[commit.parents[0]]:
                    del manifests[commit.parents[0]]
            change = _pass(log, commit, manifest)
            hasher.change(change.removed, change.changed, full=False)
            snapshot_id = ids.from_digest(hasher.digest())
            if snapshot_id not in written:
                written.add(snapshot_id)
                if last and log.reaches(last):
                    change = log.difference_from(last)
                if last and not log.reaches(last):
                    writer.add_snapshot(snapshot_id, manifest, derivable=True)
                else:
                    writer.add_snapshot_delta(snapshot_id, change.removed, change.changed, derivable=True)
                last = commit.name
            parents = [commit_ids[name] for name in commit.parents]
            commit_id = ids.commit_id(parents, snapshot_id, commit.message, commit.date)
            commit_ids[commit.name] = commit_id
            records.append(
                {
                    "commit_id": commit_id,
                    "parent_ids": parents,
                    "snapshot_id": snapshot_id,
                    "branch": "main",
                    "message": commit.message,
                    "author": commit.author,
                    "committed_at": commit.date,
                }
            )
        for record in records:
            writer.add_commit(record)
    return commit_ids


def _pass(log: ManifestLog, commit: GitCommit, manifest: dict[str, str]) -> Difference:
    """Go on to a commit's manifest; return what it changes from that of the commit before it in the list."""
    if commit.parents and log.reaches(commit.parents[0]):
        changed = {path: manifest[path] for path in commit.changes if path in manifest}
        return log.pass_from(commit.name, commit.parents[0], commit.changes.keys() - changed.keys(), changed)
    return log.pass_whole(commit.name, manifest)


def git_pack_size(repo: Path, scratch: Path) -> int:
    """Return the size of git's own pack after `git repack -adf` of a copy."""
    copy = scratch / "copy.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", "--no-local", repo, copy], check=True)
    subprocess.run(["git", "-C", copy, "repack", "-adfq"], check=True)
    return sum(path.stat().st_size for path in copy.glob("objects/pack/*.pack"))


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", type=Path, nargs="?", default=Path(__file__).resolve().parent.parent)
    repo: Path = parser.parse_args().repo
    with tempfile.TemporaryDirectory() as scratch:
        commits = read_history(repo)
        pack = Path(scratch) / "history.mpack"
        started = time.perf_counter()
        with pack.open("wb") as out:
            write_pack(repo, commits, out)
        written = time.perf_counter() - started
        with pack.open("rb") as source:
            reader = MPackReader(source)
            started = time.perf_counter()
            verify(reader)
            verified = time.perf_counter() - started
            stored: Counter[int] = Counter()
            for frame in reader.frames:
                stored[frame.kind] += frame.stored
            git = git_pack_size(repo, Path(scratch))
            print(f"commits {reader.commit_count}, snapshots {reader.snapshot_count}, blobs {reader.blob_count}")
            print(f"raw size of blobs     {reader.raw_size:>12,}")
            for kind in Kind:
                print(f"  {kind.name.lower():<20}{stored[kind]:>12,}")
            metadata = reader.size_bytes - stored[Kind.BLOBS]
            print(f"mpack                 {reader.size_bytes:>12,}  metadata {metadata / reader.size_bytes:.1%}")
            print(f"git repack -adf       {git:>12,}  mpack / git {reader.size_bytes / git:.3f}")
            print(f"written in {written:.2f} s, read and verified in {verified:.2f} s")


if __name__ == "__main__":
    main()
