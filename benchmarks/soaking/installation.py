"""A whole hub as an operator runs it, on this machine: servers, two web processes, two workers, commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg2
import urllib3
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from benchmarks.soaking.host import CONFIG_VARIABLE
from musehub_plugin.store import migrate
from musehub_plugin.testing.factories import create_repo
from musehub_plugin.testing.services import (
    Service,
    libpq_url,
    postgres_service,
    redis_service,
    s3_config,
    s3_service,
)

WEB_PROCESSES: Final = 2
WORKERS: Final = 2
_HOST: Final = Path(__file__).with_name("host.py")
# A command that hangs would hold up the soak.
_COMMAND_SECONDS: Final = 120.0


@dataclass(frozen=True)
class Process:
    """A process of the hub: `role` is `web` (the one that starts others), `web-process`, `worker` or `job`."""

    pid: int
    role: str


class Installation:
    """A hub that runs.

    Args:
        postgresql: its database server.
        redis: its Redis.
        storage: its S3 store.
        hub: the guard of its own processes.
        environment: what its processes need to know.

    Attributes:
        origin: scheme, host and port of its web processes.
    """

    def __init__(
        self, postgresql: Service, redis: Service, storage: Service, hub: Service, environment: dict[str, str]
    ) -> None:
        self.postgresql = postgresql
        self.redis = redis
        self.storage = storage
        self._hub = hub
        self._environment = environment
        (self._port,) = hub.reserve_ports(1)
        self.origin = f"http://127.0.0.1:{self._port}"

    def start(self, repos: list[str]) -> None:
        """Make the tables and the repos, start the hub's processes, and return once it answers."""
        engine = create_engine(self.postgresql.url, poolclass=NullPool)
        migrate.upgrade(engine)
        with Session(engine) as session:
            for repo in repos:
                create_repo(session, *repo.split("/"))
        self.supervise()
        refs = f"{self.origin}/{repos[0]}/refs"
        self._hub.wait_until(lambda: urllib3.request("GET", refs, retries=False, timeout=5).status == 200)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `flask musehub ARGUMENTS` as an operator does, and return what it said."""
        return subprocess.run(
            [*_FLASK, "musehub", *arguments],
            env=self._environment,
            cwd=self._hub.directory,
            capture_output=True,
            text=True,
            check=False,
            timeout=_COMMAND_SECONDS,
        )

    def supervise(self) -> None:
        """Start whatever of the hub is not running, as a supervisor does."""
        roles = [process.role for process in self.processes()]
        if "web" not in roles:
            self._hub.run(
                # Its control socket goes to the home directory.
                *("env", f"HOME={self._hub.directory}"),
                *(sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{self._port}", "--worker-class", "gthread"),
                *("--workers", str(WEB_PROCESSES), "--threads", "4", "--log-level", "warning"),
                *("--pythonpath", str(_HOST.parents[2]), "benchmarks.soaking.host:create_app()"),
                ending=signal.SIGTERM,
            )
        for _ in range(WORKERS - roles.count("worker")):
            self._hub.run(*_FLASK, "musehub", "worker", ending=signal.SIGTERM)

    def processes(self) -> list[Process]:
        """Return the hub's processes, commands of an operator left out."""
        found = {pid: command for pid, command in _processes_in(self._hub.directory).items() if _parent(pid)}
        processes = []
        for pid, command in found.items():
            child = _parent(pid) in found
            if "gunicorn" in command:
                processes.append(Process(pid, "web-process" if child else "web"))
            elif command.endswith("musehub worker"):
                processes.append(Process(pid, "job" if child else "worker"))
        return processes

    def freeze(self, service: Service) -> list[int]:
        """Stop every process of a server where it is, connections open, and return their ids for `thaw`."""
        pids = list(_processes_in(service.directory))
        _signal(pids, signal.SIGSTOP)
        return pids

    def thaw(self, pids: list[int]) -> None:
        """Let frozen processes go on."""
        _signal(pids, signal.SIGCONT)

    def kill(self, process: Process) -> None:
        """Kill a process of the hub the hard way; one that is gone is no error."""
        _signal([process.pid], signal.SIGKILL)

    def sql(self, statement: str) -> list[tuple[object, ...]]:
        """Run a statement on the hub's database, on a connection of its own, and return the rows.

        Raises:
            psycopg2.OperationalError: the database is away.
        """
        connection = psycopg2.connect(libpq_url(self.postgresql.url), connect_timeout=3)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall()
        finally:
            connection.close()

    def log(self) -> str:
        """Return what the hub's processes have logged."""
        return (self._hub.directory / "log").read_text(errors="replace")


@contextmanager
def installation(*, grace: int) -> Iterator[Installation]:
    """Start the servers of a hub, and stop everything at the end, however that comes.

    Args:
        grace: seconds that garbage stays; URLs, tickets and leases live for less.
    """
    with ExitStack() as stack:
        postgresql, redis, storage = (
            stack.enter_context(start()) for start in (postgres_service, redis_service, s3_service)
        )
        config = {
            **s3_config(storage.url),
            "SECRET_KEY": "a soak's secret key, which guards nothing",
            "SQLALCHEMY_DATABASE_URI": postgresql.url,
            "MUSEHUB_REDIS_URL": redis.url,
            # Most pushes are larger, so that there are jobs to lose.
            "MUSEHUB_INDEX_INLINE": 1,
            "MUSEHUB_SWEEP_INTERVAL": 2,
            "MUSEHUB_RETRY_AFTER": 1,
            "MUSEHUB_GC_GRACE": grace,
            "MUSEHUB_PRESIGN_TTL": grace - 1,
            "MUSEHUB_UPLOAD_TTL": grace - 1,
            "MUSEHUB_JOB_LEASE": min(5, grace - 1),
        }
        environment = {
            **os.environ,
            CONFIG_VARIABLE: json.dumps(config),
            "PYTHONPATH": str(_HOST.parents[2]),
            "PYTHONUNBUFFERED": "1",
        }
        # The guard hands its own environment on to what it runs.
        before = dict(os.environ)
        os.environ.update(environment)
        try:
            hub = stack.enter_context(Service("soak"))
        finally:
            os.environ.clear()
            os.environ.update(before)
        yield Installation(postgresql, redis, storage, hub, environment)


_FLASK: Final = (sys.executable, "-m", "flask", "--app", "benchmarks.soaking.host")


def _processes_in(directory: Path) -> dict[int, str]:
    """Return command lines by pid of the processes that work in a directory: a guard starts its servers there."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if (entry / "cwd").readlink() == directory or directory in (entry / "cwd").readlink().parents:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                if command:
                    found[int(entry.name)] = command
        except OSError:
            # It ended while it was looked at.
            continue
    return found


def _parent(pid: int) -> int | None:
    """Return the parent of a process; None for one that has ended or is about to."""
    try:
        # The name, in brackets, may hold anything.
        state, parent = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[:2]
    except OSError:
        return None
    return None if state in {"Z", "X"} else int(parent)


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
