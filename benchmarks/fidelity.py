"""Brings a git history to a hub and back, and compares every commit, manifest and file with what git itself says.

    python benchmarks/fidelity.py GIT_REPO [--hub URL]
    python benchmarks/fidelity.py --synthetic 2000
    python benchmarks/fidelity.py --synthetic 20000 --packed

The history is imported, pushed, and cloned; the clone is compared, both as loose files and as a bare clone. With
--packed no loose files are written: of the second history above they are 12 GB, as each snapshot's file holds its
whole manifest. The hub is
one that this program starts (SQLite and files), unless --hub names an empty repo of another one; MUSEHUB_TOKEN says who
pushes there. With --synthetic the history is a generated one (`synthetic_git.py`). What the import's policy changes
(symlinks, modes, submodules, escaped names: see `musehub_plugin.client.gitimport`) is counted; anything else is a
difference, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from musehub_plugin import ids
from musehub_plugin.client import HubTransport, Workdir, clone, import_git, push, verify
from musehub_plugin.client.gitpolicy import muse_path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.synthetic_git import write_repository

TREE, SUBMODULE = b"40000", b"160000"


class Git:
    """What git says, asked one object at a time and apart from the importer's own way of asking."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._contents = subprocess.Popen(
            ["git", "-C", str(path), "cat-file", "--batch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._hashes: dict[str, str] = {}
        self._shown: dict[bytes, str] = {}
        # What the trees of the last commit hold: the next one shares most of them.
        self._trees: dict[str, dict[bytes, str]] = {}
        self._below: dict[str, list[str]] = {}
        self._snapshot_ids: dict[str, str] = {}

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

    def snapshot_id(self, commit: str) -> str:
        """Return the id of what the policy makes of a commit's tree."""
        if commit not in self._snapshot_ids:
            tree = self.object(commit).partition(b"\n")[0].split()[1].decode()
            trees: dict[str, dict[bytes, str]] = {}
            files = self._files(tree, trees)
            self._trees = trees
            manifest = {self._path(path): self.blob_id(name) for path, name in files.items()}
            # Two clones are compared.
            self._snapshot_ids[commit] = ids.snapshot_id(manifest)
        return self._snapshot_ids[commit]

    def _files(self, tree: str, trees: dict[str, dict[bytes, str]]) -> dict[bytes, str]:
        """Return path and name of each blob in a tree and those below it, submodules left out."""
        files = trees.get(tree, self._trees.get(tree))
        if files is None:
            files = {}
            for mode, path, name in self._entries(tree):
                if mode == TREE:
                    files |= {path + b"/" + below: blob for below, blob in self._files(name, trees).items()}
                elif mode != SUBMODULE:
                    files[path] = name
        else:
            self._keep_below(tree, trees)
        trees[tree] = files
        return files

    def _keep_below(self, tree: str, trees: dict[str, dict[bytes, str]]) -> None:
        for name in self._below.get(tree, ()):
            if name not in trees:
                trees[name] = self._trees[name]
                self._keep_below(name, trees)

    def _entries(self, tree: str) -> Iterator[tuple[bytes, bytes, str]]:
        rest = self.object(tree)
        below = []
        while rest:
            mode, _, rest = rest.partition(b" ")
            path, _, rest = rest.partition(b"\0")
            name, rest = rest[:20].hex(), rest[20:]
            if mode == TREE:
                below.append(name)
            yield mode, path, name
        self._below[tree] = below

    def _path(self, path: bytes) -> str:
        if path not in self._shown:
            self._shown[path] = muse_path(path)
        return self._shown[path]

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
    names = git.run("rev-list", "--reverse", "--branches", "--tags").decode().split()
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
        # That its manifest hashes to it was verified.
        if ids.PREFIX + record["snapshot_id"] != git.snapshot_id(name):
            yield f"{name}: manifest"
    for branch, name in git.heads().items():
        if workdir.branch_head(branch) != by_git.get(name):
            yield f"branch {branch}"


@contextmanager
def own_hub(folder: Path) -> Iterator[str]:
    """Run a hub on a loopback port with one empty repo, and give the repo's URL."""
    # Here and not above: with --hub the server's libraries are not needed.
    from werkzeug.serving import make_server

    from musehub_plugin.models import MusehubRepo
    from musehub_plugin.testing.apps import close_app, hub_of, make_app

    folder.mkdir()
    app = make_app(folder, {"MUSEHUB_STORAGE": (folder / "storage").as_uri()})
    with app.app_context():
        session = hub_of(app).sqlalchemy.session
        session.add(MusehubRepo(owner="ada", slug="engine", name="engine", visibility="public", owner_user_id="ada"))
        session.commit()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/ada/engine"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        close_app(app)


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print how long something took."""
    start = time.perf_counter()
    yield
    print(f"{what}: {time.perf_counter() - start:.2f} s", flush=True)


def compared(git: Git, workdir: Workdir, kind: str) -> list[str]:
    """Verify a clone, compare it with git, print what was found, and return the differences."""
    with timed(f"{kind} clone verified"):
        verified = verify(workdir)
    with timed(f"{kind} clone compared"):
        found = [*verified.problems, *differences(git, workdir)]
    print(
        f"{kind} clone: {verified.commit_count} commits, {verified.snapshot_count} snapshots, {verified.blob_count} "
        f"blobs, {verified.ref_count} refs: {len(found)} differences"
    )
    return found


def main() -> int:
    """Run the comparison and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path, nargs="?", default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--hub", metavar="URL", help="push to this repo, which must be empty")
    parser.add_argument("--synthetic", metavar="COMMITS", type=int, help="generate a history of so many commits")
    parser.add_argument("--seed", type=int, default=0, help="of the generated history")
    parser.add_argument("--packed", action="store_true", help="import into a pack, and clone bare alone")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        repository = arguments.repository
        if arguments.synthetic:
            repository = folder / "synthetic.git"
            write_repository(repository, arguments.synthetic, seed=arguments.seed)
        token = os.environ.get("MUSEHUB_TOKEN") if arguments.hub else "ada"
        hub = HubTransport(arguments.hub or stack.enter_context(own_hub(folder / "hub")), token=token)
        origin = Workdir.create(folder / "imported", bare=arguments.packed)
        start = time.perf_counter()
        done = import_git(repository, origin)
        seconds = time.perf_counter() - start
        print(f"imported: {done.commits} commits in {seconds:.2f} s, {done.commits / seconds:.0f} a second")
        with timed("pushed"):
            pushed = push(origin, hub, branches=list(origin.branches()))
        print(f"mpack: {pushed.sent_bytes:,} bytes for {pushed.blob_count} blobs")
        clones = {}
        for kind in ("bare",) if arguments.packed else ("loose", "bare"):
            with timed(f"cloned {kind}"):
                clones[kind] = clone(hub, folder / kind, bare=kind == "bare").workdir
        git = Git(repository)
        found = [line for kind, workdir in clones.items() for line in compared(git, workdir, kind)]
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
