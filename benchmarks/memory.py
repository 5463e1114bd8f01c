"""What the client takes of memory for a repo of many small files.

    python benchmarks/memory.py 1000000
    python benchmarks/memory.py --wide 1000000

Each step runs in a process of its own, which prints its peak (VmHWM, Linux alone) and how much of it was there before
the step began: an mpack of so many blobs in commits of 1,000 files is taken in by a bare working copy, verified,
fetched to, turned into files, verified again, and packed anew for a push; last, a git history of as many blobs is
imported. A million takes some twenty minutes, 5 GB and 2,000,000 inodes below the folder for temporary files.

With `--wide` all of them are in one tree, whose paths have some 50 characters, and what is fetched is one change of it
as a thin mpack. A million takes some half an hour, 15 GB and 2,000,000 inodes.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from musehub_plugin import ids
from musehub_plugin.client import Workdir, apply_mpack, checkout, import_git, unpack, verify
from musehub_plugin.client.building import built_mpack
from musehub_plugin.client.history import History
from musehub_plugin.client.keeping import keep_mpack
from musehub_plugin.client.progress import silent
from musehub_plugin.client.worktree import in_the_way
from musehub_plugin.mpack import MPackWriter

_PER_COMMIT = 1_000
_DATE = "2026-01-01T00:00:00+00:00"


def write_pack(path: Path, first: int, last: int) -> None:
    """Write an mpack of commits that each replace all files, by blobs of these numbers."""
    blob_ids = {number: ids.blob_id(b"%d" % number) for number in range(first, last)}
    with path.open("wb") as file, MPackWriter(file) as writer:
        for number, blob_id in blob_ids.items():
            writer.add_blob(blob_id, b"%d" % number)
        snapshot_ids = []
        for start in range(first, last, _PER_COMMIT):
            manifest = {f"d/{n - start}": blob_ids[n] for n in range(start, min(last, start + _PER_COMMIT))}
            snapshot_ids.append(ids.snapshot_id(manifest))
            writer.add_snapshot(snapshot_ids[-1], manifest, derivable=True)
        parents: list[str] = []
        for snapshot_id in snapshot_ids:
            record = {"parent_ids": parents, "snapshot_id": snapshot_id, "message": "", "committed_at": _DATE}
            commit_id = ids.commit_id(parents, snapshot_id, "", _DATE)
            writer.add_commit({"commit_id": commit_id, "author": "", "branch": "main", **record})
            parents = [commit_id]
    path.with_suffix(".head").write_text(parents[0], encoding="ascii")


def write_tree(folder: Path, count: int) -> None:
    """Write an mpack of a tree of so many files, and a thin one of a commit that changes one and renames another."""
    blob_ids = [ids.blob_id(b"%d" % number) for number in range(count + 1)]
    manifest = {f"folder{n // 1000:04}/with/some/more/below/file{n:010}.txt": blob_ids[n] for n in range(count)}
    first, *_, last = manifest
    held: list[tuple[str, dict[str, str]]] = []
    parents: list[str] = []
    for name, blobs in (("tree", range(count)), ("change", range(count, count + 1))):
        if held:
            manifest = {**manifest, first: blob_ids[-1], "new": manifest[last]}
            del manifest[last]
        with (folder / f"{name}.mpack").open("wb") as file, MPackWriter(file, bases=held) as writer:
            for number in blobs:
                writer.add_blob(blob_ids[number], b"%d" % number)
            snapshot_id = ids.snapshot_id(manifest)
            writer.add_snapshot(snapshot_id, manifest, derivable=True)
            record = {"parent_ids": parents, "snapshot_id": snapshot_id, "message": "", "committed_at": _DATE}
            commit_id = ids.commit_id(parents, snapshot_id, "", _DATE)
            writer.add_commit({"commit_id": commit_id, "author": "", "branch": "main", **record})
        (folder / f"{name}.head").write_text(commit_id, encoding="ascii")
        held, parents = [(snapshot_id, manifest)], [commit_id]


def write_git(path: Path, count: int) -> None:
    """Make a bare git repository of commits that each replace all files."""
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(path)], check=True)
    process = subprocess.Popen(["git", "-C", str(path), "fast-import", "--quiet"], stdin=subprocess.PIPE)
    assert process.stdin is not None
    with process.stdin as stream:
        for start in range(0, count, _PER_COMMIT):
            stream.write(b"commit refs/heads/main\ncommitter A <a@b> %d +0000\ndata 0\n" % (1_700_000_000 + start))
            for number in range(start, min(count, start + _PER_COMMIT)):
                content = b"%d" % number
                stream.write(b"M 100644 inline d/%d\ndata %d\n%s\n" % (number - start, len(content), content))
    if process.wait() != 0:
        raise RuntimeError("git fast-import failed")


def keep(folder: Path, name: str) -> None:
    """Take an mpack into the bare working copy, and its file away."""
    workdir = Workdir(folder / "copy") if (folder / "copy").exists() else Workdir.create(folder / "copy", bare=True)
    source = folder / f"{name}.mpack"
    with source.open("rb") as file:
        mpack_id = ids.from_digest(hashlib.file_digest(file, "sha256").digest())
    keep_mpack(workdir, source, mpack_id)
    workdir.set_branch("main", (folder / f"{name}.head").read_text(encoding="ascii"))


def check(folder: Path) -> None:
    """Verify the working copy."""
    problems = verify(Workdir(folder / "copy")).problems
    if problems:
        raise RuntimeError(problems[0])


def take_in_files(folder: Path) -> None:
    """Take the tree's mpack into a working copy with files, and check it out."""
    workdir = Workdir.create(folder / "clone")
    apply_mpack(workdir, folder / "tree.mpack")
    checkout(workdir, (folder / "tree.head").read_text(encoding="ascii"))


def follow(folder: Path) -> None:
    """Bring the files to where the fetched commit is, as a pull does."""
    workdir = Workdir(folder / "clone")
    before, now = ((folder / f"{name}.head").read_text(encoding="ascii") for name in ("tree", "change"))
    apply_mpack(workdir, folder / "change.mpack")
    if in_the_way(workdir, now, previous=before) or checkout(workdir, now, previous=before).kept:
        raise RuntimeError("files are in the way")


def build(folder: Path, name: str = "first") -> None:
    """Pack for a push to an empty hub."""
    workdir = Workdir(folder / "copy")
    head = (folder / f"{name}.head").read_text(encoding="ascii")
    with built_mpack(workdir, History(workdir), [head], [], silent):
        pass


def bring(folder: Path) -> None:
    """Import the git history into a pack."""
    import_git(folder / "many.git", Workdir.create(folder / "imported", bare=True))


_STEPS: dict[str, Callable[[Path], object]] = {
    "take in": lambda folder: keep(folder, "first"),
    "verify the pack": check,
    "fetch 10,000 more": lambda folder: keep(folder, "second"),
    "unpack": lambda folder: unpack(Workdir(folder / "copy")),
    "verify the files": check,
    "build for a push": build,
    "import from git": bring,
}
_WIDE_STEPS: dict[str, Callable[[Path], object]] = {
    "clone with files": take_in_files,
    "pull a change": follow,
    "remove the clone": lambda folder: shutil.rmtree(folder / "clone"),
    "take in a tree": lambda folder: keep(folder, "tree"),
    "verify a tree": check,
    "fetch a change": lambda folder: keep(folder, "change"),
    "unpack a tree": lambda folder: unpack(Workdir(folder / "copy")),
    "verify its files": check,
    "build a tree": lambda folder: build(folder, "change"),
}


def peak() -> float:
    """Return the most memory that this process had, in MiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii").split()
    return int(status[status.index("VmHWM:") + 1]) / 1024


def main() -> int:
    """Run all steps, or in a child process one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("blobs", type=int)
    parser.add_argument("--wide", action="store_true", help="all of them in one tree")
    parser.add_argument("--step", choices=[*_STEPS, *_WIDE_STEPS], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        before, start = peak(), time.monotonic()
        (_STEPS | _WIDE_STEPS)[arguments.step](arguments.folder)
        took = time.monotonic() - start
        print(f"{arguments.step:20} {peak():6.0f} MiB, {before:.0f} of them before; {took:.1f} s", flush=True)
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.wide:
            write_tree(folder, arguments.blobs)
        else:
            write_pack(folder / "first.mpack", 0, arguments.blobs)
            write_pack(folder / "second.mpack", arguments.blobs, arguments.blobs + 10_000)
            write_git(folder / "many.git", arguments.blobs)
        for step in _WIDE_STEPS if arguments.wide else _STEPS:
            command = [sys.executable, __file__, str(arguments.blobs), "--step", step, "--folder", name]
            subprocess.run(command, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
