"""Where the CPU of a fetch, a repack and a clone goes, part by part: what bounds the targets that are missed.

    python benchmarks/parts.py [--commits 1000 | --git PATH] [--requests 200]

The view runs in this process, without a web server, with PostgreSQL, Redis and S3 from wheels. Its own CPU is dealt
out by samples, one at each tick of the kernel's clock that it uses: what the main thread has used since the last one
goes to the part whose code it is in, the innermost that is known. C code counts with the Python that calls it. CPU of
the servers is what they have used meanwhile. Needs Linux, for its /proc, and a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any, Final

import flask
import msgpack

# Started as a program, only the folder of this file is looked in.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.racing import processes
from benchmarks.racing.histories import History, Step, existing, steps_of, steps_of_one, synthetic
from benchmarks.racing.host import CEILING, CONFIG_VARIABLE, create_app, pack_anew
from benchmarks.racing.hubserver import REPO, HubServer, hub_server

_EVERY: Final = 0.0005
_MSGPACK: Final = "application/x-msgpack"
_NEWEST: Final = 20
_LARGE: Final = 100
# What takes less than a millisecond is done so many times as often as the rest.
_AS_MANY: Final = 10
_CLONE: Final = "from musehub_plugin.client.command import run; run()"
_OTHER: Final = "the rest"
# Milliseconds that are told.
_LEAST: Final = 0.005
# The first that a file's path contains is the part; a path of a frame that no line names is left to its caller.
_PARTS: Final = {
    "musehub_plugin/mpack/zstd.py": "zstd",
    "backports/zstd": "zstd",
    "musehub_plugin/ids.py": "ids, from text and to text",
    "musehub_plugin/store/prepared.py": "asking PostgreSQL, the driver",
    "musehub_plugin/store/autocommit.py": "asking PostgreSQL, the driver",
    "musehub_plugin/store/session.py": "asking PostgreSQL, the driver",
    "sqlalchemy/": "asking PostgreSQL, the driver",
    "musehub_plugin/store/manifests.py": "manifests out of chains of rows",
    "musehub_plugin/manifestlog.py": "manifests out of chains of rows",
    "musehub_plugin/plannedchanges.py": "manifests out of chains of rows",
    "musehub_plugin/store/": "other rows",
    "musehub_plugin/mpack/reader.py": "reading packs",
    "musehub_plugin/framecache.py": "reading packs",
    "musehub_plugin/blobs.py": "reading packs",
    "musehub_plugin/packedblobs.py": "reading packs",
    "musehub_plugin/mpack/packfile.py": "reading packs",
    "musehub_plugin/mpack/bounded.py": "reading packs",
    "musehub_plugin/storage/": "the object store's client",
    "minio/": "the object store's client",
    "musehub_plugin/mpack/": "the pack's form",
    "musehub_plugin/building.py": "the pack's form",
    "urllib3/": "HTTP client",
    "http/client.py": "HTTP client",
    "musehub_plugin/web/": "the plugin's views and rules",
    "musehub_plugin/access.py": "the plugin's views and rules",
    "musehub_plugin/auth/": "the plugin's views and rules",
    "musehub_plugin/": "planning, and finding what is ready",
    "flask/": "Flask",
    "werkzeug/": "Flask",
    "importlib": "importing",
}


@dataclass
class Measured:
    """What some work took, a piece.

    Attributes:
        pieces: how often it was done.
        parts: seconds of this process's CPU in all, by part.
        servers: seconds of CPU of PostgreSQL and the object store in all.
    """

    pieces: int
    parts: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    servers: dict[str, float] = field(default_factory=dict)

    def each(self) -> dict[str, float]:
        """Return milliseconds of CPU a piece by part."""
        own = {part: 1e3 * seconds / self.pieces for part, seconds in self.parts.items()}
        return own | {name: 1e3 * seconds / self.pieces for name, seconds in self.servers.items()}


class Sampler:
    """Deals out the CPU of this process's main thread to parts."""

    def __init__(self, parts: defaultdict[str, float]) -> None:
        self._parts = parts
        self._last = 0.0

    def __enter__(self) -> Sampler:
        self._last = time.thread_time()
        signal.signal(signal.SIGPROF, self._note)
        signal.setitimer(signal.ITIMER_PROF, _EVERY, _EVERY)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, signal.SIG_IGN)

    def _note(self, _: int, frame: FrameType | None) -> None:
        now = time.thread_time()
        self._parts[_part_of(frame)] += now - self._last
        # What the look itself takes is nobody's.
        self._last = time.thread_time()


def _part_of(frame: FrameType | None) -> str:
    while frame is not None:
        path = frame.f_code.co_filename
        for name, part in _PARTS.items():
            if name in path:
                return part
        frame = frame.f_back
    return _OTHER


def measured(hub: HubServer, work: Callable[[], Any], pieces: int) -> Measured:
    """Do some work and return what it took."""
    found = Measured(pieces)
    services = {"PostgreSQL": hub.database, "the object store": hub.storage}
    before = {name: processes.cpu_of([service]) for name, service in services.items()}
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    own, main = time.process_time(), time.thread_time()
    with Sampler(found.parts):
        work()
    main, own = time.thread_time() - main, time.process_time() - own
    found.parts["threads beside, which compress"] = max(0.0, own - main)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    forked = after.ru_utime + after.ru_stime - children.ru_utime - children.ru_stime
    if forked:
        found.servers["the process beside"] = forked
    found.servers |= {name: processes.cpu_of([service]) - before[name] for name, service in services.items()}
    return found


def fetches(hub: HubServer, app: flask.Flask, history: History, requests: int) -> Iterator[tuple[str, Measured]]:
    """Yield what each kind of fetch took."""
    client = app.test_client()

    def posted(path: str, bodies: Sequence[bytes]) -> Callable[[], None]:
        def post() -> None:
            for body in bodies:
                answer = client.post(path, data=body, content_type=_MSGPACK)
                if answer.status_code != 200:
                    raise RuntimeError(f"status {answer.status_code}: {answer.data[:300]!r}")

        return post

    def bodies(steps: Sequence[Step], *capabilities: str) -> list[bytes]:
        return [
            msgpack.packb(
                {
                    "want": [hub.commit_ids[step.want]],
                    "have": [hub.commit_ids[step.have]],
                    "capabilities": list(capabilities),
                }
            )
            for step in steps
        ]

    chance = Random(0)
    fetch = f"/{REPO}/fetch"
    every = steps_of_one(history)
    newest, older = every[-_NEWEST:], every[:-_NEWEST]
    older = chance.sample(older, len(older))
    large = steps_of(history, _LARGE, requests)
    large = chance.sample(large, len(large))
    # Frames, statements and compiled code are there from here on, as they are on a server that is in use.
    for capabilities in ((), ("inline",)):
        for steps in (newest, older[:_NEWEST], large[:2]):
            posted(fetch, bodies(steps, *capabilities))()
    older, large = older[_NEWEST:], large[2:]
    many = _AS_MANY * requests
    yield "a view that does nothing", measured(hub, posted(CEILING, [b"x"] * many), many)
    head = every[-1].want
    nothing = bodies([Step(head, head, 0)]) * many
    yield "nothing new", measured(hub, posted(fetch, nothing), many)
    ready = (bodies(newest, "inline") * many)[:many]
    yield "1 commit, ready-made", measured(hub, posted(fetch, ready), many)
    for what, steps in (("1 commit", older[: 2 * requests]), (f"{_LARGE} commits", large)):
        for number, (name, offered) in enumerate((("inline", ["inline"]), ("by URL", []))):
            if share := steps[number::2]:
                yield f"{what}, {name}", measured(hub, posted(fetch, bodies(share, *offered)), len(share))


def repacking(hub: HubServer, app: flask.Flask) -> Measured:
    """Return what packing everything anew takes, once more than it is measured."""
    with app.app_context():
        pack_anew(*REPO.split("/"))
        return measured(hub, lambda: pack_anew(*REPO.split("/")), 1)


def clone(hub: HubServer, folder: Path) -> dict[str, float]:
    """Return milliseconds of CPU: Python's start, that of the command, its HTTP client, and all of a clone."""
    target = folder / "cloned"
    programs = {
        "Python's own start": ["-c", "pass"],
        "the command's start": ["-c", _CLONE, "--version"],
        "with its HTTP client": ["-c", "import click, urllib3"],
        "a whole clone": ["-c", _CLONE, "clone", "--bare", hub.url, str(target)],
    }
    found = {}
    for name, arguments in programs.items():
        used = []
        for _ in range(5):
            shutil.rmtree(target, ignore_errors=True)
            used.append(processes.run([sys.executable, *arguments], cwd=folder, quiet=True).cpu)
        found[name] = 1e3 * sorted(used)[2]
    return found


def main() -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--commits", type=int, default=1_000, help="of a synthetic history (1,000)")
    parser.add_argument("--git", type=Path, help="a git repository or bundle in its place")
    parser.add_argument("--requests", type=int, default=200, help="of each kind (200)")
    arguments = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with TemporaryDirectory(prefix="musehub-parts-") as name, hub_server() as hub:
        folder = Path(name)
        (folder / "copy").mkdir()
        history = existing(arguments.git, folder) if arguments.git else synthetic(arguments.commits, folder)
        hub.load(history, folder / "copy")
        hub.sql("VACUUM ANALYZE")
        os.environ[CONFIG_VARIABLE] = json.dumps(hub.config)
        app = create_app()
        found = dict(fetches(hub, app, history, arguments.requests))
        found["packing anew"] = repacking(hub, app)
        cloned = clone(hub, folder)
    print(table(history.name, found))
    starts = ", ".join(f"{name} {spent:.0f}" for name, spent in cloned.items())
    print(f"\n`musehub clone --bare` of {history.name}, milliseconds of CPU of the client: {starts}.")
    return 0


def table(name: str, found: Mapping[str, Measured]) -> str:
    """Return milliseconds of CPU by part and kind of work, as Markdown."""
    each = [one.each() for one in found.values()]
    parts = {part for one in each for part, spent in one.items() if spent >= _LEAST}
    ordered = sorted(parts, key=lambda part: -sum(one.get(part, 0) for one in each[:-1]))
    lines = [[f"{name}: ms of CPU", *found], ["---"] * (1 + len(found))]
    lines.append(["in all", *(f"{sum(one.values()):.2f}" for one in each)])
    lines += [[part, *(f"{one[part]:.2f}" if one.get(part, 0) >= _LEAST else "" for one in each)] for part in ordered]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    sys.exit(main())
