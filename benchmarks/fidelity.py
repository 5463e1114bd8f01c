"""Imports a git history and compares every commit, manifest and file with what git itself says.

    python benchmarks/fidelity.py GIT_REPO [--hub URL]

With --hub the history is pushed to that repo (which must be empty; MUSEHUB_TOKEN says who pushes), cloned, and the
clone is compared. What the import's policy changes (symlinks, modes, submodules, escaped names: see
`musehub_plugin.client.gitimport`) is counted; anything else is a difference, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from musehub_plugin import ids
from musehub_plugin.client import HubTransport, Workdir, clone, import_git, push, verify
from musehub_plugin.client.gitimport import muse_path

SUBMODULE = "160000"


class Git:
    """What git says, asked one object at a time and apart from the importer's own way of asking."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._contents = subprocess.Popen(
            ["git", "-C", str(path), "cat-file", "--batch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._hashes: dict[str, str] = {}

    def run(self, *arguments: str) -> bytes:
        """Return what a git command prints."""
        return subprocess.run(["git", "-C", str(self.path), *arguments], capture_output=True, check=True).stdout

    def object(self, name: str) -> bytes:
        """Return the bytes of an object."""
        assert self._contents.stdin is not None
        assert self._contents.stdout is not None
        self._contents.stdin.write(name.encode() + b"\n")
        self._contents.stdin.flush()
        size = int(self._contents.stdout.readline().split()[2])
        content = self._contents.stdout.read(size)
        self._contents.stdout.read(1)
        return content

    def blob_id(self, name: str) -> str:
        """Return the muse id of a blob."""
        if name not in self._hashes:
            self._hashes[name] = ids.PREFIX + hashlib.sha256(self.object(name)).hexdigest()
        return self._hashes[name]

    def manifest(self, commit: str) -> dict[str, str]:
        """Return what the policy makes of a commit's tree."""
        manifest = {}
        for line in self.run("ls-tree", "-r", "-z", "--full-tree", commit).split(b"\0")[:-1]:
            description, path = line.split(b"\t", 1)
            mode, _, name = description.decode().split()
            if mode != SUBMODULE:
                manifest[muse_path(path)] = self.blob_id(name)
        return manifest

    def heads(self) -> dict[str, str]:
        """Return the branches."""
        lines = self.run("for-each-ref", "--format=%(refname:lstrip=2) %(objectname)", "refs/heads").decode()
        return dict(line.split(" ", 1) for line in lines.splitlines())

    def close(self) -> None:
        """End the process."""
        self._contents.communicate()


def text_of(content: bytes) -> str:
    """Return text as the policy reads it."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")


def differences(git: Git, workdir: Workdir) -> Iterator[str]:
    """Yield a line for everything that is not as git has it."""
    by_git: dict[str, str] = {}
    records = {}
    for commit_id in workdir.stored_ids("commits"):
        record = workdir.read_commit(commit_id)
        records[commit_id] = record
        by_git[record["metadata"]["git.commit"]] = commit_id
    names = git.run("rev-list", "--branches", "--tags").decode().split()
    for name in set(names) - by_git.keys():
        yield f"{name}: missing, unless it differs from another commit in its author alone"
    for name in names:
        if name not in by_git:
            continue
        record = records[by_git[name]]
        header, _, message = git.object(name).partition(b"\n\n")
        fields: dict[bytes, list[bytes]] = {}
        for line in header.split(b"\n"):
            key, _, value = line.partition(b" ")
            fields.setdefault(key, []).append(value)
        if b"encoding" in fields:
            message = message.decode(fields[b"encoding"][0].decode()).encode()
        if record["message"] != text_of(message):
            yield f"{name}: message"
        author, _, _ = fields[b"author"][0].rpartition(b"> ")
        if b"encoding" not in fields and record["author"] != text_of(author + b">"):
            yield f"{name}: author {record['author']!r}"
        seconds = int(fields[b"committer"][0].split()[-2])
        if datetime.fromisoformat(record["committed_at"]) != datetime.fromtimestamp(seconds, UTC):
            yield f"{name}: date {record['committed_at']}"
        parents = list(dict.fromkeys(by_git.get(parent.decode()) for parent in fields.get(b"parent", [])))
        stored = record.get("parent_ids") or [record["parent_commit_id"], record["parent2_commit_id"]]
        if parents != [ids.PREFIX + parent for parent in stored if parent]:
            yield f"{name}: parents"
        if workdir.read_snapshot(ids.PREFIX + record["snapshot_id"]) != git.manifest(name):
            yield f"{name}: manifest"
    for branch, name in git.heads().items():
        if workdir.branch_head(branch) != by_git.get(name):
            yield f"branch {branch}"


def main() -> int:
    """Run the comparison and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path, nargs="?", default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--hub", metavar="URL", help="push to this repo, clone it, and compare the clone")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workdir = Workdir.create(Path(folder, "imported"))
        start = time.perf_counter()
        done = import_git(arguments.repository, workdir)
        seconds = time.perf_counter() - start
        print(f"import: {done.commits} commits in {seconds:.2f} s, {done.commits / seconds:.0f} a second")
        if arguments.hub:
            hub = HubTransport(arguments.hub, token=os.environ.get("MUSEHUB_TOKEN"))
            start = time.perf_counter()
            pushed = push(workdir, hub, branches=list(workdir.branches()))
            print(f"push: {pushed.sent_bytes:,} bytes in {time.perf_counter() - start:.2f} s")
            start = time.perf_counter()
            cloned = clone(hub, Path(folder, "cloned"))
            print(f"clone: {cloned.fetched.received_bytes:,} bytes in {time.perf_counter() - start:.2f} s")
            workdir = cloned.workdir
        start = time.perf_counter()
        verified = verify(workdir)
        print(
            f"verify: {verified.commit_count} commits, {verified.snapshot_count} snapshots, "
            f"{verified.blob_count} blobs in {time.perf_counter() - start:.2f} s, {len(verified.problems)} problems"
        )
        git = Git(arguments.repository)
        found = [*verified.problems, *differences(git, workdir)]
        git.close()
        print(
            f"policy: {done.symlinks} symlinks, {done.executables} executables, {done.submodules} submodules, "
            f"{done.escaped_paths} escaped paths, {done.skipped_paths} skipped paths, "
            f"{done.merged_commits} commits that became one, {done.latin1_texts} texts read as Latin-1"
        )
        for line in found[:20]:
            print(f"difference: {line}")
        print(f"{len(found)} differences in {done.commits} commits")
        return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
