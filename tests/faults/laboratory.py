"""A hub of real processes on real servers, of which each test has one to itself and breaks what it likes."""

from __future__ import annotations

import json
import multiprocessing
import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import minio
from flask import Flask
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.pool import NullPool

from musehub_plugin.gc import Collected, collect
from musehub_plugin.hub import Hub
from musehub_plugin.ids import to_hex
from musehub_plugin.index import index_mpack
from musehub_plugin.jobs.queue import sweep
from musehub_plugin.models import Base
from musehub_plugin.scrub import Scrubbed, scrub
from musehub_plugin.store import migrate
from musehub_plugin.store.session import Database
from musehub_plugin.testing import services
from musehub_plugin.testing.apps import close_app, hub_of
from musehub_plugin.testing.factories import create_repo
from tests.faults import forge_app
from tests.faults.control import Control, wait_until
from tests.faults.muse import Muse
from tests.faults.proxy import Proxy

TEMPLATE = "musehub_faults_template"
_TABLES = [table.name for table in Base.metadata.sorted_tables]

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.faults.forge_app"])


@dataclass(frozen=True)
class Servers:
    """The servers of all laboratories; who stops one starts it again."""

    postgres: services.Service
    redis: services.Service
    s3: services.Service


@contextmanager
def running_servers() -> Iterator[Servers]:
    """Start the servers, and make the database that each laboratory gets a copy of."""
    with services.postgres_service() as postgres, services.redis_service() as redis, services.s3_service() as s3:
        url = make_url(postgres.url)
        admin = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        with admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {TEMPLATE} TEMPLATE template0"))
        migrate.upgrade(create_engine(url.set(database=TEMPLATE), poolclass=NullPool))
        yield Servers(postgres, redis, s3)


class Web:
    """A web process.

    Args:
        config: the host's settings.
        control: the rules that it obeys.
        log: where its output goes.
    """

    def __init__(self, config: Mapping[str, Any], control: Control, log: Path) -> None:
        self.log = log
        receiver, sender = _processes.Pipe(duplex=False)
        arguments = (dict(config), str(control.folder), str(log), sender)
        self.process: BaseProcess = _processes.Process(target=forge_app.serve, args=arguments)
        self.process.start()
        sender.close()
        try:
            self.origin = f"http://127.0.0.1:{receiver.recv()}"
        except EOFError:
            raise AssertionError(f"the web process did not start: {log.read_text()}") from None
        finally:
            receiver.close()
        self.muse = Muse(self.origin)

    def wait_for_death(self) -> None:
        """Wait until it was killed."""
        self.process.join(120)
        assert self.process.exitcode == -signal.SIGKILL, self.process.exitcode


class Laboratory:
    """A hub of its own: a database, a prefix of a bucket, a queue.

    Args:
        servers: the servers.
        directory: an empty folder.
        closing: what ends with the laboratory.

    Attributes:
        directory: the folder.
        config: the settings of its processes.
        control: the rules that its processes obey.
        proxy: what its processes, but not the clients, reach S3 through.
        app: the same host in this process, for what tests look at and operators do; it obeys no rules.
    """

    def __init__(self, servers: Servers, directory: Path, closing: ExitStack) -> None:
        self.servers = servers
        self.directory = directory
        self._closing = closing
        (directory / "control").mkdir()
        self.control = Control(directory / "control")
        self.database_url = closing.enter_context(services.fresh_database(servers.postgres.url, template=TEMPLATE))
        address = urlsplit(servers.s3.url)
        assert address.hostname is not None
        assert address.port is not None
        self.proxy = Proxy(address.hostname, address.port)
        closing.callback(self.proxy.close)
        self._prefix = secrets.token_hex(6)
        s3 = services.s3_config(address._replace(path=f"{address.path}/{self._prefix}").geturl())
        self.config: dict[str, Any] = {
            **s3,
            "SQLALCHEMY_DATABASE_URI": self.database_url,
            "MUSEHUB_S3_PUBLIC_ENDPOINT": s3["MUSEHUB_S3_ENDPOINT"],
            "MUSEHUB_S3_ENDPOINT": f"http://{self.proxy.address}",
            "MUSEHUB_REDIS_URL": servers.redis.url,
            "MUSEHUB_QUEUE": f"queue-{self._prefix}",
            "MUSEHUB_INDEX_INLINE": 0,
            # One job a push, unless a test is about the other kind.
            "MUSEHUB_REPACK_PACKS": 0,
            # What storage does wrong shall be seen.
            "MUSEHUB_FRAME_CACHE": 0,
            "MUSEHUB_SWEEP_INTERVAL": 1,
            "MUSEHUB_JOB_LEASE": 1,
            # A lease that short may lapse under a worker that is merely slow; tests of giving up say their own number.
            "MUSEHUB_JOB_ATTEMPTS": 50,
            "MUSEHUB_RETRY_AFTER": 1,
            "LAB_INSTANCE": str(directory),
        }
        self._processes = 0
        self._apps: list[Flask] = []

    @property
    def app(self) -> Flask:
        """The host in this process."""
        if not self._apps:
            # Tests restart servers under it.
            options = {"SQLALCHEMY_ENGINE_OPTIONS": {"pool_pre_ping": True}}
            self._apps.append(forge_app.create_app({**self.config, **options}))
            self._closing.callback(close_app, self._apps[0])
        return self._apps[0]

    def web(self, **config: Any) -> Web:
        """Start a web process with further settings."""
        web = Web({**self.config, **config}, self.control, self._log())
        self._closing.callback(_end, web.process)
        return web

    def worker(self, *, burst: bool = False, **config: Any) -> BaseProcess:
        """Start a worker."""
        arguments = ({**self.config, **config}, str(self.control.folder), str(self._log()), burst)
        process: BaseProcess = _processes.Process(target=forge_app.work, args=arguments)
        process.start()
        self._closing.callback(_end, process)
        return process

    def environment(self, role: str) -> dict[str, str]:
        """Return the environment in which `create_app` makes this host, for programs started by name."""
        path = self.directory / f"{role}.json"
        path.write_text(json.dumps({"config": self.config, "control": str(self.control.folder), "role": role}))
        here = os.pathsep.join(entry for entry in sys.path if entry)
        return {**os.environ, forge_app.CONFIG_VARIABLE: str(path), "PYTHONPATH": here}

    def _log(self) -> Path:
        self._processes += 1
        return self.directory / f"process-{self._processes}.log"

    def logs(self) -> str:
        """Return what all processes printed."""
        return "\n".join(path.read_text() for path in sorted(self.directory.glob("process-*.log")))

    def create_repo(self, name: str = "alice/songs", **options: Any) -> str:
        """Make a repo and return its id."""
        owner, slug = name.split("/")
        with self.app.app_context():
            return create_repo(hub_of(self.app).sqlalchemy.session, owner, slug, **options).repo_id

    @contextmanager
    def hub(self) -> Iterator[tuple[Hub, Database]]:
        """Give the hub of this process and a unit of work."""
        with self.app.app_context():
            hub = hub_of(self.app)
            yield hub, hub.database()

    def index(self) -> None:
        """Index in this process what waits for it."""
        for row in self.sql("SELECT subject FROM musehub_job WHERE state <> 'done'"):
            with self.hub() as (hub, db):
                index_mpack(hub, db, row.subject)

    def sweep(self) -> int:
        """Sweep as `flask musehub sweep` does."""
        with self.hub() as (hub, db):
            return sweep(hub, db)

    def collect(self, **options: Any) -> Collected:
        """Collect garbage as `flask musehub gc` does."""
        with self.hub() as (hub, db):
            return collect(hub, db, **options)

    def verify(self, *, repair: bool = False) -> Scrubbed:
        """Scrub as `flask musehub verify` does."""
        with self.hub() as (hub, db):
            return scrub(hub, db, repair=repair)

    def sql(self, statement: str, **values: Any) -> Sequence[Any]:
        """Run a statement on a connection of its own, commit, and return the rows if there are any."""
        engine = create_engine(self.database_url, poolclass=NullPool)
        with engine.begin() as connection:
            result = connection.execute(text(statement), values)
            return result.fetchall() if result.returns_rows else []

    @contextmanager
    def held(self, statement: str) -> Iterator[None]:
        """Hold the locks that a statement takes."""
        engine = create_engine(self.database_url, poolclass=NullPool)
        with engine.begin() as connection:
            connection.execute(text(statement))
            yield

    def count(self, table: str) -> int:
        """Return how many rows a table has."""
        number: int = self.sql(f"SELECT count(*) FROM {table}")[0][0]  # noqa: S608 - a name from a test
        return number

    def empty(self, table: str) -> None:
        """Remove every row of a table."""
        self.sql(f"DELETE FROM {table}")  # noqa: S608 - a name from a test

    def age(self, table: str, column: str) -> None:
        """Make every moment in a column two days older."""
        self.sql(f"UPDATE {table} SET {column} = {column} - interval '2 days'")  # noqa: S608 - names from a test

    def forget_answers(self) -> None:
        """Have the next fetch make its answer, whatever was answered before."""
        self.empty("musehub_fetch_plan")

    def keep_rows(self) -> str:
        """Copy every table aside, and return what `restore_rows` finds the copies by."""
        schema = f"kept_{secrets.token_hex(4)}"
        tables = "".join(f"CREATE TABLE {schema}.{name} AS TABLE public.{name};" for name in _TABLES)
        self.sql(f"CREATE SCHEMA {schema}; {tables}")
        return schema

    def restore_rows(self, schema: str) -> None:
        """Put every table back to what `keep_rows` found."""
        deletes = "".join(f"DELETE FROM public.{name};" for name in _TABLES)  # noqa: S608 - our own tables' names
        inserts = [f"INSERT INTO public.{name} SELECT * FROM {schema}.{name};" for name in _TABLES]  # noqa: S608 - same
        self.sql(deletes + "".join(inserts))

    def stored_objects(self) -> dict[str, bytes]:
        """Return all that object storage holds for this hub, by name."""
        found = {}
        for key in self.stored_keys():
            response = self._minio().get_object(self._bucket(), f"{self._prefix}/{key}")
            found[key] = response.read()
            response.close()
            response.release_conn()
        return found

    def restore_objects(self, objects: Mapping[str, bytes]) -> None:
        """Put those objects back that are gone."""
        for key in objects.keys() - self.stored_keys():
            data = objects[key]
            self._minio().put_object(self._bucket(), f"{self._prefix}/{key}", BytesIO(data), len(data))

    def is_somebody_waiting(self) -> bool:
        """Say whether a connection to this database waits for a lock."""
        waiting = self.sql(
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(waiting)

    def is_history_held(self) -> bool:
        """Say whether a transaction holds what pushes and collections hold; a dead process does for a moment."""
        held = self.sql(
            "SELECT 1 FROM pg_locks JOIN pg_database ON pg_database.oid = database "
            "WHERE locktype = 'advisory' AND datname = current_database()"
        )
        return bool(held)

    @staticmethod
    def wait(ready: Callable[[], bool], what: str) -> None:
        """Wait until `ready` says so."""
        wait_until(ready, what)

    def job_states(self) -> list[str]:
        """Return the states of all jobs, sorted."""
        return sorted(row.state for row in self.sql("SELECT state FROM musehub_job"))

    def wait_for_jobs(self) -> None:
        """Wait until every job is done, whoever does them."""
        wait_until(lambda: set(self.job_states()) <= {"done"}, f"jobs: {self.job_states()}")

    def stored_keys(self) -> set[str]:
        """Return the names of all that object storage holds for this hub."""
        prefix = f"{self._prefix}/"
        found = self._minio().list_objects(self._bucket(), prefix=prefix, recursive=True)
        return {str(item.object_name).removeprefix(prefix) for item in found}

    def stored_mpack(self, mpack_id: str) -> bytes:
        """Return an mpack's bytes past the proxy."""
        response = self._minio().get_object(self._bucket(), self._mpack_key(mpack_id))
        try:
            return response.read()
        finally:
            response.close()
            response.release_conn()

    def replace_mpack(self, mpack_id: str, data: bytes | None) -> None:
        """Put other bytes where an mpack is, or none."""
        if data is None:
            self._minio().remove_object(self._bucket(), self._mpack_key(mpack_id))
        else:
            self._minio().put_object(self._bucket(), self._mpack_key(mpack_id), BytesIO(data), len(data))

    def _mpack_key(self, mpack_id: str) -> str:
        name = to_hex(mpack_id)
        return f"{self._prefix}/mpacks/{name[:2]}/{name[2:]}"

    def _bucket(self) -> str:
        return urlsplit(str(self.config["MUSEHUB_STORAGE"])).netloc

    def _minio(self) -> minio.Minio:
        return minio.Minio(
            urlsplit(self.config["MUSEHUB_S3_PUBLIC_ENDPOINT"]).netloc,
            self.config["MUSEHUB_S3_ACCESS_KEY"],
            self.config["MUSEHUB_S3_SECRET_KEY"],
            region=self.config["MUSEHUB_S3_REGION"],
            secure=False,
        )


def _end(process: BaseProcess) -> None:
    """Kill a process that a laboratory started, if it still runs."""
    process.kill()
    process.join(120)
    process.close()
