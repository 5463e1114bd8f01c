"""The plugin's side: a hub with gunicorn, a worker, PostgreSQL, Redis and S3, and a history pushed to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import minio
import msgpack
import psycopg2
import urllib3
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

from benchmarks.racing import processes
from benchmarks.racing.directpush import push_directly
from benchmarks.racing.histories import History
from benchmarks.racing.host import CONFIG_VARIABLE, PACK_ANEW
from benchmarks.racing.load import exchange, request
from benchmarks.racing.processes import musehub_command
from musehub_plugin import ids
from musehub_plugin.config import Settings
from musehub_plugin.testing.services import Service, libpq_url, postgres_service, redis_service, s3_config, s3_service

REPO: Final = "bench/race"
PROCESSES: Final = 2 * (os.cpu_count() or 1)
THREADED: Final = ("--workers", "2", "--worker-class", "gthread", "--threads", "4")
_CHECKOUT: Final = Path(__file__).resolve().parents[2]
_FLASK: Final = (sys.executable, "-m", "flask", "--app", "benchmarks.racing.host", "musehub")
_MSGPACK: Final = "application/x-msgpack"
_TOKEN: Final = {"MUSEHUB_TOKEN": "bench"}
# A working copy has a file for each snapshot with all of its paths, which are 200 MB at this size.
_MOST_IN_FILES: Final = 20_000
_JOBS_SECONDS: Final = 3_600.0
# What operations.md recommends.
_ENGINE: Final = {"pool_pre_ping": True, "pool_timeout": 10}


@dataclass
class HubServer:
    """A hub that runs.

    Attributes:
        port: of its web processes.
        database: its PostgreSQL.
        storage: its S3 store.
        web: its web processes.
        worker: its worker.
        environment: what its commands need.
        config: its settings.
        commit_ids: what each commit's name in git is here, after `load`.
    """

    port: int
    database: Service
    storage: Service
    web: Service
    worker: Service
    environment: Mapping[str, str]
    config: Mapping[str, Any]
    commit_ids: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The repo's URL."""
        return f"http://127.0.0.1:{self.port}/{REPO}"

    def command(self, *arguments: str) -> str:
        """Run `flask musehub ARGUMENTS` and return what it printed.

        Raises:
            CommandFailed: it did not end with 0.
        """
        done = subprocess.run(
            [*_FLASK, *arguments], env=self.environment, cwd=self.worker.directory, capture_output=True, text=True
        )
        if done.returncode:
            raise processes.CommandFailed(f"flask musehub {' '.join(arguments)}: {done.stderr[-2_000:]}")
        return done.stdout

    def timed_command(self, *arguments: str) -> processes.Used:
        """Run `flask musehub ARGUMENTS`, and return what it used itself."""
        return processes.run([*_FLASK, *arguments], cwd=self.worker.directory.parent, environment=self.environment)

    def pack_anew(self) -> float:
        """Have the worker pack everything anew; return the seconds from the job's being put on the queue to its end.

        Raises:
            RuntimeError: it failed.
            TimeoutError: it takes more than an hour.
        """
        connection = Redis.from_url(str(self.config["MUSEHUB_REDIS_URL"]))
        queue = Queue(Settings.queue, connection=connection, serializer=JSONSerializer)
        job = queue.enqueue_call(PACK_ANEW, args=REPO.split("/"), timeout=int(_JOBS_SECONDS))
        begun = time.monotonic()
        while time.monotonic() - begun < _JOBS_SECONDS:
            job.refresh()  # type: ignore[no-untyped-call]  # untyped in RQ
            if job.is_failed:
                raise RuntimeError("the worker could not pack everything anew; its log says why")
            # The worker notes the end, so that looking seldom costs no precision.
            if job.is_finished and job.enqueued_at and job.ended_at:
                return (job.ended_at - job.enqueued_at).total_seconds()
            time.sleep(0.05)
        raise TimeoutError("packing anew does not come to an end")

    def has_command(self, name: str) -> bool:
        """Say whether there is a `flask musehub NAME`."""
        listed = self.command("--help").partition("Commands:")[2]
        return name in {line.split()[0] for line in listed.splitlines() if line.strip()}

    def load(self, history: History, folder: Path) -> dict[str, float]:
        """Push a history, and wait until every background job that comes of it is done.

        Args:
            history: the history.
            folder: an empty folder for the working copy.

        Returns:
            Seconds: `import` by the client, `push` until it was acknowledged, `jobs` after it.
        """
        self.command("repo", "create", REPO, "--user-id", "bench", "--public", "--default-branch", history.branch)
        if history.commits > _MOST_IN_FILES:
            prepared, pushed, self.commit_ids = push_directly(history, folder, self.port, REPO)
        else:
            copy = folder / "copy"
            importing = ("import-git", history.source, "--into", copy, "--no-checkout")
            prepared = processes.run([musehub_command(), *importing], cwd=folder).wall
            push = ("push", "origin", "--set", self.url, history.branch)
            pushed = processes.run([musehub_command(), *push], cwd=copy, environment=_TOKEN).wall
            lines = (copy / ".muse" / "git-import.map").read_text(encoding="ascii").splitlines()
            self.commit_ids = {name: ids.PREFIX + muse for name, muse in (line.split(" ") for line in lines)}
        return {"import": prepared, "push": pushed, "jobs": self.wait_for_jobs()}

    def wait_for_jobs(self) -> float:
        """Wait until no background job is left to do, and return the seconds that it took.

        Raises:
            TimeoutError: it takes more than an hour.
            RuntimeError: one failed.
        """
        begun = time.monotonic()
        while time.monotonic() - begun < _JOBS_SECONDS:
            states = [str(row[0]) for row in self.sql("SELECT DISTINCT state FROM musehub_job")]
            if "failed" in states:
                failed = self.sql("SELECT kind, error FROM musehub_job WHERE state = 'failed'")
                raise RuntimeError(f"jobs failed: {failed}")
            if set(states) <= {"done"}:
                return time.monotonic() - begun
            time.sleep(0.05)
        raise TimeoutError("background jobs do not come to an end")

    def sql(self, statement: str, *, autocommit: bool = True) -> list[tuple[Any, ...]]:
        """Run a statement on a connection of its own and return the rows, if there are any."""
        connection = psycopg2.connect(libpq_url(self.database.url))
        try:
            connection.autocommit = autocommit
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def table_bytes(self) -> dict[str, int]:
        """Return the bytes of each table of the plugin after VACUUM, with its indexes and what is stored beside it."""
        self.sql("VACUUM ANALYZE")
        rows = self.sql(
            "SELECT relname, pg_total_relation_size(oid) FROM pg_class "
            "WHERE relkind = 'r' AND relname LIKE 'musehub_%' ORDER BY 2 DESC"
        )
        return {str(name): int(size) for name, size in rows}

    def row_counts(self) -> dict[str, int]:
        """Return how many rows each table of the plugin has; after `table_bytes`."""
        rows = self.sql("SELECT relname, reltuples FROM pg_class WHERE relkind = 'r' AND relname LIKE 'musehub_%'")
        return {str(name): max(0, int(count)) for name, count in rows}

    def stored_bytes(self) -> int:
        """Return the bytes of all that is in the bucket."""
        parts = urlsplit(str(self.config["MUSEHUB_S3_ENDPOINT"]))
        client = minio.Minio(
            parts.netloc,
            self.config["MUSEHUB_S3_ACCESS_KEY"],
            self.config["MUSEHUB_S3_SECRET_KEY"],
            region=self.config["MUSEHUB_S3_REGION"],
            secure=False,
        )
        bucket = urlsplit(str(self.config["MUSEHUB_STORAGE"])).netloc
        return sum(found.size or 0 for found in client.list_objects(bucket, recursive=True))

    def cpu(self) -> float:
        """Return the seconds of CPU that web, worker, database and storage have used."""
        return processes.cpu_of([self.web, self.worker, self.database, self.storage])

    def web_pids(self) -> list[int]:
        """Return the web processes that serve."""
        found = [pid for pid in processes.pids_of([self.web]) if "gunicorn" in processes.command_of(pid)]
        return [pid for pid in found if processes.parent_of(pid) in found]

    def capabilities(self) -> list[str]:
        """Return what the hub offers beyond the plain protocol."""
        answer = exchange(self.port, request("GET", f"/{REPO}/refs", headers=[f"Accept: {_MSGPACK}"]))
        return list(msgpack.unpackb(answer.body)["capabilities"])

    def fetch_request(self, want: Sequence[str], have: Sequence[str] = (), capabilities: Sequence[str] = ()) -> bytes:
        """Return the request for what some commits reach and others do not, all by their names in git."""
        body: dict[str, Any] = {
            "want": [self.commit_ids[name] for name in want],
            "have": [self.commit_ids[name] for name in have],
        }
        if capabilities:
            body["capabilities"] = list(capabilities)
        return request("POST", f"/{REPO}/fetch", msgpack.packb(body), [f"Content-Type: {_MSGPACK}"])

    def refs_request(self, *, known: bool) -> bytes:
        """Return the request for the branches, `known`: by who has seen them as they are."""
        headers = [f"Accept: {_MSGPACK}"]
        if known:
            answer = exchange(self.port, request("GET", f"/{REPO}/refs", headers=headers))
            tags = [line for line in answer.head.decode("latin-1").split("\r\n") if line.lower().startswith("etag:")]
            headers.append(f"If-None-Match: {tags[0].partition(':')[2].strip()}")
        return request("GET", f"/{REPO}/refs", headers=headers)


def hub_pack_size(body: bytes) -> int:
    """Return the bytes of the packs that an answer to `fetch_request` has or names."""
    return int(msgpack.unpackb(body)["size_bytes"])


@contextmanager
def hub_server(*, threads: bool = False) -> Iterator[HubServer]:
    """Start a hub with nothing on it, and stop everything at the end.

    Args:
        threads: answer by two processes of four threads, in place of two processes a core that answer one at a time.
    """
    with ExitStack() as stack:
        database, redis, storage = (
            stack.enter_context(start()) for start in (postgres_service, redis_service, s3_service)
        )
        config = {
            **s3_config(storage.url),
            "SECRET_KEY": "a benchmark's secret key, which guards nothing",
            "SQLALCHEMY_DATABASE_URI": database.url,
            "SQLALCHEMY_ENGINE_OPTIONS": _ENGINE,
            "MUSEHUB_REDIS_URL": redis.url,
        }
        environment = {
            **os.environ,
            CONFIG_VARIABLE: json.dumps(config),
            "PYTHONPATH": str(_CHECKOUT),
            "PYTHONUNBUFFERED": "1",
        }
        # The guard hands its own environment on to what it runs.
        before = dict(os.environ)
        os.environ.update(environment)
        try:
            web, worker = stack.enter_context(Service("bench-web")), stack.enter_context(Service("bench-worker"))
        finally:
            os.environ.clear()
            os.environ.update(before)
        (port,) = web.reserve_ports(1)
        hub = HubServer(port, database, storage, web, worker, environment, config)
        hub.command("db", "upgrade")
        worker.run(*_FLASK, "worker", ending=signal.SIGTERM)
        web.run(
            # Its control socket goes to the home directory.
            *("env", f"HOME={web.directory}"),
            *(sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--timeout", "3600"),
            *(THREADED if threads else ("--workers", str(PROCESSES))),
            *("--log-level", "warning"),
            *("--pythonpath", str(_CHECKOUT), "benchmarks.racing.host:create_app()"),
            ending=signal.SIGTERM,
        )
        ready = f"http://127.0.0.1:{port}/-/musehub/ready"
        web.wait_until(lambda: urllib3.request("GET", ready, retries=False, timeout=5).status == 200)
        yield hub
