"""Runs a hub under load while everything around it fails, and counts what was lost.

    python benchmarks/soak.py --minutes 10 --seed 1

Real PostgreSQL, Redis and S3 servers, two web processes, two workers. Clients push, fetch and clone without a pause
while processes are killed, connections are cut, servers are stopped, frozen, crashed and emptied, and garbage is
collected with a grace of seconds, all by a plan that the seed decides. At the end nothing fails any more: every job
must come to its end, every acknowledged push must be in a fresh clone, and every hash in it must be right. Exits 1
where something was lost or wrong. Needs Linux, for its /proc.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Started as a program, only the folder of this file is looked in.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.soaking.clients import SHARED, Client
from benchmarks.soaking.faults import Faults
from benchmarks.soaking.installation import Installation, installation
from benchmarks.soaking.ledger import Ledger
from musehub_plugin import graph
from musehub_plugin.client import ClientError, HubTransport, Workdir, clone, verify
from musehub_plugin.client.record import record_parents

_REPOS = [f"ada/repo-{number}" for number in range(6)]
_CLIENTS = 8
# What is under way when the load ends, and the jobs after it, may take that long.
_DRAIN_SECONDS = 180.0
_WAITING = "SELECT state, count(*) FROM musehub_job WHERE state <> 'done' GROUP BY state"


@dataclass(frozen=True)
class Report:
    """What a soak came to."""

    seed: int
    seconds: float
    ledger: Ledger

    @property
    def passed(self) -> bool:
        """Whether nothing was lost and nothing was wrong."""
        return not self.ledger.lost and not self.ledger.wrong

    def push_seconds(self) -> dict[str, float]:
        """Return how long pushes took until they were acknowledged: median, 99 of 100, longest."""
        ordered = sorted(self.ledger.push_seconds) or [0.0]
        return {"median": ordered[len(ordered) // 2], "p99": ordered[len(ordered) * 99 // 100], "longest": ordered[-1]}

    def as_dict(self) -> dict[str, Any]:
        """Return everything for JSON."""
        ledger = self.ledger
        return {
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "pushes": ledger.pushes,
            "push_seconds": {name: round(value, 2) for name, value in self.push_seconds().items()},
            "repeats": ledger.repeats,
            "fetches": ledger.fetches,
            "clones": ledger.clones,
            "faults": dict(sorted(ledger.faults.items())),
            "chores": dict(sorted(ledger.chores.items())),
            "answers": dict(ledger.answers.most_common()),
            "lost": ledger.lost,
            "wrong": ledger.wrong,
        }

    def text(self) -> str:
        """Return everything for people."""
        ledger = self.ledger
        lines = [
            f"seed {self.seed}, {self.seconds:.0f} s of load",
            f"pushes acknowledged  {ledger.pushes} (and {ledger.repeats} sent twice)",
            "until acknowledged   " + ", ".join(f"{name} {value:.2f} s" for name, value in self.push_seconds().items()),
            f"fetches served       {ledger.fetches + ledger.clones} ({ledger.clones} of them clones, verified whole)",
        ]
        for title, counts in (
            ("faults injected", ledger.faults),
            ("commands run", ledger.chores),
            ("errors answered", ledger.answers),
        ):
            lines.append(f"{title:<20} {counts.total()}")
            lines += [f"  {count:>6} {kind}" for kind, count in sorted(counts.items(), key=lambda item: -item[1])]
        for title, sentences in (("lost", ledger.lost), ("wrong", ledger.wrong)):
            lines.append(f"{title:<20} {len(sentences)}")
            lines += [f"         {sentence}" for sentence in sentences[:50]]
        return "\n".join(lines)


def soak(seed: int, seconds: float, folder: Path, *, keep_log: Path | None = None) -> Report:
    """Run a soak.

    Args:
        seed: decides what goes wrong and what clients do.
        seconds: how long clients begin new work.
        folder: an empty folder for working copies.
        keep_log: where the hub's log goes at the end; None: nowhere.
    """
    ledger = Ledger()
    over = threading.Event()
    with installation(grace=25 if seconds > 120 else 6) as hub:
        hub.start(_REPOS)
        faults = Faults(hub, ledger, seed, seconds)
        clients = [
            Client(number, seed, hub.origin, _REPOS, folder / str(number), ledger, over) for number in range(_CLIENTS)
        ]
        begun = time.monotonic()
        try:
            faults.start()
            for client in clients:
                client.start()
            over.wait(seconds)
            over.set()
            elapsed = time.monotonic() - begun
            faults.stop()
            _drain(hub, clients, ledger)
            _check_everything(hub, folder / "checked", ledger)
        finally:
            faults.close()
            for client in clients:
                client.give_up()
            if keep_log is not None:
                keep_log.write_text(hub.log(), encoding="utf-8")
    return Report(seed, elapsed, ledger)


def _drain(hub: Installation, clients: list[Client], ledger: Ledger) -> None:
    """Wait until clients are through with what they began, and until every job is done."""
    deadline = time.monotonic() + _DRAIN_SECONDS
    for client in clients:
        client.join(max(0.0, deadline - time.monotonic()))
        if client.is_alive():
            ledger.note("wrong", f"{client.name} did not come to an end")
    waiting = hub.sql(_WAITING)
    while waiting and time.monotonic() < deadline and ("failed",) not in [row[:1] for row in waiting]:
        time.sleep(0.2)
        waiting = hub.sql(_WAITING)
    for state, count in waiting:
        ledger.note("wrong", f"{count} jobs are {state}")


def _check_everything(hub: Installation, folder: Path, ledger: Ledger) -> None:
    """Collect garbage, clone every repo and compare it with the account; then let the hub look at itself."""
    _require(hub, "gc", ledger)
    for repo in _REPOS:
        transport = HubTransport(f"{hub.origin}/{repo}", wait_budget=30.0)
        try:
            copy = clone(transport, folder / repo.replace("/", "-")).workdir
        except ClientError as error:
            ledger.note("lost", f"{repo} cannot be cloned: {error}")
            continue
        finally:
            transport.close()
        for problem in verify(copy).problems:
            ledger.note("wrong", f"{repo}: {problem}")
        heads = copy.branches()
        ledger.compare(repo, heads)
        ledger.compare_shared(repo, SHARED, _history(copy, heads.get(SHARED)))
    _require(hub, "verify", ledger)
    _require(hub, "doctor", ledger)


def _require(hub: Installation, command: str, ledger: Ledger) -> None:
    done = hub.command(command)
    if done.returncode:
        ledger.note("wrong", f"flask musehub {command}: exit {done.returncode}: {done.stdout} {done.stderr[-500:]}")


def _history(copy: Workdir, head: str | None) -> set[str]:
    heads = [] if head is None else [head]
    nodes = {commit_id: record_parents(copy.read_commit(commit_id)) for commit_id in copy.stored_ids("commits")}
    return graph.reachable(nodes, lambda commit_id: nodes[commit_id], heads)


def main() -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="how long clients begin new work (default: 10)")
    parser.add_argument("--seed", type=int, default=1, help="decides what goes wrong and what clients do (default: 1)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--log", type=Path, help="a file for the log of the hub's processes")
    arguments = parser.parse_args()
    # As Ctrl-C: every server is stopped on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="musehub-soak-", ignore_cleanup_errors=True) as folder:
            report = soak(arguments.seed, arguments.minutes * 60, Path(folder), keep_log=arguments.log)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    print(json.dumps(report.as_dict(), indent=2) if arguments.json else report.text())
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
