"""Carrying out a soak's plan, one thread a track."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable

import psycopg2
import redis

from benchmarks.soaking.installation import Installation
from benchmarks.soaking.ledger import Ledger
from benchmarks.soaking.plan import TRACKS, Fault, faults
from musehub_plugin.testing.services import Service

_SUPERVISION_SECONDS = 0.3
_CUT = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
)


class Faults:
    """Everything that goes wrong in a soak. When it is over, every server runs and every process is supervised.

    Args:
        hub: what it goes wrong with.
        ledger: where it is counted.
        seed: the plan's.
        seconds: how long the load lasts.
    """

    def __init__(self, hub: Installation, ledger: Ledger, seed: int, seconds: float) -> None:
        self._hub = hub
        self._ledger = ledger
        self._seed = seed
        self._seconds = seconds
        self._over = threading.Event()
        self._ended = threading.Event()
        self._tracks = [threading.Thread(target=self._track, args=(track,), daemon=True) for track in TRACKS]
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)

    def start(self) -> None:
        """Begin."""
        for thread in (self._supervisor, *self._tracks):
            thread.start()

    def stop(self) -> None:
        """Let nothing more go wrong, and return once every server is up again. Supervision goes on."""
        self._over.set()
        for thread in self._tracks:
            thread.join()

    def close(self) -> None:
        """End supervision."""
        self._over.set()
        self._ended.set()
        self._supervisor.join()

    def _track(self, track: str) -> None:
        what = "chores" if track in {"chores", "checks"} else "faults"
        for fault in faults(self._seed, track, self._seconds):
            if self._over.wait(fault.wait):
                return
            try:
                happened = self._carry_out(fault)
            except Exception as error:  # noqa: BLE001 - a soak that no longer injects faults must not pass
                self._ledger.note("wrong", f"{fault.kind} could not be carried out: {type(error).__name__}: {error}")
                return
            if happened:
                self._ledger.tally(what, fault.kind)

    def _carry_out(self, fault: Fault) -> bool:
        """Let a fault happen, and say whether it did."""
        hub = self._hub
        actions: dict[str, Callable[[], bool | None]] = {
            "web-killed": lambda: self._kill("web-process", fault),
            "worker-killed": lambda: self._kill("worker", fault),
            "job-killed": lambda: self._kill("job", fault),
            "connections-cut": self._cut_connections,
            "redis-flushed": self._flush_redis,
            "redis-restarted-empty": lambda: self._down(hub.redis, 0.0),
            "redis-stopped": lambda: self._down(hub.redis, fault.lasts),
            "storage-stopped": lambda: self._down(hub.storage, fault.lasts),
            "storage-frozen": lambda: self._frozen(hub.storage, fault.lasts),
            "postgresql-restarted": lambda: self._down(hub.postgresql, 0.0, signal.SIGINT),
            "postgresql-crashed": lambda: self._down(hub.postgresql, 0.0),
            "postgresql-frozen": lambda: self._frozen(hub.postgresql, fault.lasts),
            "gc": lambda: self._command("gc"),
            "sweep": lambda: self._command("sweep"),
            "verify": lambda: self._verify("verify", "--json"),
            "verify-repair": lambda: self._verify("verify", "--repair", "--json"),
        }
        return actions[fault.kind]() is not False

    def _kill(self, role: str, fault: Fault) -> bool:
        # A job lives for a moment only: it is lain in wait for.
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and not self._over.is_set():
            found = [process for process in self._hub.processes() if process.role == role]
            if found:
                self._hub.kill(found[int(fault.choice * len(found))])
                return True
            time.sleep(0.01)
        return False

    def _cut_connections(self) -> bool:
        try:
            return bool(self._hub.sql(_CUT))
        except psycopg2.OperationalError:
            return False

    def _flush_redis(self) -> None:
        with redis.Redis.from_url(self._hub.redis.url) as connection:
            connection.flushall()

    def _down(self, service: Service, seconds: float, ending: signal.Signals | None = None) -> None:
        service.stop(ending)
        try:
            self._over.wait(seconds)
        finally:
            service.start()

    def _frozen(self, service: Service, seconds: float) -> None:
        pids = self._hub.freeze(service)
        try:
            self._over.wait(seconds)
        finally:
            self._hub.thaw(pids)

    def _command(self, *arguments: str) -> None:
        done = self._hub.command(*arguments)
        if done.returncode:
            # Servers may be away: what it was about is done by the next run.
            self._ledger.tally("answers", f"flask musehub {arguments[0]}: exit {done.returncode}")

    def _verify(self, *arguments: str) -> None:
        done = self._hub.command(*arguments)
        try:
            problems = json.loads(done.stdout)["problems"]
        except ValueError:
            self._ledger.tally("answers", f"flask musehub verify: exit {done.returncode}")
            return
        for problem in problems:
            if problem["kind"] == "storage-away":
                self._ledger.tally("answers", "flask musehub verify: storage-away")
            else:
                self._ledger.note("wrong", f"verify: {problem['kind']} {problem['subject']}: {problem['says']}")

    def _supervise(self) -> None:
        while not self._ended.wait(_SUPERVISION_SECONDS):
            self._hub.supervise()
