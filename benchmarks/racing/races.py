"""The races: the same work on git and on the hub in turn, several rounds, every sample kept."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Final

from benchmarks.racing import processes
from benchmarks.racing.directpush import push_small
from benchmarks.racing.gitserver import PLAIN, TUNED, GitServer, fetch_request, git_pack_size, ls_refs_request
from benchmarks.racing.histories import History, Step, steps_of, steps_of_one
from benchmarks.racing.host import CEILING
from benchmarks.racing.hubserver import REPO, HubServer, hub_pack_size
from benchmarks.racing.load import Loaded, exchange, load, request
from benchmarks.racing.processes import musehub_command
from benchmarks.racing.results import Effort, Results
from musehub_plugin.mpack import Kind, MPackReader

CLIENTS: Final = 8
GIT_PLAIN, GIT_TUNED, HUB = "git plain", "git tuned", "hub"
BY_URL, INLINE, THIN = "hub, URL", "hub, inline", "hub, inline + thin"
BY_COMMAND: Final = "hub, command"
# A load of requests that are sent once ends after so many seconds, however far it is.
_PATIENCE: Final = 10.0
_PACKS_LOOKED_AT: Final = 12
_READY_ANSWERS: Final = 50
# From so many commits on, what takes many seconds is done so often at most: it scatters less, too.
_LONG: Final = 50_000
_LONG_ROUNDS: Final = 2
_PUSHED: Final = "bench/pushed"
# Fetches that nobody counts before those that are: servers in use have answered some.
_WARMING: Final = 60
# Commits up to the head whose answers a hub keeps, as everybody who follows the branch asks for them.
_NEWEST: Final = 20
_VARIANTS: Final = {BY_URL: (), INLINE: ("inline",), THIN: ("inline", "thin")}
_GITS: Final = {GIT_PLAIN: PLAIN, GIT_TUNED: TUNED}


class Race:
    """One history on both sides.

    Args:
        history: the history.
        git: git's server.
        hub: the hub, with nothing on it yet.
        folder: an empty folder for working copies.
        effort: how much is done.
        results: where samples go.
    """

    def __init__(
        self, history: History, git: GitServer, hub: HubServer, folder: Path, effort: Effort, results: Results
    ) -> None:
        self.history = history
        self.git = git
        self.hub = hub
        self.folder = folder
        self.effort = effort
        self.results = results
        self.capabilities: list[str] = []
        self._chance = Random(0)

    def run(self) -> None:
        """Load both sides and run every race."""
        results = self.results
        pids = self.hub.web_pids()
        load(self.hub.port, [request("POST", CEILING, b"x")] * 40, clients=4)
        idle = max(map(processes.memory_of, pids))
        results.facts["git packs"] = self.git.load(self.history)
        before = self.hub.cpu()
        with self._memory("push"):
            results.facts["load seconds"] = self.hub.load(self.history, self.folder)
        results.facts["load CPU"] = self.hub.cpu() - before
        results.facts["idle memory"] = idle
        # Its jobs, which are done, ran in processes of their own.
        results.facts["worker's idle memory"] = max(map(processes.memory_of, processes.pids_of([self.hub.worker])))
        results.facts["stored bytes"] = self.hub.stored_bytes()
        results.facts["tables"] = self.hub.table_bytes()
        results.facts["rows"] = self.hub.row_counts()
        self.capabilities = self.hub.capabilities()
        results.facts["capabilities"] = self.capabilities
        for contest in (self.ceilings, self.clones, self.small_fetches, self.large_fetches, self.nothing_new):
            _say(f"{self.history.name}: {contest.__name__.replace('_', ' ')}")
            with self._memory(contest.__name__.replace("_", " ")):
                contest()
        _say(f"{self.history.name}: pushes")
        self.pushes()
        _say(f"{self.history.name}: packing from scratch")
        with self._memory("packing from scratch"):
            self.packing()
        results.facts["load average"] = os.getloadavg()[0]

    # What nothing can be faster than

    def ceilings(self) -> None:
        """A Flask view that does nothing, and a CGI program that does nothing."""
        for _ in range(self.effort.rounds):
            self._rate("ceiling", "a Flask POST", self.hub.port, [request("POST", CEILING, b"x" * 200)])
            self._rate("ceiling", "a CGI program", self.git.port, [request("GET", "/-/trivial")])

    # Clone

    def clones(self) -> None:
        """Time until the answer, then whole bare clones."""
        wants = self._heads()
        capabilities = [name for name in ("mpacks",) if name in self.capabilities]
        message = self.hub.fetch_request(wants, (), capabilities)
        first = load(self.hub.port, [message], clients=1)
        self.results.add("clone, first answer, s", HUB, *first.latencies)
        for _ in range(self.effort.rounds):
            for who, name in _GITS.items():
                answer = load(self.git.port, [fetch_request(name, self._head())], clients=1)
                self.results.add("clone, server side, s", who, *answer.latencies)
                self.results.add("clone, B", who, answer.bytes_each)
            # Two milliseconds each: of a few the median is the machine's other work.
            ready = load(self.hub.port, [message] * _READY_ANSWERS, clients=1)
            self.results.add("clone, server side, s", HUB, *ready.latencies)
            whole = load(self.hub.port, [message], clients=1, follow=True)
            # Of git's answer the packs are a part, so that its server side is with the transfer.
            self.results.add("clone, downloaded, s", HUB, *whole.latencies)
            self.results.add("clone, B", HUB, whole.bytes_each)
        for _ in range(self._slow_rounds(self.effort.rounds)):
            for who, name in _GITS.items():
                self._clone(who, ["git", "clone", "--quiet", "--bare", self.git.url(name)])
            self._clone(HUB, [musehub_command(), "clone", "--bare", self.hub.url])

    def _clone(self, who: str, command: Sequence[str | Path]) -> None:
        target = self.folder / "cloned"
        before = self._cpu(who)
        used = processes.run([*command, target], cwd=self.folder)
        self.results.add("clone, whole, s", who, used.wall)
        self.results.add("clone, client, CPU-s", who, used.cpu)
        self.results.add("clone, server, CPU-s", who, self._cpu(who) - before)
        self.results.add("clone, client's memory, B", who, used.peak)
        if who == HUB:
            self.results.facts["metadata"] = _metadata_part(target)
        shutil.rmtree(target)

    # Fetch

    def small_fetches(self) -> None:
        """Fetches of one commit: each made for the first time; and those that many ask for, ready-made."""
        variants = [name for name, needs in _VARIANTS.items() if set(needs) <= set(self.capabilities)]
        every = steps_of_one(self.history)
        newest, older = every[-_NEWEST:], every[:-_NEWEST] or every
        steps = self._chance.sample(older, len(older))
        warming = steps[: min(_WARMING, len(steps) // 10)]
        steps = steps[len(warming) :]
        for name in _GITS.values():
            load(self.git.port, [fetch_request(name, step.want, step.have) for step in warming])
        for who in variants:
            load(self.hub.port, self._requests(warming, who))
        shares = _shares(steps, self.effort.rounds * (len(variants) + 1))
        for _ in range(self.effort.rounds):
            share = next(shares)[: self.effort.requests]
            for who, name in _GITS.items():
                requests = [fetch_request(name, step.want, step.have) for step in share]
                self._timed("fetch of 1 commit", who, self.git.port, requests)
                self._packs("fetch of 1 commit", who, self.git.port, requests)
            for who in variants:
                share = next(shares)[: self.effort.requests]
                made = self._timed("fetch of 1 commit, first time", who, self.hub.port, self._requests(share, who))
                # The clients were not all equally far when their time was over.
                share = share[: max(1, made * 3 // 4)]
                asked = self._requests(newest, who)
                load(self.hub.port, asked)
                again = self._rate("fetch of 1 commit, ready-made", who, self.hub.port, asked, repeat=True)
                if who == BY_URL:
                    # The same with the download, which the hub's web processes have no part in.
                    again = load(self.hub.port, self._requests(share, who), clients=CLIENTS, follow=True)
                    self.results.add("fetch of 1 commit, ready-made and downloaded, 1/s", who, again.rate)
                self.results.add("fetch of 1 commit, B", who, again.bytes_each)
                self._packs("fetch of 1 commit", who, self.hub.port, self._requests(share, who))

    def large_fetches(self) -> None:
        """Fetches of a hundred commits, each made for the first time."""
        variants = [name for name, needs in _VARIANTS.items() if set(needs) <= set(self.capabilities)]
        each = max(1, min(4, self.effort.requests // 20))
        shares = _shares(steps_of(self.history, 100, each * self.effort.rounds * len(variants)), self.effort.rounds)
        what = "fetch of 100 commits"
        for _ in range(self.effort.rounds):
            share = next(shares)
            for who, name in _GITS.items():
                requests = [fetch_request(name, step.want, step.have) for step in share]
                self._alone(what, who, load(self.git.port, requests, clients=1) if requests else None)
                self._packs(what, who, self.git.port, requests)
            for number, who in enumerate(variants):
                mine = self._requests(share[number :: len(variants)], who)
                self._alone(what, who, load(self.hub.port, mine, clients=1) if mine else None, size=who != BY_URL)
                self._packs(what, who, self.hub.port, mine)
                if who == BY_URL and mine:
                    downloaded = load(self.hub.port, mine, clients=1, follow=True)
                    self.results.add(f"{what}, B", who, downloaded.bytes_each)

    def nothing_new(self) -> None:
        """Asking where nothing moved."""
        head = self._heads()
        for _ in range(self.effort.rounds):
            for who, name in _GITS.items():
                self._timed("nothing new", who, self.git.port, [ls_refs_request(name)])
            self._timed("nothing new", "hub, fetch", self.hub.port, [self.hub.fetch_request(head, head)])
            self._timed("nothing new", "hub, refs", self.hub.port, [self.hub.refs_request(known=False)])
            self._timed("nothing new", "hub, refs unchanged", self.hub.port, [self.hub.refs_request(known=True)])

    # Push

    def pushes(self) -> None:
        """Pushes of one commit, one after the other: what a hub has to keep up with."""
        self.hub.command("repo", "create", _PUSHED, "--user-id", "bench", "--public")
        before = self.hub.cpu()
        seconds = push_small(self.hub.port, _PUSHED, count := max(4, self.effort.requests // 4))
        self.hub.wait_for_jobs()
        self.results.add("push of 1 commit, s", HUB, *seconds)
        self.results.add("push of 1 commit, server's CPU-s each", HUB, (self.hub.cpu() - before) / count)

    # Packing

    def packing(self) -> None:
        """Packing everything anew, with both cores."""
        repack = ("pack-objects", "--all", "--no-reuse-delta", "--threads=2", "--stdout", "-q")
        there = self.hub.has_command("repack")
        for _ in range(self._slow_rounds(min(3, self.effort.rounds))):
            used = processes.run(["git", "-C", self.git.folder / f"{PLAIN}.git", *repack], cwd=self.folder, quiet=True)
            self.results.add("pack from scratch, s", GIT_PLAIN, used.wall)
            self.results.add("pack from scratch, CPU-s", GIT_PLAIN, used.cpu)
            if there:
                self._repack_by_job()
                self._repack_by_command()

    def _repack_by_job(self) -> None:
        """Let the hub's worker pack everything anew, as it does after pushes."""
        before = self.hub.cpu()
        self.results.add("pack from scratch, s", HUB, self.hub.pack_anew())
        self.results.add("pack from scratch, CPU-s", HUB, self.hub.cpu() - before)

    def _repack_by_command(self) -> None:
        """Pack everything anew the way operators do, by a command that has to start first."""
        before = self.hub.cpu()
        used = self.hub.timed_command("repack", "--whole", REPO)
        self.results.add("pack from scratch, s", BY_COMMAND, used.wall)
        self.results.add("pack from scratch, CPU-s", BY_COMMAND, used.cpu + self.hub.cpu() - before)

    # Parts

    def _slow_rounds(self, rounds: int) -> int:
        """Return how often something is done that takes as long as the history is."""
        return min(rounds, _LONG_ROUNDS) if self.history.commits >= _LONG else rounds

    def _heads(self) -> list[str]:
        return [self._head()]

    def _head(self) -> str:
        ref = self.git.folder / f"{PLAIN}.git" / "refs" / "heads" / self.history.branch
        return ref.read_text(encoding="ascii").strip()

    def _requests(self, steps: Sequence[Step], who: str) -> list[bytes]:
        return [self.hub.fetch_request([step.want], [step.have], _VARIANTS[who]) for step in steps]

    def _timed(self, what: str, who: str, port: int, requests: Sequence[bytes]) -> int:
        """Send some one by one and the rest with eight clients; a single request is repeated.

        Returns:
            How many were sent.
        """
        if not requests:
            return 0
        single = len(requests) == 1
        alone = [*requests] * 20 if single else requests[: max(1, len(requests) // 8)]
        first = load(port, alone, clients=1, seconds=_PATIENCE)
        self._alone(what, who, first, size=port == self.git.port)
        # What was not sent for lack of time is left to the others.
        sent = len(first.latencies)
        rest = self._rate(what, who, port, requests if single else requests[sent:] or requests)
        return sent + len(rest.latencies)

    def _alone(self, what: str, who: str, loaded: Loaded | None, *, size: bool = True) -> None:
        if loaded is None:
            return
        self.results.add(f"{what}, s", who, *loaded.latencies)
        if size:
            self.results.add(f"{what}, B", who, loaded.bytes_each)

    def _packs(self, what: str, who: str, port: int, requests: Sequence[bytes]) -> None:
        """Note the size of some answers' packs themselves."""
        size = git_pack_size if port == self.git.port else hub_pack_size
        bodies = [exchange(port, message).body for message in requests[:_PACKS_LOOKED_AT]]
        self.results.add(f"{what}, pack, B", who, *map(size, bodies))

    def _rate(self, what: str, who: str, port: int, requests: Sequence[bytes], *, repeat: bool = False) -> Loaded:
        """Send requests with eight clients: each once; a single one, and where it is asked for, over and over."""
        single = len(requests) == 1
        before = self._cpu(who)
        loaded = load(
            port,
            list(requests) * (CLIENTS if single else 1),
            clients=min(CLIENTS, max(1, len(requests) * CLIENTS if single else len(requests))),
            seconds=self.effort.seconds if single or repeat else _PATIENCE,
            repeat=single or repeat,
        )
        self.results.add(f"{what}, 1/s", who, loaded.rate)
        self.results.add(f"{what}, server's CPU-s each", who, (self._cpu(who) - before) / len(loaded.latencies))
        return loaded

    def _cpu(self, who: str) -> float:
        # fcgiwrap does not wait for its children, so nothing says what they used.
        return processes.cpu_of([self.git.service]) if who in {*_GITS, "a CGI program"} else self.hub.cpu()

    @contextmanager
    def _memory(self, what: str) -> Iterator[None]:
        """Note the most memory that a web process and a worker had meanwhile."""
        pids = self.hub.web_pids()
        for pid in pids:
            processes.forget_peak(pid)
        over = threading.Event()
        highest = [0]

        def watch() -> None:
            # A worker's children end with their jobs.
            while not over.wait(0.1):
                for pid in processes.pids_of([self.hub.worker]):
                    highest[0] = max(highest[0], processes.peak_of(pid))

        watcher = threading.Thread(target=watch) if what in {"push", "packing from scratch"} else None
        if watcher is not None:
            watcher.start()
        try:
            yield
        finally:
            over.set()
            if watcher is not None:
                watcher.join()
                self.results.facts.setdefault("worker's memory", {})[what] = highest[0]
            peak = max(map(processes.peak_of, pids))
            self.results.facts.setdefault("web's memory", {})[what] = peak


def race(history: History, git: GitServer, hub: HubServer, folder: Path, effort: Effort) -> Results:
    """Run every race on one history."""
    results = Results()
    Race(history, git, hub, folder, effort, results).run()
    return results


def _shares(steps: Sequence[Step], count: int) -> Iterator[Sequence[Step]]:
    """Deal steps out into so many shares, no step into two."""
    for number in range(count):
        yield steps[number::count]


def _metadata_part(clone: Path) -> float:
    """Return which part of a bare clone's packs is not blobs."""
    total = blobs = 0
    for path in clone.glob(".muse/packs/*.mpack"):
        with path.open("rb") as source:
            reader = MPackReader(source)
            total += reader.size_bytes
            blobs += sum(frame.stored for frame in reader.frames if frame.kind == Kind.BLOBS)
    return (total - blobs) / total


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
