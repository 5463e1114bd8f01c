"""What the server's processes take of memory for a long history, and for large and many blobs.

    python benchmarks/servermemory.py [--commits 100000] [--files 2000] [--keep FOLDER]
        [--megabytes 2048] [--small 16384] [--a-commit 1000]

Each history goes to a hub of its own: gunicorn, a worker, PostgreSQL, Redis and S3, from wheels. After each step it
prints the most that any web process, and any process of the worker, had beyond what it had when idle: after a push, a
repack and a fetch of a few commits, so that what is imported late is not counted. Needs Linux, for its /proc.

`--keep` names a folder for the packs that are pushed, which are taken from there the next time.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import msgpack

# Started as a program, only the folder of this file is looked in.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.pack_size import read_history, write_pack
from benchmarks.racing import processes
from benchmarks.racing.directpush import Pusher, push_small
from benchmarks.racing.histories import synthetic
from benchmarks.racing.hubserver import HubServer, hub_server
from benchmarks.racing.load import exchange, request
from musehub_plugin import ids
from musehub_plugin.mpack import MPackWriter

_MIB = 1 << 20
_DATE = "2026-01-01T00:00:00+00:00"
_MSGPACK = "application/x-msgpack"
_WARM = "memory/warm"
_REPO = "memory/large"
_LARGE_BLOBS = 8
_FOLDER_FILES = 1_000
_EVERY = 0.02


@dataclass(frozen=True)
class Pushed:
    """A pack to push, and its first-parent line, oldest commit first."""

    path: Path
    line: list[str]


def history_pack(folder: Path, commits: int, files: int) -> Pushed:
    """Return the pack of a synthetic history, made unless it is there."""
    pushed, line = folder / f"{commits}-{files}.mpack", folder / f"{commits}-{files}.json"
    if not line.exists():
        with tempfile.TemporaryDirectory() as name:
            history = read_history(source := synthetic(commits, Path(name), files=files).source)
            with pushed.open("wb") as out:
                commit_ids = write_pack(source, history, out)
        parents = {commit.name: commit.parents[:1] for commit in history}
        names = [history[-1].name]
        while parents[names[-1]]:
            names += parents[names[-1]]
        line.write_text(json.dumps([commit_ids[name] for name in reversed(names)]), encoding="ascii")
    return Pushed(pushed, json.loads(line.read_text(encoding="ascii")))


def blobs_pack(folder: Path, megabytes: int, small: int, a_commit: int) -> Pushed:
    """Return a pack of noise, made unless it is there: half of it eight blobs, the rest small files of one tree.

    Args:
        folder: where the pack is kept.
        megabytes: MiB of blobs.
        small: bytes of a small one.
        a_commit: files that each commit adds.
    """
    name = f"blobs-{megabytes}-{small}-{a_commit}"
    pushed, line = folder / f"{name}.mpack", folder / f"{name}.json"
    if not line.exists():
        noise, half = Random(megabytes), megabytes * _MIB // 2
        sizes = [half // _LARGE_BLOBS] * _LARGE_BLOBS + [small] * (half // small)
        object_ids = []
        with pushed.open("wb") as out, MPackWriter(out) as writer:
            for size in sizes:
                content = noise.randbytes(size)
                object_ids.append(ids.blob_id(content))
                writer.add_blob(object_ids[-1], content)
            manifest: dict[str, str] = {}
            records: list[dict[str, Any]] = []
            for start in range(0, len(sizes), a_commit):
                here = enumerate(object_ids[start : start + a_commit], start)
                added = {f"{n // _FOLDER_FILES}/{n}": each for n, each in here}
                manifest.update(added)
                snapshot_id = ids.snapshot_id(manifest)
                writer.add_snapshot_delta(snapshot_id, (), added, derivable=True)
                parents = [records[-1]["commit_id"]] if records else []
                record = {"parent_ids": parents, "snapshot_id": snapshot_id, "message": "", "committed_at": _DATE}
                commit_id = ids.commit_id(parents, snapshot_id, "", _DATE)
                records.append({"commit_id": commit_id, "author": "", "branch": "main", **record})
            for record in records:
                writer.add_commit(record)
        line.write_text(json.dumps([record["commit_id"] for record in records]), encoding="ascii")
    return Pushed(pushed, json.loads(line.read_text(encoding="ascii")))


class Watch:
    """Prints what the hub's processes have beyond what they had when idle."""

    def __init__(self, hub: HubServer) -> None:
        self._hub = hub
        self._web = self._worker = 0
        self._highest = 0

    def idle(self) -> None:
        """Take what there is now as what the processes have when idle."""
        self._web = max(map(processes.memory_of, self._hub.web_pids()))
        self._worker = max(map(processes.memory_of, processes.pids_of([self._hub.worker])))
        print(f"{'idle':28} web {self._web / _MIB:6.0f} MiB   worker {self._worker / _MIB:6.0f} MiB", flush=True)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Note the peaks of what is done meanwhile."""
        self._highest = 0
        web = self._hub.web_pids()
        for pid in [*web, *processes.pids_of([self._hub.worker])]:
            # One of a job's may end at this moment.
            with suppress(FileNotFoundError, ProcessLookupError):
                processes.forget_peak(pid)
        over = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(over,))
        watcher.start()
        begun, cpu = time.monotonic(), self._hub.cpu()
        try:
            yield
        finally:
            took = time.monotonic() - begun
            over.set()
            watcher.join()
        peak, after = (max(map(ask, web)) - self._web for ask in (processes.peak_of, processes.memory_of))
        parts = [f"{name:28} web {peak / _MIB:+6.0f} MiB ({after / _MIB:+.0f} left)"]
        parts.append(f"worker {(self._highest - self._worker) / _MIB:+6.0f} MiB")
        parts.append(f"{took:6.1f} s, {self._hub.cpu() - cpu:.1f} s CPU")
        print("   ".join(parts), flush=True)

    def _watch(self, over: threading.Event) -> None:
        # A worker's children end with their jobs.
        while not over.wait(_EVERY):
            for pid in processes.pids_of([self._hub.worker]):
                self._highest = max(self._highest, processes.peak_of(pid))


def fetch(hub: HubServer, repo: str, want: str, have: str | None, *capabilities: str) -> None:
    """Ask until the answer is there, as a client does."""
    body: dict[str, Any] = {"want": [want], "have": [have] if have else []}
    if capabilities:
        body["capabilities"] = capabilities
    message = request("POST", f"/{repo}/fetch", msgpack.packb(body), [f"Content-Type: {_MSGPACK}"])
    while (answer := exchange(hub.port, message)).status == 503:
        time.sleep(1)
    if answer.status != 200:
        raise RuntimeError(f"a fetch was refused: {answer.body[:500]!r}")


def measure(pushed: Pushed, *, fetches: Callable[[list[str]], Iterator[tuple[str, str, str | None]]]) -> None:
    """Print what each step takes on a hub of its own."""
    with hub_server() as hub:
        for repo in (_WARM, _REPO):
            hub.command("repo", "create", repo, "--user-id", "bench", "--public", "--default-branch", "main")
        # More than one push, so that each of the web processes has had one, and more than a repack waits for.
        push_small(hub.port, _WARM, 40)
        hub.wait_for_jobs()
        watch = Watch(hub)
        watch.idle()
        with watch.step("push"):
            Pusher(hub.port, _REPO).push_file(pushed.path, pushed.line[-1], "main")
        with watch.step("index, repack"):
            hub.wait_for_jobs()
        for name, want, have in fetches(pushed.line):
            for way, capabilities in (("URL", ()), ("inline, thin", ("mpacks", "inline", "thin"))):
                with watch.step(f"{name}, {way}"):
                    fetch(hub, _REPO, want, have, *capabilities)


def _fetches(line: list[str]) -> Iterator[tuple[str, str, str | None]]:
    yield "clone", line[-1], None
    if len(line) == 1:
        return
    yield "clone of an older commit", line[-min(5, len(line))], None
    yield "fetch of 1 commit", line[-1], line[-2]
    for count in (100, len(line) // 20, len(line) // 2):
        if 1 < count < len(line):
            yield f"fetch of {count:,} on the line", line[-1], line[-1 - count]
    yield "fetch of the older half", line[len(line) // 2], line[0]


def main() -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commits", type=int, default=100_000, help="of the long history (100,000); 0: none")
    parser.add_argument("--files", type=int, default=2_000, help="that it has (2,000)")
    parser.add_argument("--megabytes", type=int, default=2_048, help="of the large blobs and many small ones; 0: none")
    parser.add_argument("--small", type=int, default=16_384, help="bytes of a small one (16,384): a tree is of so many")
    parser.add_argument("--a-commit", type=int, default=1_000, help="small ones that a commit adds (1,000)")
    parser.add_argument("--keep", type=Path, help="a folder for the packs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.keep or Path(name)
        if arguments.commits:
            print(f"{arguments.commits:,} commits of {arguments.files:,} files", flush=True)
            measure(history_pack(folder, arguments.commits, arguments.files), fetches=_fetches)
        if arguments.megabytes:
            print(f"{arguments.megabytes:,} MiB of blobs", flush=True)
            pushed = blobs_pack(folder, arguments.megabytes, arguments.small, arguments.a_commit)
            measure(pushed, fetches=_fetches)
    return 0


if __name__ == "__main__":
    sys.exit(main())
